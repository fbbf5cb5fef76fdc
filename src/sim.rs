//! A simulated network with a virtual clock, to test a service on the loop that ships.
//!
//! Only the operating system is false here. [`Sim`] is a [`Net`] like the real
//! one, with Linux's manners: buffers that fill, edges that are told once, resets that destroy
//! bytes on their way. A [`World`] holds it, with the clients, the clock, and the faults that it
//! is told to make; one seed decides everything that is not decided by the test, so what has
//! failed once fails again.
//!
//! ```
//! use pollstack::sim::{Faults, World};
//! use pollstack::{ConnId, Context, EventLoop, Limits, ListenerConfig, ListenerId, Service};
//!
//! struct Echo;
//!
//! impl Service for Echo {
//!     type Conn = ();
//!     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
//!     fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut (), input: &[u8]) -> usize {
//!         let fits = input.len().min(cx.send_capacity(id));
//!         cx.send(id, &input[..fits]).map_or(0, |()| fits)
//!     }
//!     fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut ()) {
//!         cx.resume(id);
//!     }
//! }
//!
//! for seed in 0..100 {
//!     let world = World::new(seed);
//!     let mut server = EventLoop::with_net(world.net(), Echo, Limits::default().output(10));
//!     server.listen(ListenerConfig::new("127.0.0.1:7".parse()?))?;
//!     world.set_faults(Faults::random(seed)); // short writes, false events, interrupted calls, …
//!     let client = world.connect();
//!     client.send(b"whatever happens, this comes back");
//!     client.end();
//!     world.settle(&mut server);
//!     assert_eq!(client.read(), b"whatever happens, this comes back", "seed {seed}: {}", world.trace());
//!     assert!(client.has_ended());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Clients act between the loop's turns, or, with [`World::after`], in the middle of one. The loop may also be on a
//! network around this one, as TLS is.
//!
//! It does not have: addresses (a peer is a [`Peer::Unix`](crate::net::Peer), port 0 stays 0),
//! packets that are lost or overtake each other, and backlogs that overflow.

mod client;
mod faults;
mod log;
mod net;
mod wire;

pub use self::client::Client;
pub use self::faults::{Fault, Faults};
pub use self::log::{Entry, Event};
pub use self::net::{Listener, Sim, Stream};

use self::wire::{Buffers, Flavour, Wire};
use crate::event_loop::EventLoop;
use crate::limits::Limits;
use crate::listener::ListenerConfig;
use crate::net::{Net, Ready, Source};
use crate::service::Service;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How many turns a loop may take to come to rest before it is said to spin.
const SPIN: usize = 100_000;

/// Bytes of its client that a server's socket holds, unless told otherwise.
pub const RECEIVE_BUFFER: usize = 128 * 1024;

/// Bytes that a server's socket takes while its client has no window, unless told otherwise.
pub const SEND_BUFFER: usize = 128 * 1024;

/// Bytes that a client's socket takes while the client does not read, unless told otherwise.
pub const WINDOW: usize = 64 * 1024;

/// How many events a wait brings at the most.
const EVENTS: usize = 1024;

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
    /// The errors of the next accepts.
    accept_errors: VecDeque<ErrorKind>,
    listeners: Vec<Backlog>,
    wires: Vec<Wire>,
    /// The connections that the server has begun, and the test has not taken yet.
    outgoing: VecDeque<usize>,
    /// The sources with an edge that the loop has not been told of, in that order.
    edges: VecDeque<Edge>,
    flavour: Flavour,
    buffers: Buffers,
    /// How many calls the server has made, and what clients do when it has made so many.
    calls: usize,
    /// The names of the calls, if they are recorded.
    recorded: Option<Vec<&'static str>>,
    actions: Vec<(usize, Action)>,
    /// How often the loop has waited.
    waits: usize,
    log: Vec<Entry>,
}

/// Something that a client does in a while.
struct Action(Box<dyn FnOnce()>);

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Action")
    }
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
    Reported(Source, Ready),
}

