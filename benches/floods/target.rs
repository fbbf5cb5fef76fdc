//! A server in its scenario: set up for it, loaded, traced.

use crate::clients::{Clients, Flood, Order, Pace, Tally, connect};
use crate::persistent_clients::PersistentClients;
use crate::protocol::{Outcome, Protocol, Request};
use crate::scenario::{EVICTING, Entry, Load, PLACES};
use crate::servers::{Instance, Kind, Setup};
use crate::upload::upload;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use test_support::TEST_TIMEOUT;
use test_support::machine::{self, Calls, Placement, Strace};

/// Places enough for a flood whose clients are told of a close before the server has counted it.
const MANY_PLACES: usize = 10 * PLACES;

pub(crate) struct Target {
    pub(crate) entry: Entry,
    pub(crate) target: Instance,
    load: Load,
    persistent_clients: Option<PersistentClients>,
    /// Connections that fill its places, or are idle.
    held: Vec<TcpStream>,
    /// Resident bytes for each idle connection.
    pub(crate) each: Option<u64>,
    /// It has not done what it should; it takes no further part.
    pub(crate) failed: Option<String>,
}

impl Target {
    /// Starts a server, and puts it into the state that the load is for.
    pub(crate) fn prepare(load: Load, entry: Entry, clients: &mut Clients) -> Result<Target, String> {
        Target::prepare_under(&[], load, entry, clients)
    }

    /// The same, as an argument of another program.
    pub(crate) fn prepare_under(
        wrapper: &[&str],
        load: Load,
        entry: Entry,
        clients: &mut Clients,
    ) -> Result<Target, String> {
        let evicts = matches!(load, Load::Evictions);
        let bounded = matches!(load, Load::Crowd { .. } | Load::Evictions);
        let places = if bounded { PLACES } else { MANY_PLACES };
        let (limit, _) = rlimit::Resource::NOFILE.get().map_err(|error| error.to_string())?;
        let needed = (entry.idle + places) as u64;
        if entry.idle > 0 && limit < needed {
            return Err(format!("it needs {needed} descriptors, and {limit} are allowed (see `ulimit -n`)"));
        }
        let setup = Setup { clients: Some(places + entry.idle), evicts, ..Setup::default() };
        let target = entry.kind.start_under(wrapper, setup)?;
        let (persistent_clients, held) = (None, Vec::new());
        let mut target = Target { entry, target, load, persistent_clients, held, each: None, failed: None };
        target.set_up(clients).map_err(|error| format!("cannot be set up: {error}"))?;
        Ok(target)
    }

