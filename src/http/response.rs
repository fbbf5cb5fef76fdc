//! A response as it is written: its head straight into one buffer that is used for all.

use super::connection::{Coding, Connection, Content, Reading};
use super::exchange::{Core, send_shared};
use super::headers::{Headers, fault};
use super::id::ExchangeId;
use super::limits::RESPONSE_HEAD;
use super::response_head::{ResponseFraming, error_page};
use super::status::Status;
use super::syntax::is_value;
use super::version::Version;
use crate::context::Context;
use std::fs::File;
use std::rc::Rc;

/// A response that is being written: a status, header fields, and one of the ways to give its content,
/// which sends it.
///
/// `Date`, `Content-Length` or `Transfer-Encoding`, and `Connection` are written by the layer. The
/// content of a response to a HEAD request is not sent; it is given all the same, so that the head is
/// the one that a GET would have had (RFC 9110, section 9.3.2).
///
/// A field that cannot be one, because there is a line break in its value for example, makes the
/// response a `500`, and is logged; so does a head of more than 8 KiB.
#[derive(Debug)]
#[must_use = "nothing is sent before the content is given"]
pub struct Response<'a> {
    cx: Context<'a>,
    core: &'a mut Core,
    id: ExchangeId,
    status: Status,
    /// The fault of the response.
    fault: Option<&'static str>,
}

/// The response to a client that finds no place, for [`Overload::Reject`](crate::Overload::Reject). It goes out
/// whatever the request is, so it has no content, which would be wrong behind a HEAD.
pub const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\n";

impl<'a> Response<'a> {
    pub(super) fn new(cx: Context<'a>, core: &'a mut Core, id: ExchangeId, status: Status) -> Self {
        core.head.begin(cx.now(), status);
        Response { cx, core, id, status, fault: None }
    }

