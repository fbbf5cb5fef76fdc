//! All connections of a server and their exchanges: a request and its response each.

use super::connection::{Connection, Content, Progress, Reading, Sink};
use super::limits::Limits;
use super::response_head::{ResponseFraming, ResponseHead, error_page};
use super::status::Rejection;
use crate::context::Context;
use crate::id::SendError;
use slab::Slab;
use std::collections::VecDeque;
use std::rc::Rc;

/// A shared buffer below this is copied, which costs less than a piece of output of its own.
const SHARE_FROM: usize = 1024;

/// A request and its reply, from [`Handler::on_request`](super::Handler::on_request) until
/// [`Handler::on_close`](super::Handler::on_close). An id is never given out twice: once its
/// exchange is over, it is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId {
    pub(super) serial: u64,
    pub(super) key: usize,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole response has been given to the loop. The client may or may not read it.
    Complete,
    /// The connection ended before that.
    Aborted,
}

/// The state of the layer, apart from the handler: all connections and their exchanges.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) connections: Slab<Connection>,
    pub(super) limits: Limits,
    /// The head of the response that is being written.
    pub(super) head: ResponseHead,
    /// How many exchanges there have been.
    pub(super) serial: u64,
    /// Exchanges that are over, of which the handler has not been told.
    pub(super) ended: VecDeque<(ExchangeId, Outcome)>,
    pub(super) stopping: bool,
}

/// Sends a shared buffer as it costs least.
pub(super) fn send_shared(cx: &mut Context<'_>, connection: &Connection, bytes: &Rc<[u8]>) -> Result<(), SendError> {
    match bytes.len() {
        SHARE_FROM.. => cx.send_shared(connection.id, bytes),
        _ => cx.send(connection.id, bytes),
    }
}

impl Core {
    /// The connection of an exchange that is not over.
    pub(super) fn find(&self, id: ExchangeId) -> Option<&Connection> {
        self.connections.get(id.key).filter(|connection| connection.exchange == id.serial)
    }

    pub(super) fn find_mut(&mut self, id: ExchangeId) -> Option<&mut Connection> {
        self.connections.get_mut(id.key).filter(|connection| connection.exchange == id.serial)
    }

