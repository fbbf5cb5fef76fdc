//! A request that the layer rejects before a handler has seen it.

use super::limits::METHOD_BYTES;
use super::status::Status;
use super::syntax::is_token;
use crate::net::Peer;
use std::str;

/// A request that the layer rejects: it is malformed, too long or too slow, or the handler has
/// [rejected its body](super::Body::Reject). Its parts are those that have come, checked as far as each
/// function says.
#[derive(Clone, Copy, Debug)]
pub struct RejectedRequest<'a> {
    pub(super) status: Status,
    pub(super) peer: Option<Peer>,
    pub(super) bytes: usize,
    /// The part of the head that has come, if it is at hand.
    pub(super) head: &'a [u8],
}

impl<'a> RejectedRequest<'a> {
    /// Returns the status that the client reads.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Returns the length of the page that it reads.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the address of the peer.
    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// Returns the method, if there is one: a token that is no longer than methods are.
    pub fn method(&self) -> Option<&'a str> {
        let at = self.head.iter().take(METHOD_BYTES + 1).position(|byte| *byte == b' ')?;
        str::from_utf8(self.head.get(..at)?).ok().filter(|method| is_token(method))
    }

    /// Returns what stands for the target in a request line that is whole, if that is UTF-8.
    pub fn target(&self) -> Option<&'a str> {
        let line = self.lines().next()?;
        let target = line.split(|byte| *byte == b' ').nth(1).filter(|target| !target.is_empty())?;
        str::from_utf8(target).ok()
    }

    /// Returns the value of the first line that is a header field called `name`, in whatever case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let is_named = |line: &&[u8]| {
            let (front, rest) = line.split_at_checked(name.len()).unwrap_or((b"", b""));
            front.eq_ignore_ascii_case(name.as_bytes()) && rest.starts_with(b":")
        };
        let line = self.lines().skip(1).find(is_named)?;
        line.get(name.len() + 1..).map(<[u8]>::trim_ascii)
    }

    /// Returns the lines that are whole.
    fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let lines = self.head.split_inclusive(|byte| *byte == b'\n');
        lines.filter_map(|line| Some(line.strip_suffix(b"\n")?.trim_ascii_end())).take_while(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(head: &[u8]) -> (Option<&str>, Option<&str>, Option<&[u8]>) {
        let rejection = RejectedRequest { status: Status::BAD_REQUEST, peer: None, bytes: 0, head };
        (rejection.method(), rejection.target(), rejection.header("origin"))
    }

    /// Were this to fail, a log would name a request that was not sent, or a page could not read why it was
    /// rejected.
    #[test]
    fn what_has_come_is_told() {
        assert_eq!(parts(b""), (None, None, None));
        assert_eq!(parts(b"GET /lo"), (Some("GET"), None, None));
        assert_eq!(parts(b"GET /a HTTP/3.0\r\nOrigin: x\r\n"), (Some("GET"), Some("/a"), Some(&b"x"[..])));
        assert_eq!(parts(b"\x16\x03 /a\r\n\r\nOrigin: x\r\n"), (None, Some("/a"), None));
        assert_eq!(parts(b"G /\xff H\r\nOrigins: y\r\nORIGIN:z\r\nOrigin: w"), (Some("G"), None, Some(&b"z"[..])));
        assert_eq!(parts("M".repeat(40).as_bytes()), (None, None, None));
    }
}
