//! A reply as it is written: its head straight into one buffer that is used for all.

use super::connection::{Coding, Connection, Content, Progress, Reading};
use super::exchanges::{Core, ExchangeId, send_shared};
use super::headers::{Headers, fault, is_value, write_header};
use super::limits::REPLY_HEAD;
use super::request::Version;
use super::status::{Refusal, Status};
use crate::service::Context;
use std::fs::File;
use std::io::Write;
use std::rc::Rc;

/// A reply that is being written: a status, header fields, and one of the ways to give its content,
/// which sends it.
///
/// `Date`, `Content-Length` or `Transfer-Encoding`, and `Connection` are written by the layer. The
/// content of a reply to a HEAD request is not sent; it is given all the same, so that the head is
/// the one that a GET would have had (RFC 9110, section 9.3.2).
///
/// A field that cannot be one, because there is a line break in its value for example, makes the
/// reply a `500`, and is logged; so does a head of more than 8 KiB.
#[derive(Debug)]
#[must_use = "nothing is sent before the content is given"]
pub struct Reply<'a> {
    cx: Context<'a>,
    core: &'a mut Core,
    id: ExchangeId,
    status: Status,
    /// What is wrong with it.
    fault: Option<&'static str>,
}

/// What a newcomer reads who finds no place, for [`Overload::Reject`](crate::Overload::Reject).
pub const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\nContent-Length: 88\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\n\
    <!DOCTYPE html>\n<title>503 Service Unavailable</title>\n<h1>503 Service Unavailable</h1>\n";

/// How much content a head promises.
#[derive(Clone, Copy)]
enum Promise {
    None,
    Length(u64),
    Chunked,
    /// As much as comes before the connection ends.
    ToTheEnd,
}

impl<'a> Reply<'a> {
    pub(super) fn new(mut cx: Context<'a>, core: &'a mut Core, id: ExchangeId, status: Status) -> Self {
        core.write_status(&mut cx, status);
        Reply { cx, core, id, status, fault: None }
    }