    /// Adds a header field.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        match fault(name, value) {
            None => self.core.head.header(name, value),
            fault => self.fault = fault,
        }
        self
    }

    /// Adds header fields that have been written before.
    pub fn headers(mut self, headers: &Headers) -> Self {
        match headers.text() {
            Ok(text) => self.core.head.content(text),
            Err(fault) => self.fault = Some(fault),
        }
        self
    }

    /// Closes the connection with it.
    pub fn closing(self) -> Self {
        let unanswered = self.core.find_mut(self.id).filter(|connection| connection.is_unanswered());
        unanswered.into_iter().for_each(Connection::close_after_response);
        self
    }

    /// Names a protocol that the client could ask for with `Upgrade`, as a 426 has to (RFC 9110, section
    /// 15.5.22).
    pub fn offer(mut self, protocol: &str) -> Self {
        match is_value(protocol.as_bytes()) {
            true => self.core.head.offer(protocol),
            false => self.fault = Some("a protocol's name is not one"),
        }
        self
    }

    /// Sends it with `content`. The part that the output has no room for is copied, and sent later.
    pub fn body(mut self, content: &[u8]) {
        if self.begin(ResponseFraming::Length(content.len() as u64)) {
            let sent = self.core.find(self.id).map(|connection| self.cx.send(connection.id(), content));
            match sent {
                Some(Ok(())) => self.end(),
                _ => self.keep(Content::Bytes(content.to_vec())),
            }
        }
    }

    /// Sends it with `content`, which is not copied if it fits the output.
    pub fn shared(mut self, content: &Rc<[u8]>) {
        if self.begin(ResponseFraming::Length(content.len() as u64)) {
            let sent = self.core.find(self.id).map(|connection| send_shared(&mut self.cx, connection, content));
            match sent {
                Some(Ok(())) => self.end(),
                _ => self.keep(Content::Shared(Rc::clone(content))),
            }
        }
    }

    /// Sends it with `len` bytes of `file` from `offset`, with the kernel's own copy where it has
    /// one. If the file turns out to be shorter, the connection ends in a reset: the client must
    /// not take a part for the whole.
    pub fn file(mut self, file: &Rc<File>, offset: u64, len: u64) {
        if self.begin(ResponseFraming::Length(len)) {
            let sent = self.core.find(self.id).map(|connection| self.cx.send_file(connection.id(), file, offset, len));
            match sent {
                Some(Ok(())) => {
                    self.core.find_mut(self.id).into_iter().for_each(Connection::sent_file);
                    self.end();
                }
                _ => self.abort("there is no room for a file"),
            }
        }
    }

    /// Sends it without content.
    pub fn empty(mut self) {
        if self.begin(ResponseFraming::Length(0)) {
            self.end();
        }
    }

    /// Sends it with a small page that names the status.
    pub fn error_page(self) {
        let page = error_page(self.status, "");
        self.header("Content-Type", "text/html; charset=utf-8").body(page.as_bytes());
    }

    /// Begins it; its content follows with [`Responder::send`](super::Responder::send), `length`
    /// bytes if that is known, and then [`Responder::finish`](super::Responder::finish).
    ///
    /// Without a length it is chunked (RFC 9112, section 7.1), or, for a client of HTTP/1.0, ends
    /// with the connection.
    pub fn stream(mut self, length: Option<u64>) {
        let http10 = self.connection().is_some_and(|connection| connection.version() == Version::Http10);
        let (framing, coding) = match length {
            Some(length) => (ResponseFraming::Length(length), Coding::Length(length)),
            None if http10 => (ResponseFraming::ToTheEnd, Coding::ToTheEnd),
            None => (ResponseFraming::Chunked, Coding::Chunked),
        };
        let bodiless = self.is_bodiless();
        if coding == Coding::ToTheEnd {
            let unanswered = self.core.find_mut(self.id).filter(|connection| connection.is_unanswered());
            unanswered.into_iter().for_each(Connection::close_after_response);
        }
        if self.send_head(framing) {
            let coding = if bodiless { Coding::Dropped } else { coding };
            self.core.find_mut(self.id).into_iter().for_each(|connection| connection.stream(coding));
        }
    }

    /// Changes to another protocol, with `101 Switching Protocols` whatever the status: from here
    /// on the client's bytes go to [`Handler::on_data`](super::Handler::on_data) as they are, and
    /// bytes that are [sent](super::Responder::send) go out as they are (RFC 9110, section 7.8).
    ///
    /// The handler has made sure that the client asked for it. One of HTTP/1.0 cannot have; nor may
    /// there be a body still to come: the response is a `400` then.
    pub fn upgrade(mut self, protocol: &str) {
        let may = |connection: &Connection| {
            connection.version() == Version::Http11 && matches!(connection.reading(), Reading::AwaitingResponse)
        };
        if !self.connection().is_some_and(may) {
            return self.again(Status::BAD_REQUEST).error_page();
        }
        if !is_value(protocol.as_bytes()) {
            self.fault = Some("a protocol's name is not one");
        }
        self.core.head.upgrade(protocol);
        if self.send_head(ResponseFraming::None) {
            let Some(connection) = self.core.find_mut(self.id) else { return };
            if connection.upgrade() {
                self.cx.resume(connection.id());
            }
        }
    }

    fn connection(&self) -> Option<&Connection> {
        self.core.find(self.id)
    }

    /// Returns whether there is no content, whatever is given.
    fn is_bodiless(&self) -> bool {
        self.status.is_bodiless() || self.connection().is_some_and(Connection::is_head_only)
    }

    /// Starts anew.
    fn again(self, status: Status) -> Self {
        Response::new(self.cx, self.core, self.id, status)
    }

    /// Sends the head. Returns whether content has to follow; if not, the response is complete.
    fn begin(&mut self, framing: ResponseFraming) -> bool {
        let bodiless = self.is_bodiless();
        let sent = self.send_head(framing);
        if sent && bodiless {
            self.end();
        }
        sent && !bodiless
    }

    /// Sends the head. Returns whether it was a sound one, and the first of its exchange.
    fn send_head(&mut self, framing: ResponseFraming) -> bool {
        let Some(key) = self.core.key(self.id) else { return false };
        let Some(connection) = self.core.find(self.id).filter(|connection| self.cx.is_open(connection.id())) else {
            return false;
        };
        if !connection.is_unanswered() {
            log::error!("{}: a second response to a request", connection.id());
            return false;
        }
        if self.core.end_head(key, self.status, framing) > RESPONSE_HEAD {
            self.fault = Some("its head is too long");
        }
        if let Some(fault) = self.fault {
            self.fail(fault);
            return false;
        }
        self.core.send_head(&mut self.cx, key)
    }

    fn keep(&mut self, content: Content) {
        if let Some(key) = self.core.key(self.id) {
            self.core.keep_rest(&mut self.cx, key, content);
        }
    }

    fn end(&mut self) {
        if let Some(key) = self.core.key(self.id) {
            self.core.complete(&mut self.cx, key);
        }
    }

    /// Answers 500 instead.
    fn fail(&mut self, fault: &str) {
        let Some(connection) = self.connection() else { return };
        log::error!("{}: cannot send a response: {fault}", connection.id());
        Response::new(self.cx.reborrow(), self.core, self.id, Status::INTERNAL_SERVER_ERROR).error_page();
    }

    fn abort(&mut self, why: &str) {
        let Some(conn) = self.connection().map(Connection::id) else { return };
        log::error!("{conn}: {why}");
        self.cx.abort(conn);
    }
}
