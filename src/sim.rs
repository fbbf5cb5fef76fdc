//! A simulated network with a virtual clock, to test a service on the loop that ships.
//!
//! Only the operating system is false here. [`Sim`] is a [`Net`](crate::net::Net) like the real
//! one, with Linux's manners: buffers that fill, edges that are told once, resets that destroy
//! what is on its way. A [`World`] holds it, with the clients, the clock, and the faults that it
//! is told to make; one seed decides everything that is not decided by the test, so what has
//! failed once fails again.
//!
//! ```
//! use pollstack::sim::{Faults, World};
//! use pollstack::{ConnId, Context, EventLoop, Limits, Listen, ListenerId, Service};
//!
//! struct Echo;
//!
//! impl Service for Echo {
//!     type Conn = ();
//!     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
//!     fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut (), input: &[u8]) -> usize {
//!         let fits = input.len().min(cx.room(id));
//!         cx.send(id, &input[..fits]).map_or(0, |()| fits)
//!     }
//!     fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut ()) {
//!         cx.resume(id);
//!     }
//! }
//!
//! for seed in 0..100 {
//!     let world = World::new(seed);
//!     let mut server = EventLoop::on(world.net(), Echo, Limits { output: 10, ..Limits::default() });
//!     server.listen(Listen::new("127.0.0.1:7".parse()?))?;
//!     world.set_faults(Faults::random(seed)); // short writes, false events, interrupted calls, …
//!     let client = world.connect();
//!     client.send(b"whatever happens, this comes back");
//!     client.end();
//!     world.settle(&mut server);
//!     assert_eq!(client.read(), b"whatever happens, this comes back", "seed {seed}: {}", world.story());
//!     assert!(client.has_ended());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it does not have: addresses (a peer is a [`Peer::Unix`](crate::net::Peer), port 0 stays 0),
//! backlogs that overflow, and clients that act while the loop has a turn.

mod faults;
mod net;
mod wire;

pub use self::faults::{Fault, Faults};
pub use self::net::{Listener, Sim, Stream};

use self::wire::{Change, Wire};
use crate::event_loop::EventLoop;
use crate::net::{Ready, Source};
use crate::service::Service;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How many turns a loop may take to come to rest before it is said to spin.
const SPIN: usize = 100_000;

/// What a server's socket holds of what its client has sent, unless told otherwise.
pub const RECEIVE_BUFFER: usize = 128 * 1024;

/// What a server's socket takes of what its client has not read, unless told otherwise.
pub const SEND_BUFFER: usize = 128 * 1024;

/// A network, its clients and its clock. Clones are the same world.
#[derive(Clone, Debug)]
pub struct World(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    start: Instant,
    now: Instant,
    random: fastrand::Rng,
    faults: Faults,
    fired: [u64; Fault::ALL.len()],
    /// How many accepts more will find no descriptor.
    exhausted: usize,
    listeners: Vec<Backlog>,
    wires: Vec<Wire>,
    /// Who has had an edge that the loop has not been told of, in that order.
    edges: VecDeque<Edge>,
    buffers: (usize, usize),
    log: Vec<Entry>,
}

/// A listening socket.
#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<usize>,
    open: bool,
    edge: bool,
}

#[derive(Clone, Copy, Debug)]
enum Edge {
    Listener(usize),
    Wire(usize),
}

/// Something that has happened, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The time since the world began.
    pub at: Duration,
    /// Which client it is about, in the order in which they connected.
    pub client: usize,
    /// What.
    pub event: Event,
}

/// What happens between a client and the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The client has connected.
    Connected,
    /// The client has sent this.
    Sent(Vec<u8>),
    /// The client has ended its half of the stream.
    Ended,
    /// The client has closed with a reset.
    Aborted,
    /// The server has accepted it.
    Accepted,
    /// It was lost in the backlog.
    Lost,
    /// The server has read this; nothing is the end.
    Read(Vec<u8>),
    /// The server has found nothing to read.
    Waits,
    /// A read or write of the server was interrupted.
    Interrupted,
    /// The server has written this.
    Wrote(Vec<u8>),
    /// A read or write of the server has failed for good.
    Failed(ErrorKind),
    /// The server has ended its half of the stream.
    Shut,
    /// The server has closed.
    Closed,
    /// The server has closed with a reset.
    Reset,
}

impl World {
    /// A world in which `seed` decides what nobody else does. It has no faults yet.
    pub fn new(seed: u64) -> World {
        let start = Instant::now(); // any will do: only differences count
        World(Rc::new(RefCell::new(State {
            start,
            now: start,
            random: fastrand::Rng::with_seed(seed),
            faults: Faults::default(),
            fired: [0; Fault::ALL.len()],
            exhausted: 0,
            listeners: Vec::new(),
            wires: Vec::new(),
            edges: VecDeque::new(),
            buffers: (RECEIVE_BUFFER, SEND_BUFFER),
            log: Vec::new(),
        })))
    }