    /// Adds a header field.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        match fault(name, value) {
            None => write_header(&mut self.core.head, name, value),
            fault => self.fault = fault,
        }
        self
    }

    /// Adds header fields that have been written before.
    pub fn headers(mut self, headers: &Headers) -> Self {
        match headers.text() {
            Ok(text) => self.core.head.extend_from_slice(text),
            Err(fault) => self.fault = Some(fault),
        }
        self
    }

    /// Sends it with `content`. What the output has no room for is copied, and sent when it has.
    pub fn body(mut self, content: &[u8]) {
        if self.begin(Promise::Length(content.len() as u64)) {
            let conn = self.connection().map(|connection| connection.id);
            match conn.map(|conn| (conn, self.cx.room(conn))) {
                Some((conn, room)) if content.len() <= room => {
                    let _ = self.cx.send(conn, content);
                    self.end();
                }
                Some(_) => self.core.keep_rest(&mut self.cx, self.id.key, Content::Bytes(content.to_vec())),
                None => {}
            }
        }
    }

    /// Sends it with `content`, which is not copied if it fits the output.
    pub fn shared(mut self, content: &Rc<[u8]>) {
        if self.begin(Promise::Length(content.len() as u64)) {
            let sent = self.core.find(self.id).map(|connection| send_shared(&mut self.cx, connection, content));
            match sent {
                Some(Ok(())) => self.end(),
                _ => self.core.keep_rest(&mut self.cx, self.id.key, Content::Shared(Rc::clone(content))),
            }
        }
    }

    /// Sends it with `len` bytes of `file` from `offset`, with the kernel's own copy where it has
    /// one. If the file turns out to be shorter, the connection ends in a reset: the client must
    /// not take a part for the whole.
    pub fn file(mut self, file: &Rc<File>, offset: u64, len: u64) {
        if self.begin(Promise::Length(len)) {
            let sent = self.core.find(self.id).map(|connection| self.cx.send_file(connection.id, file, offset, len));
            match sent {
                Some(Ok(())) => {
                    if let Some(connection) = self.connection_mut() {
                        connection.file = true;
                    }
                    self.end();
                }
                _ => self.abort("there is no room for a file"),
            }
        }
    }

    /// Sends it without content.
    pub fn empty(mut self) {
        if self.begin(Promise::Length(0)) {
            self.end();
        }
    }

    /// Sends it with a small page that names the status.
    pub fn page(self) {
        let page = page(self.status, "");
        self.header("Content-Type", "text/html; charset=utf-8").body(page.as_bytes());
    }

    /// Begins it; its content follows with [`Exchanges::send`](super::Exchanges::send), `length`
    /// bytes if that is known, and then [`Exchanges::finish`](super::Exchanges::finish).
    ///
    /// Without a length it is chunked (RFC 9112, section 7.1), or, for a client of HTTP/1.0, ends
    /// with the connection.
    pub fn stream(mut self, length: Option<u64>) {
        let http10 = self.connection().is_some_and(|connection| connection.version == Version::Http10);
        let (promise, coding) = match length {
            Some(length) => (Promise::Length(length), Coding::Length(length)),
            None if http10 => (Promise::ToTheEnd, Coding::ToTheEnd),
            None => (Promise::Chunked, Coding::Chunked),
        };
        let bare = self.is_bare();
        if let Some(connection) = self.connection_mut().filter(|connection| connection.is_unanswered()) {
            connection.keep_alive &= coding != Coding::ToTheEnd;
        }
        if self.send_head(promise) {
            self.go_on(if bare { Coding::Dropped } else { coding });
        }
    }

    /// Changes to another protocol, with `101 Switching Protocols` whatever the status: from here
    /// on the client's bytes go to [`Handler::on_data`](super::Handler::on_data) as they are, and
    /// what is [sent](super::Exchanges::send) goes out as it is (RFC 9110, section 7.8).
    ///
    /// The handler has made sure that the client asked for it. One of HTTP/1.0 cannot have; nor may
    /// there be a body still to come: the reply is a `400` then.
    pub fn upgrade(mut self, protocol: &str) {
        let may = |connection: &Connection| {
            connection.version == Version::Http11 && matches!(connection.reading, Reading::Whole)
        };
        if !self.connection().is_some_and(may) {
            return self.again(Status::BAD_REQUEST).page();
        }
        if !is_value(protocol.as_bytes()) {
            self.fault = Some("a protocol's name is not one");
        }
        self.core.write_upgrade(protocol);
        if self.send_head(Promise::None) {
            self.go_on(Coding::ToTheEnd);
            let Some(connection) = self.connection_mut() else { return };
            connection.reading = Reading::Raw;
            connection.keep_alive = false;
            if !connection.serving && !connection.eof {
                let conn = connection.id;
                self.cx.resume(conn); // what it has sent ahead
            }
        }
    }

    fn connection(&self) -> Option<&Connection> {
        self.core.find(self.id)
    }

    fn connection_mut(&mut self) -> Option<&mut Connection> {
        self.core.find(self.id)?;
        self.core.connections.get_mut(self.id.key)
    }

    /// Whether there is no content, whatever is given.
    fn is_bare(&self) -> bool {
        self.status.is_bare() || self.connection().is_some_and(|connection| connection.head_only)
    }

    /// Starts anew.
    fn again(self, status: Status) -> Self {
        Reply::new(self.cx, self.core, self.id, status)
    }

    /// Sends the head; whether content has to follow. If not, the reply is complete.
    fn begin(&mut self, promise: Promise) -> bool {
        let bare = self.is_bare();
        let sent = self.send_head(promise);
        if sent && bare {
            self.end();
        }
        sent && !bare
    }

    /// Sends the head; whether it was one, and the first of its exchange.
    fn send_head(&mut self, promise: Promise) -> bool {
        let Some(connection) = self.core.connections.get(self.id.key) else { return false };
        if connection.exchange != self.id.serial || !self.cx.is_open(connection.id) {
            return false;
        }
        if !connection.is_unanswered() {
            log::error!("{}: a second reply to a request", connection.id);
            return false;
        }
        if !self.status.is_bare() {
            self.core.write_promise(promise);
        }
        if !matches!(promise, Promise::None) {
            self.core.write_connection(self.id.key);
        }
        if self.core.head.len() > REPLY_HEAD {
            self.fault = Some("its head is too long");
        }
        if let Some(fault) = self.fault {
            self.fail(fault);
            return false;
        }
        self.core.send_head(&mut self.cx, self.id.key)
    }

    /// The content that follows is the handler's to send.
    fn go_on(&mut self, coding: Coding) {
        if let Some(connection) = self.connection_mut() {
            connection.reply = Progress::Stream(coding);
        }
        self.core.arm(&mut self.cx, self.id.key);
    }

    fn end(&mut self) {
        self.core.complete(&mut self.cx, self.id.key);
    }

    /// Answers 500 instead.
    fn fail(&mut self, fault: &str) {
        let Some(connection) = self.connection() else { return };
        log::error!("{}: a reply could not be sent: {fault}", connection.id);
        Reply::new(self.cx.reborrow(), self.core, self.id, Status::INTERNAL_SERVER_ERROR).page();
    }

    fn abort(&mut self, why: &str) {
        let Some(conn) = self.connection().map(|connection| connection.id) else { return };
        log::error!("{conn}: {why}");
        self.cx.abort(conn);
    }
}

