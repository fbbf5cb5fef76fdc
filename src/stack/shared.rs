//! A stack that lies in an engine, which other edges share. Sans I/O: requests go out in batches, answers
//! come in.
//!
//! One batch is on its way at a time, and the next one fills meanwhile. A batch that was lost on its way
//! is sent again: the engine knows its number, and applies it once. The engine may take an edge that it has
//! not heard of for [`LEASE`] for dead, and give its items to others; so an answer that came late is held until
//! a later one shows that the edge was alive.

use super::histogram::Histogram;
use super::lifo::Decision;
use super::wire::Item;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How long the engine keeps the requests and the items of an edge that it does not hear of.
pub const LEASE: Duration = Duration::from_secs(3);

/// An edge tells that it is alive this often, with a batch of no requests if there is none.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// How old an answer may be: its batch was sent at that time at the soonest. The rest of the lease is for clocks
/// that do not go at one speed.
const FRESH: Duration = Duration::from_millis(2500);

/// How many requests are in a batch.
const BATCH: usize = 128;

/// A request to the engine, by the edge's number for it. There are no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To push an item.
    Push(u64, Item),
    /// To pop one.
    Pop(u64),
    /// The client has gone: nothing is stored or handed out for it, and an item that was is back on top.
    Cancel(u64),
    /// The popped item has reached its client.
    Delivered(u64),
    /// It has not, and goes back on top.
    Undelivered(u64),
    /// The edge ends. All its requests are cancelled.
    Leave,
}

/// Requests that the engine applies together, once. Its fields are all there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asks {
    /// Which life of the edge asks.
    pub edge: u64,
    /// The number of the batch in it. That of the first is 0; it has no requests.
    pub number: u64,
    /// The requests, in order.
    pub asks: Vec<Ask>,
}

/// The engine's answer to a batch. Its fields are all there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The number of the batch.
    pub number: u64,
    /// How many items are on the stack.
    pub items: usize,
    /// How many pushes wait, of all edges, and how many pops.
    pub waiting: (usize, usize),
    /// There are more answers, for the next batch.
    pub more: bool,
    /// Requests that have been served: a push, or a pop with its item.
    pub answers: Vec<(u64, Option<Item>)>,
}

/// Totals of an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shares {
    /// Batches that the engine has answered.
    pub batches: u64,
    /// Requests in them.
    pub asks: u64,
    /// Batches that were sent again.
    pub retries: u64,
    /// How often the engine has taken this edge for dead.
    pub expired: u64,
    /// From a batch, sent last, to its answer.
    pub latency: Histogram,
}

/// An edge of a shared stack.
#[derive(Debug)]
pub(super) struct Shared {
    edge: u64,
    /// The number of the next batch.
    number: u64,
    next: u64,
    filling: VecDeque<Ask>,
    sent: Option<Sent>,
    /// The clients whose requests are not answered.
    clients: HashMap<u64, usize>,
    /// The request of each of them.
    requests: HashMap<usize, u64>,
    /// The requests of popped items, by the keys of these.
    flight: HashMap<usize, u64>,
    /// Answers that may be told.
    decided: VecDeque<(u64, Option<Item>)>,
    /// Answers that came late.
    held: Vec<(u64, Option<Item>)>,
    /// The engine has something to tell.
    is_called: bool,
    /// The last batch was sent then.
    spoke: Option<Instant>,
    leaves: bool,
    has_left: bool,
    told: Told,
    shares: Shares,
}

#[derive(Debug)]
struct Sent {
    batch: Asks,
    at: Instant,
}

impl Shared {
    pub(super) fn new(edge: u64) -> Shared {
        let (filling, decided, held) = Default::default();
        let (clients, requests, flight) = Default::default();
        Shared {
            edge,
            number: 0,
            next: 1,
            filling,
            sent: None,
            clients,
            requests,
            flight,
            decided,
            held,
            is_called: false,
            spoke: None,
            leaves: false,
            has_left: false,
            told: Told::default(),
            shares: Shares::default(),
        }
    }

    pub(super) fn push(&mut self, client: usize, item: Item) {
        let id = self.line_up(client);
        self.filling.push_back(Ask::Push(id, item));
    }

    pub(super) fn pop(&mut self, client: usize) {
        let id = self.line_up(client);
        self.filling.push_back(Ask::Pop(id));
    }

    fn line_up(&mut self, client: usize) -> u64 {
        let id = self.next;
        self.next += 1;
        self.clients.insert(id, client);
        self.requests.insert(client, id);
        id
    }

    /// Forgets the request of a client. One that has left for the engine is cancelled there.
    pub(super) fn cancel(&mut self, client: usize) {
        let Some(id) = self.requests.remove(&client) else { return };
        self.clients.remove(&id);
        let here = |ask: &Ask| matches!(ask, Ask::Push(other, _) | Ask::Pop(other) if *other == id);
        match self.filling.iter().position(here) {
            Some(at) => drop(self.filling.remove(at)),
            None => self.filling.push_back(Ask::Cancel(id)),
        }
    }

