//! The layer as a service of the loop.

use super::body::Part;
use super::clock::Clock;
use super::connection::{Connection, Head, Reading, Sink, Timeout};
use super::exchange::Core;
use super::handler::{Body, Handler};
use super::head::Search;
use super::id::Outcome;
use super::limits::{Limits, RESPONSE_HEAD};
use super::rejected_request::RejectedRequest;
use super::request::{Fields, Request};
use super::responder::Responder;
use super::response_head::{ResponseHead, error_page};
use super::status::{Rejection, Status};
use super::syntax::is_value;
use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use crate::net::Peer;
use crate::service::{Closed, EofAction, Service};

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
        Http { handler, core: Core::new(ResponseHead::new(clock)) }
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.core.limits = limits;
        self
    }

    /// Sets how many connections there may be from one address; an IPv6 network of 64 bits counts as one, and
    /// Unix sockets do not count. More are rejected. Behind a proxy all clients have its address.
    pub fn max_per_address(mut self, conns: usize) -> Self {
        self.core.per_address = Some(conns);
        self
    }

    /// Sets the limits from here on. Connections that are open, and wait, keep the old ones until
    /// something comes of them.
    pub fn set_limits(&mut self, limits: Limits) {
        self.core.limits = limits;
    }

    /// Names the server in all responses: `Server` (RFC 9110, section 10.2.4). A name that cannot be the
    /// value of a field is left out.
    pub fn server(mut self, name: &str) -> Self {
        let line = if is_value(name.as_bytes()) { format!("Server: {name}\r\n").into() } else { Vec::new() };
        self.core.head.set_server(line);
        self
    }

    /// Sets the clock anew, for example after the wall clock has been set.
    pub fn set_clock(&mut self, clock: Clock) {
        self.core.head.set_clock(clock);
    }

    /// Returns the handler, to be changed.
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.handler
    }

    /// Returns the handler.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Calls into the handler from outside, for a timer or a signal of the tool around the loop. The
    /// context comes from [`EventLoop::call`](crate::EventLoop::call).
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
    pub(super) fn tell_ended(&mut self, cx: &mut Context<'_>) {
        while let Some((id, outcome)) = self.core.take_ended() {
            self.call_handler(cx, |handler, http| handler.on_close(http, id, outcome));
        }
    }

    /// Ends every entry point: the handler is told of what is over, and deadlines are set.
    fn settle(&mut self, cx: &mut Context<'_>) {
        self.tell_ended(cx);
        self.core.arm(cx);
    }

    /// Takes what it can from the front of a connection's input; `None` if it can do nothing more
    /// with it for now. A step that takes no bytes brings the connection forward even so.
    fn step(&mut self, cx: &mut Context<'_>, key: usize, input: &[u8]) -> Option<usize> {
        let connection = self.core.connection(key)?;
        let conn = connection.id();
        if !cx.is_open(conn) {
            return None;
        }
        let step = match connection.reading() {
            Reading::Head(_) | Reading::Upgraded | Reading::Discarding if input.is_empty() => return None,
            Reading::Body(..) if connection.is_waiting() => return None,
            Reading::Head(_) => self.head(cx, key, input),
            Reading::Body(..) => self.body(cx, key, input),
            Reading::Upgraded => return self.upgraded(cx, key, input),
            Reading::Discarding => return Some(input.len()),
            Reading::AwaitingResponse => {
                if !input.is_empty() {
                    cx.pause(conn); // until the response is complete
                }
                return None;
            }
        };
        step.unwrap_or_else(|rejection| {
            let is_head = self.core.connection(key).is_some_and(|at| matches!(at.reading(), Reading::Head(_)));
            self.reject(cx, key, rejection, if is_head { input } else { b"" });
            Some(input.len())
        })
    }

    /// Answers a request that is not served with a page, and ends its connection. `head` is what is at hand
    /// of its head.
    pub(super) fn reject(&mut self, cx: &mut Context<'_>, key: usize, rejection: Rejection, head: &[u8]) {
        let Some(conn) = self.core.connection(key).map(|connection| connection.id()) else { return };
        log::debug!("{conn}: {}: {}", rejection.status, rejection.why);
        let Some(kept) = self.core.give_up(cx, key) else { return };
        let page = error_page(rejection.status, rejection.why);
        let head = if kept.is_empty() { head } else { &kept };
        let request = RejectedRequest { status: rejection.status, peer: cx.peer(conn), bytes: page.len(), head };
        let fields = self.call_handler(cx, |handler, http| handler.on_rejection(http, &request));
        self.core.reject(cx, key, rejection, &page, &fields);
    }

    /// Goes on with a head, and what follows it.
    fn head(&mut self, cx: &mut Context<'_>, key: usize, input: &[u8]) -> Result<Option<usize>, Rejection> {
        let limits = self.core.limits;
        let Some(connection) = self.core.connection(key) else { return Ok(None) };
        // A file costs no room, but a descriptor: a client holds one at a time.
        let full = connection.has_file() || cx.send_capacity(connection.id()) < RESPONSE_HEAD + CONTINUE.len();
        match connection.head(input, full, &limits, cx.now())? {
            Head::Part => Ok(None),
            Head::EmptyLines(len) => Ok(Some(len)),
            Head::Whole(end) => {
                let (head, rest) = input.split_at(end);
                let taken = self.request(cx, key, head, rest)?;
                Ok(Some(end + taken))
            }
        }
    }

    /// Takes a whole head. Returns how much of what follows it was taken with it.
    fn request(&mut self, cx: &mut Context<'_>, key: usize, head: &[u8], rest: &[u8]) -> Result<usize, Rejection> {
        let mut fields = Fields::new();
        let (request, framing) = Request::parse(head, &mut fields, &self.core.limits)?;
        let Some(connection) = self.core.connection(key) else { return Ok(0) };
        let request = request.with_peer(cx.peer(connection.id()));
        connection.request(request.version(), request.method() == "HEAD", framing.keep_alive, cx.now());
        if !framing.has_body() {
            connection.await_response();
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
                self.read_body(cx, key, framing, Sink::Stream, rest);
                self.hand_over(cx, key, &request);
                Ok(0)
            }
            Body::Reject(status) => Err(Rejection::new(status, "")),
        }
    }

    /// Goes on with a body.
    fn body(&mut self, cx: &mut Context<'_>, key: usize, input: &[u8]) -> Result<Option<usize>, Rejection> {
        let Some((decoder, _)) = self.core.connection(key).and_then(Connection::body) else { return Ok(None) };
        match decoder.next(input)? {
            (passed, Part::Data(data)) => Ok(Some(passed + self.data(cx, key, data))),
            (passed, Part::End) => {
                self.body_end(cx, key);
                Ok(Some(passed))
            }
            (0, Part::More) => Ok(None),
            (passed, Part::More) => {
                self.core.connection(key).into_iter().for_each(|connection| connection.progress(cx.now()));
                Ok(Some(passed))
            }
        }
    }

    pub(super) fn hand_over(&mut self, cx: &mut Context<'_>, key: usize, request: &Request<'_>) {
        let id = self.core.begin(key);
        self.call_handler(cx, |handler, http| handler.on_request(http, id, request));
        self.tell_ended(cx);
    }

    /// Offers the handler bytes behind an upgrade.
    fn upgraded(&mut self, cx: &mut Context<'_>, key: usize, input: &[u8]) -> Option<usize> {
        let id = self.core.current(key)?;
        self.core.connection(key)?.pause(false);
        let taken = self.call_handler(cx, |handler, http| handler.on_data(http, id, input)).min(input.len());
        self.tell_ended(cx);
        let connection = self.core.connection(key)?;
        connection.progress(cx.now());
        if taken < input.len() {
            connection.pause(true); // as the handler does, perhaps, that has taken all
        }
        (taken > 0 || connection.exchange().is_none()).then_some(taken)
    }

    /// Ends what the client has begun, if it has ended its half and no more input will come.
    fn cut_short(&mut self, cx: &mut Context<'_>, key: usize) {
        let Some(connection) = self.core.connection(key) else { return };
        let conn = connection.id();
        match connection.reading() {
            Reading::Head(_) | Reading::Body(..) if connection.is_waiting() => {}
            Reading::Head(_) if !connection.has_unconsumed() => cx.finish(conn),
            Reading::Body(_, Sink::Skip(_)) if connection.exchange().is_some() => connection.discard(),
            Reading::Body(_, Sink::Skip(_)) => cx.finish(conn),
            Reading::Head(_) | Reading::Body(..) => self.reject(cx, key, TRUNCATED, b""),
            Reading::AwaitingResponse | Reading::Upgraded | Reading::Discarding => {}
        }
        self.tell_ended(cx);
    }

    /// Asks the handler what the end of the client's half means to an exchange, once.
    fn tell_eof(&mut self, cx: &mut Context<'_>, key: usize) -> EofAction {
        self.cut_short(cx, key);
        match self.core.connection(key).and_then(Connection::report_eof) {
            Some(id) => self.call_handler(cx, |handler, http| handler.on_eof(http, id)),
            None => EofAction::Keep,
        }
    }
}

