//! A network in memory, and a clock that stands still until it is moved: just enough of a `Net` to
//! put the loop into situations that a real kernel hardly ever produces.

use pollstack::net::{Address, Interest, Net, Peer, Ready, SocketOptions, Source};
use pollstack::{EventLoop, Limits, ListenerConfig, ListenerId, Overload, Service};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The far side of the network: what clients do, and what the loop has asked of its system.
#[derive(Clone)]
pub struct World(Rc<RefCell<State>>);

struct State {
    now: Instant,
    backlogs: Vec<VecDeque<Wire>>,
    accept_errors: VecDeque<ErrorKind>,
    events: VecDeque<(Source, Ready)>,
    calls: Vec<&'static str>,
}

/// One connection, seen from the client.
#[derive(Clone)]
pub struct Wire(Rc<RefCell<Pipe>>, World);

struct Pipe {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
    /// How much more the kernel takes from the server.
    window: usize,
    fin: bool,
    error: Option<ErrorKind>,
    interruptions: usize,
    shut: bool,
    closed: bool,
    /// The close met unread input, and became a reset.
    destroyed: bool,
    /// The server has closed with a reset.
    reset: bool,
    accepted: bool,
    watched: Option<(usize, Interest)>,
}

/// The near side: what the loop runs on.
pub struct Fake(World);

impl Fake {
    pub fn of(world: &World) -> Fake {
        Fake(world.clone())
    }
}

impl World {
    pub fn new() -> World {
        World(Rc::new(RefCell::new(State {
            now: Instant::now(),
            backlogs: Vec::new(),
            accept_errors: VecDeque::new(),
            events: VecDeque::new(),
            calls: Vec::new(),
        })))
    }

    /// A loop in this world with one listener.
    pub fn serve<S: Service>(&self, service: S, limits: Limits, max: usize, overload: Overload) -> EventLoop<S, Fake> {
        let mut event_loop = EventLoop::with_net(Fake(self.clone()), service, limits);
        self.listen(&mut event_loop, max, overload);
        event_loop
    }

    pub fn listen<S: Service>(
        &self,
        event_loop: &mut EventLoop<S, Fake>,
        max: usize,
        overload: Overload,
    ) -> ListenerId {
        let listen = ListenerConfig::new("127.0.0.1:1".parse().unwrap()).max_conns(max).overload(overload);
        event_loop.listen(listen).unwrap()
    }

    /// A client connects to the first listener.
    pub fn connect(&self) -> Wire {
        self.connect_to(0)
    }

    pub fn connect_to(&self, listener: usize) -> Wire {
        let wire = self.stream();
        let mut state = self.0.borrow_mut();
        state.backlogs[listener].push_back(wire.clone());
        state.events.push_back((Source::Listener(listener), Ready { readable: true, ..Ready::default() }));
        wire
    }

    /// A connection that goes through no listener.
    pub fn stream(&self) -> Wire {
        let pipe = Pipe {
            incoming: VecDeque::new(),
            outgoing: Vec::new(),
            window: 1 << 20,
            fin: false,
            error: None,
            interruptions: 0,
            shut: false,
            closed: false,
            destroyed: false,
            reset: false,
            accepted: false,
            watched: None,
        };
        Wire(Rc::new(RefCell::new(pipe)), self.clone())
    }

    /// A client connects and sends.
    pub fn send(&self, bytes: &[u8]) -> Wire {
        let wire = self.connect();
        wire.send(bytes);
        wire
    }

    pub fn fail_accepts(&self, errors: impl IntoIterator<Item = ErrorKind>) {
        self.0.borrow_mut().accept_errors.extend(errors);
    }

    /// Tells the loop something that need not be true.
    pub fn spurious_event(&self, source: Source, ready: Ready) {
        self.0.borrow_mut().events.push_back((source, ready));
    }

    pub fn advance(&self, time: Duration) {
        self.0.borrow_mut().now += time;
    }

    pub fn waiting(&self) -> usize {
        self.0.borrow().backlogs.iter().map(VecDeque::len).sum()
    }

