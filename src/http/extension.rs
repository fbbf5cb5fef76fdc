//! The grammar of chunk extensions (RFC 9112, section 7.1.1), a byte at a time.
//!
//! ```text
//! *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )
//! ```
//!
//! No code reads them. They are checked because a proxy in front may end the line elsewhere if it reads
//! them, and then sees another request.

use super::syntax::is_token_byte;

/// How far the extensions of a chunk have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    /// Behind the space in front of a semicolon.
    Space,
    /// Behind a semicolon.
    Semicolon,
    Name,
    /// Behind a name and a space.
    NameEnd,
    /// Behind an equals sign.
    Equals,
    Token,
    Quoted,
    /// Behind a backslash in quotes.
    Escape,
    /// Behind the closing quote.
    QuotedEnd,
}

impl Extension {
    /// Returns the first state, for the byte behind a chunk's size.
    pub(super) fn begin(byte: u8) -> Option<Extension> {
        match byte {
            b' ' | b'\t' => Some(Extension::Space),
            b';' => Some(Extension::Semicolon),
            _ => None,
        }
    }

    /// Returns the next state; `None` if the byte cannot follow.
    pub(super) fn next(self, byte: u8) -> Option<Extension> {
        use Extension::{Equals, Escape, Name, NameEnd, Quoted, QuotedEnd, Semicolon, Space, Token};
        let is_text = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        match (self, byte) {
            (Space | Semicolon | NameEnd | Equals, b' ' | b'\t') => Some(self),
            (Space | Name | NameEnd | Token | QuotedEnd, b';') => Some(Semicolon),
            (Name | NameEnd, b'=') => Some(Equals),
            (Name, b' ' | b'\t') => Some(NameEnd),
            (Token | QuotedEnd, b' ' | b'\t') => Some(Space),
            (Equals, b'"') => Some(Quoted),
            (Quoted, b'"') => Some(QuotedEnd),
            (Quoted, b'\\') => Some(Escape),
            (Quoted | Escape, _) if is_text => Some(Quoted),
            (Semicolon | Name, _) if is_token_byte(byte) => Some(Name),
            (Equals | Token, _) if is_token_byte(byte) => Some(Token),
            _ => None,
        }
    }

    /// Returns whether the line may end here.
    pub(super) fn is_complete(self) -> bool {
        matches!(self, Extension::Name | Extension::Token | Extension::QuotedEnd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_valid(text: &[u8]) -> bool {
        let (first, rest) = text.split_first().unwrap();
        let end = rest.iter().try_fold(Extension::begin(*first), |at, byte| at.map(|at| at.next(*byte)));
        end.flatten().is_some_and(Extension::is_complete)
    }

    /// Were this to fail, a line could end at one byte here and at another in a proxy.
    #[test]
    fn extensions_keep_to_the_grammar() {
        let good = [";a", " ; a", ";a=b", ";a = b;c", ";a=\"\"", ";a=\"b;\\\"c\" ;d", ";a=\"\u{e9}\"", ";a\t;b"];
        for good in good {
            assert!(is_valid(good.as_bytes()), "{good:?}");
        }
        let bad = [
            ";",
            ";;a",
            ";a=",
            ";a=[x",
            ";a=\"b",
            ";a=\"b\\\"",
            ";a=\"b\"c",
            ";a b",
            ";=b",
            " ",
            "a",
            ";a ",
            ";\u{e9}",
        ];
        for bad in bad {
            assert!(!is_valid(bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_valid(b";a=\xff") && !is_valid(b";\xff"), "outside of quotes");
    }
}
