//! All connections of a server and their exchanges: a request and its response each.

use super::connection::{Connection, Content, Next, Progress, Sink};
use super::headers::Headers;
use super::id::{ExchangeId, Outcome};
use super::limits::Limits;
use super::response_head::{ResponseFraming, ResponseHead};
use super::status::{Rejection, Status};
use crate::arena::Arena;
use crate::context::Context;
use crate::id::{ConnId, ListenerId, SendError};
use crate::net::Peer;
use crate::queue::Queue;
use slab::Slab;
use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::mem;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

/// A shared buffer below this is copied, which costs less than a piece of output of its own.
const SHARE_FROM: usize = 1024;

/// The state of the layer, apart from the handler: all connections and their exchanges.
#[derive(Debug)]
pub(super) struct Core {
    connections: Slab<Connection>,
    /// The key of the connection of each exchange that is not over.
    exchanges: Arena<usize>,
    /// Connections that may have changed since their deadlines were set.
    touched: Vec<usize>,
    /// Those that wait for a request, the one that has waited longest first.
    idle: Queue<(usize, ListenerId)>,
    /// How many connections there may be from one address, and how many there are.
    pub(super) per_address: Option<usize>,
    addresses: HashMap<IpAddr, usize>,
    /// Exchanges that are over, of which the handler has not been told.
    ended: VecDeque<(ExchangeId, Outcome)>,
    pub(super) limits: Limits,
    /// The head of the response that is being written.
    pub(super) head: ResponseHead,
    pub(super) stopping: bool,
}

/// Returns where a peer is, as far as one client can choose: a network of IPv6 is one client's.
fn address(peer: &Peer) -> Option<IpAddr> {
    match peer {
        Peer::Tcp(address) => Some(match address.ip().to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).into(),
            ip => ip,
        }),
        _ => None,
    }
}

/// Sends a shared buffer as it costs least.
pub(super) fn send_shared(cx: &mut Context<'_>, connection: &Connection, bytes: &Rc<[u8]>) -> Result<(), SendError> {
    match bytes.len() {
        SHARE_FROM.. => cx.send_shared(connection.id(), bytes),
        _ => cx.send(connection.id(), bytes),
    }
}

impl Core {
    pub(super) fn new(head: ResponseHead) -> Core {
        Core {
            connections: Slab::new(),
            exchanges: Arena::new(),
            touched: Vec::new(),
            idle: Queue::new(),
            per_address: None,
            addresses: HashMap::new(),
            ended: VecDeque::new(),
            limits: Limits::default(),
            head,
            stopping: false,
        }
    }

    // ---- connections ---------------------------------------------------------------------------

    /// Adds a connection. Returns its key.
    pub(super) fn insert(&mut self, mut connection: Connection, peer: Option<Peer>) -> usize {
        if self.per_address.is_some() {
            connection.address = peer.as_ref().and_then(address);
            connection.address.into_iter().for_each(|address| *self.addresses.entry(address).or_default() += 1);
        }
        let key = self.connections.insert(connection);
        self.connection(key);
        key
    }

    pub(super) fn remove(&mut self, key: usize) {
        let Some(connection) = self.connections.try_remove(key) else { return };
        if let Some(place) = connection.idle {
            self.idle.remove(place);
        }
        if let Some(Entry::Occupied(mut count)) = connection.address.map(|address| self.addresses.entry(address)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Returns whether one more connection may come from where `peer` is.
    pub(super) fn is_welcome(&self, peer: &Peer) -> bool {
        let Some(most) = self.per_address else { return true };
        address(peer).is_none_or(|address| self.addresses.get(&address).is_none_or(|count| *count < most))
    }

    /// Returns the connection of a listener that has waited longest for a request.
    pub(super) fn longest_idle(&self, listener: ListenerId) -> Option<ConnId> {
        let (key, _) = self.idle.iter().find(|(_, of)| *of == listener)?;
        self.connections.get(*key).map(Connection::id)
    }

    /// Returns the keys of all connections.
    pub(super) fn keys(&self) -> Vec<usize> {
        self.connections.iter().map(|(key, _)| key).collect()
    }

    /// Returns a connection, to be changed. Its deadline is set anew in [`arm`](Self::arm).
    pub(super) fn connection(&mut self, key: usize) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(key)?;
        if !mem::replace(&mut connection.touched, true) {
            self.touched.push(key);
        }
        Some(connection)
    }

    /// Sets the deadlines of all connections that may have changed. The end of every entry point of
    /// the layer comes here, and nothing else sets one.
    pub(super) fn arm(&mut self, cx: &mut Context<'_>) {
        for key in self.touched.drain(..) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.touched = false;
            if let Some(place) = connection.idle.take() {
                self.idle.remove(place);
            }
            if connection.may_give_way() {
                connection.idle = Some(self.idle.push_back((key, connection.listener())));
            }
            let deadline = connection.deadline(cx, &self.limits);
            cx.set_deadline(connection.id(), deadline);
        }
    }

    // ---- exchanges -----------------------------------------------------------------------------

    /// Returns the key of the connection of an exchange that is not over.
    pub(super) fn key(&self, id: ExchangeId) -> Option<usize> {
        self.exchanges.get(id.0).copied()
    }

    /// Returns the connection of an exchange that is not over.
    pub(super) fn find(&self, id: ExchangeId) -> Option<&Connection> {
        self.connections.get(self.key(id)?)
    }

    /// Returns the connection of an exchange that is not over, to be changed.
    pub(super) fn find_mut(&mut self, id: ExchangeId) -> Option<&mut Connection> {
        self.connection(self.key(id)?)
    }

