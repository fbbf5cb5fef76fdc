//! The end of a head, found line by line as it comes.

use super::limits::{Limits, METHOD_BYTES};
use super::status::{Rejection, Status};
use std::time::Instant;

const TOO_LONG_LINE: Rejection = Rejection::new(Status::URI_TOO_LONG, "The request line is too long.");
pub(super) const LONG_METHOD: Rejection = Rejection::new(Status::NOT_IMPLEMENTED, "There is no such method.");
const TOO_LONG_HEAD: Rejection = Rejection::new(Status::HEADERS_TOO_LARGE, "The request's head is too long.");
const BARE_LF: Rejection = Rejection::bad("A line ends in a line feed without a carriage return.");

/// How far the search for the end of a head has come. Every byte is looked at once, however the
/// head is cut up.
///
/// Lines end in CR LF. A bare LF is rejected, although RFC 9112, section 2.2, would allow to take
/// it for a line's end: a proxy in front of the server may have taken it for something else.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Search {
    /// How many bytes have been searched.
    searched: usize,
    /// Where the line begins that they end in.
    line: usize,
    /// When the first of them came.
    pub(super) since: Option<Instant>,
}

impl Search {
    /// Returns whether nothing of a head has come yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.searched == 0
    }

    /// Returns whether more of a head has come than has been searched.
    pub(super) fn is_behind(&self, input: &[u8]) -> bool {
        self.searched < input.len()
    }

    /// Goes on with all that has come of a head so far, and returns its length if that is all of
    /// it.
    pub(super) fn end(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Rejection> {
        let fresh = input.get(self.searched..).unwrap_or_default();
        let offset = self.searched;
        self.searched = input.len();
        for at in memchr::memchr_iter(b'\n', fresh).map(|at| offset + at) {
            let line = input.get(self.line..at).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else { return Err(BARE_LF) };
            if self.line == 0 && line.len() > limits.line {
                return Err(too_long_line(input));
            }
            self.line = at + 1;
            if line.is_empty() {
                return if self.line > limits.head { Err(TOO_LONG_HEAD) } else { Ok(Some(self.line)) };
            }
        }
        match input.len() {
            n if self.line == 0 && n > limits.line + 1 => Err(too_long_line(input)),
            n if n >= limits.head => Err(TOO_LONG_HEAD),
            _ => Ok(None),
        }
    }
}

/// Tells whether it is the method that is too long, or the target (RFC 9112, section 3).
fn too_long_line(input: &[u8]) -> Rejection {
    let has_method = input.iter().take(METHOD_BYTES + 1).any(|byte| *byte == b' ');
    if has_method { TOO_LONG_LINE } else { LONG_METHOD }
}

/// Returns how many bytes of empty lines are in front of a request. They are skipped, for the sake of
/// clients that end a body with one (RFC 9112, section 2.2). `None` if that cannot be told yet.
pub(super) fn empty_lines(input: &[u8]) -> Option<usize> {
    let lines = input.chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
    match input.get(2 * lines..) {
        Some(b"\r") => None,
        _ => Some(2 * lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the end that `end` should find, from all bytes at once.
    fn naive(input: &[u8], limits: &Limits) -> Result<Option<usize>, Rejection> {
        let mut start = 0;
        while let Some(n) = input[start..].iter().position(|byte| *byte == b'\n') {
            if n == 0 || input[start + n - 1] != b'\r' {
                return Err(BARE_LF);
            }
            if start == 0 && n - 1 > limits.line {
                return Err(LONG_METHOD);
            }
            start += n + 1;
            if n == 1 {
                return if start > limits.head { Err(TOO_LONG_HEAD) } else { Ok(Some(start)) };
            }
        }
        let line = input.len() > limits.line + 1 && start == 0;
        match (line, input.len() >= limits.head) {
            (true, _) => Err(LONG_METHOD),
            (false, true) => Err(TOO_LONG_HEAD),
            (false, false) => Ok(None),
        }
    }

    proptest! {
        /// Were this to fail, a head would be cut at the wrong place because of how the network cut
        /// it, or a slow one would be searched over and over.
        #[test]
        fn the_end_is_found_however_a_head_arrives(
            pieces in prop::collection::vec(prop::sample::select(vec!["\r\n", "\n", "\r", "a", "bcd", "\r\n\r\n"]), 0..12),
            cuts in prop::collection::vec(1..5usize, 0..40),
        ) {
            let limits = Limits { line: 5, head: 20, ..Limits::default() };
            let head = pieces.concat().into_bytes();
            let (mut search, mut come) = (Search::default(), 0);
            for cut in cuts {
                come = head.len().min(come + cut);
                let found = search.end(&head[..come], &limits);
                prop_assert_eq!(search.searched, come);
                let expected = naive(&head[..come], &limits);
                prop_assert_eq!(found, expected);
                if found != Ok(None) {
                    break;
                }
            }
        }
    }

    /// Were this to fail, an old client's line break behind its body would be an error.
    #[test]
    fn empty_lines_are_skipped() {
        assert_eq!(empty_lines(b"GET"), Some(0));
        assert_eq!(empty_lines(b"\r\n\r\nGET"), Some(4));
        assert_eq!(empty_lines(b"\r\n"), Some(2));
        assert_eq!(empty_lines(b"\r\n\r"), None);
        assert_eq!(empty_lines(b"\n"), Some(0), "the search rejects it");
        assert_eq!(empty_lines(b"\rGET"), Some(0), "the request line rejects it");
    }
}