    /// Notes that something has been sent.
    pub(super) fn sent(&mut self, key: usize, something: bool) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.drained &= !something;
        }
    }

    /// Begins the exchange of a request that is to be handed over.
    pub(super) fn begin(&mut self, key: usize) -> ExchangeId {
        self.serial += 1;
        if let Some(connection) = self.connections.get_mut(key) {
            connection.exchange = self.serial;
        }
        ExchangeId { serial: self.serial, key }
    }

    /// The exchange that the handler knows of on a connection.
    pub(super) fn current(&self, key: usize) -> Option<ExchangeId> {
        let serial = self.connections.get(key)?.exchange;
        (serial != 0).then_some(ExchangeId { serial, key })
    }

    /// The exchange on a connection whose reply the handler is streaming.
    pub(super) fn streaming(&self, key: usize) -> Option<ExchangeId> {
        let streams = matches!(self.connections.get(key)?.reply, Progress::Stream(_));
        self.current(key).filter(|_| streams)
    }

    /// The exchange on a connection is over.
    pub(super) fn end(&mut self, key: usize, outcome: Outcome) {
        if let Some(id) = self.current(key) {
            self.ended.push_back((id, outcome));
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.exchange = 0;
            connection.reply = Progress::None;
            connection.deadline = None;
        }
    }

    /// The reply on a connection is complete: on to the next request, if there may be one.
    pub(super) fn complete(&mut self, cx: &mut Context<'_>, key: usize) {
        self.end(key, Outcome::Complete);
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.since = cx.now();
        connection.paused = false;
        if !connection.keep_alive || self.stopping {
            // A client that expected to go on may be sending already.
            let quiet = connection.is_last && matches!(connection.reading, Reading::AwaitingResponse);
            connection.reading = Reading::Discarding;
            match quiet {
                true => cx.finish(connection.id),
                false => cx.finish_lingering(connection.id),
            }
            return self.arm(cx, key);
        }
        match &mut connection.reading {
            Reading::Body(_, sink @ Sink::Stream) => *sink = Sink::Skip(self.limits.skip),
            Reading::AwaitingResponse => connection.reading = Reading::Head(Default::default()),
            _ => {}
        }
        if !connection.serving {
            match connection.eof && connection.is_idle() {
                true => cx.finish(connection.id),
                false => cx.resume(connection.id),
            }
        }
        self.arm(cx, key);
    }

    /// Answers a request that is not served with a page, and ends its connection. If a reply has
    /// begun already, that cannot be completed.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, key: usize, rejection: Rejection) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let begun = !matches!(connection.reply, Progress::None);
        // The rest of its body is not needed any more.
        let answered = connection.exchange == 0 && matches!(connection.reading, Reading::Body(_, Sink::Skip(_)));
        connection.keep_alive = false;
        connection.reading = Reading::Discarding;
        let conn = connection.id;
        log::debug!("{conn}: {}: {}", rejection.status, rejection.why);
        if begun {
            return cx.abort(conn);
        }
        self.end(key, Outcome::Aborted);
        if !answered {
            self.send_page(cx, key, rejection);
        }
        cx.finish_lingering(conn);
        self.arm(cx, key);
    }

    /// Sends more of a reply's content, which the handler has given in one piece.
    pub(super) fn send_rest(&mut self, cx: &mut Context<'_>, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Progress::Rest(content, sent) = &mut connection.reply else { return };
        let rest = content.bytes().get(*sent..).unwrap_or_default();
        let n = rest.len().min(cx.send_capacity(connection.id));
        if cx.send(connection.id, rest.get(..n).unwrap_or_default()).is_ok() {
            *sent += n;
        }
        connection.drained &= n == 0;
        if n == rest.len() {
            self.complete(cx, key);
        }
    }

    /// Keeps content that does not fit, to be sent when it does.
    pub(super) fn keep_rest(&mut self, cx: &mut Context<'_>, key: usize, content: Content) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.reply = Progress::Rest(content, 0);
            self.send_rest(cx, key);
            self.arm(cx, key);
        }
    }

    /// Sets the deadline of a connection to the sooner one of the layer's and the handler's.
    pub(super) fn arm(&self, cx: &mut Context<'_>, key: usize) {
        let Some(connection) = self.connections.get(key) else { return };
        let due = connection.due(cx, &self.limits).map(|(at, _)| at);
        cx.set_deadline(connection.id, due.into_iter().chain(connection.deadline).min());
    }

    /// Sends the head that has been written. Returns whether it fitted, as it always does unless the
    /// loop's output is smaller than a head.
    pub(super) fn send_head(&mut self, cx: &mut Context<'_>, key: usize) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let sent = cx.send(connection.id, self.head.end()).is_ok();
        connection.drained = false;
        if !sent {
            log::error!("{}: the head of a response does not fit the output", connection.id);
            cx.abort(connection.id);
        }
        sent
    }

    /// Writes the `Connection` of a response.
    pub(super) fn write_connection(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.keep_alive &= !self.stopping;
        self.head.connection(connection.keep_alive, connection.version);
    }

    /// Sends a page to a client whose request is not served.
    fn send_page(&mut self, cx: &mut Context<'_>, key: usize, rejection: Rejection) {
        let page = error_page(rejection.status, rejection.why);
        self.head.begin(cx.now(), rejection.status);
        self.head.header("Content-Type", b"text/html; charset=utf-8");
        self.head.framing(ResponseFraming::Length(page.len() as u64));
        self.write_connection(key);
        let head_only = self.connections.get(key).is_none_or(|connection| connection.head_only);
        self.head.end();
        if !head_only {
            self.head.content(page.as_bytes());
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.drained &= cx.send(connection.id, self.head.text()).is_err();
        }
    }
}
