//! A request, as a handler sees it: borrowed from the bytes that came.

use super::framing::Framing;
use super::head::LONG_METHOD;
use super::limits::{Limits, METHOD_BYTES};
use super::status::{Rejection, Status};
use super::syntax::{is_token, list};
use super::version::Version;
use crate::net::Peer;
use httparse::{EMPTY_HEADER, Header};
use std::str;

/// Header fields that are parsed without an allocation: more than browsers send.
const FEW_HEADERS: usize = 24;

const BAD_LINE: Rejection = Rejection::bad("The request line is not a method, a target and a version.");
const BAD_TARGET: Rejection = Rejection::bad("The request target is not one.");
const BAD_HOST: Rejection = Rejection::bad("The Host is not one.");
const BAD_HEADER: Rejection = Rejection::bad("A header field is not a name, a colon and a value.");
const TOO_MANY_HEADERS: Rejection = Rejection::new(Status::HEADERS_TOO_LARGE, "There are too many header fields.");
const NO_VERSION: Rejection =
    Rejection::new(Status::VERSION_NOT_SUPPORTED, "HTTP/1.0 and HTTP/1.1 are understood here.");

/// A request: its head, and its body if that was collected.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    method: &'a str,
    target: Target<'a>,
    version: Version,
    host: &'a str,
    headers: &'a [Header<'a>],
    body: &'a [u8],
    peer: Option<Peer>,
}

/// A request target (RFC 9112, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target<'a> {
    /// As it was sent.
    whole: &'a str,
    /// The host and port of one in absolute form.
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Returns the method, as it was sent: methods are case-sensitive (RFC 9110, section 9.1).
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// Returns the target, as it was sent (RFC 9112, section 3.2).
    pub fn target(&self) -> &'a str {
        self.target.whole
    }

    /// Returns the target's path: from its `/` to its `?`, not decoded; `*` for `OPTIONS *`.
    pub fn path(&self) -> &'a str {
        self.target.path
    }

    /// Returns the part of the target behind `?`, if it has one, not decoded.
    pub fn query(&self) -> Option<&'a str> {
        self.target.query
    }

    /// Whom the client wants to speak to, with the port if it named one: from an absolute target,
    /// else from the `Host` field (RFC 9112, section 3.2.2). It is made of the characters of a host,
    /// but need not exist. Empty if a client of HTTP/1.0 named none.
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// Returns the HTTP version of the request.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the header fields in the order in which they came, without the space around their values.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    /// Returns the value of the first header field called `name`, in whatever case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns whether one of the header fields called `name`, which is a list, has `token` in it, both in
    /// whatever case: `request.has_token("Connection", "upgrade")`.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        let mut fields = self.headers().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        fields.any(|(_, value)| list(value).any(|item| item.eq_ignore_ascii_case(token.as_bytes())))
    }

    /// Returns the body, if the handler has had it [collected](super::Body::Collect); else empty.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Returns the address of the peer.
    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// Returns the same request with the peer that it is from.
    pub(super) fn with_peer(self, peer: Option<Peer>) -> Self {
        Request { peer, ..self }
    }

    /// Returns the same request with its body.
    pub(super) fn with_body(self, body: &'a [u8]) -> Self {
        Request { body, ..self }
    }

    /// Parses a whole head.
    pub(super) fn parse(
        head: &'a [u8],
        fields: &'a mut Fields<'a>,
        limits: &Limits,
    ) -> Result<(Self, Framing), Rejection> {
        let end = memchr::memchr(b'\r', head).ok_or(BAD_LINE)?;
        let (line, rest) = head.split_at(end);
        let (method, target, version) = request_line(line)?;
        let headers = fields.parse(rest.strip_prefix(b"\r\n").ok_or(BAD_LINE)?, limits)?;
        let (framing, host) = Framing::of(version, headers)?;
        let target = Target::parse(method, target)?;
        let host = str::from_utf8(host.unwrap_or_default()).ok().filter(|host| is_authority(host)).ok_or(BAD_HOST)?;
        let host = target.authority.unwrap_or(host);
        Ok((Request { method, target, version, host, headers, body: &[], peer: None }, framing))
    }
}

/// Cuts a request line up (RFC 9112, section 3): single spaces, nothing around them.
fn request_line(line: &[u8]) -> Result<(&str, &str, Version), Rejection> {
    let (method, rest) = cut(line).ok_or(BAD_LINE)?;
    let (target, version) = cut(rest).ok_or(BAD_LINE)?;
    let version = match version {
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::Http11,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(NO_VERSION),
        _ => return Err(BAD_LINE),
    };
    let method = str::from_utf8(method).ok().filter(|method| is_token(method)).ok_or(BAD_LINE)?;
    if method.len() > METHOD_BYTES {
        return Err(LONG_METHOD);
    }
    let target = str::from_utf8(target).map_err(|_| BAD_TARGET)?;
    Ok((method, target, version))
}