impl Core {
    fn write_status(&mut self, cx: &mut Context<'_>, status: Status) {
        self.head.clear();
        self.head.extend_from_slice(b"HTTP/1.1 ");
        write_number(&mut self.head, status.code().into());
        self.head.push(b' ');
        self.head.extend_from_slice(status.reason().as_bytes());
        self.head.extend_from_slice(b"\r\nDate: ");
        self.head.extend_from_slice(self.date.text(cx.now()));
        self.head.extend_from_slice(b"\r\n");
        self.head.extend_from_slice(&self.server);
    }

    fn write_promise(&mut self, promise: Promise) {
        match promise {
            Promise::None | Promise::ToTheEnd => {}
            Promise::Chunked => self.head.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Promise::Length(length) => {
                self.head.extend_from_slice(b"Content-Length: ");
                write_number(&mut self.head, length);
                self.head.extend_from_slice(b"\r\n");
            }
        }
    }

    /// What becomes of the connection, where that is not a matter of course (RFC 9112, section 9.3).
    fn write_connection(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.keep_alive &= !self.stopping;
        match (connection.keep_alive, connection.version) {
            (true, Version::Http11) => {}
            (true, Version::Http10) => self.head.extend_from_slice(b"Connection: keep-alive\r\n"),
            (false, _) => self.head.extend_from_slice(b"Connection: close\r\n"),
        }
    }

    fn write_upgrade(&mut self, protocol: &str) {
        // The status line has been written for another one: this is the only reply with a 1xx.
        let line = self.head.iter().position(|byte| *byte == b'\r').unwrap_or_default();
        self.head.splice(..line, *b"HTTP/1.1 101 Switching Protocols");
        write_header(&mut self.head, "Connection", b"Upgrade");
        write_header(&mut self.head, "Upgrade", protocol.as_bytes());
    }

    /// Sends the head that has been written; whether there was room for it, as there always is
    /// unless the loop's output is smaller than a head.
    fn send_head(&mut self, cx: &mut Context<'_>, key: usize) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        self.head.extend_from_slice(b"\r\n");
        let sent = cx.send(connection.id, &self.head).is_ok();
        connection.drained = false;
        if !sent {
            log::error!("{}: the head of a reply does not fit the output", connection.id);
            cx.abort(connection.id);
        }
        sent
    }

    /// Sends a page to a client whose request is not served.
    pub(super) fn send_page(&mut self, cx: &mut Context<'_>, key: usize, refusal: Refusal) {
        let page = page(refusal.status, refusal.why);
        self.write_status(cx, refusal.status);
        write_header(&mut self.head, "Content-Type", b"text/html; charset=utf-8");
        self.write_promise(Promise::Length(page.len() as u64));
        self.write_connection(key);
        let head_only = self.connections.get(key).is_none_or(|connection| connection.head_only);
        self.head.extend_from_slice(b"\r\n");
        if !head_only {
            self.head.extend_from_slice(page.as_bytes());
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.drained &= cx.send(connection.id, &self.head).is_err();
        }
    }
}

/// A page that names a status. `why` is ours.
pub(super) fn page(status: Status, why: &str) -> String {
    let mut page = format!("<!DOCTYPE html>\n<title>{status}</title>\n<h1>{status}</h1>\n");
    if !why.is_empty() {
        page.extend(["<p>", why, "</p>\n"]);
    }
    page
}

fn write_number(text: &mut Vec<u8>, number: u64) {
    let _ = write!(text, "{number}"); // a vector takes everything
}
