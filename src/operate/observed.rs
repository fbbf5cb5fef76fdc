//! Any service with its counts over HTTP, on a listener of their own.

use super::metrics::Text;
use super::workers::Workers;
use crate::context::Context;
use crate::http::{Clock, Conn, ExchangeId, Guard, Handler, Http, Request, Responder, Status};
use crate::id::{ConnId, ListenerId};
use crate::net::{Address, Handle, Peer};
use crate::service::{Closed, EofAction, Service};
use std::time::Instant;

/// A service that tells its own counts.
pub trait Metrics {
    /// Adds the counts of the service to those of the loop.
    fn metrics(&self, text: &mut Text);
}

/// A handler tells them for its service.
impl<H: Handler + Metrics> Metrics for Http<H> {
    fn metrics(&self, text: &mut Text) {
        self.handler().metrics(text);
    }
}

/// A service, and `GET /metrics` in the text format of Prometheus on the listener [`listener`](Observed::listener).
///
/// The service sees nothing of it.
#[derive(Debug)]
pub struct Observed<S> {
    service: S,
    http: Http<Scrape>,
    name: &'static str,
    listener: ListenerId,
    /// How many connections the service has, and how many ask for counts.
    conns: [usize; 2],
    start: Instant,
    /// The loops of which this is one, and its number.
    workers: Option<(Workers, usize)>,
    /// Those who have asked, and wait for the counts of other loops.
    waiting: Vec<ExchangeId>,
}

/// The state of a connection.
#[derive(Debug)]
pub struct ObservedConn<C>(Kind<C>);

#[derive(Debug)]
enum Kind<C> {
    Own(C),
    Scrape(Conn),
}

/// The handler of the counts: it notes who asks.
#[derive(Debug)]
struct Scrape {
    guard: Guard,
    asked: Vec<ExchangeId>,
}

impl<S: Service + Metrics> Observed<S> {
    /// Observes a service, whose metrics begin with `name`. The listener is still to be opened, on `addresses`, if
    /// there are any. On loopback, requests have to name a host of loopback.
    pub fn new(name: &'static str, service: S, addresses: &[Address], start: Instant) -> Observed<S> {
        let loopback = addresses.iter().any(Address::is_loopback);
        let scrape = Scrape { guard: Guard::new(&[], &[], loopback), asked: Vec::new() };
        let http = Http::new(scrape, Clock::system());
        let (workers, waiting) = (None, Vec::new());
        Observed { service, http, name, listener: ListenerId::new(), conns: [0; 2], start, workers, waiting }
    }

    /// Returns the id for the listener of the counts.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }

    /// Returns the service.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Returns the service, to be changed.
    pub fn service_mut(&mut self) -> &mut S {
        &mut self.service
    }

    /// Makes the loop of this service, which has that handle, one of several that are one server: each tells the
    /// counts of all.
    pub fn join(&mut self, workers: &Workers, handle: Handle) {
        self.workers = Some((workers.clone(), workers.join(handle)));
    }

    /// Has the other loops tell their counts, and answers those who have asked when all have.
    fn answer(&mut self, cx: &mut Context<'_>) {
        let asked = std::mem::take(&mut self.http.handler_mut().asked);
        match &self.workers {
            Some((workers, number)) if !asked.is_empty() && self.waiting.is_empty() => workers.ask(*number),
            _ => {} // nothing new is wanted, or what has been asked for will do
        }
        self.waiting.extend(asked);
        if self.waiting.is_empty() {
            return;
        }
        let mut text = self.counts(cx);
        if self.workers.as_ref().is_some_and(|(workers, number)| !workers.complete(*number, &mut text)) {
            return;
        }
        text.of_uptime(cx.now() - self.start);
        for id in self.waiting.drain(..) {
            self.http.call(cx, |_, http| {
                let reply = http.respond(id, Status::OK).header("Content-Type", Text::MEDIA);
                reply.header("Cache-Control", "no-store").body(text.as_str().as_bytes());
            });
        }
    }

