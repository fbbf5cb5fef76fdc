//! The head of a response, which all responses write into one buffer.

use super::clock::{Clock, Date};
use super::headers::write_header;
use super::status::Status;
use super::version::Version;
use std::io::Write;
use std::time::{Instant, SystemTime};

/// How much content a head promises.
#[derive(Clone, Copy, Debug)]
pub(super) enum ResponseFraming {
    None,
    Length(u64),
    Chunked,
    /// As much as comes before the connection ends.
    ToTheEnd,
}

/// The buffer that response heads are written into, and the fields of every response.
#[derive(Debug)]
pub(super) struct ResponseHead {
    text: Vec<u8>,
    date: Date,
    /// The line of the `Server` field; empty if the server is not named.
    server: Vec<u8>,
    /// The head names a protocol to change to.
    offers: bool,
}

impl ResponseHead {
    pub(super) fn new(clock: Clock) -> ResponseHead {
        ResponseHead { text: Vec::new(), date: Date::new(clock), server: Vec::new(), offers: false }
    }

    /// Returns the wall-clock time at `now`; no head of this turn has an earlier date.
    pub(super) fn time(&mut self, now: Instant) -> SystemTime {
        self.date.time(now)
    }

    pub(super) fn set_clock(&mut self, clock: Clock) {
        self.date = Date::new(clock);
    }

    pub(super) fn set_server(&mut self, line: Vec<u8>) {
        self.server = line;
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Starts a head anew with its status line.
    pub(super) fn begin(&mut self, now: Instant, status: Status) {
        self.text.clear();
        self.offers = false;
        self.text.extend_from_slice(b"HTTP/1.1 ");
        write_number(&mut self.text, status.code().into());
        self.text.push(b' ');
        self.text.extend_from_slice(status.reason().as_bytes());
        self.text.extend_from_slice(b"\r\nDate: ");
        self.text.extend_from_slice(self.date.text(now));
        self.text.extend_from_slice(b"\r\n");
        self.text.extend_from_slice(&self.server);
    }

    pub(super) fn header(&mut self, name: &str, value: &[u8]) {
        write_header(&mut self.text, name, value);
    }

    /// Adds lines that have been written before, or a page behind the head.
    pub(super) fn content(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    /// Writes where the content ends.
    pub(super) fn framing(&mut self, framing: ResponseFraming) {
        match framing {
            ResponseFraming::None | ResponseFraming::ToTheEnd => {}
            ResponseFraming::Chunked => self.text.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            ResponseFraming::Length(length) => {
                self.text.extend_from_slice(b"Content-Length: ");
                write_number(&mut self.text, length);
                self.text.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Writes whether the connection is kept, unless the version implies it (RFC 9112, section 9.3).
    pub(super) fn connection(&mut self, keep_alive: bool, version: Version) {
        let options: &[u8] = match (keep_alive, version, self.offers) {
            (true, Version::Http11, false) => return,
            (true, Version::Http11, true) => b"Connection: Upgrade\r\n",
            (true, Version::Http10, _) => b"Connection: keep-alive\r\n",
            (false, _, false) => b"Connection: close\r\n",
            (false, _, true) => b"Connection: close, Upgrade\r\n",
        };
        self.text.extend_from_slice(options);
    }

    /// Turns the head into that of a `101`, the only response with a 1xx.
    pub(super) fn upgrade(&mut self, protocol: &str) {
        let line = self.text.iter().position(|byte| *byte == b'\r').unwrap_or_default();
        self.text.splice(..line, *b"HTTP/1.1 101 Switching Protocols");
        self.header("Connection", b"Upgrade");
        self.header("Upgrade", protocol.as_bytes());
    }

    /// Names a protocol to change to.
    pub(super) fn offer(&mut self, protocol: &str) {
        self.header("Upgrade", protocol.as_bytes());
        self.offers = true;
    }

    /// Ends the head with its empty line.
    pub(super) fn end(&mut self) {
        self.text.extend_from_slice(b"\r\n");
    }
}

/// Returns a page that names a status. `why` is HTML of the layer itself.
pub(super) fn error_page(status: Status, why: &str) -> String {
    let mut page = format!("<!DOCTYPE html>\n<title>{status}</title>\n<h1>{status}</h1>\n");
    if !why.is_empty() {
        page.extend(["<p>", why, "</p>\n"]);
    }
    page
}

fn write_number(text: &mut Vec<u8>, number: u64) {
    let _ = write!(text, "{number}"); // a vector takes everything
}