    fn set_up(&mut self, clients: &mut Clients) -> Result<(), String> {
        match self.load {
            Load::Flood { order, payload, .. } => {
                let items = match order {
                    Order::Alternating => PLACES / 2,
                    Order::PushesFirst(_) => PLACES,
                    Order::PopsFirst(_) | Order::Only(_) => 0,
                };
                self.fill(clients, items, payload)?;
            }
            Load::Crowd { .. } => self.hold(PLACES, b"\x01").map_err(|error| error.to_string())?,
            Load::Messages(messages) => {
                let persistent_clients = PersistentClients::connect(self.target.address, messages);
                self.persistent_clients = Some(persistent_clients.map_err(|error| error.to_string())?);
            }
            Load::Evictions | Load::Upload { .. } => {}
        }
        if self.entry.idle > 0 {
            self.idle(self.entry.idle).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Puts items on the stack.
    fn fill(&self, clients: &mut Clients, items: usize, payload: usize) -> Result<(), String> {
        let order = Order::Only(Request::Push);
        let flood = Flood { protocol: self.target.kind.protocol(), order, payload, pace: Pace::Closed(10) };
        if items > 0 {
            let tally = clients.run(&self.target.addresses(), flood, items).map_err(|error| error.to_string())?;
            tally.check(Outcome::Served)?;
        }
        Ok(())
    }

    /// Fills the places with connections that have sent a part of a request.
    fn hold(&mut self, count: usize, part: &[u8]) -> io::Result<()> {
        self.held = (0..count).map(|n| partial(&self.target, n, part)).collect::<io::Result<_>>()?;
        patiently("no client is rejected", || {
            let reply = connect(self.target.address, 0).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_millis(20)))?;
                stream.read(&mut [0; 1])
            });
            reply.is_ok()
        })
    }

    /// Has the server hold idle connections, and finds out what memory they take.
    fn idle(&mut self, count: usize) -> io::Result<()> {
        let part: &[u8] = if self.target.kind.protocol() == Protocol::Stack { b"\x01" } else { b"p" };
        let before = self.target.server.memory();
        self.held = (0..count).map(|n| partial(&self.target, n, part)).collect::<io::Result<_>>()?;
        // A few descriptors are the server's own, or of clients that have just left.
        patiently("the server does not hold them all", || self.target.server.descriptors() >= count)?;
        self.each = Some(self.target.server.memory().saturating_sub(before) / count as u64);
        Ok(())
    }

    /// Has the server serve so many requests. Every one of them has to end as the scenario says.
    pub(crate) fn serve(&mut self, clients: &mut Clients, requests: usize) -> Result<Tally, String> {
        let tally = self.ask(clients, requests).map_err(|error| error.to_string())?;
        tally.check(match self.load {
            Load::Crowd { .. } => Outcome::Busy,
            Load::Evictions => Outcome::Evicted,
            Load::Flood { .. } | Load::Messages(_) | Load::Upload { .. } => Outcome::Served,
        })?;
        Ok(tally)
    }

    fn ask(&mut self, clients: &mut Clients, requests: usize) -> io::Result<Tally> {
        let protocol = self.target.kind.protocol();
        let flood = |order, payload, pace| Flood { protocol, order, payload, pace };
        let addresses = self.target.addresses();
        match self.load {
            Load::Flood { order, payload, pace } => {
                let whole = match order {
                    Order::PopsFirst(block) | Order::PushesFirst(block) => requests.next_multiple_of(2 * block),
                    Order::Alternating | Order::Only(_) => requests.next_multiple_of(2),
                };
                clients.run(&addresses, flood(order, payload, pace), whole)
            }
            Load::Crowd { request, clients: crowd } => {
                clients.run(&addresses, flood(Order::Only(request), 1, Pace::Closed(crowd)), requests)
            }
            Load::Evictions => {
                let pace = Pace::Closed(PLACES + EVICTING);
                clients.run(&addresses, flood(Order::Only(Request::Pop), 1, pace), requests)
            }
            Load::Messages(_) => match &mut self.persistent_clients {
                Some(persistent_clients) => persistent_clients.run(requests, clients.placement()),
                None => Ok(Tally::new()),
            },
            Load::Upload { mebibytes } => {
                let (mut tally, start) = (Tally::new(), Instant::now());
                upload(&self.target, mebibytes)?;
                tally.record(Outcome::Served, start);
                Ok(tally)
            }
        }
    }

    /// Returns the system calls of the server for so many requests, and for how many units they were;
    /// `None` where strace cannot be had.
    pub(crate) fn trace(&mut self, clients: &mut Clients, requests: usize) -> Result<Option<(Calls, f64)>, String> {
        let Some(strace) = Strace::attach(self.target.server.pid()) else { return Ok(None) };
        let tally = self.serve(clients, requests)?;
        Ok(Some((strace.stop(), self.load.units(&tally))))
    }
}

/// Waits until something is so.
fn patiently(otherwise: &str, mut is_so: impl FnMut() -> bool) -> io::Result<()> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > TEST_TIMEOUT {
            return Err(io::Error::new(io::ErrorKind::TimedOut, otherwise));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn partial(target: &Instance, n: usize, part: &[u8]) -> io::Result<TcpStream> {
    let mut stream = connect(target.address, n)?;
    stream.write_all(part)?;
    Ok(stream)
}

/// Returns the system calls of our server for a load, and for how many requests they were; `None` where
/// strace cannot be had.
pub(crate) fn counted(load: Load, requests: usize, clients: &mut Clients) -> Result<Option<(Calls, f64)>, String> {
    let entry = Entry { kind: Kind::Pollstack, idle: 0 };
    let mut ours = Target::prepare(load, entry, clients)?;
    clients.place(Placement::Apart);
    machine::place(&ours.target.server, Placement::Limit);
    ours.serve(clients, requests.div_ceil(4))?; // to warm up
    ours.trace(clients, requests)
}

/// Pops that wait, all of which the server has accepted.
pub(crate) fn park(target: &Instance, clients: usize) -> Result<Vec<TcpStream>, String> {
    let descriptors = target.server.descriptors();
    let parked = (0..clients).map(|n| partial(target, n, b"\x80")).collect::<io::Result<_>>();
    let parked = parked.map_err(|error| error.to_string())?;
    let all = || target.server.descriptors() >= descriptors + clients;
    patiently("the server does not accept them all", all).map_err(|error| error.to_string())?;
    Ok(parked)
}

/// Resident bytes of our server for a parked client, of so many.
pub(crate) fn parked_bytes(clients: usize) -> Result<u64, String> {
    let target = Kind::Pollstack.start(Setup { clients: Some(clients), ..Setup::default() })?;
    let before = target.server.memory();
    let _parked = park(&target, clients)?;
    Ok(target.server.memory().saturating_sub(before) / clients as u64)
}