    /// Returns the exchange that the handler knows of on a connection.
    pub(super) fn current(&self, key: usize) -> Option<ExchangeId> {
        self.connections.get(key)?.exchange()
    }

    /// Returns the exchange on a connection whose response the handler is streaming.
    pub(super) fn streaming(&self, key: usize) -> Option<ExchangeId> {
        let connection = self.connections.get(key)?;
        connection.exchange().filter(|_| matches!(connection.response(), Progress::Stream(_)))
    }

    /// Begins the exchange of a request that is to be handed over.
    pub(super) fn begin(&mut self, key: usize) -> ExchangeId {
        let id = ExchangeId(self.exchanges.insert(key));
        if let Some(connection) = self.connection(key) {
            connection.begin(id);
        }
        id
    }

    /// Ends the exchange on a connection.
    pub(super) fn end(&mut self, key: usize, outcome: Outcome) {
        if let Some(id) = self.connection(key).and_then(Connection::end) {
            self.exchanges.remove(id.0);
            self.ended.push_back((id, outcome));
        }
    }

    /// Takes an exchange that is over, of which the handler has not been told.
    pub(super) fn take_ended(&mut self) -> Option<(ExchangeId, Outcome)> {
        self.ended.pop_front()
    }

    /// Ends the exchange on a connection whose response is complete, and goes on to the next request.
    pub(super) fn complete(&mut self, cx: &mut Context<'_>, key: usize) {
        self.end(key, Outcome::Complete);
        let (skip, stopping) = (self.limits.skip, self.stopping);
        let Some(connection) = self.connection(key) else { return };
        if stopping {
            connection.close_after_response();
        }
        match connection.complete(skip, cx.now()) {
            Next::Finish => cx.finish(connection.id()),
            Next::FinishLingering => cx.finish_lingering(connection.id()),
            Next::Resume => cx.resume(connection.id()),
            Next::GoOn => {}
        }
    }

    /// Gives up a request that is not served. A response that has begun already is aborted. Returns
    /// the part of its head that is kept if it has to be answered; then [`reject`](Self::reject) must follow.
    pub(super) fn give_up(&mut self, cx: &mut Context<'_>, key: usize) -> Option<Vec<u8>> {
        let connection = self.connection(key)?;
        let conn = connection.id();
        let (begun, answered) = (!matches!(connection.response(), Progress::None), connection.is_behind());
        let head = match connection.body() {
            Some((_, Sink::Collect(collected))) => mem::take(&mut collected.head),
            _ => Vec::new(),
        };
        connection.discard();
        if begun {
            cx.abort(conn);
            return None;
        }
        self.end(key, Outcome::Aborted);
        if answered {
            cx.finish_lingering(conn);
        }
        (!answered).then_some(head)
    }

    /// Answers a request that is not served with a page, and ends its connection.
    pub(super) fn reject(
        &mut self,
        cx: &mut Context<'_>,
        key: usize,
        rejection: Rejection,
        page: &str,
        fields: &Headers,
    ) {
        self.head.begin(cx.now(), rejection.status);
        self.head.header("Content-Type", b"text/html; charset=utf-8");
        self.head.content(fields.text().unwrap_or_default());
        self.end_head(key, rejection.status, ResponseFraming::Length(page.len() as u64));
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.is_head_only() {
            self.head.content(page.as_bytes());
        }
        if cx.send(connection.id(), self.head.text()).is_ok() {
            connection.sent();
        }
        cx.finish_lingering(connection.id());
    }

    // ---- responses -----------------------------------------------------------------------------

    /// Ends the head of a response: with the framing of its content, and with the fate of its
    /// connection. Returns its length.
    pub(super) fn end_head(&mut self, key: usize, status: Status, framing: ResponseFraming) -> usize {
        if !status.is_bodiless() {
            self.head.framing(framing);
        }
        let stopping = self.stopping;
        if let Some(connection) = self.connection(key).filter(|_| !matches!(framing, ResponseFraming::None)) {
            if stopping {
                connection.close_after_response();
            }
            let (keep_alive, version) = (connection.is_kept(), connection.version());
            self.head.connection(keep_alive, version);
        }
        self.head.end();
        self.head.text().len()
    }

    /// Sends the head that has been written. Returns whether it fitted, as it always does unless the
    /// loop's output is smaller than a head.
    pub(super) fn send_head(&mut self, cx: &mut Context<'_>, key: usize) -> bool {
        let Some(conn) = self.connection(key).map(|connection| {
            connection.sent();
            connection.id()
        }) else {
            return false;
        };
        let sent = cx.send(conn, self.head.text()).is_ok();
        if !sent {
            log::error!("{conn}: the head of a response does not fit the output");
            cx.abort(conn);
        }
        sent
    }

    /// Sends more of a response's content, which the handler has given in one piece.
    pub(super) fn send_rest(&mut self, cx: &mut Context<'_>, key: usize) {
        let Some(connection) = self.connection(key) else { return };
        let Some(rest) = connection.rest() else { return };
        let n = rest.len().min(cx.send_capacity(connection.id()));
        let is_all = n == rest.len();
        if n > 0 && cx.send(connection.id(), rest.get(..n).unwrap_or_default()).is_ok() {
            connection.sent_rest(n);
            connection.sent();
        }
        if is_all {
            self.complete(cx, key);
        }
    }

    /// Keeps content that does not fit, to be sent when it does.
    pub(super) fn keep_rest(&mut self, cx: &mut Context<'_>, key: usize, content: Content) {
        if let Some(connection) = self.connection(key) {
            connection.keep(content);
            self.send_rest(cx, key);
        }
    }
}