    /// Returns the next client that can be told something. A popped item is put into `items`.
    pub(super) fn decide(&mut self, items: &mut Slab<Item>) -> Option<Decision<usize, usize>> {
        loop {
            let (id, item) = self.decided.pop_front()?;
            // The engine has the request of a client that has gone cancelled, or will have.
            let Some(client) = self.clients.remove(&id) else { continue };
            self.requests.remove(&client);
            let Some(item) = item else { return Some(Decision::Stored(client)) };
            let key = items.insert(item);
            self.flight.insert(key, id);
            return Some(Decision::Popped(client, key));
        }
    }

    /// Tells the engine what has become of a popped item.
    pub(super) fn settle(&mut self, key: usize, is_delivered: bool) {
        if let Some(id) = self.flight.remove(&key) {
            self.filling.push_back(if is_delivered { Ask::Delivered(id) } else { Ask::Undelivered(id) });
        }
    }

    /// Returns the batch that is to be sent now, if one is.
    pub(super) fn next_batch(&mut self, now: Instant) -> Option<&Asks> {
        if self.sent.is_some() || self.has_left || !self.wants_to_speak(now) {
            return None;
        }
        let len = if self.number == 0 { 0 } else { self.filling.len().min(BATCH) };
        let mut asks: Vec<Ask> = self.filling.drain(..len).collect();
        if self.leaves && self.number > 0 && self.filling.is_empty() {
            asks.push(Ask::Leave);
        }
        let batch = Asks { edge: self.edge, number: self.number, asks };
        self.number += 1;
        self.is_called = false;
        self.spoke = Some(now);
        Some(&self.sent.insert(Sent { batch, at: now }).batch)
    }

    fn wants_to_speak(&self, now: Instant) -> bool {
        !self.filling.is_empty() || self.leaves || self.is_called || self.due().is_none_or(|due| due <= now)
    }

    /// Returns when a batch has to be sent at the latest; `None` if none ever was, or one is on its way.
    pub(super) fn due(&self) -> Option<Instant> {
        self.spoke.filter(|_| self.sent.is_none())?.checked_add(HEARTBEAT)
    }

    /// Returns the batch that is to be sent again, as the connection to the engine is a new one.
    pub(super) fn again(&mut self, now: Instant) -> Option<&Asks> {
        let sent = self.sent.as_mut()?;
        self.shares.retries += 1;
        self.spoke = Some(now);
        sent.at = now;
        Some(&sent.batch)
    }

    /// The engine has something to tell.
    pub(super) fn call(&mut self) {
        self.is_called = true;
    }

    /// Takes the answer to the batch that was sent.
    pub(super) fn hear(&mut self, now: Instant, mut told: Told) {
        let Some(sent) = self.sent.take_if(|sent| sent.batch.number == told.number) else { return };
        let age = now.saturating_duration_since(sent.at);
        self.shares.latency.add(age);
        self.shares.batches += 1;
        self.shares.asks += sent.batch.asks.len() as u64;
        self.has_left = sent.batch.asks.last() == Some(&Ask::Leave);
        self.held.append(&mut told.answers);
        match age < FRESH {
            true => self.decided.extend(self.held.drain(..)),
            false => self.is_called = true,
        }
        self.is_called |= told.more;
        self.told = told;
    }

    /// Begins anew, as another edge: the engine knows this one no more. All requests are void, and the items
    /// in flight are the engine's.
    pub(super) fn restart(&mut self, edge: u64) {
        let (leaves, shares) = (self.leaves, Shares { expired: self.shares.expired + 1, ..self.shares });
        // Numbers go on, so that no answer of before is taken for one of now.
        let next = self.next;
        *self = Shared { leaves, shares, next, ..Shared::new(edge) };
    }

    /// Leaves when all has been said.
    pub(super) fn leave(&mut self) {
        self.leaves = true;
    }

    /// Returns its name.
    pub(super) fn edge(&self) -> u64 {
        self.edge
    }

    /// Returns whether the engine knows of the end of this edge.
    pub(super) fn has_left(&self) -> bool {
        self.has_left
    }

    /// Returns how many requests may have been served, and are not known to be or not.
    pub(super) fn unsure(&self) -> usize {
        let of = |asks: &Ask| matches!(asks, Ask::Push(..) | Ask::Pop(_));
        let sent = self.sent.iter().flat_map(|sent| &sent.batch.asks);
        sent.chain(&self.filling).filter(|ask| of(ask)).count() + self.held.len() + self.decided.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flight.len()
    }

    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    pub(super) fn shares(&self) -> Shares {
        self.shares
    }
}
