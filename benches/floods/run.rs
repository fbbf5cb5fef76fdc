//! Runs a scenario: all its servers in turns, there and back, so that what slows the machine down
//! slows all of them down.

use crate::clients::{Clients, Flood, Order, Pace, Tally, connect};
use crate::common::wait_until;
use crate::machine::{self, Calls, Placement, Strace, Void};
use crate::scenario::{EVICTING, Entry, Load, Scenario};
use crate::servers::{Kind, Setup, Target};
use crate::talkers::Talkers;
use crate::tongue::{Tongue, Wish};
use crate::upload::upload;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How many clients a server holds at once, unless the scenario says otherwise.
const PLACES: usize = 100;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Pairs of A B and B A.
    pub(crate) pairs: usize,
    /// Requests of a server in a turn.
    pub(crate) requests: usize,
    /// Count the system calls of all servers, not only of ours.
    pub(crate) strace_all: bool,
}

/// What has been found out about one server in one scenario.
pub(crate) struct Row {
    pub(crate) entry: Entry,
    pub(crate) halves: Vec<Half>,
    /// System calls of the server for a request, and which.
    pub(crate) calls: Option<(f64, String)>,
    /// Resident bytes of the server, at the end.
    pub(crate) resident: u64,
    /// Resident bytes for each idle connection.
    pub(crate) each: Option<u64>,
}

/// What has been found out with both ends in their places.
pub(crate) struct Half {
    pub(crate) placement: Placement,
    pub(crate) tally: Tally,
    /// Requests a second of elapsed time.
    pub(crate) rate: f64,
    /// Processor time of the server for a request, in microseconds: quartiles.
    pub(crate) cpu: [f64; 3],
    /// The same as a ratio to the base, turn by turn: quartiles.
    pub(crate) ratio: Option<[f64; 3]>,
    /// How much of the time the clients had a processor.
    pub(crate) clients_busy: f64,
    /// They are busy waiting for the time of the next request.
    pub(crate) keeps_pace: bool,
    pub(crate) void: Void,
}

impl Row {
    pub(crate) fn half(&self, placement: Placement) -> Option<&Half> {
        self.halves.iter().find(|half| half.placement == placement)
    }
}

/// A server in its scenario.
struct Contestant {
    entry: Entry,
    target: Target,
    talkers: Option<Talkers>,
    /// Connections that fill its places, or are idle.
    held: Vec<TcpStream>,
    each: Option<u64>,
}

/// All turns of a server in one placement.
struct Turns {
    tally: Tally,
    elapsed: Duration,
    clients_cpu: Duration,
    cpu: Vec<f64>,
    void: Void,
}

/// Runs a scenario; those who cannot take part are returned with the reason.
pub(crate) fn run(scenario: &Scenario, effort: Effort, clients: &mut Clients) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut contestants, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    clients.place(Placement::Apart);
    for entry in &scenario.entries {
        match Contestant::prepare(scenario.load, *entry, clients) {
            Ok(contestant) => {
                let resident = 0;
                rows.push(Row { entry: *entry, halves: vec![], calls: None, resident, each: contestant.each });
                contestants.push(contestant);
            }
            Err(why) => absent.push(format!("{}: {why}", entry.name())),
        }
    }
    for placement in scenario.placements {
        let halves = compare(scenario, *placement, &mut contestants, effort, clients);
        halves.into_iter().zip(&mut rows).for_each(|(half, row)| row.halves.push(half));
    }
    clients.place(Placement::Apart);
    for (n, (contestant, row)) in contestants.iter_mut().zip(&mut rows).enumerate() {
        if effort.strace_all || n == 0 {
            machine::place(&contestant.target.server, Placement::Limit);
            let requests = requests(scenario.load, effort).min(2_000);
            let traced = contestant.trace(scenario.load, clients, requests);
            row.calls = traced.map(|(calls, units)| (calls.total() as f64 / units, calls.list(units)));
        }
        row.resident = contestant.target.server.memory();
    }
    eprint!("\r{:60}\r", "");
    (rows, absent)
}

/// All servers in turns, there and back, so that what slows the machine down slows all of them down.
fn compare(
    scenario: &Scenario,
    placement: Placement,
    contestants: &mut [Contestant],
    effort: Effort,
    clients: &mut Clients,
) -> Vec<Half> {
    let load = scenario.load;
    contestants.iter().for_each(|contestant| machine::place(&contestant.target.server, placement));
    clients.place(placement);
    let mut turns: Vec<Turns> = contestants.iter().map(|_| Turns::new()).collect();
    for one in contestants.iter_mut() {
        one.load(load, clients, requests(load, effort).div_ceil(4)); // to warm up
    }
    for pair in 0..pairs(load, effort) {
        eprint!("\r{}, {}: {}          ", scenario.name, placement.name(), pair + 1);
        let mut turn = |one: &mut Contestant, turns: &mut Turns| {
            turns.take(one, load, clients, one.share(requests(load, effort)));
        };
        contestants.iter_mut().zip(&mut turns).for_each(|(one, turns)| turn(one, turns));
        contestants.iter_mut().zip(&mut turns).rev().for_each(|(one, turns)| turn(one, turns));
    }
    let cpus: Vec<Vec<f64>> = turns.iter().map(|turns| turns.cpu.clone()).collect();
    let half = |(n, turns): (usize, Turns)| {
        let base = base(scenario, contestants, contestants[n].entry);
        turns.into_half(load, placement, base.map(|base| ratios(&cpus[n], &cpus[base])))
    };
    turns.into_iter().enumerate().map(half).collect()
}

