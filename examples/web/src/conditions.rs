//! Conditional requests (RFC 9110, section 13).

use super::variant::Variant;
use pollstack::http::Request;
use std::time::{Duration, SystemTime};

/// The result of a request's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The content is to be sent, or a part of it.
    Send,
    /// The client has it.
    NotModified,
    /// It is not what the client wants to have.
    Failed,
}

/// The state of a file that conditions are compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validators<'a> {
    pub(crate) etag: &'a str,
    pub(crate) modified: SystemTime,
}

impl<'a> Validators<'a> {
    pub(crate) fn of(variant: &'a Variant) -> Validators<'a> {
        Validators { etag: &variant.etag, modified: variant.modified }
    }

    /// Goes through the conditions of a GET or HEAD in the order of section 13.2.2. A date that is
    /// none is no condition.
    pub(crate) fn judge(&self, request: &Request<'_>) -> Decision {
        if request.header("If-Match").is_some() {
            if !self.is_listed(request, "If-Match", strongly) {
                return Decision::Failed;
            }
        } else if date(request.header("If-Unmodified-Since")).is_some_and(|date| self.modified > date) {
            return Decision::Failed;
        }
        let same = match request.header("If-None-Match") {
            Some(_) => self.is_listed(request, "If-None-Match", weakly),
            None => date(request.header("If-Modified-Since")).is_some_and(|date| self.modified <= date),
        };
        if same { Decision::NotModified } else { Decision::Send }
    }

    /// Returns whether a range may be sent: the client has a part of this, or has not said of what
    /// (section 13.1.5).
    pub(crate) fn allow_range(&self, request: &Request<'_>, now: SystemTime) -> bool {
        let Some(value) = request.header("If-Range") else { return true };
        if value.starts_with(b"\"") || value.starts_with(b"W/") {
            return strongly(value, self.etag);
        }
        // A date that could have been followed by another change in its second tells nothing.
        let is_strong = self.modified + Duration::from_secs(1) <= now;
        is_strong && date(Some(value)) == Some(self.modified)
    }

    /// Returns whether a list, which may be in several fields, names this or everything.
    fn is_listed(&self, request: &Request<'_>, name: &str, same: fn(&[u8], &str) -> bool) -> bool {
        let mut fields = request.headers().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        fields.any(|(_, value)| value == b"*" || tags(value).any(|tag| same(tag, self.etag)))
    }
}

/// Both are the same, and say that they are so to the byte.
fn strongly(tag: &[u8], etag: &str) -> bool {
    tag == etag.as_bytes() && !etag.starts_with("W/")
}

/// Both are the same, but for what they say about it.
fn weakly(tag: &[u8], etag: &str) -> bool {
    tag.strip_prefix(b"W/").unwrap_or(tag) == etag.strip_prefix("W/").unwrap_or(etag).as_bytes()
}

/// Returns the entity tags of a list, up to the first thing in it that is none. There may be commas in one.
fn tags(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let start = list.iter().position(|byte| !b", \t".contains(byte))?;
        let (_, rest) = list.split_at(start);
        let quote = if rest.starts_with(b"W/") { 2 } else { 0 };
        let inside = rest.get(quote..)?.strip_prefix(b"\"")?;
        let end = quote + 1 + inside.iter().position(|byte| *byte == b'"')? + 1;
        let (tag, rest) = rest.split_at(end);
        list = rest;
        Some(tag)
    })
}

fn date(value: Option<&[u8]>) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value?).ok()?).ok()
}
