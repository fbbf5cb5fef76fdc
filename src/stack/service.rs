//! The stack on the loop: one request per connection.

use super::counts::Counts;
use super::journal::{Journal, Trouble};
use super::lifo::{Decision, Ticket};
use super::shared::{Asks, Shared, Shares, Told};
use super::store::Store;
use super::wire::{self, Item, Parsed, Request};
use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use crate::service::{Closed, EofAction, Service};
use slab::Slab;
use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

/// A bounded, blocking LIFO stack, served in the protocol of [`wire`].
#[derive(Debug)]
pub struct StackService {
    store: Store,
    /// The clients. A parked client is answered while another one is served.
    clients: Slab<Client>,
    /// How many of them have not sent a complete request yet.
    reading: usize,
    /// The loop is stopping: parked clients are closed as soon as no other client can serve them.
    draining: bool,
    /// The loop is stopping.
    stopping: bool,
    /// Guests that have been decided about, and whose host has not been told.
    answered: VecDeque<Guest>,
    counts: Counts,
}

#[derive(Debug)]
struct Client {
    who: Who,
    state: State,
    /// When it came.
    since: Instant,
    /// Its request had to wait.
    parked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Conn(ConnId),
    /// It speaks to another service, its host.
    Guest,
}

/// A request that another service has lined up here for a client of its own: [`StackService::push_for`],
/// [`StackService::pop_for`]. It is good until [`settle`](StackService::settle) or
/// [`cancel`](StackService::cancel).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guest(usize);

/// The answer to a guest. There are no others, so a `match` may be exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Its item is on the stack.
    Stored,
    /// It gets this item, which goes back on top if the guest is cancelled rather than settled.
    Popped(&'a [u8]),
    /// The loop is stopping, and no client can serve it any more.
    Stopping,
}

/// A client's name. There are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientId {
    /// A connection of the stack's own protocol.
    Conn(ConnId),
    /// A client of another service.
    Guest(Guest),
}

/// A client, as [`StackService::clients`] tells of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ClientState {
    /// Its connection, or that it has none here.
    pub id: ClientId,
    /// Its state: `reading`, `pushing`, `popping`, `popped` or `done`.
    pub state: &'static str,
    /// When it came.
    pub since: Instant,
}

#[derive(Debug)]
enum State {
    /// Its request is not complete.
    Reading,
    /// Its push of this item waits.
    Pushing(Option<(usize, Ticket)>),
    /// Its pop waits.
    Popping(Option<Ticket>),
    /// It gets this item, which goes back on the stack if it cannot be sent.
    Popped(usize),
    /// It has its answer, or will never get one.
    Done,
    /// A guest that waited when the loop stopped.
    Stopped,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            State::Reading => "reading",
            State::Pushing(..) => "pushing",
            State::Popping(_) => "popping",
            State::Popped(_) => "popped",
            State::Done | State::Stopped => "done",
        }
    }
}

