//! Runs a scenario: all its servers in turns, there and back, so that what slows the machine down
//! slows all of them down.

use crate::clients::{Clients, Pace, Tally};
use crate::scenario::{Entry, Load, Scenario};
use crate::servers::Kind;
use crate::target::Target;
use instrument::quartiles;
use std::time::{Duration, Instant};
use test_support::machine::{self, Placement, Void};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunConfig {
    /// Pairs of A B and B A.
    pub(crate) pairs: usize,
    /// Requests of a server in a turn.
    pub(crate) requests: usize,
    /// Count the system calls of all servers, not only of ours.
    pub(crate) strace_all: bool,
}

/// The results of one server in one scenario.
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

/// The results of one placement.
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

/// All turns of a server in one placement.
struct Turns {
    tally: Tally,
    elapsed: Duration,
    clients_cpu: Duration,
    cpu: Vec<f64>,
    void: Void,
}

/// The results of a scenario.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) rows: Vec<Row>,
    /// Servers that could not take part, and why.
    pub(crate) absent: Vec<String>,
    /// Servers that failed, and how.
    pub(crate) failed: Vec<String>,
    /// Among them is one of ours, or a baseline.
    pub(crate) ours_failed: bool,
}

/// Runs a scenario.
pub(crate) fn run(scenario: &Scenario, config: RunConfig, clients: &mut Clients) -> Found {
    let (mut found, mut field) = (Found::default(), Vec::new());
    clients.place(Placement::Apart);
    for entry in &scenario.entries {
        match Target::prepare(scenario.load, *entry, clients) {
            Ok(target) => {
                let each = target.each;
                found.rows.push(Row { entry: *entry, halves: vec![], calls: None, resident: 0, each });
                field.push(target);
            }
            Err(why) => found.absent.push(format!("{}: {why}", entry.name())),
        }
    }
    for placement in scenario.placements.iter().filter(|placement| placement.can_be_had()) {
        let halves = compare(scenario, *placement, &mut field, config, clients);
        halves.into_iter().zip(&mut found.rows).for_each(|(half, row)| row.halves.push(half));
    }
    trace(scenario, &mut field, &mut found.rows, config, clients);
    let failed = |one: &Target| one.failed.as_ref().map(|why| format!("{}: {why}", one.entry.name()));
    found.failed = field.iter().filter_map(failed).collect();
    found.ours_failed = field.iter().any(|one| one.failed.is_some() && one.entry.kind.is_ours());
    let mut whole = field.iter().map(|one| one.failed.is_none());
    found.rows.retain(|_| whole.next().unwrap_or(false));
    eprint!("\r{:60}\r", "");
    found
}

/// Counts the calls of servers at their limit, which is where strace brings them.
fn trace(scenario: &Scenario, field: &mut [Target], rows: &mut [Row], config: RunConfig, clients: &mut Clients) {
    clients.place(Placement::Apart);
    let at_limit = scenario.placements.contains(&Placement::Limit);
    for (n, (one, row)) in field.iter_mut().zip(rows).enumerate() {
        if one.failed.is_none() && at_limit && (config.strace_all || n == 0) {
            one.target.place(Placement::Limit);
            match one.trace(clients, requests(scenario.load, config).min(2_000)) {
                Ok(traced) => {
                    row.calls = traced.map(|(calls, units)| (calls.total() as f64 / units, calls.list(units)));
                }
                Err(why) => one.failed = Some(why),
            }
        }
        row.resident = one.target.server.memory();
    }
}