    /// What the loop has asked of its system since the last time.
    pub fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.borrow_mut().calls)
    }

    /// Hands over the events and has one turn.
    pub fn turn<S: Service>(&self, event_loop: &mut EventLoop<S, Fake>) {
        let events = std::mem::take(&mut self.0.borrow_mut().events);
        for (source, ready) in events {
            event_loop.notify(source, ready);
        }
        event_loop.turn();
    }

    /// Has turns until the loop would sleep; how many. A loop that never sleeps spins.
    pub fn settle<S: Service>(&self, event_loop: &mut EventLoop<S, Fake>) -> usize {
        for turns in 0..10_000 {
            let event = !self.0.borrow().events.is_empty();
            if !event && event_loop.timeout() != Some(Duration::ZERO) {
                return turns;
            }
            self.turn(event_loop);
        }
        panic!("the loop spins");
    }

    fn called(&self, call: &'static str) {
        self.0.borrow_mut().calls.push(call);
    }
}

impl Wire {
    pub fn send(&self, bytes: &[u8]) {
        self.0.borrow_mut().incoming.extend(bytes);
        self.edge(Ready { readable: true, ..Ready::default() });
    }

    pub fn fin(&self) {
        self.0.borrow_mut().fin = true;
        self.edge(Ready { readable: true, read_closed: true, ..Ready::default() });
    }

    /// Data and the end in one: there is one edge for both.
    pub fn send_and_fin(&self, bytes: &[u8]) {
        self.0.borrow_mut().incoming.extend(bytes);
        self.fin();
    }

    pub fn reset(&self) {
        self.0.borrow_mut().error = Some(ErrorKind::ConnectionReset);
        self.edge(Ready { readable: true, read_closed: true, error: true, writable: true, urgent: false });
    }

    /// The next calls are interrupted by signals.
    pub fn interrupt(&self, times: usize) {
        self.0.borrow_mut().interruptions = times;
    }

    /// From here on the kernel takes so many bytes from the server.
    pub fn set_window(&self, bytes: usize) {
        self.0.borrow_mut().window = bytes;
        if bytes > 0 {
            self.edge(Ready { writable: true, ..Ready::default() });
        }
    }

    /// The same, without a word: kernels tell of room only when there is much of it.
    pub fn set_window_silently(&self, bytes: usize) {
        self.0.borrow_mut().window = bytes;
    }