impl<H: Handler> Service for Http<H> {
    type Conn = Conn;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> Conn {
        let key = self.core.insert(Connection::new(id, listener, cx.now()), cx.peer(id));
        self.settle(cx);
        Conn(key)
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Conn, input: &[u8]) -> usize {
        let key = conn.0;
        self.core.connection(key).into_iter().for_each(Connection::offer);
        let mut taken = 0;
        while let Some(n) = self.step(cx, key, input.get(taken..).unwrap_or_default()) {
            taken = input.len().min(taken + n);
        }
        let ended = self.core.connection(key).is_some_and(|connection| {
            connection.offered(taken < input.len());
            connection.has_ended()
        });
        if ended {
            match self.tell_eof(cx, key) {
                EofAction::Keep => {}
                EofAction::Finish => cx.finish(id),
                EofAction::Abort => cx.abort(id),
            }
        }
        self.settle(cx);
        taken
    }

    /// A client may end its half when it has asked for all that it wants, and still reads.
    fn on_eof(&mut self, cx: &mut Context<'_>, _: ConnId, conn: &mut Conn) -> EofAction {
        self.core.connection(conn.0).into_iter().for_each(Connection::eof);
        let eof = self.tell_eof(cx, conn.0);
        self.settle(cx);
        eof
    }

