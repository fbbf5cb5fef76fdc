//! The layer as a service of the loop.

use super::body::{Decoder, Part};
use super::clock::Clock;
use super::connection::{Connection, Reading, Sink, Timeout};
use super::exchange::{Core, Outcome};
use super::handler::{Body, Handler};
use super::head::{Search, empty_lines};
use super::limits::{Limits, RESPONSE_HEAD};
use super::request::{Fields, Request};
use super::responder::Responder;
use super::response_head::ResponseHead;
use super::status::{Rejection, Status};
use super::syntax::is_value;
use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use crate::service::{Closed, EofAction, Service};
use slab::Slab;
use std::collections::VecDeque;
use std::mem;

const SLOW: Rejection = Rejection::new(Status::REQUEST_TIMEOUT, "The request took too long to come.");
const TRUNCATED: Rejection = Rejection::bad("The request ends before it is complete.");

/// The response to a client that waits for it before it sends a body.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A [`Handler`] as a [`Service`]: HTTP/1.1 (RFC 9110 and 9112) on its connections.
#[derive(Debug)]
pub struct Http<H> {
    pub(super) handler: H,
    pub(super) core: Core,
}

/// The state that the loop keeps of a connection; for a service that speaks more than HTTP.
#[derive(Debug)]
pub struct Conn(usize);

impl<H: Handler> Http<H> {
    /// Serves `handler`, with default [`Limits`].
    pub fn new(handler: H, clock: Clock) -> Self {
        let core = Core {
            connections: Slab::new(),
            limits: Limits::default(),
            head: ResponseHead::new(clock),
            serial: 0,
            ended: VecDeque::new(),
            stopping: false,
        };
        Http { handler, core }
    }