fn compare(
    scenario: &Scenario,
    placement: Placement,
    field: &mut [Target],
    config: RunConfig,
    clients: &mut Clients,
) -> Vec<Half> {
    let load = scenario.load;
    field.iter().for_each(|one| one.target.place(placement));
    clients.place(placement);
    let mut all: Vec<Turns> = field.iter().map(|_| Turns::new()).collect();
    for one in field.iter_mut().filter(|one| one.failed.is_none()) {
        let first = placement == scenario.placements[0];
        let requests = if first { warm_up(load, config) } else { requests(load, config).div_ceil(4) };
        one.failed = one.serve(clients, requests).err();
    }
    for pair in 0..pairs(load, config) {
        eprint!("\r{}, {}: {}          ", scenario.name, placement.name(), pair + 1);
        let mut turn = |(one, turns): (&mut Target, &mut Turns)| {
            if one.failed.is_none() {
                one.failed = turns.take(one, load, clients, share(one.entry.kind, requests(load, config))).err();
            }
        };
        field.iter_mut().zip(&mut all).for_each(&mut turn);
        field.iter_mut().zip(&mut all).rev().for_each(&mut turn);
    }
    let base = field.iter().position(|one| one.failed.is_none() && Some(one.entry) == scenario.base_entry());
    let base = base.map(|base| all[base].cpu.clone());
    all.into_iter().map(|turns| turns.into_half(load, placement, base.as_deref())).collect()
}

fn requests(load: Load, config: RunConfig) -> usize {
    match load {
        Load::Flood { pace: Pace::Open(rate), .. } => rate / 2,
        Load::Messages(messages) => messages.scaled(config.requests),
        Load::Upload { .. } => 1,
        Load::Crowd { .. } | Load::Evictions | Load::Flood { .. } => config.requests,
    }
}

/// Those with a compiler or a cache of their own need a few thousand requests.
fn warm_up(load: Load, config: RunConfig) -> usize {
    match load {
        Load::Flood { .. } | Load::Crowd { .. } => 2 * config.requests,
        _ => requests(load, config).div_ceil(4),
    }
}

/// Those that take many times as long have fewer requests.
fn share(kind: Kind, requests: usize) -> usize {
    if matches!(kind, Kind::NodeStack | Kind::TwistedStack) { requests.div_ceil(4) } else { requests }
}

/// A file takes a second.
fn pairs(load: Load, config: RunConfig) -> usize {
    if matches!(load, Load::Upload { .. }) { config.pairs.div_ceil(2) } else { config.pairs }
}

impl Turns {
    fn new() -> Turns {
        let (elapsed, clients_cpu) = (Duration::ZERO, Duration::ZERO);
        Turns { tally: Tally::new(), elapsed, clients_cpu, cpu: Vec::new(), void: Void::default() }
    }

    /// One turn: what it cost, with all that came of it.
    fn take(&mut self, target: &mut Target, load: Load, clients: &mut Clients, requests: usize) -> Result<(), String> {
        let (void, own, start) = (Void::read(), machine::cpu(std::process::id()), Instant::now());
        let before = target.target.cpu();
        let tally = target.serve(clients, requests)?;
        let cpu = target.target.cpu().saturating_sub(before);
        self.elapsed += start.elapsed();
        self.clients_cpu += machine::cpu(std::process::id()).saturating_sub(own);
        self.void.add_since(void);
        self.cpu.push(cpu.as_secs_f64() * 1e6 / load.units(&tally));
        self.tally.add(&tally);
        Ok(())
    }

    /// `base` is the processor time of the one it is compared with, turn by turn.
    fn into_half(self, load: Load, placement: Placement, base: Option<&[f64]>) -> Half {
        let ratios = |base: &[f64]| self.cpu.iter().zip(base).map(|(own, base)| own / base).collect::<Vec<f64>>();
        Half {
            ratio: base.map(ratios).map(quartiles),
            placement,
            rate: load.units(&self.tally) / self.elapsed.as_secs_f64(),
            clients_busy: self.clients_cpu.as_secs_f64() / self.elapsed.as_secs_f64(),
            keeps_pace: matches!(load, Load::Flood { pace: Pace::Open(_), .. }),
            cpu: quartiles(self.cpu),
            tally: self.tally,
            void: self.void,
        }
    }
}
