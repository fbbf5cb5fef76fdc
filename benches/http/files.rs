//! The cost of a file: wrk asks both servers for the same ones.

use crate::contender::{Contender, SIZES};
use crate::{in_words, middle};
use std::fmt::Write;
use std::process::Command;
use test_support::machine::{Placement, can_pin};

/// Connections of the load.
const CONNECTIONS: &str = "50";

/// Where the load runs; the server has the second processor.
const PLACEMENTS: [Placement; 2] = [Placement::Apart, Placement::Limit];

/// The requests of a row.
#[derive(Clone, Copy)]
struct Load {
    file: &'static str,
    /// A connection for each request.
    close: bool,
    seconds: u32,
}

/// The turns of one server with one load.
#[derive(Clone, Default)]
struct Turns {
    /// Processor time for a request, in microseconds, in each placement.
    cpu: [Vec<f64>; 2],
    /// Requests a second.
    rate: [Vec<f64>; 2],
    calls: String,
}

/// The counts of wrk.
struct Done {
    requests: f64,
    rate: f64,
}

pub(crate) fn measure(contenders: &[Contender], pairs: usize, quick: bool) -> Result<String, String> {
    // It has no option that would only succeed.
    if Command::new("wrk").arg("-v").output().is_err() {
        return Ok("\nLeft out: wrk is not installed; benches/peers/install.sh does that.\n".to_owned());
    }
    for contender in contenders {
        contender.place();
        contender.check()?;
    }
    let mut text = format!(
        "\n### files, {CONNECTIONS} connections\n\n\
         | file, connections | server | requests/s | CPU us, a core each | times nginx | requests/s | CPU us, at its \
         limit | times nginx | calls |\n| --- | --- | --: | --: | --: | --: | --: | --: | --- |\n"
    );
    for (file, len) in SIZES {
        for close in [false, true] {
            let seconds = match quick {
                true => 1,
                false if len > 1 << 20 => 4,
                false => 2,
            };
            let load = Load { file, close, seconds };
            add_rows(&mut text, load, contenders, &take_turns(contenders, load, pairs)?);
        }
    }
    Ok(text)
}

impl Load {
    fn name(self) -> String {
        format!("{}, {}", self.file, if self.close { "one a request" } else { "kept" })
    }

    /// Asks for so many seconds.
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
        let output = command.arg(format!("http://{}/{}", contender.address, self.file)).output();
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

/// There and back (A B B A), so that what changes slowly hits both alike.
fn take_turns(contenders: &[Contender], load: Load, pairs: usize) -> Result<Vec<Turns>, String> {
    let mut turns = vec![Turns::default(); contenders.len()];
    for (n, placement) in PLACEMENTS.into_iter().enumerate() {
        for pair in 0..=pairs {
            let mut order: Vec<usize> = (0..contenders.len()).collect();
            if pair % 2 == 1 {
                order.reverse();
            }
            for one in order {
                let before = contenders[one].cpu();
                let done = load.run(&contenders[one], placement)?;
                let cpu = contenders[one].cpu().saturating_sub(before);
                if pair > 0 {
                    turns[one].cpu[n].push(cpu.as_secs_f64() * 1e6 / done.requests); // the first warms up
                    turns[one].rate[n].push(done.rate);
                }
            }
        }
        eprintln!("{}, {}: measured", load.name(), placement.name());
    }
    for (contender, turns) in contenders.iter().zip(&mut turns) {
        if let Some(strace) = contender.trace() {
            let done = load.run(contender, Placement::Apart)?;
            turns.calls = strace.stop().list(done.requests);
        }
    }
    Ok(turns)
}

fn add_rows(text: &mut String, load: Load, contenders: &[Contender], turns: &[Turns]) {
    let base = contenders.iter().position(|contender| contender.name == "nginx").and_then(|n| turns.get(n));
    for (contender, turns) in contenders.iter().zip(turns) {
        let _ = write!(text, "| {} | {} ", load.name(), contender.name);
        for n in 0..PLACEMENTS.len() {
            // Of the requests for a second of processor time.
            let ratio = |base: &Turns| {
                let ratios = base.cpu[n].iter().zip(&turns.cpu[n]).map(|(base, own)| base / own);
                in_words(middle(ratios.collect()))
            };
            let [_, rate, _] = middle(turns.rate[n].clone());
            let [_, cpu, _] = middle(turns.cpu[n].clone());
            let _ = write!(text, "| {rate:.0} | {cpu:.1} | {} ", base.map(ratio).unwrap_or_default());
        }
        let _ = writeln!(text, "| {} |", turns.calls);
    }
}
