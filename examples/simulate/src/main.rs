//! The servers in a simulated world, by the million.
//!
//! The loop's part in it: it runs on any [`Net`](pollstack::net::Net). Here that is a
//! network in memory with a clock that jumps, clients who hang up, stall and send rubbish, and a
//! kernel that interrupts, splits, reorders and runs out; and after every turn a naive model says
//! what should have happened. A seed decides everything, so a failure can be repeated.
//!
//! ```text
//! cargo run --release -p simulate -- --seeds 100000
//! cargo run --release -p simulate -- --first 4711 --seeds 1 --trace
//! ```

use clap::Parser;
use pollstack::sim::Fault;
use simulate::{Report, SERVERS, Server};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Runs servers in simulated worlds, and stops at the first that is not as it should be.
#[derive(Parser)]
struct Options {
    /// How many worlds for each server; a tenth of that for tls, whose handshakes are dear
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,

    /// The seed of the first
    #[arg(long, default_value_t = 0)]
    first: u64,

    /// Which server; all of them if none is named
    #[arg(long, value_parser = server, help = servers())]
    server: Option<Server>,

    /// How many threads
    #[arg(long, default_value_t = thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,

    /// Tell what happens in every world
    #[arg(long)]
    trace: bool,
}

fn servers() -> String {
    let names: Vec<&str> = SERVERS.iter().map(|server| server.name).collect();
    format!("Which server: {}; all of them if none is named", names.join(", "))
}

fn server(name: &str) -> Result<Server, String> {
    let names: Vec<&str> = SERVERS.iter().map(|server| server.name).collect();
    let found = SERVERS.into_iter().find(|server| server.name == name);
    found.ok_or_else(|| format!("there are {}", names.join(", ")))
}

fn main() -> ExitCode {
    let options = Options::parse();
    let servers = options.server.map_or(SERVERS.to_vec(), |server| vec![server]);
    for server in servers {
        match simulate(server, &options) {
            Ok(summary) => println!("{summary}"),
            Err(failure) => {
                println!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Runs a server in all worlds, on several threads; the summary, or the first failure.
fn simulate(server: Server, options: &Options) -> Result<String, String> {
    let seeds = options.seeds.div_ceil(server.cost);
    let (next, stop, start) = (AtomicU64::new(0), AtomicBool::new(false), Instant::now());
    let work = || {
        let mut report = Report::default();
        while !stop.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= seeds {
                break;
            }
            let result = simulate::run(server, options.first + n, &mut report, options.trace);
            if let Err(failure) = result {
                stop.store(true, Ordering::Relaxed);
                return Err(failure);
            }
        }
        Ok(report)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads.max(1)).map(|_| scope.spawn(work)).collect();
        while std::io::stderr().is_terminal() && !workers.iter().all(|worker| worker.is_finished()) {
            let done = next.load(Ordering::Relaxed).min(seeds);
            eprint!("\r{}: {done} of {seeds} worlds ", server.name);
            let _ = std::io::stderr().flush();
            thread::sleep(Duration::from_millis(200));
        }
        let mut sum = Report::default();
        for worker in workers {
            sum.add(&worker.join().map_err(|_| "a thread has panicked".to_owned())??);
        }
        Ok(summary(server, &sum, start.elapsed()))
    })
}

fn summary(server: Server, sum: &Report, time: Duration) -> String {
    let rate = sum.connections as f64 / time.as_secs_f64();
    let fired: Vec<String> = Fault::ALL.iter().zip(sum.fired).map(|(fault, n)| format!("{fault:?} {n}")).collect();
    format!(
        "{}: {} worlds, {} connections, {} events, all as they should be; {rate:.0} connections a second\n  \
         clients: {} half-closes, {} resets; faults: {}",
        server.name,
        sum.worlds,
        sum.connections,
        sum.events,
        sum.ended,
        sum.aborted,
        fired.join(", ")
    )
}