impl World {
    /// Makes a world in which `seed` decides what the test does not. It has no faults yet.
    pub fn new(seed: u64) -> World {
        let start = Instant::now(); // any will do: only differences count
        World(Rc::new(RefCell::new(State {
            start,
            now: start,
            random: fastrand::Rng::with_seed(seed),
            faults: Faults::default(),
            fired: [0; Fault::ALL.len()],
            accept_errors: VecDeque::new(),
            listeners: Vec::new(),
            wires: Vec::new(),
            outgoing: VecDeque::new(),
            edges: VecDeque::new(),
            flavour: Flavour::Tcp,
            buffers: Buffers { receive: RECEIVE_BUFFER, send: SEND_BUFFER, window: WINDOW },
            calls: 0,
            recorded: None,
            actions: Vec::new(),
            waits: 0,
            log: Vec::new(),
        })))
    }

    /// Returns the network, for [`EventLoop::with_net`]; one loop's only. A loop that is dropped closes its
    /// connections at once: stop it, if its clients are to be served to the end.
    pub fn net(&self) -> Sim {
        Sim::new(self.clone())
    }

    /// Sets the faults from here on.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.0.borrow_mut();
        state.faults = faults;
        state.accept_errors.clear();
    }

    /// Has the next accepts and connects fail, while connections wait. An error of kind
    /// [`Other`](ErrorKind::Other) is that of a process that has no descriptor left.
    pub fn fail_accepts(&self, errors: impl IntoIterator<Item = ErrorKind>) {
        self.0.borrow_mut().accept_errors.extend(errors);
    }

    /// Returns how often each kind of fault has been made.
    pub fn faults_fired(&self) -> impl Iterator<Item = (Fault, u64)> + use<> {
        Fault::ALL.into_iter().zip(self.0.borrow().fired)
    }

    /// Sets the sizes of the server's buffers for the clients that connect from here on:
    /// [`RECEIVE_BUFFER`] and [`SEND_BUFFER`].
    pub fn set_buffers(&self, receive: usize, send: usize) {
        let buffers = &mut self.0.borrow_mut().buffers;
        (buffers.receive, buffers.send) = (receive.max(1), send.max(1));
    }

    /// Sets the size of the clients' own buffers ([`WINDOW`]), for those that connect from here on.
    pub fn set_window(&self, window: usize) {
        self.0.borrow_mut().buffers.window = window.max(1);
    }

    /// Whether the clients that connect from here on do so through a Unix socket: what is written is
    /// theirs at once, and no reset destroys it.
    pub fn set_unix(&self, unix: bool) {
        self.0.borrow_mut().flavour = if unix { Flavour::Unix } else { Flavour::Tcp };
    }

    /// Returns how many calls the server has made.
    pub fn calls(&self) -> usize {
        self.0.borrow().calls
    }

    /// Takes the calls that the server has made since the last time, by the names of the functions of
    /// [`Net`], waits apart. The first time, recording begins.
    pub fn take_calls(&self) -> Vec<&'static str> {
        self.0.borrow_mut().recorded.replace(Vec::new()).unwrap_or_default()
    }

    /// Has a client, or the clock, do something before the server's next call but `calls`, be it in
    /// the middle of a turn. A wait is a call.
    pub fn after(&self, calls: usize, action: impl FnOnce() + 'static) {
        let mut state = self.0.borrow_mut();
        let at = state.calls + calls + 1;
        state.actions.push((at, Action(Box::new(action))));
    }

    /// The server makes a call: what was to happen by now happens.
    fn step(&self) {
        let mut state = self.0.borrow_mut();
        state.calls += 1;
        if state.actions.is_empty() {
            return;
        }
        let now = state.calls;
        let (due, later) = std::mem::take(&mut state.actions).into_iter().partition(|(at, _)| *at <= now);
        state.actions = later;
        drop(state);
        let due: Vec<(usize, Action)> = due;
        due.into_iter().for_each(|(_, Action(act))| act());
    }

    /// Returns the time.
    pub fn now(&self) -> Instant {
        self.0.borrow().now
    }

    /// Returns the time since the world began, as in its log.
    pub fn elapsed(&self) -> Duration {
        let state = self.0.borrow();
        state.now - state.start
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        self.0.borrow_mut().now += time;
    }

    /// Makes a loop in this world that serves one listener.
    ///
    /// # Panics
    /// If the limits do not fit the network, see [`EventLoop::listen`].
    pub fn serve<S: Service>(&self, service: S, limits: Limits, listener: ListenerConfig) -> EventLoop<S, Sim> {
        let mut event_loop = EventLoop::with_net(self.net(), service, limits);
        event_loop.listen(listener).unwrap_or_else(|error| panic!("cannot serve: {error}"));
        event_loop
    }

    /// A client connects to the first listener.
    pub fn connect(&self) -> Client {
        self.connect_to(0)
    }

    /// A client connects to the first listener, and sends.
    pub fn send(&self, bytes: &[u8]) -> Client {
        let client = self.connect();
        client.send(bytes);
        client
    }

    /// A client connects to a listening socket, counted over all
    /// [`listen`](EventLoop::listen)s and their addresses from 0. If it does not listen, the client
    /// is refused: it has been reset.
    pub fn connect_to(&self, listener: usize) -> Client {
        let mut state = self.0.borrow_mut();
        let number = state.wire();
        match state.listeners.get_mut(listener).filter(|backlog| backlog.open) {
            Some(backlog) => {
                backlog.waiting.push_back(number);
                state.listener_edge(listener);
            }
            None => state.wires[number].refuse(),
        }
        Client { world: self.clone(), number }
    }

    /// Makes a connection that goes through no listener, for [`EventLoop::adopt`].
    pub fn stream(&self) -> (Client, Stream) {
        let number = self.0.borrow_mut().wire();
        (Client { world: self.clone(), number }, Stream::new(number))
    }

    /// Takes the next connection that the server has begun ([`Context::connect`](crate::Context::connect)),
    /// seen from its peer, which has still to [answer](Client::answer).
    ///
    /// ```
    /// # use pollstack::{ConnId, Context, Limits, ListenerConfig, ListenerId, Service, sim::World};
    /// # struct Idle;
    /// # impl Service for Idle {
    /// #     type Conn = ();
    /// #     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
    /// #     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
    /// # }
    /// let (world, outgoing) = (World::new(0), ListenerId::new());
    /// let mut server = world.serve(Idle, Limits::default(), ListenerConfig::unbound().id(outgoing));
    /// server.call(|_, cx| {
    ///     let id = cx.connect(outgoing, "192.0.2.1:80".parse().expect("an address"));
    ///     cx.send(id, b"hello")
    /// })?;
    /// world.settle(&mut server);
    /// let peer = world.next_outgoing().expect("the server connects");
    /// peer.answer();
    /// world.settle(&mut server);
    /// assert_eq!(peer.read(), b"hello");
    /// # Ok::<(), pollstack::SendError>(())
    /// ```
    pub fn next_outgoing(&self) -> Option<Client> {
        let number = self.0.borrow_mut().outgoing.pop_front()?;
        Some(Client { world: self.clone(), number })
    }

    /// Returns how many connections wait to be accepted.
    pub fn waiting(&self) -> usize {
        self.0.borrow().listeners.iter().map(|backlog| backlog.waiting.len()).sum()
    }

    /// Has the next wait report an event, which need not be true.
    pub fn report(&self, source: Source, ready: Ready) {
        self.0.borrow_mut().edges.push_back(Edge::Reported(source, ready));
    }

    /// Waits, hands over what has happened, and has one turn of the loop.
    pub fn turn<S: Service, N: Net>(&self, event_loop: &mut EventLoop<S, N>) {
        self.turn_after(event_loop, || {});
    }

    /// The same, and between the wait and the turn `meanwhile` happens: the host may have been
    /// suspended, with clients that went on sending.
    pub fn turn_after<S: Service, N: Net>(&self, event_loop: &mut EventLoop<S, N>, meanwhile: impl FnOnce()) {
        let cap = self.0.borrow_mut().event_cap();
        for _ in 0..event_loop.batches(cap) {
            self.step();
            let events = self.0.borrow_mut().wait(cap);
            let full = events.len() >= cap;
            for (source, ready) in events {
                event_loop.notify(source, ready);
            }
            if !full {
                break;
            }
        }
        meanwhile();
        event_loop.turn();
    }

    /// Returns whether the loop has something to do before time passes.
    pub fn has_work<S: Service, N: Net>(&self, event_loop: &mut EventLoop<S, N>) -> bool {
        let state = self.0.borrow();
        let quiet = state.edges.is_empty() && state.actions.is_empty();
        drop(state);
        !quiet || event_loop.timeout() == Some(Duration::ZERO)
    }

    /// Has turns until the loop would sleep; how many. No time passes: a test that waits for a deadline
    /// waits on.
    ///
    /// # Panics
    /// If the loop spins.
    pub fn settle<S: Service, N: Net>(&self, event_loop: &mut EventLoop<S, N>) -> usize {
        let rest = (0..SPIN).find(|_| {
            let work = self.has_work(event_loop);
            if work {
                self.turn(event_loop);
            }
            !work
        });
        rest.unwrap_or_else(|| panic!("the loop spins: it has not come to rest in {SPIN} turns"))
    }

    /// Takes the events since the last call. They are kept until they are taken.
    pub fn take_log(&self) -> Vec<Entry> {
        std::mem::take(&mut self.0.borrow_mut().log)
    }

    /// Returns the events since the log was last taken, a line each.
    pub fn trace(&self) -> String {
        self.0.borrow().log.iter().map(|entry| format!("{entry}\n")).collect()
    }
}