    /// Serves it with other limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.core.limits = limits;
        self
    }

    /// Serves with other limits from here on. Connections that are open, and wait, go by the old
    /// ones until something comes of them.
    pub fn set_limits(&mut self, limits: Limits) {
        self.core.limits = limits;
    }

    /// Names the server in all replies: `Server` (RFC 9110, section 10.2.4). A name that cannot be
    /// the value of a field is not told.
    pub fn server(mut self, name: &str) -> Self {
        let line = if is_value(name.as_bytes()) { format!("Server: {name}\r\n").into() } else { Vec::new() };
        self.core.head.set_server(line);
        self
    }

    /// Sets the clock anew, after the wall clock has been set, say.
    pub fn set_clock(&mut self, clock: Clock) {
        self.core.head.set_clock(clock);
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Calls into the handler from outside, for a timer or a signal that the tool around the loop
    /// keeps itself; from [`EventLoop::call`](crate::EventLoop::call), which has the context.
    pub fn call<R>(&mut self, cx: &mut Context<'_>, f: impl FnOnce(&mut H, &mut Responder<'_>) -> R) -> R {
        let result = self.call_handler(cx, f);
        self.settle(cx);
        result
    }

    pub(super) fn call_handler<R>(
        &mut self,
        cx: &mut Context<'_>,
        f: impl FnOnce(&mut H, &mut Responder<'_>) -> R,
    ) -> R {
        f(&mut self.handler, &mut Responder { cx: cx.reborrow(), core: &mut self.core })
    }

    /// Tells the handler of the exchanges that are over.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>) {
        while let Some((id, outcome)) = self.core.ended.pop_front() {
            self.call_handler(cx, |handler, http| handler.on_close(http, id, outcome));
        }
    }

    pub(super) fn connection(&mut self, key: usize) -> &mut Connection {
        &mut self.core.connections[key]
    }

    /// Takes what it can from the front of a connection's input; `None` if it can do nothing more
    /// with it for now. A step that takes no bytes brings the connection forward even so.
    fn step(&mut self, cx: &mut Context<'_>, key: usize, input: &[u8]) -> Option<usize> {
        let connection = self.connection(key);
        if !cx.is_open(connection.id) {
            return None;
        }
        let step = match &mut connection.reading {
            Reading::Head(_) | Reading::Upgraded | Reading::Discarding if input.is_empty() => return None,
            Reading::Head(_) => self.head(cx, key, input),
            Reading::Body(..) if connection.paused => return None,
            Reading::Body(decoder, _) => match decoder.next(input) {
                Ok((passed, Part::Data(data))) => return Some(passed + self.data(cx, key, data)),
                Ok((passed, Part::End)) => {
                    self.body_end(cx, key);
                    return Some(passed);
                }
                Ok((0, Part::More)) => return None,
                Ok((passed, Part::More)) => {
                    connection.since = cx.now();
                    return Some(passed);
                }
                Err(rejection) => Err(rejection),
            },
            Reading::Upgraded => return self.raw(cx, key, input),
            Reading::Discarding => return Some(input.len()),
            Reading::AwaitingResponse => {
                if !input.is_empty() {
                    let conn = connection.id;
                    cx.pause(conn); // until the reply is complete
                }
                return None;
            }
        };
        step.unwrap_or_else(|rejection| {
            self.core.refuse(cx, key, rejection);
            Some(input.len())
        })
    }

    /// A head, or a part of one, and what follows it.
    fn head(&mut self, cx: &mut Context<'_>, key: usize, input: &[u8]) -> Result<Option<usize>, Rejection> {
        let limits = self.core.limits;
        let connection = self.connection(key);
        let Reading::Head(search) = &mut connection.reading else { return Ok(None) };
        // As it is seen from the head's first byte, in case it is refused.
        connection.head_only = input.starts_with(b"HEAD ");
        if search.is_fresh() {
            match empty_lines(input) {
                Some(0) => {}
                skipped => return Ok(skipped),
            }
        }
        // A file costs no room, but a descriptor: a client holds one at a time.
        let full = connection.file || cx.send_capacity(connection.id) < RESPONSE_HEAD + CONTINUE.len();
        connection.blocked = !connection.drained && full;
        if connection.blocked {
            return Ok(None);
        }
        if search.is_behind(input) {
            connection.since = cx.now();
        }
        search.since.get_or_insert(cx.now());
        match search.end(input, &limits)? {
            Some(end) => {
                let (head, rest) = input.split_at(end);
                let taken = self.request(cx, key, head, rest)?;
                Ok(Some(end + taken))
            }
            None => Ok(None),
        }
    }

    /// A whole head. Returns how much of what follows it was taken with it.
    fn request(&mut self, cx: &mut Context<'_>, key: usize, head: &[u8], rest: &[u8]) -> Result<usize, Rejection> {
        let mut fields = Fields::new();
        let (request, framing) = Request::parse(head, &mut fields, &self.core.limits)?;
        let connection = self.connection(key);
        connection.version = request.version();
        connection.head_only = request.method() == "HEAD";
        connection.begun = cx.now();
        connection.is_last = !framing.keep_alive;
        connection.keep_alive = framing.keep_alive;
        connection.since = cx.now();
        if !framing.has_body() {
            connection.reading = Reading::AwaitingResponse;
            self.hand_over(cx, key, &request);
            return Ok(0);
        }
        match self.handler.body(&request) {
            Body::Collect(limit) => self.collect(cx, key, &request, framing, head, rest, limit),
            Body::Skip => {
                self.skip(key, framing);
                self.hand_over(cx, key, &request);
                Ok(0)
            }
            Body::Stream => {
                self.connection(key).reading = Reading::Body(Decoder::new(framing.length), Sink::Stream);
                self.go_ahead(cx, key, framing, rest);
                self.hand_over(cx, key, &request);
                Ok(0)
            }
            Body::Refuse(status) => Err(Rejection::new(status, "")),
        }
    }

    pub(super) fn hand_over(&mut self, cx: &mut Context<'_>, key: usize, request: &Request<'_>) {
        let id = self.core.begin(key);
        self.call_handler(cx, |handler, http| handler.on_request(http, id, request));
        self.settle(cx);
    }

    /// Bytes behind an upgrade.
    fn raw(&mut self, cx: &mut Context<'_>, key: usize, input: &[u8]) -> Option<usize> {
        let id = self.core.current(key)?;
        let taken = self.call_handler(cx, |handler, http| handler.on_data(http, id, input)).min(input.len());
        self.settle(cx);
        let connection = self.connection(key);
        connection.since = cx.now();
        connection.paused = taken < input.len();
        (taken > 0 || connection.exchange == 0).then_some(taken)
    }

    /// The client has ended its half, and nothing stands in the way of what is left of its input.
    fn cut_short(&mut self, cx: &mut Context<'_>, key: usize) {
        let connection = self.connection(key);
        match &connection.reading {
            Reading::Head(_) if connection.blocked => {}
            Reading::Head(_) if !connection.unconsumed => cx.finish(connection.id),
            Reading::Body(..) if connection.paused => {}
            Reading::Body(_, Sink::Skip(_)) if connection.exchange != 0 => {
                connection.keep_alive = false;
                connection.reading = Reading::Discarding;
            }
            Reading::Body(_, Sink::Skip(_)) => cx.finish(connection.id),
            Reading::Head(_) | Reading::Body(..) => self.core.refuse(cx, key, TRUNCATED),
            Reading::AwaitingResponse | Reading::Upgraded | Reading::Discarding => {}
        }
        self.settle(cx);
    }

    /// Asks the handler what the end of the client's half means to an exchange, once.
    fn tell_eof(&mut self, cx: &mut Context<'_>, key: usize) -> EofAction {
        let Some(id) = self.core.current(key) else { return EofAction::Keep };
        if mem::replace(&mut self.connection(key).eof_reported, id.serial) == id.serial {
            return EofAction::Keep;
        }
        let eof = self.call_handler(cx, |handler, http| handler.on_eof(http, id));
        self.settle(cx);
        eof
    }
}

