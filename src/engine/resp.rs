//! Commands to an engine, and what it says, in
//! [RESP](https://redis.io/docs/latest/develop/reference/protocol-spec/).

use crate::net::Address;
use redis_protocol::resp3::decode::complete::decode;
use redis_protocol::resp3::types::OwnedFrame;

/// An answer of the engine, or a message. Kinds may be added.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Number(i64),
    /// A string, of any bytes.
    Text(Vec<u8>),
    /// Several answers.
    List(Vec<Reply>),
    /// An error: a word in capitals, and a text.
    Error(String),
    /// A message that answers nothing: its words.
    Push(Vec<Vec<u8>>),
    /// Anything else.
    Other,
}

/// Returns a command: an array of strings.
pub(super) fn command<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Returns the command that runs a script by the name that the engine has given it.
pub(super) fn evalsha<K: AsRef<[u8]>, A: AsRef<[u8]>>(digest: &[u8], keys: &[K], args: &[A]) -> Vec<u8> {
    let count = keys.len().to_string();
    let mut words = vec![&b"EVALSHA"[..], digest, count.as_bytes()];
    words.extend(keys.iter().map(AsRef::as_ref));
    words.extend(args.iter().map(AsRef::as_ref));
    command(&words)
}

/// Reads an answer from the beginning of `input`. Returns it with its length; `None` if it is not complete.
///
/// # Errors
/// A text, if it is none.
pub(super) fn reply(input: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let frame = decode(input).map_err(|error| format!("it does not speak RESP: {error}"))?;
    Ok(frame.map(|(frame, len)| (Reply::from(frame), len)))
}

/// Returns the address in an error that says where the keys are: `MOVED SLOT ADDRESS`.
pub(super) fn moved(error: &str) -> Option<Address> {
    let address = error.strip_prefix("MOVED ")?.split(' ').nth(1)?;
    address.parse().ok().map(Address::Tcp)
}

impl From<OwnedFrame> for Reply {
    fn from(frame: OwnedFrame) -> Reply {
        let text = |frame| match Reply::from(frame) {
            Reply::Text(text) => text,
            _ => Vec::new(),
        };
        match frame {
            OwnedFrame::SimpleError { data, .. } => Reply::Error(data),
            OwnedFrame::BlobError { data, .. } => Reply::Error(String::from_utf8_lossy(&data).into_owned()),
            OwnedFrame::Push { data, .. } => Reply::Push(data.into_iter().map(text).collect()),
            OwnedFrame::BlobString { data, .. } | OwnedFrame::SimpleString { data, .. } => Reply::Text(data),
            OwnedFrame::Number { data, .. } => Reply::Number(data),
            OwnedFrame::Array { data, .. } => Reply::List(data.into_iter().map(Reply::from).collect()),
            OwnedFrame::Null => Reply::Nil,
            _ => Reply::Other,
        }
    }
}

impl Reply {
    /// Returns the number; `None` if it is none, or below zero.
    pub fn number(&self) -> Option<u64> {
        match self {
            Reply::Number(number) => u64::try_from(*number).ok(),
            Reply::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost otherwise: the answers that come in pieces, and those behind one that is misread.
    #[test]
    fn answers_are_read_however_they_are_cut() {
        let bytes = b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$3\r\na\r\n\r\n*3\r\n:7\r\n_\r\n+OK\r\n-EXPIRED it is\r\n_\r\n%1\r\n+a\r\n:1\r\n";
        let words = [&b"smessage"[..], b"c", b"a\r\n"].map(<[u8]>::to_vec).to_vec();
        let expected = [
            Reply::Push(words),
            Reply::List(vec![Reply::Number(7), Reply::Nil, Reply::Text(b"OK".to_vec())]),
            Reply::Error("EXPIRED it is".to_owned()),
            Reply::Nil,
            Reply::Other,
        ];
        let mut rest = &bytes[..];
        for expected in expected {
            let (found, len) = reply(rest).unwrap().unwrap();
            assert_eq!(found, expected);
            assert!((0..len).all(|cut| reply(&rest[..cut]).unwrap().is_none()), "{expected:?}");
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
        assert!(reply(b"hello\r\n").is_err());
        assert_eq!(moved("MOVED 3999 127.0.0.1:6381"), Some(Address::Tcp(([127, 0, 0, 1], 6381).into())));
        assert_eq!(moved("READONLY 1 127.0.0.1:6381"), None);
        assert_eq!(command(&["A", "bc"]), b"*2\r\n$1\r\nA\r\n$2\r\nbc\r\n");
    }
}