fn cut(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Returns whether it may stand for a host and a port (RFC 3986, section 3.2); a user may not.
fn is_authority(text: &str) -> bool {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => text,
    };
    match host.strip_prefix('[') {
        Some(rest) => {
            rest.strip_suffix(']').is_some_and(|ip| ip.bytes().all(|byte| is_host_byte(byte) || byte == b':'))
        }
        None => host.bytes().all(is_host_byte),
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

impl<'a> Target<'a> {
    fn parse(method: &str, whole: &'a str) -> Result<Self, Rejection> {
        // Characters beyond ASCII should be encoded, but do no harm.
        if whole.bytes().any(|byte| byte <= b' ' || byte == 0x7F || byte == b'#') {
            return Err(BAD_TARGET);
        }
        if method == "CONNECT" {
            return Err(Rejection::new(Status::NOT_IMPLEMENTED, "This is not a proxy."));
        }
        let target = |authority, path: &'a str| match path.split_once('?') {
            Some((path, query)) => Target { whole, authority, path: or_root(path), query: Some(query) },
            None => Target { whole, authority, path: or_root(path), query: None },
        };
        match whole.split_once("://") {
            _ if whole.starts_with('/') => Ok(target(None, whole)),
            _ if whole == "*" && method == "OPTIONS" => Ok(target(None, whole)),
            Some((scheme, rest)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                let odd = authority.is_empty() || authority.starts_with(':') || !is_authority(authority);
                if odd { Err(BAD_TARGET) } else { Ok(target(Some(authority), path)) }
            }
            _ => Err(BAD_TARGET),
        }
    }
}

/// The path of `http://example.org` is `/`.
fn or_root(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// Room for the header fields of one request.
pub(super) struct Fields<'a> {
    few: [Header<'a>; FEW_HEADERS],
    many: Vec<Header<'a>>,
}

impl<'a> Fields<'a> {
    pub(super) fn new() -> Self {
        Fields { few: [EMPTY_HEADER; FEW_HEADERS], many: Vec::new() }
    }

    /// Parses the lines behind the request line, the empty one included.
    fn parse<'f>(&'f mut self, block: &'a [u8], limits: &Limits) -> Result<&'f [Header<'a>], Rejection> {
        let fits = |max: usize| max.min(limits.headers);
        let parsed = match httparse::parse_headers(block, &mut self.few[..fits(FEW_HEADERS)]) {
            Err(httparse::Error::TooManyHeaders) if limits.headers > FEW_HEADERS => {
                self.many = vec![EMPTY_HEADER; limits.headers];
                httparse::parse_headers(block, &mut self.many)
            }
            parsed => parsed,
        };
        match parsed {
            Ok(httparse::Status::Complete((len, headers))) if len == block.len() => Ok(headers),
            Err(httparse::Error::TooManyHeaders) => Err(TOO_MANY_HEADERS),
            _ => Err(BAD_HEADER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Were this to fail, a request would be served as one for another host or path.
    #[test]
    fn targets_have_four_forms() {
        let parse = |method, whole| {
            Target::parse(method, whole).map(|target| (target.authority, target.path, target.query)).ok()
        };
        assert_eq!(parse("GET", "/"), Some((None, "/", None)));
        assert_eq!(parse("GET", "/a%2Fb?c=/d?e"), Some((None, "/a%2Fb", Some("c=/d?e"))));
        assert_eq!(parse("GET", "/a://b"), Some((None, "/a://b", None)));
        assert_eq!(parse("GET", "HTTP://a:80/b?c"), Some((Some("a:80"), "/b", Some("c"))));
        assert_eq!(parse("GET", "http://a?c"), Some((Some("a"), "/", Some("c"))));
        assert_eq!(parse("GET", "http://[::1]:80"), Some((Some("[::1]:80"), "/", None)));
        assert_eq!(parse("GET", "/ä"), Some((None, "/ä", None)));
        assert_eq!(parse("OPTIONS", "*"), Some((None, "*", None)));
        for bad in [
            "",
            "*",
            "a",
            "a/b",
            "?a",
            "http:///a",
            "http://u@a/",
            "ftp://a/",
            "/a#b",
            "/a\tb",
            "//\x7f",
            "http://a:b/",
        ] {
            assert_eq!(parse("GET", bad), None, "{bad:?}");
        }
        assert_eq!(Target::parse("CONNECT", "a:80").unwrap_err().status, Status::NOT_IMPLEMENTED);
    }

    /// Were this to fail, a Host could smuggle a path or a user into what is made of it.
    #[test]
    fn hosts_are_made_of_their_characters() {
        for good in ["", "a", "a.example:8080", "127.0.0.1", "[::1]", "[::1]:80", "a:", "xn--a_b", "a%41"] {
            assert!(is_authority(good), "{good:?}");
        }
        for bad in ["a/b", "a b", "u@a", "a:b", "[::1", "::1", "a:80:80", "a\\b", "ä", "[::1]x", "a?b", "a\"", "[a/b]"]
        {
            assert!(!is_authority(bad), "{bad:?}");
        }
    }
}