fn requests(load: Load, effort: Effort) -> usize {
    match load {
        Load::Flood { pace: Pace::Open(rate), .. } => rate / 2,
        Load::Flood { pace: Pace::Closed(1), .. } => effort.requests / 2,
        Load::Messages(messages) => messages.scaled(effort.requests),
        Load::Upload { .. } => 1,
        Load::Crowd { .. } | Load::Evictions | Load::Flood { .. } => effort.requests,
    }
}

/// A file takes a second.
fn pairs(load: Load, effort: Effort) -> usize {
    if matches!(load, Load::Upload { .. }) { effort.pairs.div_ceil(2) } else { effort.pairs }
}

/// Whom an entry is compared with.
fn base(scenario: &Scenario, contestants: &[Contestant], entry: Entry) -> Option<usize> {
    let kind = if scenario.name == "idle" { entry.kind } else { scenario.base? };
    contestants.iter().position(|one| one.entry == Entry { kind, idle: 0 })
}

/// The quartiles.
fn middle(figures: &mut [f64]) -> [f64; 3] {
    figures.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| figures[figures.len() * quarter / 4])
}

fn ratios(one: &[f64], other: &[f64]) -> [f64; 3] {
    middle(&mut one.iter().zip(other).map(|(one, other)| one / other).collect::<Vec<f64>>())
}

impl Contestant {
    fn prepare(load: Load, entry: Entry, clients: &mut Clients) -> Result<Contestant, String> {
        let evicts = matches!(load, Load::Evictions);
        let setup = Setup { clients: Some(PLACES + entry.idle), evicts, ..Setup::default() };
        let target = entry.kind.start(setup)?;
        let mut contestant = Contestant { entry, target, talkers: None, held: Vec::new(), each: None };
        match load {
            Load::Flood { order, payload, .. } => {
                let items = match order {
                    Order::Alternating => PLACES / 2,
                    Order::PushesFirst(_) => PLACES,
                    Order::PopsFirst(_) | Order::Only(_) => 0,
                };
                contestant.fill(clients, items, payload);
            }
            Load::Crowd { .. } => contestant.hold(PLACES, b"\x01"),
            Load::Messages(messages) => {
                let talkers = Talkers::connect(contestant.target.address, messages);
                contestant.talkers = Some(talkers.map_err(|error| error.to_string())?);
            }
            Load::Evictions | Load::Upload { .. } => {}
        }
        if entry.idle > 0 {
            contestant.idle(entry.idle);
        }
        Ok(contestant)
    }

    /// Puts items on the stack.
    fn fill(&self, clients: &mut Clients, items: usize, payload: usize) {
        let order = Order::Only(Wish::Push);
        let flood = Flood { tongue: self.target.kind.tongue(), order, payload, pace: Pace::Closed(10) };
        if items > 0 {
            let tally = clients.run(self.target.address, flood, items).expect("the stack is filled");
            assert_eq!(tally.served, items as u64, "{}: the stack is filled", self.entry.name());
        }
    }

    /// Fills the places with connections that have sent a part of a request.
    fn hold(&mut self, count: usize, part: &[u8]) {
        self.held = (0..count).map(|n| partial(&self.target, n, part)).collect();
        wait_until("all places are taken", || {
            let mut stream = connect(self.target.address, 0).ok()?;
            stream.set_read_timeout(Some(Duration::from_millis(20))).ok()?;
            stream.read(&mut [0; 1]).ok()
        });
    }

    /// Has the server hold idle connections, and finds out what memory they take.
    fn idle(&mut self, count: usize) {
        let part: &[u8] = if self.target.kind.tongue() == Tongue::Stack { b"\x01" } else { b"p" };
        let (before, descriptors) = (self.target.server.memory(), self.target.server.descriptors());
        self.held = (0..count).map(|n| partial(&self.target, n, part)).collect();
        wait_until("the server holds them all", || {
            (self.target.server.descriptors() >= descriptors + count).then_some(())
        });
        self.each = Some(self.target.server.memory().saturating_sub(before) / count as u64);
    }

    /// Those that take many times as long have fewer requests.
    fn share(&self, requests: usize) -> usize {
        if matches!(self.entry.kind, Kind::NodeStack | Kind::TwistedStack) { requests.div_ceil(4) } else { requests }
    }

