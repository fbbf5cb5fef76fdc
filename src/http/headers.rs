//! Header fields of responses: what may be one, and how they are written.

use super::syntax::{is_token, is_value};

/// Fields that say how the message is framed, or what becomes of the connection: the layer writes
/// them itself.
const RESERVED_HEADERS: [&str; 6] =
    ["content-length", "transfer-encoding", "connection", "date", "keep-alive", "upgrade"];

/// Header fields that go with many responses: they are checked and written once, and then only
/// copied, with [`Response::headers`](super::Response::headers).
///
/// ```
/// use pollstack::http::Headers;
///
/// let page = Headers::new().with("Content-Type", "text/html").with("Cache-Control", "no-store");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Headers {
    text: Vec<u8>,
    fault: Option<&'static str>,
}

impl Headers {
    /// None yet.
    pub fn new() -> Self {
        Headers::default()
    }

    /// Adds a field. One that cannot be one makes a `500` of every response that these go with, as
    /// [`Response::header`](super::Response::header) does.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        match fault(name, value) {
            None => write_header(&mut self.text, name, value),
            fault => self.fault = fault,
        }
        self
    }

    /// Returns how they are sent, unless something is wrong with one.
    pub(super) fn text(&self) -> Result<&[u8], &'static str> {
        self.fault.map_or(Ok(&self.text), Err)
    }
}

/// Returns the fault of a field that a handler sets.
pub(super) fn fault(name: &str, value: &[u8]) -> Option<&'static str> {
    if !is_token(name) {
        Some("a field's name is not one")
    } else if !is_value(value) {
        Some("a field's value is not one")
    } else if RESERVED_HEADERS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
        Some("a field is not the handler's to set")
    } else {
        None
    }
}

pub(super) fn write_header(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        text.extend_from_slice(part);
    }
}
