//! Requests by wrk: several servers are asked for the same, in turns.

use crate::contender::{Contender, order};
use instrument::{Cell, Row, Table, quartiles};
use std::process::Command;
use test_support::machine::{Placement, can_pin};

/// Connections of the load.
pub(crate) const CONNECTIONS: &str = "50";

/// The requests of a row.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) file: &'static str,
    /// A connection for each request.
    pub(crate) close: bool,
    pub(crate) seconds: u32,
}

/// The turns of one server with one load.
#[derive(Clone, Default)]
struct Turns {
    /// Processor time for a request, in microseconds, in each placement.
    cpu: Vec<Vec<f64>>,
    /// Requests a second.
    rate: Vec<Vec<f64>>,
    /// System calls of a request: how many, and which.
    calls: Option<(f64, String)>,
}

/// The counts of wrk.
struct Done {
    requests: f64,
    rate: f64,
}

/// Returns a table of all loads on all servers. The second is the one that the others are compared with.
pub(crate) fn measure(
    mut table: Table,
    contenders: &[Contender],
    loads: &[Load],
    placements: &[Placement],
    pairs: usize,
) -> Result<Table, String> {
    // It has no option that would only succeed.
    if Command::new("wrk").arg("-v").output().is_err() {
        table.notes.push("Left out: wrk is not installed; benches/peers/install.sh does that.".to_owned());
        return Ok(table);
    }
    contenders.iter().for_each(Contender::place);
    let base = contenders.get(1).map_or("", |base| base.name);
    table.case = "file, connections".to_owned();
    for placement in placements {
        let name = placement.name();
        table.columns.extend([format!("requests/s, {name}"), "CPU us".to_owned(), format!("times {base}")]);
    }
    table.columns.push("calls".to_owned());
    for load in loads {
        let turns = take_turns(contenders, *load, placements, pairs)?;
        table.rows.extend(contenders.iter().zip(&turns).map(|(one, own)| row(one, *load, own, turns.get(1))));
        eprintln!("{}, {}: measured", table.name, load.name());
    }
    Ok(table)
}

impl Load {
    fn name(self) -> String {
        format!("{}, {}", self.file, if self.close { "one a request" } else { "kept" })
    }

    /// Asks for so many seconds; returns how many requests were answered.
    pub(crate) fn requests(self, contender: &Contender, placement: Placement) -> Result<f64, String> {
        Ok(self.run(contender, placement)?.requests)
    }

    fn run(self, contender: &Contender, placement: Placement) -> Result<Done, String> {
        // A thread cannot keep up with the server; two of them can, also beside it.
        let (cores, threads) = if placement == Placement::Apart { ("0", "-t1") } else { ("0,1", "-t2") };
        let mut command = Command::new(if can_pin() { "taskset" } else { "wrk" });
        if can_pin() {
            command.args(["-c", cores, "wrk"]);
        }
        command.args([threads, "-c", CONNECTIONS, &format!("-d{}s", self.seconds), "--timeout", "30s"]);
        if self.close {
            command.args(["-H", "Connection: close"]);
        }
        let output = command.arg(format!("{}://{}/{}", contender.scheme, contender.address, self.file)).output();
        let output = output.map_err(|error| format!("wrk does not run: {error}"))?;
        Done::read(&String::from_utf8_lossy(&output.stdout)).map_err(|why| format!("{}: {why}", contender.name))
    }
}

impl Done {
    /// From what wrk says.
    fn read(said: &str) -> Result<Done, String> {
        if let Some(wrong) = said.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx")) {
            return Err(wrong.trim().to_owned());
        }
        let number = |line: &str| line.split_whitespace().next()?.parse::<f64>().ok();
        let requests = said.lines().find(|line| line.contains(" requests in ")).and_then(number);
        let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")).and_then(number);
        match (requests, rate) {
            (Some(requests), Some(rate)) if requests > 0.0 => Ok(Done { requests, rate }),
            _ => Err(format!("wrk says nothing of its requests: {said}")),
        }
    }
}

/// Has all of them serve a load, in turns.
fn take_turns(
    contenders: &[Contender],
    load: Load,
    placements: &[Placement],
    pairs: usize,
) -> Result<Vec<Turns>, String> {
    let none = vec![Vec::new(); placements.len()];
    let mut turns = vec![Turns { cpu: none.clone(), rate: none, calls: None }; contenders.len()];
    for (n, placement) in placements.iter().enumerate() {
        for pair in 0..=pairs {
            for one in order(contenders.len(), pair) {
                let before = contenders[one].cpu();
                let done = load.run(&contenders[one], *placement)?;
                let cpu = contenders[one].cpu().saturating_sub(before);
                if pair > 0 {
                    turns[one].cpu[n].push(cpu.as_secs_f64() * 1e6 / done.requests); // the first warms up
                    turns[one].rate[n].push(done.rate);
                }
            }
        }
    }
    // One pair is a quick look.
    for (contender, turns) in contenders.iter().zip(&mut turns).filter(|_| pairs > 1) {
        if let Some(strace) = contender.trace() {
            let done = load.run(contender, placements[0])?;
            let calls = strace.stop();
            turns.calls = Some((calls.total() as f64 / done.requests, calls.list(done.requests)));
        }
    }
    Ok(turns)
}

fn row(contender: &Contender, load: Load, own: &Turns, base: Option<&Turns>) -> Row {
    let mut cells = Vec::new();
    for n in 0..own.cpu.len() {
        // Of the requests for a second of processor time.
        let ratio = base.map(|base| quartiles(base.cpu[n].iter().zip(&own.cpu[n]).map(|(b, own)| b / own).collect()));
        let [rate, cpu] = [&own.rate[n], &own.cpu[n]].map(|figures| quartiles(figures.clone())[1]);
        cells.extend([Cell::Number(rate, 0), Cell::Number(cpu, 1), Cell::quartiles(ratio, 2)]);
    }
    cells.push(Cell::number(own.calls.as_ref().map(|(calls, _)| *calls), 2));
    let mut row = Row::new(contender.name, cells).case(load.name());
    row.details = own.calls.as_ref().map(|(_, calls)| calls.clone()).unwrap_or_default();
    row
}