    /// What has come from the server since the last time.
    pub fn received(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().outgoing)
    }

    /// Whether the server has ended its stream, in order.
    pub fn ended(&self) -> bool {
        let pipe = self.0.borrow();
        pipe.shut || (pipe.closed && !pipe.destroyed)
    }

    pub fn closed(&self) -> bool {
        self.0.borrow().closed
    }

    pub fn destroyed(&self) -> bool {
        self.0.borrow().destroyed
    }

    pub fn was_reset(&self) -> bool {
        self.0.borrow().reset
    }

    pub fn is_accepted(&self) -> bool {
        self.0.borrow().accepted
    }

    pub fn watched(&self) -> Option<Interest> {
        self.0.borrow().watched.map(|(_, interest)| interest)
    }

    pub fn key(&self) -> usize {
        self.0.borrow().watched.expect("a watched stream").0
    }

    /// How much it has sent that the server has not read.
    pub fn unread(&self) -> usize {
        self.0.borrow().incoming.len()
    }

    fn edge(&self, ready: Ready) {
        if let Some((key, _)) = self.0.borrow().watched {
            self.1.spurious_event(Source::Connection(key), ready);
        }
    }

    fn check(&self) -> io::Result<()> {
        let mut pipe = self.0.borrow_mut();
        if pipe.interruptions > 0 {
            pipe.interruptions -= 1;
            return Err(ErrorKind::Interrupted.into());
        }
        pipe.error.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Net for Fake {
    type Listener = usize;
    type Stream = Wire;

    const SHORT_IO_EXHAUSTS: bool = true;

    fn listen(&mut self, _: &Address, _: &SocketOptions, index: usize) -> io::Result<usize> {
        self.0.0.borrow_mut().backlogs.push(VecDeque::new());
        Ok(index)
    }

    fn local_address(&self, _: &usize) -> io::Result<Address> {
        Ok("127.0.0.1:1".parse().unwrap())
    }

    fn accept(&mut self, listener: &mut usize) -> io::Result<(Wire, Peer)> {
        self.0.called("accept");
        let mut state = self.0.0.borrow_mut();
        if state.backlogs[*listener].is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        if let Some(error) = state.accept_errors.pop_front() {
            return Err(error.into());
        }
        let wire = state.backlogs[*listener].pop_front().unwrap();
        wire.0.borrow_mut().accepted = true;
        Ok((wire, Peer::Unix))
    }

    fn read(&mut self, wire: &mut Wire, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.called("read");
        wire.check()?;
        let mut pipe = wire.0.borrow_mut();
        let n = pipe.incoming.len().min(buffer.len());
        if n == 0 && !pipe.fin {
            return Err(ErrorKind::WouldBlock.into());
        }
        pipe.incoming.drain(..n).zip(buffer).for_each(|(byte, slot)| *slot = byte);
        Ok(n)
    }

    fn write(&mut self, wire: &mut Wire, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.called("write");
        wire.check()?;
        let mut pipe = wire.0.borrow_mut();
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let n = bytes.len().min(pipe.window);
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        pipe.window -= n;
        pipe.outgoing.extend(&bytes[..n]);
        Ok(n)
    }

    fn write_more(&mut self, wire: &mut Wire, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let result = self.write(wire, slices);
        if let Some(call) = self.0.0.borrow_mut().calls.last_mut() {
            *call = "write more";
        }
        result
    }

    fn send_file(&mut self, wire: &mut Wire, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        self.0.called("send_file");
        let mut pipe = wire.0.borrow_mut();
        if pipe.window == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut buffer = vec![0; len.min(pipe.window)];
        let n = file.read_at(&mut buffer, offset)?;
        pipe.window -= n;
        pipe.outgoing.extend(&buffer[..n]);
        Ok(n)
    }

    fn send_file_end(&mut self, wire: &mut Wire, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        let result = self.send_file(wire, file, offset, len);
        if let Some(call) = self.0.0.borrow_mut().calls.last_mut() {
            *call = "send_file_end";
        }
        result
    }

    fn shutdown_write(&mut self, wire: &mut Wire) -> io::Result<()> {
        self.0.called("shut");
        wire.0.borrow_mut().shut = true;
        Ok(())
    }

    fn watch(&mut self, wire: &mut Wire, key: usize, before: Option<Interest>, interest: Interest) -> io::Result<()> {
        self.0.called("watch");
        let mut pipe = wire.0.borrow_mut();
        assert_eq!(pipe.watched.map(|(_, interest)| interest), before, "the loop knows what it watches");
        pipe.watched = Some((key, interest));
        let ready = Ready {
            readable: !pipe.incoming.is_empty() || pipe.fin || pipe.error.is_some(),
            writable: interest == Interest::ReadWrite && pipe.window > 0,
            read_closed: pipe.fin,
            error: pipe.error.is_some(),
            urgent: false,
        };
        drop(pipe);
        if ready != Ready::default() {
            self.0.spurious_event(Source::Connection(key), ready);
        }
        Ok(())
    }

    fn take_error(&mut self, wire: &mut Wire) -> Option<io::Error> {
        self.0.called("take_error");
        wire.0.borrow().error.map(io::Error::from)
    }

    fn close(&mut self, wire: Wire) {
        self.0.called("close");
        let mut pipe = wire.0.borrow_mut();
        pipe.destroyed = !pipe.incoming.is_empty();
        pipe.closed = true;
        pipe.watched = None;
    }

    fn reset(&mut self, wire: Wire) {
        wire.0.borrow_mut().reset = true;
        self.close(wire);
    }

    fn now(&self) -> Instant {
        self.0.0.borrow().now
    }
}