    /// Returns the counts of this loop.
    fn counts(&self, cx: &Context<'_>) -> Text {
        let mut text = Text::new(self.name);
        text.of_loop(cx.stats());
        text.by_listener([(self.name, self.conns[0]), ("metrics", self.conns[1])]);
        self.service.metrics(&mut text);
        text
    }

    /// Calls the half that a connection belongs to.
    fn either<R>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut ObservedConn<S::Conn>,
        own: impl FnOnce(&mut S, &mut Context<'_>, &mut S::Conn) -> R,
        scrape: impl FnOnce(&mut Http<Scrape>, &mut Context<'_>, &mut Conn) -> R,
    ) -> R {
        match &mut conn.0 {
            Kind::Own(conn) => own(&mut self.service, cx, conn),
            Kind::Scrape(conn) => {
                let result = scrape(&mut self.http, cx, conn);
                self.answer(cx);
                result
            }
        }
    }
}

impl Handler for Scrape {
    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        match (request.method(), request.path()) {
            _ if !self.guard.allows_host(request) => http.respond(id, Status::FORBIDDEN).error_page(),
            ("GET" | "HEAD", "/metrics") => self.asked.push(id),
            (_, "/metrics") => http.respond(id, Status::METHOD_NOT_ALLOWED).header("Allow", "GET, HEAD").error_page(),
            _ => http.respond(id, Status::NOT_FOUND).error_page(),
        }
    }
}

impl<S: Service + Metrics> Service for Observed<S> {
    type Conn = ObservedConn<S::Conn>;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> Self::Conn {
        self.conns[usize::from(listener == self.listener)] += 1;
        ObservedConn(match listener == self.listener {
            true => Kind::Scrape(self.http.on_open(cx, id, listener)),
            false => Kind::Own(self.service.on_open(cx, id, listener)),
        })
    }

    fn on_connect(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn) {
        self.either(cx, conn, |own, cx, at| own.on_connect(cx, id, at), |http, cx, at| http.on_connect(cx, id, at));
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn, input: &[u8]) -> usize {
        self.either(
            cx,
            conn,
            |own, cx, at| own.on_data(cx, id, at, input),
            |http, cx, at| http.on_data(cx, id, at, input),
        )
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn) -> EofAction {
        self.either(cx, conn, |own, cx, at| own.on_eof(cx, id, at), |http, cx, at| http.on_eof(cx, id, at))
    }

    fn on_early_eof(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn) {
        self.either(cx, conn, |own, cx, at| own.on_early_eof(cx, id, at), |http, cx, at| http.on_early_eof(cx, id, at));
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn) {
        self.either(cx, conn, |own, cx, at| own.on_drain(cx, id, at), |http, cx, at| http.on_drain(cx, id, at));
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn) {
        self.either(cx, conn, |own, cx, at| own.on_deadline(cx, id, at), |http, cx, at| http.on_deadline(cx, id, at));
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, conn: Self::Conn, closed: Closed) {
        self.conns[usize::from(matches!(conn.0, Kind::Scrape(_)))] -= 1;
        match conn.0 {
            Kind::Own(conn) => self.service.on_close(cx, id, conn, closed),
            Kind::Scrape(conn) => self.http.on_close(cx, id, conn, closed),
        }
    }

    fn is_request_complete(&self, listener: ListenerId, input: &[u8]) -> bool {
        match listener == self.listener {
            true => self.http.is_request_complete(listener, input),
            false => self.service.is_request_complete(listener, input),
        }
    }

    fn is_welcome(&self, listener: ListenerId, peer: &Peer) -> bool {
        listener == self.listener || self.service.is_welcome(listener, peer)
    }

    fn make_way(&mut self, listener: ListenerId) -> Option<ConnId> {
        match listener == self.listener {
            true => self.http.make_way(listener),
            false => self.service.make_way(listener),
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>) {
        self.service.on_timer(cx); // the counts need none
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        if let Some((workers, number)) = &self.workers {
            workers.tell(*number, || self.counts(cx));
        }
        self.answer(cx);
        self.service.on_wake(cx);
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        self.service.on_shutdown(cx);
        self.http.on_shutdown(cx);
    }
}
