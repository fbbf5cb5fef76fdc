//! The header fields about the message itself: where its body ends, and what becomes of
//! the connection. Whatever two servers could read in two ways is rejected.

use super::status::{Rejection, Status};
use super::syntax::list;
use super::version::Version;
use httparse::Header;
use std::str;

/// How a request is framed (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    /// The body that follows the head.
    pub(super) length: Length,
    /// Whether the client wants to go on behind it (RFC 9112, section 9.3).
    pub(super) keep_alive: bool,
    /// Whether the client waits for a `100 Continue` before it sends the body (RFC 9110, section
    /// 10.1.1).
    pub(super) expects_continue: bool,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    Chunked,
}

impl Framing {
    /// Returns the framing that `headers` promise, and the host that they name.
    pub(super) fn of<'a>(version: Version, headers: &[Header<'a>]) -> Result<(Self, Option<&'a [u8]>), Rejection> {
        let (mut host, mut length, mut coding, mut expect) = (None, None, None, None);
        let (mut close, mut keep_alive) = (false, false);
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            match header.name.len() {
                4 if is("host") => once(&mut host, header, "There is more than one Host.")?,
                6 if is("expect") => once(&mut expect, header, "There is more than one Expect.")?,
                10 if is("connection") => {
                    close |= list(header.value).any(|item| item.eq_ignore_ascii_case(b"close"));
                    keep_alive |= list(header.value).any(|item| item.eq_ignore_ascii_case(b"keep-alive"));
                }
                14 if is("content-length") => once(&mut length, header, "There is more than one Content-Length.")?,
                17 if is("transfer-encoding") => {
                    once(&mut coding, header, "There is more than one Transfer-Encoding.")?
                }
                _ => {}
            }
        }
        if host.is_none() && version == Version::Http11 {
            return Err(Rejection::bad("There is no Host."));
        }
        let keep_alive = !close && (keep_alive || version == Version::Http11);
        let expects_continue = expectation(version, expect)?;
        Ok((Framing { length: body_length(version, length, coding)?, keep_alive, expects_continue }, host))
    }

    /// Returns whether there is a body at all.
    pub(super) fn has_body(&self) -> bool {
        self.length != Length::Known(0)
    }
}

fn once<'a>(place: &mut Option<&'a [u8]>, header: &Header<'a>, why: &'static str) -> Result<(), Rejection> {
    match place.replace(header.value) {
        None => Ok(()),
        Some(_) => Err(Rejection::bad(why)),
    }
}

fn expectation(version: Version, expect: Option<&[u8]>) -> Result<bool, Rejection> {
    match expect {
        None => Ok(false),
        Some(_) if version == Version::Http10 => Ok(false),
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(Rejection::new(Status::EXPECTATION_FAILED, "Only 100-continue can be expected.")),
    }
}

fn body_length(version: Version, length: Option<&[u8]>, coding: Option<&[u8]>) -> Result<Length, Rejection> {
    match (length, coding) {
        (None, None) => Ok(Length::Known(0)),
        (Some(digits), None) => number(digits).map(Length::Known),
        (Some(_), Some(_)) => Err(Rejection::bad("There is a Content-Length beside a Transfer-Encoding.")),
        // A proxy that speaks 1.0 does not know what it means (RFC 9112, section 6.1).
        (None, Some(_)) if version == Version::Http10 => Err(Rejection::bad("HTTP/1.0 has no Transfer-Encoding.")),
        (None, Some(coding)) => chunked(coding),
    }
}

/// Digits and nothing else (RFC 9110, section 8.6): no sign, no list.
fn number(digits: &[u8]) -> Result<u64, Rejection> {
    let digits = str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    number.ok_or(Rejection::bad("The Content-Length is not a number of bytes."))
}

/// A coding that is not known in front of `chunked` is not implemented. Where `chunked` is not
/// the last, the body has no end (RFC 9112, section 6.3).
fn chunked(coding: &[u8]) -> Result<Length, Rejection> {
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Length::Chunked);
    }
    let is_chunked = |item: &&[u8]| item.eq_ignore_ascii_case(b"chunked");
    match (list(coding).last(), list(coding).filter(is_chunked).count()) {
        (Some(last), 1) if is_chunked(&last) && list(coding).count() > 1 => {
            Err(Rejection::new(Status::NOT_IMPLEMENTED, "The only transfer coding known here is chunked."))
        }
        _ => Err(Rejection::bad("The Transfer-Encoding is not chunked.")),
    }
}