    fn load(&mut self, load: Load, clients: &mut Clients, requests: usize) -> Tally {
        let tongue = self.target.kind.tongue();
        let flood = |order, payload, pace| Flood { tongue, order, payload, pace };
        let address = self.target.address;
        let tally = match load {
            Load::Flood { order, payload, pace } => {
                let whole = match order {
                    Order::PopsFirst(block) | Order::PushesFirst(block) => requests.next_multiple_of(2 * block),
                    Order::Alternating | Order::Only(_) => requests.next_multiple_of(2),
                };
                clients.run(address, flood(order, payload, pace), whole)
            }
            Load::Crowd { wish, clients: crowd } => {
                clients.run(address, flood(Order::Only(wish), 1, Pace::Closed(crowd)), requests)
            }
            Load::Evictions => {
                let pace = Pace::Closed(PLACES + EVICTING);
                clients.run(address, flood(Order::Only(Wish::Pop), 1, pace), requests)
            }
            Load::Messages(_) => match &mut self.talkers {
                Some(talkers) => talkers.run(requests, clients.placement()),
                None => Ok(Tally::new()),
            },
            Load::Upload { mebibytes } => {
                let (mut tally, start) = (Tally::new(), Instant::now());
                upload(&self.target, mebibytes);
                tally.record(crate::tongue::Outcome::Served, start);
                Ok(tally)
            }
        };
        tally.unwrap_or_else(|error| panic!("{}: {error}", self.entry.name()))
    }

    /// The system calls of the server for a load, and for how many requests they were.
    fn trace(&mut self, load: Load, clients: &mut Clients, requests: usize) -> Option<(Calls, f64)> {
        let strace = Strace::attach(&self.target.server)?;
        let units = units(load, &self.load(load, clients, requests));
        Some((strace.stop(), units))
    }
}

impl Turns {
    fn new() -> Turns {
        let (elapsed, clients_cpu) = (Duration::ZERO, Duration::ZERO);
        Turns { tally: Tally::new(), elapsed, clients_cpu, cpu: Vec::new(), void: Void::default() }
    }

    /// One turn: what it cost, with all that came of it.
    fn take(&mut self, contestant: &mut Contestant, load: Load, clients: &mut Clients, requests: usize) {
        let (void, own, start) = (Void::read(), machine::cpu(std::process::id()), Instant::now());
        let before = machine::cpu(contestant.target.server.pid());
        let tally = contestant.load(load, clients, requests);
        let cpu = machine::cpu(contestant.target.server.pid()) - before;
        self.elapsed += start.elapsed();
        self.clients_cpu += machine::cpu(std::process::id()) - own;
        self.void.add_since(void);
        self.cpu.push(cpu.as_secs_f64() * 1e6 / units(load, &tally));
        self.tally.add(&tally);
    }

    fn into_half(mut self, load: Load, placement: Placement, ratio: Option<[f64; 3]>) -> Half {
        Half {
            placement,
            rate: units(load, &self.tally) / self.elapsed.as_secs_f64(),
            clients_busy: self.clients_cpu.as_secs_f64() / self.elapsed.as_secs_f64(),
            keeps_pace: matches!(load, Load::Flood { pace: Pace::Open(_), .. }),
            cpu: middle(&mut self.cpu),
            ratio,
            tally: self.tally,
            void: self.void,
        }
    }
}

/// How many requests, or MiB, that was.
fn units(load: Load, tally: &Tally) -> f64 {
    let each = if let Load::Upload { mebibytes } = load { mebibytes } else { 1 };
    tally.requests() as f64 * each as f64
}

fn partial(target: &Target, n: usize, part: &[u8]) -> TcpStream {
    let mut stream = connect(target.address, n).expect("the server accepts");
    stream.write_all(part).expect("the server reads");
    stream
}

/// The system calls of our server for a load, and for how many requests they were; `None` where
/// there is no strace.
pub(crate) fn counted(
    load: Load,
    placement: Placement,
    requests: usize,
    clients: &mut Clients,
) -> Result<Option<(Calls, f64)>, String> {
    let entry = Entry { kind: Kind::Pollstack, idle: 0 };
    let mut ours = Contestant::prepare(load, entry, clients)?;
    clients.place(Placement::Apart);
    machine::place(&ours.target.server, placement);
    ours.load(load, clients, requests.div_ceil(4)); // to warm up
    Ok(ours.trace(load, clients, requests))
}

/// Pops that wait, all of which the server knows of.
pub(crate) fn park(target: &Target, clients: usize) -> Vec<TcpStream> {
    let descriptors = target.server.descriptors();
    let parked = (0..clients).map(|n| partial(target, n, b"\x80")).collect();
    wait_until("all are parked", || (target.server.descriptors() >= descriptors + clients).then_some(()));
    parked
}

/// Resident bytes of our server for a parked client, of so many.
pub(crate) fn parked_bytes(clients: usize) -> Result<u64, String> {
    let setup = Setup { clients: Some(clients), ..Setup::default() };
    let target = Kind::Pollstack.start(setup)?;
    let before = target.server.memory();
    let _parked = park(&target, clients);
    Ok(target.server.memory().saturating_sub(before) / clients as u64)
}
