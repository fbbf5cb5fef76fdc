//! The clients of a flood: many connections, one request each, all on one loop of the kind that
//! serves them.

use crate::protocol::{Outcome, Protocol, Request, Response};
use hdrhistogram::Histogram;
use pollstack::net::{Peer, Stream};
use pollstack::{Closed, ConnId, Context, EofAction, EventLoop, Limits, ListenerConfig, ListenerId, Service};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use test_support::machine::{self, Placement};

/// More connections than any flood has open.
const MOST: usize = 4096;
/// Clients come from so many addresses: each has its own ports, of which those of closed
/// connections rest for a minute.
const SOURCES: usize = 200;
/// Far longer than any run takes that works.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// One load on one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flood {
    pub(crate) protocol: Protocol,
    pub(crate) order: Order,
    pub(crate) payload: usize,
    pub(crate) pace: Pace,
}

/// The requests of the clients, in the order in which they come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Push and pop in turn.
    Alternating,
    /// So many pops, then as many pushes, and so on: on an empty stack all pops park.
    PopsFirst(usize),
    /// The other way round: on a full stack all pushes park.
    PushesFirst(usize),
    /// Nothing else.
    Only(Request),
}

impl Order {
    fn request(self, n: usize) -> Request {
        let first_half = |block: usize| n % (2 * block) < block;
        match self {
            Order::Alternating if n % 2 == 0 => Request::Push,
            Order::Alternating => Request::Pop,
            Order::PopsFirst(block) if first_half(block) => Request::Pop,
            Order::PopsFirst(_) => Request::Push,
            Order::PushesFirst(block) if first_half(block) => Request::Push,
            Order::PushesFirst(_) => Request::Pop,
            Order::Only(request) => request,
        }
    }
}

/// When the next client comes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As soon as one of so many has left.
    Closed(usize),
    /// So many a second, whether the server keeps up or not. Latency counts from the time at which
    /// a client should have come, so that a server that stalls does not get less to do meanwhile
    /// (Gil Tene calls the opposite coordinated omission).
    Open(usize),
}

/// The results of the requests.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) served: u64,
    pub(crate) busy: u64,
    pub(crate) evicted: u64,
    pub(crate) errors: u64,
    /// From before the connect to the end of the answer, in nanoseconds; those served, rejected
    /// and evicted.
    pub(crate) latency: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds of a histogram");
        Tally { served: 0, busy: 0, evicted: 0, errors: 0, latency }
    }

    pub(crate) fn record(&mut self, outcome: Outcome, since: Instant) {
        let time = since.elapsed().as_nanos() as u64;
        let count = match outcome {
            Outcome::Served => &mut self.served,
            Outcome::Busy => &mut self.busy,
            Outcome::Evicted => &mut self.evicted,
            Outcome::Wrong => &mut self.errors,
        };
        *count += 1;
        if outcome != Outcome::Wrong {
            self.latency.saturating_record(time);
        }
    }

    /// Returns whether all ended in the one way in which they should have.
    pub(crate) fn check(&self, expected: Outcome) -> Result<(), String> {
        let Tally { served, busy, evicted, errors, .. } = *self;
        let right = match expected {
            Outcome::Served => served,
            Outcome::Busy => busy,
            Outcome::Evicted => evicted,
            Outcome::Wrong => errors,
        };
        if right == self.requests() {
            return Ok(());
        }
        let text = format!("{served} were served, {busy} rejected, {evicted} evicted, {errors} answered wrongly");
        Err(format!("{text}; all should have been {expected:?}"))
    }

    pub(crate) fn requests(&self) -> u64 {
        self.served + self.busy + self.evicted + self.errors
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        self.served += other.served;
        self.busy += other.busy;
        self.evicted += other.evicted;
        self.errors += other.errors;
        self.latency.add(&other.latency).expect("the same bounds");
    }
}

/// The loop of the clients, for any number of floods.
pub(crate) struct Clients {
    poll: mio::Poll,
    events: mio::Events,
    clients: EventLoop<Visitors>,
    outgoing: ListenerId,
    /// How many have been opened so far; the next source address.
    opened: usize,
    placement: Placement,
}

impl Clients {
    pub(crate) fn new() -> io::Result<Clients> {
        let poll = mio::Poll::new()?;
        let visitors = Visitors { flood: None, coming: VecDeque::new(), open: HashSet::new(), tally: Tally::new() };
        let mut clients = EventLoop::embedded(visitors, Limits::default(), poll.registry(), 0..2 * MOST)?;
        let outgoing = clients.listen(ListenerConfig::unbound().max_conns(MOST))?;
        Ok(Clients {
            poll,
            events: mio::Events::with_capacity(1024),
            clients,
            outgoing,
            opened: 0,
            placement: Placement::Apart,
        })
    }

    /// Puts the clients where they belong.
    pub(crate) fn place(&mut self, placement: Placement) {
        machine::place_clients(placement);
        self.placement = placement;
    }

    pub(crate) fn placement(&self) -> Placement {
        self.placement
    }