    /// A client has asked for more than it is waiting for, and ended its half. An exchange may wait for
    /// long, so its handler is asked now.
    fn on_early_eof(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Conn) {
        let waiting = self.core.connection(conn.0).filter(|at| matches!(at.reading(), Reading::AwaitingResponse));
        if let Some(exchange) = waiting.and_then(Connection::report_eof) {
            match self.call_handler(cx, |handler, http| handler.on_eof(http, exchange)) {
                EofAction::Keep => {}
                EofAction::Finish => cx.finish(id),
                EofAction::Abort => cx.abort(id),
            }
        }
        self.settle(cx);
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Conn) {
        let now = cx.now();
        if self.core.connection(conn.0).is_some_and(|connection| connection.drained(now)) {
            cx.resume(id);
        }
        self.core.send_rest(cx, conn.0);
        if let Some(id) = self.core.streaming(conn.0) {
            self.call_handler(cx, |handler, http| handler.on_room(http, id));
        }
        self.settle(cx);
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Conn) {
        let (key, now, limits) = (conn.0, cx.now(), self.core.limits);
        if let Some(id) = self.core.connection(key).and_then(|connection| connection.take_deadline(now)) {
            self.call_handler(cx, |handler, http| handler.on_deadline(http, id));
        }
        let due = self.core.connection(key).and_then(|connection| connection.due(cx, &limits));
        match due.filter(|(at, _)| *at <= now).map(|(_, late)| late) {
            Some(Timeout::Head | Timeout::Body) => self.reject(cx, key, SLOW, b""),
            Some(Timeout::Idle) => {
                self.core.connection(key).into_iter().for_each(Connection::discard);
                cx.finish(id);
            }
            Some(Timeout::Stalled) => cx.abort(id),
            None => {}
        }
        self.settle(cx);
    }

    fn on_close(&mut self, cx: &mut Context<'_>, _: ConnId, conn: Conn, _: Closed) {
        self.core.end(conn.0, Outcome::Aborted);
        self.core.remove(conn.0);
        self.settle(cx);
    }

    fn is_welcome(&self, _: ListenerId, peer: &Peer) -> bool {
        self.core.is_welcome(peer)
    }

    /// The connection that has waited longest for a request gives way to a newcomer. Its client will ask on
    /// another one, if it asks again.
    fn make_way(&mut self, listener: ListenerId) -> Option<ConnId> {
        self.core.longest_idle(listener)
    }

    /// Takes a newcomer that is rejected for one that has asked for a page.
    fn is_request_complete(&self, _: ListenerId, input: &[u8]) -> bool {
        let mut search = Search::default();
        let end = search.end(input, &self.core.limits);
        end == Ok(Some(input.len())) && (input.starts_with(b"GET ") || input.starts_with(b"HEAD "))
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        self.call_handler(cx, |handler, http| handler.on_wake(http));
        self.settle(cx);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>) {
        self.call_handler(cx, |handler, http| handler.on_timer(http));
        self.settle(cx);
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        self.core.stopping = true;
        for key in self.core.keys() {
            let Some(connection) = self.core.connection(key) else { continue };
            if connection.is_idle() {
                cx.finish(connection.id());
            } else if connection.is_behind() {
                connection.discard();
                cx.finish_lingering(connection.id());
            }
        }
        self.call_handler(cx, |handler, http| handler.on_shutdown(http));
        self.settle(cx);
    }
}
