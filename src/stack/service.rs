//! The stack on the loop: one request per connection.

use super::lifo::{Decision, Lifo, Ticket};
use super::wire::{self, Item, Parsed, Request};
use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use crate::service::{Closed, EofAction, Service};
use slab::Slab;

/// A bounded, blocking LIFO stack, served in the protocol of [`wire`].
#[derive(Debug)]
pub struct StackService {
    /// The stack of item keys, and the lines of client keys.
    lifo: Lifo<usize, usize>,
    /// Items on the stack, waiting to be pushed, or on their way out. They never move.
    items: Slab<Item>,
    /// The clients. A parked client is answered while another one is served.
    clients: Slab<Client>,
    /// How many of them have not sent a complete request yet.
    reading: usize,
    /// The loop is stopping: parked clients are closed as soon as no other client can serve them.
    draining: bool,
}

#[derive(Debug)]
struct Client {
    id: ConnId,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Its request is not complete.
    Reading,
    /// Its push of this item waits.
    Pushing(usize, Ticket),
    /// Its pop waits.
    Popping(Ticket),
    /// It gets this item, which goes back on the stack if it cannot be sent.
    Popped(usize),
    /// It has its answer, or will never get one.
    Done,
}

impl StackService {
    /// Makes an empty stack for at most `capacity` items.
    pub fn new(capacity: usize) -> Self {
        StackService {
            lifo: Lifo::new(capacity),
            items: Slab::new(),
            clients: Slab::new(),
            reading: 0,
            draining: false,
        }
    }

    /// Returns how many items are on the stack.
    pub fn items(&self) -> usize {
        self.lifo.len()
    }

    /// Returns how many items are held: on the stack, waiting to be pushed, or on their way out.
    pub fn held(&self) -> usize {
        self.items.len()
    }

    /// Returns how many pushes and how many pops are parked.
    pub fn parked(&self) -> (usize, usize) {
        self.lifo.waiting()
    }

    /// Serves the clients that can be served now.
    fn decide(&mut self, cx: &mut Context<'_>) {
        while let Some(decision) = self.lifo.decide() {
            let (key, state, answer) = match decision {
                Decision::Stored(key) => (key, State::Done, wire::STORED),
                Decision::Popped(key, item) => (key, State::Popped(item), self.items[item].frame()),
            };
            let client = &mut self.clients[key];
            client.state = state;
            match cx.send(client.id, answer) {
                Ok(()) => cx.finish(client.id),
                Err(_) => self.give_up(cx, key),
            }
        }
        if self.draining && self.reading == 0 && self.lifo.in_flight() == 0 {
            self.draining = false;
            self.release_parked(cx);
        }
    }

    /// Closes a client that cannot be answered, and puts the item that it should have got back on top.
    fn give_up(&mut self, cx: &mut Context<'_>, key: usize) {
        let client = &mut self.clients[key];
        cx.abort(client.id);
        if let State::Popped(item) = std::mem::replace(&mut client.state, State::Done) {
            self.lifo.undelivered(item);
        }
    }

    /// Closes the parked clients, which no other client can serve any more.
    fn release_parked(&self, cx: &mut Context<'_>) {
        for (_, client) in &self.clients {
            if client.is_parked() {
                cx.abort(client.id);
            }
        }
    }
}

impl Client {
    fn is_parked(&self) -> bool {
        matches!(self.state, State::Pushing(..) | State::Popping(_))
    }
}

impl Service for StackService {
    type Conn = usize;

    fn on_open(&mut self, _cx: &mut Context<'_>, id: ConnId, _listener: ListenerId) -> usize {
        self.reading += 1;
        self.clients.insert(Client { id, state: State::Reading })
    }

    /// Takes a request when it is complete. Bytes behind it are ignored, the end is not.
    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, key: &mut usize, input: &[u8]) -> usize {
        let client = &mut self.clients[*key];
        let len = match wire::parse(input) {
            Parsed::Incomplete => return 0,
            Parsed::Request(request, len) => {
                client.state = match request {
                    Request::Push(payload) => match Item::new(payload) {
                        Some(item) => {
                            let item = self.items.insert(item);
                            State::Pushing(item, self.lifo.push(*key, item))
                        }
                        None => State::Done, // the parser has no such request
                    },
                    Request::Pop => State::Popping(self.lifo.pop(*key)),
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
        self.decide(cx);
        if self.clients[*key].is_parked() {
            cx.ignore_input(id);
        }
        len
    }

    /// Cancels the request, complete or not, of a client that hangs up before it has its answer.
    fn on_eof(&mut self, _cx: &mut Context<'_>, _id: ConnId, _key: &mut usize) -> EofAction {
        EofAction::Abort
    }

    fn on_close(&mut self, cx: &mut Context<'_>, _id: ConnId, key: usize, closed: Closed) {
        match self.clients.remove(key).state {
            State::Reading => self.reading -= 1,
            State::Pushing(item, ticket) => {
                self.lifo.cancel(ticket);
                self.items.remove(item);
            }
            State::Popping(ticket) => drop(self.lifo.cancel(ticket)),
            State::Popped(item) if closed.unsent > 0 => self.lifo.undelivered(item),
            State::Popped(item) => {
                self.lifo.delivered();
                self.items.remove(item);
            }
            State::Done => return, // this changes nothing for other clients
        }
        self.decide(cx);
    }

    /// A client that has sent its one request will hardly send more.
    fn is_request_complete(&self, _listener: ListenerId, input: &[u8]) -> bool {
        matches!(wire::parse(input), Parsed::Request(_, len) if len == input.len())
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        self.draining = true;
        self.decide(cx);
    }
}