impl State {
    fn log(&mut self, client: usize, event: Event) {
        self.log.push(Entry { at: self.now - self.start, waits: self.waits, client, event });
    }

    /// Makes a connection. Returns its number.
    fn wire(&mut self) -> usize {
        let number = self.wires.len();
        self.wires.push(Wire::new(self.flavour, self.buffers));
        self.log(number, Event::Connected);
        number
    }

    /// The server begins a connection. Returns its number.
    fn connect(&mut self) -> usize {
        let number = self.wires.len();
        self.wires.push(Wire::new(self.flavour, self.buffers));
        self.wires[number].begin_connecting();
        self.outgoing.push_back(number);
        self.log(number, Event::Called);
        number
    }

    /// Returns whether a fault is to be made now.
    fn fault(&mut self, fault: Fault) -> bool {
        let fires = match self.faults.one_in(fault) {
            0 => false,
            n => self.random.u32(..n) == 0,
        };
        self.fired[fault as usize] += u64::from(fires);
        fires
    }

    /// Returns the error of an accept. Once there is no descriptor left, a few accepts fail in a row.
    fn accept_error(&mut self) -> Option<io::Error> {
        if self.accept_errors.is_empty() && self.fault(Fault::NoDescriptors) {
            let accepts = self.random.usize(1..6);
            self.accept_errors.extend(std::iter::repeat_n(ErrorKind::Other, accepts)); // EMFILE has no kind of its own
        }
        self.accept_errors.pop_front().map(io::Error::from)
    }

