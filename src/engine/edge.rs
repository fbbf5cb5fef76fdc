//! The stack of an engine as a service: the stack, its HTTP face, and the link to the engine.

use super::link::{Link, LinkEvent};
use super::script::{Said, other_capacity};
use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use crate::operate::{Operated, OperatedConn};
use crate::service::{CloseReason, Closed, EofAction, Service};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// An edge of a shared stack. Its listener for the connection to the engine is [`listener`](Edge::listener).
#[derive(Debug)]
pub struct Edge {
    operated: Operated,
    link: Link,
    listener: ListenerId,
    /// The edge leaves the engine when its last client is gone.
    is_stopping: bool,
    /// Why it cannot go on.
    failure: Option<String>,
}

/// The state of a connection.
#[derive(Debug)]
pub struct EdgeConn(Kind);

#[derive(Debug)]
enum Kind {
    Client(OperatedConn),
    Engine,
}

impl Edge {
    /// Shares the stack of an engine: that of `operated` is empty. `link` makes the link by way of a listener, for an
    /// edge.
    pub fn new(mut operated: Operated, link: impl FnOnce(ListenerId, u64) -> Link) -> Edge {
        let (listener, edge) = (ListenerId::new(), new_name());
        operated.stack_mut().share(edge);
        let link = link(listener, edge);
        Edge { operated, link, listener, is_stopping: false, failure: None }
    }

    /// Returns the id for the listener of the connection to the engine. It has no address, and two connections.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }

    /// Returns the stack with its face.
    pub fn operated(&self) -> &Operated {
        &self.operated
    }

    /// Connects to the engine. Call it once the loop has its listeners.
    pub fn start(&mut self, cx: &mut Context<'_>) {
        self.settle(cx);
    }

    /// Returns why the loop has stopped, if it did so by itself.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Says to the engine what there is to say, and sets the timer for what is next.
    fn settle(&mut self, cx: &mut Context<'_>) {
        if self.is_stopping && self.operated.stack().clients().next().is_none() {
            self.operated.stack_mut().leave();
        }
        if self.operated.stack().has_left() || self.failure.is_some() {
            self.link.close(cx);
        } else {
            self.link.tend(cx);
        }
        self.speak(cx);
        self.operated.set_engine(self.link.state());
        let batch = self.operated.stack().batch_due().filter(|_| self.link.is_ready());
        cx.set_timer([self.operated.timer(), self.link.due(), batch].into_iter().flatten().min());
    }

    fn speak(&mut self, cx: &mut Context<'_>) {
        if !self.link.is_ready() {
            return;
        }
        let stack = self.operated.stack_mut();
        let capacity = stack.capacity();
        if let Some(batch) = stack.next_batch(cx.now()) {
            self.link.run(cx, capacity, batch);
        }
    }

    fn hear(&mut self, cx: &mut Context<'_>, event: LinkEvent) {
        match event {
            LinkEvent::Ready => {
                let stack = self.operated.stack_mut();
                let capacity = stack.capacity();
                if let Some(batch) = stack.unanswered_batch(cx.now()) {
                    self.link.run(cx, capacity, batch);
                }
            }
            LinkEvent::Said(Said::Told(told)) => self.operated.on_stack(cx, |stack, cx| stack.hear(cx, told)),
            LinkEvent::Said(Said::Message) => self.operated.stack_mut().call(),
            LinkEvent::Said(Said::Expired) => {
                log::warn!("--engine {}: it took this edge for dead; its clients are closed", self.link.target());
                let edge = new_name();
                self.operated.expire(cx, edge);
                self.link.restart(cx, edge);
            }
            LinkEvent::Said(Said::Capacity(other)) => {
                let capacity = self.operated.stack().capacity();
                self.failure = Some(other_capacity(&other, capacity));
                cx.stop(Duration::ZERO);
            }
            LinkEvent::Said(_) => {}
        }
    }

    /// Calls the half that a connection belongs to, and goes on.
    fn client<R>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut EdgeConn,
        call: impl FnOnce(&mut Operated, &mut Context<'_>, &mut OperatedConn) -> R,
        engine: impl FnOnce(&mut Edge, &mut Context<'_>) -> R,
    ) -> R {
        let result = match &mut conn.0 {
            Kind::Client(conn) => call(&mut self.operated, cx, conn),
            Kind::Engine => engine(self, cx),
        };
        self.settle(cx);
        result
    }
}

/// Returns a name that no edge has had: they are random.
fn new_name() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

impl Service for Edge {
    type Conn = EdgeConn;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> EdgeConn {
        EdgeConn(match listener == self.listener {
            true => Kind::Engine,
            false => Kind::Client(self.operated.on_open(cx, id, listener)),
        })
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut EdgeConn, input: &[u8]) -> usize {
        self.client(
            cx,
            conn,
            |operated, cx, conn| operated.on_data(cx, id, conn, input),
            |edge, cx| {
                let (len, event) = edge.link.on_data(cx, id, input);
                event.into_iter().for_each(|event| edge.hear(cx, event));
                len
            },
        )
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut EdgeConn) -> EofAction {
        self.client(cx, conn, |operated, cx, conn| operated.on_eof(cx, id, conn), |_, _| EofAction::Abort)
    }

    fn on_early_eof(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut EdgeConn) {
        self.client(cx, conn, |operated, cx, conn| operated.on_early_eof(cx, id, conn), |_, _| {});
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut EdgeConn) {
        self.client(cx, conn, |operated, cx, conn| operated.on_drain(cx, id, conn), |_, _| {});
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut EdgeConn) {
        let late = |edge: &mut Edge, cx: &mut Context<'_>| edge.link.on_deadline(cx, id);
        self.client(cx, conn, |operated, cx, conn| operated.on_deadline(cx, id, conn), late);
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, conn: EdgeConn, closed: Closed) {
        match conn.0 {
            Kind::Client(conn) => self.operated.on_close(cx, id, conn, closed),
            Kind::Engine => self.link.on_close(cx, id, reason(&closed.reason)),
        }
        self.settle(cx);
    }

    fn is_request_complete(&self, listener: ListenerId, input: &[u8]) -> bool {
        self.operated.is_request_complete(listener, input)
    }

    fn make_way(&mut self, listener: ListenerId) -> Option<ConnId> {
        self.operated.make_way(listener)
    }

    fn on_timer(&mut self, cx: &mut Context<'_>) {
        self.operated.on_timer(cx);
        self.settle(cx);
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        self.is_stopping = true;
        self.operated.on_shutdown(cx);
        self.settle(cx);
    }
}

fn reason(reason: &CloseReason) -> String {
    match reason {
        CloseReason::Failed(error) => error.to_string(),
        _ => "it has closed the connection".to_owned(),
    }
}
