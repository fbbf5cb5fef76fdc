//! A service with a link to an engine, as one service of one loop.

use super::link::{Link, LinkEvent};
use super::security::explain;
use crate::context::Context;
use crate::http::{Handler, Http, Responder};
use crate::id::{ConnId, ListenerId};
use crate::net::Peer;
use crate::operate::{Metrics, Observed};
use crate::service::{CloseReason, Closed, EofAction, Service};
use std::io::ErrorKind;
use std::time::Instant;

/// A service that talks to an engine.
pub trait Engaged: Service {
    /// The link has something to tell.
    fn on_link(&mut self, cx: &mut Context<'_>, link: &mut Link, event: LinkEvent);

    /// Something has happened, be it on a connection or on the link: says to the engine what there is to say.
    /// `link` may be down. Returns whether the link is to be kept.
    fn settle(&mut self, cx: &mut Context<'_>, link: &mut Link) -> bool;

    /// Returns whether it has to work off what it has heard before it hears more: the engine is held back.
    fn is_behind(&self) -> bool {
        false
    }

    /// Returns when its [timer](Service::on_timer) is due, or something is to be said: the loop has one timer, which is
    /// set to the sooner of this and the link's.
    fn timer(&self, link: &Link) -> Option<Instant>;
}

/// A handler of HTTP that talks to an engine: as [`Engaged`].
pub trait EngagedHandler: Handler {
    /// The link has something to tell.
    fn on_link(&mut self, http: &mut Responder<'_>, link: &mut Link, event: LinkEvent);

    /// Says to the engine what there is to say. Returns whether the link is to be kept.
    fn settle(&mut self, http: &mut Responder<'_>, link: &mut Link) -> bool;

    /// Returns whether it has to work off what it has heard before it hears more.
    fn is_behind(&self) -> bool {
        false
    }

    /// Returns when its timer is due.
    fn timer(&self) -> Option<Instant>;
}

impl<H: EngagedHandler> Engaged for Http<H> {
    fn on_link(&mut self, cx: &mut Context<'_>, link: &mut Link, event: LinkEvent) {
        self.call(cx, |handler, http| handler.on_link(http, link, event));
    }

    fn settle(&mut self, cx: &mut Context<'_>, link: &mut Link) -> bool {
        self.call(cx, |handler, http| handler.settle(http, link))
    }

    fn is_behind(&self) -> bool {
        self.handler().is_behind()
    }

    fn timer(&self, _: &Link) -> Option<Instant> {
        self.handler().timer()
    }
}

impl<S: Engaged + Metrics> Engaged for Observed<S> {
    fn on_link(&mut self, cx: &mut Context<'_>, link: &mut Link, event: LinkEvent) {
        self.service_mut().on_link(cx, link, event);
    }

    fn settle(&mut self, cx: &mut Context<'_>, link: &mut Link) -> bool {
        self.service_mut().settle(cx, link)
    }

    fn is_behind(&self) -> bool {
        self.service().is_behind()
    }

    fn timer(&self, link: &Link) -> Option<Instant> {
        self.service().timer(link)
    }
}

/// A service and its link. The listener for the connections to the engine is [`listener`](Linked::listener).
#[derive(Debug)]
pub struct Linked<S> {
    service: S,
    link: Link,
    listener: ListenerId,
}

/// The state of a connection.
#[derive(Debug)]
pub struct LinkedConn<C>(Kind<C>);

#[derive(Debug)]
enum Kind<C> {
    Own(C),
    Engine,
}

impl<S: Engaged> Linked<S> {
    /// Connections to an engine: one, and one that is being replaced.
    pub const CONNS: usize = 2;

    /// Links `service` to an engine. The listener of `link` is still to be opened: it has no address, and
    /// [`CONNS`](Self::CONNS) connections.
    pub fn new(service: S, link: Link) -> Linked<S> {
        let listener = link.listener();
        Linked { service, link, listener }
    }

    /// Returns the id of the listener.
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

    /// Connects to the engine. Call it once the loop has its listeners.
    pub fn start(&mut self, cx: &mut Context<'_>) {
        self.settle(cx);
    }

    fn settle(&mut self, cx: &mut Context<'_>) {
        match self.service.settle(cx, &mut self.link) {
            true => {
                if let Some(event) = self.link.tend(cx) {
                    self.service.on_link(cx, &mut self.link, event);
                }
            }
            false => self.link.close(cx),
        }
        if self.link.is_held() && !self.service.is_behind() {
            self.link.hold(cx, false);
        }
        cx.set_timer([self.service.timer(&self.link), self.link.due()].into_iter().flatten().min());
    }

    /// Calls the half that a connection belongs to, and goes on.
    fn either<R>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut LinkedConn<S::Conn>,
        own: impl FnOnce(&mut S, &mut Context<'_>, &mut S::Conn) -> R,
        engine: impl FnOnce(&mut S, &mut Context<'_>, &mut Link) -> R,
    ) -> R {
        let result = match &mut conn.0 {
            Kind::Own(conn) => own(&mut self.service, cx, conn),
            Kind::Engine => engine(&mut self.service, cx, &mut self.link),
        };
        self.settle(cx);
        result
    }
}

impl<S: Engaged> Service for Linked<S> {
    type Conn = LinkedConn<S::Conn>;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> Self::Conn {
        LinkedConn(match listener == self.listener {
            true => Kind::Engine,
            false => Kind::Own(self.service.on_open(cx, id, listener)),
        })
    }

    fn on_connect(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn) {
        self.either(cx, conn, |own, cx, conn| own.on_connect(cx, id, conn), |_, _, _| {});
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn, input: &[u8]) -> usize {
        self.either(
            cx,
            conn,
            |own, cx, conn| own.on_data(cx, id, conn, input),
            |own, cx, link| {
                if own.is_behind() {
                    link.hold(cx, true);
                    return 0;
                }
                let (len, event) = link.on_data(cx, id, input);
                if let Some(event) = event {
                    own.on_link(cx, link, event);
                }
                len
            },
        )
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn) -> EofAction {
        self.either(cx, conn, |own, cx, conn| own.on_eof(cx, id, conn), |_, _, _| EofAction::Abort)
    }

    fn on_early_eof(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn) {
        self.either(cx, conn, |own, cx, conn| own.on_early_eof(cx, id, conn), |_, _, _| {});
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn) {
        self.either(cx, conn, |own, cx, conn| own.on_drain(cx, id, conn), |_, _, _| {});
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn) {
        self.either(
            cx,
            conn,
            |own, cx, conn| own.on_deadline(cx, id, conn),
            |own, cx, link| {
                if let Some(event) = link.on_deadline(cx, id) {
                    own.on_link(cx, link, event);
                }
            },
        );
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, conn: Self::Conn, closed: Closed) {
        match conn.0 {
            Kind::Own(conn) => self.service.on_close(cx, id, conn, closed),
            Kind::Engine => {
                if let Some(event) = self.link.on_close(cx, id, reason(&closed.reason)) {
                    self.service.on_link(cx, &mut self.link, event);
                }
            }
        }
        self.settle(cx);
    }

    fn is_request_complete(&self, listener: ListenerId, input: &[u8]) -> bool {
        self.service.is_request_complete(listener, input)
    }

    fn is_welcome(&self, listener: ListenerId, peer: &Peer) -> bool {
        self.service.is_welcome(listener, peer)
    }

    fn make_way(&mut self, listener: ListenerId) -> Option<ConnId> {
        self.service.make_way(listener)
    }

    fn on_timer(&mut self, cx: &mut Context<'_>) {
        if self.service.timer(&self.link).is_some_and(|at| at <= cx.now()) {
            self.service.on_timer(cx);
        }
        self.settle(cx);
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        self.service.on_wake(cx);
        self.settle(cx);
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        self.service.on_shutdown(cx);
        self.settle(cx);
    }
}

fn reason(reason: &CloseReason) -> String {
    match reason {
        CloseReason::Failed(error) if error.kind() != ErrorKind::UnexpectedEof => explain(error),
        CloseReason::InputFull => "its answer is longer than the input buffer".to_owned(),
        _ => "it has closed the connection".to_owned(),
    }
}