    /// The network, for [`EventLoop::on`]; one loop's only. A loop that is dropped leaves its
    /// connections as they are: stop it, if its clients are to see an end.
    pub fn net(&self) -> Sim {
        Sim::new(self.clone())
    }

    /// Sets the faults from here on.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.0.borrow_mut();
        state.faults = faults;
        state.exhausted = 0;
    }

    /// How often each kind of fault has been made.
    pub fn faults_fired(&self) -> impl Iterator<Item = (Fault, u64)> + use<> {
        Fault::ALL.into_iter().zip(self.0.borrow().fired)
    }

    /// Sets the sizes of the server's buffers for the clients that connect from here on:
    /// [`RECEIVE_BUFFER`] and [`SEND_BUFFER`].
    pub fn set_buffers(&self, receive: usize, send: usize) {
        self.0.borrow_mut().buffers = (receive.max(1), send.max(1));
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.0.borrow().now
    }

    /// The time since the world began, as in its log.
    pub fn elapsed(&self) -> Duration {
        let state = self.0.borrow();
        state.now - state.start
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.0.borrow_mut().now += time;
    }

    /// A client connects to the first listener.
    pub fn connect(&self) -> Client {
        self.connect_to(0)
    }

    /// A client connects to a listening socket, counted over all
    /// [`listen`](EventLoop::listen)s and their addresses from 0. If it does not listen, the client
    /// is refused: it has been reset.
    pub fn connect_to(&self, listener: usize) -> Client {
        let mut state = self.0.borrow_mut();
        let (number, (receive, send)) = (state.wires.len(), state.buffers);
        state.wires.push(Wire::new(receive, send));
        state.log(number, Event::Connected);
        match state.listeners.get_mut(listener).filter(|backlog| backlog.open) {
            Some(backlog) => {
                backlog.waiting.push_back(number);
                state.listener_edge(listener);
            }
            None => state.wires[number].refuse(),
        }
        Client { world: self.clone(), number }
    }

    /// Waits, hands over what has happened, and has one turn of the loop.
    pub fn turn<S: Service>(&self, event_loop: &mut EventLoop<S, Sim>) {
        let events = self.0.borrow_mut().wait();
        for (source, ready) in events {
            event_loop.ready(source, ready);
        }
        event_loop.turn();
    }

    /// Whether the loop has something to do before time passes.
    pub fn has_work<S: Service>(&self, event_loop: &mut EventLoop<S, Sim>) -> bool {
        !self.0.borrow().edges.is_empty() || event_loop.timeout() == Some(Duration::ZERO)
    }

    /// Has turns until the loop would sleep; how many. No time passes: whoever waits for a deadline
    /// waits on.
    ///
    /// # Panics
    /// If the loop spins.
    pub fn settle<S: Service>(&self, event_loop: &mut EventLoop<S, Sim>) -> usize {
        let rest = (0..SPIN).find(|_| {
            let work = self.has_work(event_loop);
            if work {
                self.turn(event_loop);
            }
            !work
        });
        rest.unwrap_or_else(|| panic!("the loop spins: it has not come to rest in {SPIN} turns"))
    }

    /// What has happened since the last time. It is kept until it is taken.
    pub fn take_log(&self) -> Vec<Entry> {
        std::mem::take(&mut self.0.borrow_mut().log)
    }

    /// What has happened since the log was last taken, a line each, to be read.
    pub fn story(&self) -> String {
        self.0.borrow().log.iter().map(|entry| format!("{entry}\n")).collect()
    }
}

impl State {
    fn log(&mut self, client: usize, event: Event) {
        self.log.push(Entry { at: self.now - self.start, client, event });
    }

    /// Whether a fault is to be made now.
    fn fault(&mut self, fault: Fault) -> bool {
        let fires = match self.faults.one_in(fault) {
            0 => false,
            n => self.random.u32(..n) == 0,
        };
        self.fired[fault as usize] += u64::from(fires);
        fires
    }

    /// Whether an accept finds no descriptor; if it begins, that goes on for a few.
    fn runs_out(&mut self) -> bool {
        if self.exhausted == 0 && self.fault(Fault::NoDescriptors) {
            self.exhausted = self.random.usize(1..6);
        }
        let runs_out = self.exhausted > 0;
        self.exhausted -= usize::from(runs_out);
        runs_out
    }

    /// Some of `n`, at least one, and less than all if there are more.
    fn part(&mut self, n: usize) -> usize {
        if n > 1 { self.random.usize(1..n) } else { n }
    }

    fn listener_edge(&mut self, listener: usize) {
        let backlog = &mut self.listeners[listener];
        if !std::mem::replace(&mut backlog.edge, true) {
            self.edges.push_back(Edge::Listener(listener));
        }
    }

    fn wire_edge(&mut self, number: usize) {
        let wire = &mut self.wires[number];
        if wire.is_watched() && !std::mem::replace(&mut wire.edge, true) {
            self.edges.push_back(Edge::Wire(number));
        }
    }