impl<H: Handler> Service for Http<H> {
    type Conn = Conn;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> Conn {
        let key = self.core.connections.insert(Connection::new(id, listener, cx.now()));
        self.core.arm(cx, key);
        Conn(key)
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Conn, input: &[u8]) -> usize {
        let key = conn.0;
        self.connection(key).serving = true;
        let mut taken = 0;
        while let Some(n) = self.step(cx, key, input.get(taken..).unwrap_or_default()) {
            taken = input.len().min(taken + n);
        }
        let connection = self.connection(key);
        connection.serving = false;
        connection.unconsumed = taken < input.len();
        if connection.eof {
            self.cut_short(cx, key);
            match self.tell_eof(cx, key) {
                EofAction::Keep => {}
                EofAction::Finish => cx.finish(id),
                EofAction::Abort => cx.abort(id),
            }
        }
        self.core.arm(cx, key);
        taken
    }

    /// A client may end its half when it has asked for all that it wants, and still reads.
    fn on_eof(&mut self, cx: &mut Context<'_>, _: ConnId, conn: &mut Conn) -> EofAction {
        let key = conn.0;
        let connection = self.connection(key);
        connection.eof = true;
        self.cut_short(cx, key);
        let eof = self.tell_eof(cx, key);
        self.core.arm(cx, key);
        eof
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, _: ConnId, conn: &mut Conn) {
        let key = conn.0;
        let connection = self.connection(key);
        connection.drained = true;
        connection.file = false;
        connection.since = cx.now();
        if mem::take(&mut connection.blocked) {
            cx.resume(connection.id);
        }
        self.core.send_rest(cx, key);
        if let Some(id) = self.core.streaming(key) {
            self.call_handler(cx, |handler, http| handler.on_room(http, id));
        }
        self.settle(cx);
        self.core.arm(cx, key);
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, _: ConnId, conn: &mut Conn) {
        let (key, now) = (conn.0, cx.now());
        let current = self.core.current(key);
        let limits = self.core.limits;
        let connection = self.connection(key);
        if connection.deadline.is_some_and(|at| at <= now) {
            connection.deadline = None;
            if let Some(id) = current {
                self.call_handler(cx, |handler, http| handler.on_deadline(http, id));
            }
        }
        let connection = self.connection(key);
        let late = connection.due(cx, &limits).filter(|(at, _)| *at <= now).map(|(_, late)| late);
        match late {
            Some(Timeout::Head | Timeout::Body) => self.core.refuse(cx, key, SLOW),
            Some(Timeout::Idle) => {
                connection.reading = Reading::Discarding;
                cx.finish(connection.id);
            }
            Some(Timeout::Stalled) => cx.abort(connection.id),
            None => {}
        }
        self.settle(cx);
        self.core.arm(cx, key);
    }

    fn on_close(&mut self, cx: &mut Context<'_>, _: ConnId, conn: Conn, _: Closed) {
        self.core.end(conn.0, Outcome::Aborted);
        self.core.connections.remove(conn.0);
        self.settle(cx);
    }

    /// A newcomer that is turned away has most likely asked for a page.
    fn is_request_complete(&self, _: ListenerId, input: &[u8]) -> bool {
        let mut search = Search::default();
        let end = search.end(input, &self.core.limits);
        end == Ok(Some(input.len())) && (input.starts_with(b"GET ") || input.starts_with(b"HEAD "))
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        self.core.stopping = true;
        for (_, connection) in &mut self.core.connections {
            if connection.is_idle() {
                cx.finish(connection.id);
            } else if connection.is_behind() {
                connection.reading = Reading::Discarding;
                cx.finish_lingering(connection.id);
            }
        }
        self.call_handler(cx, |handler, http| handler.on_shutdown(http));
        self.settle(cx);
    }
}