    /// Sends requests to `servers`, two to each in turn, until `count` have ended. Those that are still open then, such as the
    /// pops that have not been evicted yet, are cancelled.
    pub(crate) fn run(&mut self, servers: &[SocketAddr], flood: Flood, requests: usize) -> io::Result<Tally> {
        self.clients.call(|visitors, _| visitors.flood = Some(flood));
        let (start, mut opened) = (Instant::now(), 0);
        // Pops alone only end when others come for their places.
        let last = if matches!(flood.order, Order::Only(Request::Pop)) { usize::MAX } else { requests };
        while self.finished() < requests {
            while let Some(due) = self.next_due(flood.pace, start, opened).filter(|_| opened < last) {
                self.open(servers[opened / 2 % servers.len()], flood.order.request(opened), due)?;
                opened += 1;
            }
            // A pace to the microsecond leaves no time to sleep: timers are coarser.
            let keeps_pace = matches!(flood.pace, Pace::Open(_)) && opened < last;
            if self.placement == Placement::Limit {
                thread::sleep(machine::NAP);
            }
            self.turn(if keeps_pace { Duration::ZERO } else { LONGEST_SLEEP })?;
            if start.elapsed() > TEST_TIMEOUT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer"));
            }
        }
        Ok(self.end())
    }

    /// Returns when the next client is or was due, if that has come.
    fn next_due(&self, pace: Pace, start: Instant, opened: usize) -> Option<Instant> {
        match pace {
            Pace::Closed(clients) => (opened < self.finished() + clients).then(Instant::now),
            Pace::Open(rate) => {
                let due = start + Duration::from_secs_f64(opened as f64 / rate as f64);
                (due <= Instant::now()).then_some(due)
            }
        }
    }

    fn finished(&self) -> usize {
        self.clients.service().tally.requests() as usize
    }

    /// Connects, and sends the request at once: the server is to find it when it accepts.
    fn open(&mut self, server: SocketAddr, request: Request, due: Instant) -> io::Result<()> {
        self.opened += 1;
        let stream = connect(server, self.opened)?;
        stream.set_nonblocking(true)?;
        self.clients.call(|visitors, _| visitors.coming.push_back((request, due)));
        let stream = Stream::Tcp(mio::net::TcpStream::from_std(stream));
        self.clients.adopt(self.outgoing, stream, Peer::Tcp(server))?;
        self.clients.turn();
        Ok(())
    }

    fn turn(&mut self, longest: Duration) -> io::Result<()> {
        let timeout = self.clients.timeout().map_or(longest, |timeout| timeout.min(longest));
        self.poll.poll(&mut self.events, Some(timeout))?;
        for event in &self.events {
            self.clients.handle_event(event);
        }
        self.clients.turn();
        Ok(())
    }

    /// Closes what is still open, uncounted.
    fn end(&mut self) -> Tally {
        self.clients.call(|visitors, cx| {
            visitors.flood = None;
            visitors.open.iter().for_each(|id| cx.abort(*id));
            std::mem::replace(&mut visitors.tally, Tally::new())
        })
    }
}

/// Connects from the `n`th address.
pub(crate) fn connect(server: SocketAddr, n: usize) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    let source = SocketAddr::from(([127, 0, 0, 2 + (n % SOURCES) as u8], 0));
    socket.bind(&source.into())?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

/// The service of the clients: each says its request and hears the answer.
struct Visitors {
    flood: Option<Flood>,
    /// Those adopted, in order, that have not been opened yet.
    coming: VecDeque<(Request, Instant)>,
    open: HashSet<ConnId>,
    tally: Tally,
}

struct Visit {
    request: Request,
    due: Instant,
    response: Vec<u8>,
    /// It has answered what it was told to.
    said: bool,
    over: bool,
}

impl Visitors {
    /// Goes on with what has been response.
    fn hear(&mut self, cx: &mut Context<'_>, id: ConnId, visit: &mut Visit, ended: bool) {
        let Some(flood) = self.flood.filter(|_| !visit.over) else { return };
        match flood.protocol.hear(visit.request, flood.payload, &visit.response, ended) {
            Response::Part => {}
            Response::Say(_) if visit.said => {}
            Response::Say(words) => {
                visit.said = true;
                let _ = cx.send(id, &words);
            }
            Response::Done(outcome) => {
                visit.over = true;
                self.tally.record(outcome, visit.due);
                cx.finish(id);
            }
        }
    }
}

impl Service for Visitors {
    type Conn = Visit;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) -> Visit {
        let (request, due) = self.coming.pop_front().unwrap_or((Request::Late, Instant::now()));
        if let Some(flood) = self.flood {
            let _ = cx.send(id, &flood.protocol.ask(request, flood.payload));
        }
        self.open.insert(id);
        Visit { request, due, response: Vec::new(), said: false, over: false }
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, visit: &mut Visit, input: &[u8]) -> usize {
        visit.response.extend_from_slice(input);
        self.hear(cx, id, visit, false);
        input.len()
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, id: ConnId, visit: &mut Visit) -> EofAction {
        self.hear(cx, id, visit, true);
        EofAction::Finish
    }

    fn on_close(&mut self, _: &mut Context<'_>, id: ConnId, visit: Visit, _: Closed) {
        self.open.remove(&id);
        if self.flood.is_some() && !visit.over {
            self.tally.record(Outcome::Wrong, visit.due); // a reset, for example
        }
    }
}