    /// The events of those who have had an edge. As epoll, this looks at each again: an edge that
    /// nothing is behind any more is no event.
    fn wait(&mut self) -> Vec<(Source, Ready)> {
        let mut count = self.edges.len();
        if count > 1 && self.fault(Fault::TruncatedEvents) {
            count = self.part(count);
        }
        let edges: Vec<Edge> = self.edges.drain(..count).collect();
        let mut events: Vec<(Source, Ready)> = edges.into_iter().filter_map(|edge| self.event(edge)).collect();
        if self.fault(Fault::SpuriousEvent) {
            events.push(self.rumour());
        }
        if events.len() > 1 && self.fault(Fault::ReorderedEvents) {
            self.random.shuffle(&mut events);
        }
        events
    }

    fn event(&mut self, edge: Edge) -> Option<(Source, Ready)> {
        match edge {
            Edge::Listener(listener) => {
                let backlog = &mut self.listeners[listener];
                backlog.edge = false;
                let readable = !backlog.waiting.is_empty();
                readable.then_some((Source::Listener(listener), Ready { readable, ..Ready::default() }))
            }
            Edge::Wire(number) => self.wires[number].event(),
        }
    }

    /// An event that need not be true, or about anybody.
    fn rumour(&mut self) -> (Source, Ready) {
        let mut bit = || self.random.bool();
        let ready = Ready { readable: bit(), writable: bit(), read_closed: bit(), error: bit() };
        let key = self.random.usize(..self.wires.len().clamp(1, 200));
        let source = if self.random.u8(..4) == 0 { Source::Listener(key % 4) } else { Source::Connection(key) };
        (source, ready)
    }
}

/// A client's end of a connection. What it does not [read](Client::read) stays in the server's way.
#[derive(Clone, Debug)]
pub struct Client {
    world: World,
    number: usize,
}

impl Client {
    /// Which client it is, in the order in which they connected.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Sends `bytes`. What the server's buffer cannot hold is on its way until it can.
    pub fn send(&self, bytes: &[u8]) {
        self.change(Event::Sent(bytes.to_vec()), |wire| wire.send(bytes));
    }

    /// Ends its half of the stream.
    pub fn end(&self) {
        self.change(Event::Ended, Wire::end);
    }

    /// Closes with a reset.
    pub fn abort(&self) {
        self.change(Event::Aborted, Wire::abort);
    }

    /// Reads all that has come.
    pub fn read(&self) -> Vec<u8> {
        self.read_at_most(usize::MAX)
    }

    /// Reads at most `n` bytes of what has come.
    pub fn read_at_most(&self, n: usize) -> Vec<u8> {
        let mut state = self.world.0.borrow_mut();
        let (bytes, edge) = state.wires[self.number].take(n);
        if edge {
            state.wire_edge(self.number);
        }
        bytes
    }

    /// Whether the server has ended the stream, and all has been read.
    pub fn has_ended(&self) -> bool {
        self.world.0.borrow().wires[self.number].has_ended()
    }

    /// Whether the connection has been reset by the server, or was refused. What had not been read
    /// by then is lost.
    pub fn was_reset(&self) -> bool {
        self.world.0.borrow().wires[self.number].was_reset()
    }

    /// Whether the server has closed it.
    pub fn is_closed(&self) -> bool {
        self.world.0.borrow().wires[self.number].is_closed()
    }

    /// Whether the server has accepted it.
    pub fn is_accepted(&self) -> bool {
        self.world.0.borrow().wires[self.number].is_accepted()
    }

    /// How many bytes it has sent that the server has not read.
    pub fn unread(&self) -> usize {
        self.world.0.borrow().wires[self.number].unread()
    }

    fn change(&self, event: Event, change: impl FnOnce(&mut Wire) -> Change) {
        let mut state = self.world.0.borrow_mut();
        let change = change(&mut state.wires[self.number]);
        if change != Change::None {
            state.log(self.number, event);
        }
        if change == Change::Edge {
            state.wire_edge(self.number);
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>16?}  client {}: {}", self.at, self.client, self.event)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| {
            let start = &bytes[..bytes.len().min(40)];
            format!("{} bytes, {}{}", bytes.len(), start.escape_ascii(), if start == bytes { "" } else { "…" })
        };
        match self {
            Event::Connected => f.write_str("connects"),
            Event::Sent(bytes) => write!(f, "sends {}", text(bytes)),
            Event::Ended => f.write_str("ends"),
            Event::Aborted => f.write_str("resets"),
            Event::Accepted => f.write_str("is accepted"),
            Event::Lost => f.write_str("is lost in the backlog"),
            Event::Read(bytes) if bytes.is_empty() => f.write_str("the server reads the end"),
            Event::Read(bytes) => write!(f, "the server reads {}", text(bytes)),
            Event::Waits => f.write_str("the server finds nothing to read"),
            Event::Interrupted => f.write_str("the server is interrupted"),
            Event::Wrote(bytes) => write!(f, "the server writes {}", text(bytes)),
            Event::Failed(kind) => write!(f, "the server sees {kind:?}"),
            Event::Shut => f.write_str("the server ends"),
            Event::Closed => f.write_str("the server closes"),
            Event::Reset => f.write_str("the server resets"),
        }
    }
}