    /// Returns some of `n`, at least one, and less than all if there are more.
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

    /// Returns how many events the waits before the next turn bring at a time.
    fn event_cap(&mut self) -> usize {
        if self.edges.len() > 1 && self.fault(Fault::TruncatedEvents) { self.random.usize(1..4) } else { EVENTS }
    }

    /// Returns at most `cap` events of the sources that have had an edge. As epoll, this looks at each again: an edge
    /// that nothing is behind any more is no event.
    fn wait(&mut self, cap: usize) -> Vec<(Source, Ready)> {
        self.waits += 1;
        let mut events = Vec::new();
        while events.len() < cap {
            let Some(edge) = self.edges.pop_front() else { break };
            events.extend(self.event(edge));
        }
        if events.len() < cap && self.fault(Fault::SpuriousEvent) {
            events.push(self.spurious_event());
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
            Edge::Reported(source, ready) => Some((source, ready)),
        }
    }

    /// Returns an event that need not be true, or about any connection.
    fn spurious_event(&mut self) -> (Source, Ready) {
        let mut bit = || self.random.bool();
        let ready = Ready { readable: bit(), writable: bit(), read_closed: bit(), error: bit(), urgent: bit() };
        let key = self.random.usize(..self.wires.len().clamp(1, 200));
        let source = if self.random.u8(..4) == 0 { Source::Listener(key % 4) } else { Source::Connection(key) };
        (source, ready)
    }
}