impl StackService {
    /// Makes an empty stack for at most `capacity` items.
    pub fn new(capacity: usize) -> Self {
        StackService {
            store: Store::new(capacity),
            clients: Slab::new(),
            reading: 0,
            draining: false,
            stopping: false,
            answered: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Begins with `items`, from the bottom to the top, each with a number larger than that of the one below it.
    /// Changes go to `journal`, and pushes are answered when they are there, if it says so.
    ///
    /// A popped item leaves the journal when it has reached its client. Call [`close`](Self::close) in the end.
    pub fn keep(&mut self, items: Vec<(u64, Item)>, journal: Box<dyn Journal>) {
        self.store.keep(items, journal);
    }

    /// Commits what is left to the journal, if there is one. The loop is over.
    ///
    /// # Errors
    /// A text: the reason why the last changes are not there.
    pub fn close(&mut self) -> Result<(), String> {
        self.store.close()
    }

    // ---- an engine -----------------------------------------------------------------------------

    /// Shares the stack of an engine with other edges, by the name `edge`, which is good for one life. Its capacity
    /// is that of this stack, which is empty.
    ///
    /// The owner of the connection to the engine sends each [`next_batch`](Self::next_batch), and hands its
    /// answer to [`hear`](Self::hear).
    pub fn share(&mut self, edge: u64) {
        self.store.share(edge);
    }

    /// Returns the name of this edge; `None` if there is no engine.
    pub fn edge(&self) -> Option<u64> {
        self.store.shared().map(Shared::edge)
    }

    /// Returns the batch that is to be sent to the engine now, if one is.
    pub fn next_batch(&mut self, now: Instant) -> Option<&Asks> {
        self.store.shared_mut()?.next_batch(now)
    }

    /// Returns the batch that has no answer, for a new connection to the engine.
    pub fn unanswered_batch(&mut self, now: Instant) -> Option<&Asks> {
        self.store.shared_mut()?.again(now)
    }

    /// Returns when a batch has to be sent at the latest.
    pub fn batch_due(&self) -> Option<Instant> {
        self.store.shared()?.due()
    }

    /// The engine has something to tell.
    pub fn call(&mut self) {
        if let Some(shared) = self.store.shared_mut() {
            shared.call();
        }
    }

    /// Takes what the engine says to a batch.
    pub fn hear(&mut self, cx: &mut Context<'_>, told: Told) {
        if let Some(shared) = self.store.shared_mut() {
            shared.hear(cx.now(), told);
        }
        self.decide(cx);
    }

    /// The engine has taken this edge for dead. Closes the clients that wait or have an item, and begins anew,
    /// by another name. Guests that have one are their host's to close.
    pub fn expire(&mut self, cx: &mut Context<'_>, edge: u64) {
        if let Some(shared) = self.store.shared_mut() {
            shared.restart(edge);
        }
        let popped = self.clients.iter().filter(|(_, client)| matches!(client.state, State::Popped(_)));
        popped.filter_map(|(_, client)| client.conn()).for_each(|id| cx.abort(id));
        self.release_parked(cx);
        self.decide(cx);
    }

    /// Tells the engine, after all else, that this edge ends. Call it when no client is left.
    pub fn leave(&mut self) {
        if let Some(shared) = self.store.shared_mut() {
            shared.leave();
        }
    }

    /// Returns whether the loop is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Returns whether the engine knows of the end of this edge.
    pub fn has_left(&self) -> bool {
        self.store.shared().is_some_and(Shared::has_left)
    }

    /// Returns totals of what was said to the engine; `None` if there is none.
    pub fn shares(&self) -> Option<Shares> {
        self.store.shared().map(Shared::shares)
    }

    /// Returns why the journal does not take changes now; `None` if it does, or if there is none.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.store.trouble()
    }

    /// Returns how many pushes are on the stack and wait for the disk.
    pub fn storing(&self) -> usize {
        self.store.storing()
    }

    /// Returns how many items there may be.
    pub fn capacity(&self) -> usize {
        self.store.capacity()
    }

    /// Returns totals since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the clients, guests too, in no order.
    pub fn clients(&self) -> impl Iterator<Item = ClientState> {
        self.clients.iter().map(|(key, client)| ClientState {
            id: match client.who {
                Who::Conn(id) => ClientId::Conn(id),
                Who::Guest => ClientId::Guest(Guest(key)),
            },
            state: client.state.name(),
            since: client.since,
        })
    }

    // ---- guests --------------------------------------------------------------------------------

    /// Lines up a push for a guest, behind all requests that came before; `None` for a payload that cannot
    /// be an item. The [answer](Self::next_answer) may be there at once.
    pub fn push_for(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Option<Guest> {
        let item = Item::new(payload)?;
        let key = self.insert_guest(cx);
        let place = self.store.push(key, item);
        Some(self.line_up(cx, key, State::Pushing(place)))
    }

    /// Lines up a pop for a guest.
    pub fn pop_for(&mut self, cx: &mut Context<'_>) -> Guest {
        let key = self.insert_guest(cx);
        let place = self.store.pop(key);
        self.line_up(cx, key, State::Popping(place))
    }

    fn insert_guest(&mut self, cx: &Context<'_>) -> usize {
        self.clients.insert(Client { who: Who::Guest, state: State::Done, since: cx.now(), parked: false })
    }

    fn line_up(&mut self, cx: &mut Context<'_>, key: usize, state: State) -> Guest {
        self.clients[key].state = state;
        self.count(key);
        self.decide(cx);
        self.count_parked(key);
        Guest(key)
    }

    /// Returns a guest that has been decided about, and its answer, once.
    pub fn next_answer(&mut self) -> Option<(Guest, Answer<'_>)> {
        let guest = self.answered.pop_front()?;
        let answer = match self.clients.get(guest.0)?.state {
            State::Popped(item) => Answer::Popped(self.store.item(item).payload()),
            State::Stopped => Answer::Stopping,
            _ => Answer::Stored,
        };
        Some((guest, answer))
    }

    /// Returns whether the item of a guest is on the stack, and waits for the disk: it can no longer be cancelled.
    pub fn is_storing(&self, guest: Guest) -> bool {
        self.store.is_storing(guest.0)
    }

    /// Returns whether the push of a guest waits.
    pub fn is_pushing(&self, guest: Guest) -> bool {
        self.clients.get(guest.0).is_some_and(|client| matches!(client.state, State::Pushing(..)))
    }

    /// Returns whether a guest has an item that is not settled.
    pub fn is_popped(&self, guest: Guest) -> bool {
        self.clients.get(guest.0).is_some_and(|client| matches!(client.state, State::Popped(_)))
    }

    /// Ends a guest that has its answer: a popped item has reached its client.
    pub fn settle(&mut self, cx: &mut Context<'_>, guest: Guest) {
        if self.clients.contains(guest.0) {
            self.end(cx, guest.0, true);
        }
    }

    /// Ends a guest whose client has gone: its request is cancelled, or its popped item goes back on top.
    pub fn cancel(&mut self, cx: &mut Context<'_>, guest: Guest) {
        if self.clients.contains(guest.0) {
            self.answered.retain(|other| *other != guest);
            self.end(cx, guest.0, false);
        }
    }

    /// Ends a client. `delivered` tells whether it has what was sent to it.
    #[inline(always)]
    fn end(&mut self, cx: &mut Context<'_>, key: usize, delivered: bool) {
        match self.clients.remove(key).state {
            State::Reading => self.reading -= 1,
            State::Pushing(place) => {
                self.counts.cancelled += 1;
                self.store.cancel_push(key, place);
            }
            State::Popping(place) => {
                self.counts.cancelled += 1;
                self.store.cancel_pop(key, place);
            }
            State::Popped(item) if !delivered => {
                self.counts.undelivered += 1;
                self.store.undelivered(item);
            }
            State::Popped(item) => self.store.delivered(item),
            State::Done | State::Stopped => return, // this changes nothing for other clients
        }
        self.decide(cx);
    }

    /// Counts a request that has come whole.
    fn count(&mut self, key: usize) {
        match self.clients[key].state {
            State::Pushing(..) => self.counts.pushes += 1,
            State::Popping(_) => self.counts.pops += 1,
            _ => {}
        }
    }

    /// Counts a request that was not decided at once.
    fn count_parked(&mut self, key: usize) {
        let client = &mut self.clients[key];
        if client.is_parked() {
            client.parked = true;
            self.counts.parked += 1;
        }
    }

    /// Returns how many items are on the stack.
    pub fn items(&self) -> usize {
        self.store.len()
    }

    /// Returns how many items are held: on the stack, waiting to be pushed, or on their way out.
    pub fn held(&self) -> usize {
        self.store.held()
    }

    /// Returns how many pushes and how many pops are parked.
    pub fn parked(&self) -> (usize, usize) {
        self.store.waiting()
    }

    /// Serves the clients that can be served now.
    fn decide(&mut self, cx: &mut Context<'_>) {
        while let Some(decision) = self.store.decide() {
            let (key, state, answer) = match decision {
                Decision::Stored(key) => (key, State::Done, wire::STORED),
                Decision::Popped(key, item) => (key, State::Popped(item), self.store.item(item).frame()),
            };
            let client = &mut self.clients[key];
            client.state = state;
            let who = client.who;
            match client.since == cx.now() && !client.parked {
                true => self.counts.at_once += 1,
                false => self.counts.late(client.parked, cx.now() - client.since),
            }
            match who {
                Who::Guest => self.answered.push_back(Guest(key)),
                Who::Conn(id) => match cx.send(id, answer) {
                    Ok(()) => cx.finish(id),
                    Err(_) => self.give_up(cx, id, key),
                },
            }
        }
        if self.draining && self.reading == 0 && self.store.in_flight() + self.store.storing() == 0 {
            self.draining = false;
            self.release_parked(cx);
        }
    }

    /// Closes a client that cannot be answered, and puts the item that it should have got back on top.
    fn give_up(&mut self, cx: &mut Context<'_>, id: ConnId, key: usize) {
        cx.abort(id);
        if let State::Popped(item) = mem::replace(&mut self.clients[key].state, State::Done) {
            self.counts.undelivered += 1;
            self.store.undelivered(item);
        }
    }

    /// Closes the parked clients, which no other client can serve any more.
    fn release_parked(&mut self, cx: &mut Context<'_>) {
        for (key, client) in &mut self.clients {
            match client.who {
                _ if !client.is_parked() => {}
                Who::Conn(id) => cx.abort(id),
                Who::Guest => {
                    match mem::replace(&mut client.state, State::Stopped) {
                        State::Pushing(place) => self.store.cancel_push(key, place),
                        State::Popping(place) => self.store.cancel_pop(key, place),
                        _ => {}
                    }
                    self.answered.push_back(Guest(key));
                }
            }
        }
    }
}

impl Client {
    fn is_parked(&self) -> bool {
        matches!(self.state, State::Pushing(_) | State::Popping(_))
    }

    fn conn(&self) -> Option<ConnId> {
        match self.who {
            Who::Conn(id) => Some(id),
            Who::Guest => None,
        }
    }
}

impl Service for StackService {
    type Conn = usize;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _listener: ListenerId) -> usize {
        self.reading += 1;
        let who = Who::Conn(id);
        self.clients.insert(Client { who, state: State::Reading, since: cx.now(), parked: false })
    }

    /// Takes a request when it is complete. Bytes behind it are ignored, the end is not.
    #[inline]
    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, key: &mut usize, input: &[u8]) -> usize {
        let client = &mut self.clients[*key];
        let len = match wire::parse(input) {
            Parsed::Incomplete => return 0,
            Parsed::Request(request, len) => {
                client.state = match request {
                    Request::Push(payload) => match Item::new(payload) {
                        Some(item) => State::Pushing(self.store.push(*key, item)),
                        None => State::Done, // the parser has no such request
                    },
                    Request::Pop => State::Popping(self.store.pop(*key)),
                };
                len
            }
            Parsed::Empty => {
                client.state = State::Done;
                cx.finish_lingering(id);
                input.len()
            }
        };
        self.reading -= 1;
        self.count(*key);
        self.decide(cx);
        self.count_parked(*key);
        if self.clients[*key].is_parked() {
            cx.ignore_input(id);
        }
        len
    }

    /// Cancels the request, complete or not, of a client that hangs up before it has its answer.
    fn on_eof(&mut self, _cx: &mut Context<'_>, _id: ConnId, _key: &mut usize) -> EofAction {
        EofAction::Abort
    }

    #[inline(always)]
    fn on_close(&mut self, cx: &mut Context<'_>, _id: ConnId, key: usize, closed: Closed) {
        self.end(cx, key, closed.unsent == 0);
    }

    /// A client that has sent its one request will hardly send more.
    fn is_request_complete(&self, _listener: ListenerId, input: &[u8]) -> bool {
        matches!(wire::parse(input), Parsed::Request(_, len) if len == input.len())
    }

    /// The journal has something to tell.
    fn on_wake(&mut self, cx: &mut Context<'_>) {
        self.store.look();
        self.decide(cx);
        if self.trouble().is_some_and(|trouble| trouble.is_final) {
            cx.stop(Duration::ZERO);
        }
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        (self.draining, self.stopping) = (true, true);
        self.decide(cx);
    }
}
