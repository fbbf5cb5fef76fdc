//! Connection floods: how fast, at what cost, how near the floor, and how the peers do the same.
//!
//! ```text
//! cargo bench --bench floods                      everything, under fifteen minutes
//! cargo bench --bench floods -- --quick           the most telling scenarios, under a minute
//! cargo bench --bench floods -- echo idle         those whose names say so
//! cargo bench --bench floods -- --list            the scenarios
//! cargo bench --bench floods -- --counts          only what is counted; fails if it is too much
//! ```
//!
//! The servers are children of this program, the clients a loop in it, of the same kind. All
//! servers of a scenario have their turns there and back (A B B A); what counts is the processor
//! time that the server takes for a request, as a ratio within a pair of turns. The peers are in
//! `benches/peers`; those that are not installed are left out with a word. Results go to
//! `target/floods`. Linux only.

#[path = "../../tests/common/mod.rs"]
mod common;

mod charts;
mod clients;
mod counts;
mod felt;
mod floor;
mod machine;
mod report;
mod run;
mod scenario;
mod servers;
mod talkers;
mod tongue;
mod upload;

use clap::Parser;
use report::Report;
use run::Effort;
use scenario::Entry;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "floods", about = "Connection floods, against the floor and the peers")]
struct Options {
    /// Only the scenarios whose names contain one of these.
    names: Vec<String>,
    /// The most telling scenarios, with fewer rounds: under a minute.
    #[arg(long)]
    quick: bool,
    /// Name the scenarios.
    #[arg(long)]
    list: bool,
    /// Only what can be counted (system calls, instructions); fail if it is more than it should be.
    #[arg(long)]
    counts: bool,
    /// Only these servers, such as `pollstack,floor`; their names as the tables have them.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    servers: Vec<String>,
    /// Pairs of turns.
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,
    /// What cargo says.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if floor::run_if_asked() {
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    if !cfg!(target_os = "linux") {
        println!("floods: Linux only");
        return ExitCode::SUCCESS;
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let done = match &options {
        Options { list: true, .. } => list(),
        Options { counts: true, .. } => counts::check(if options.quick { 2_000 } else { 10_000 }),
        _ => measure(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("floods: {why}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> Result<(), String> {
    for scenario in scenario::all() {
        let placements: Vec<&str> = scenario.placements.iter().map(|placement| placement.name()).collect();
        println!("{}: {}; {}", scenario.name, scenario.what, placements.join(", "));
    }
    println!("felt: what those inside feel of an overload, and fast clients of slow ones; a core each");
    println!("memory: what a parked client takes");
    Ok(())
}

fn measure(options: &Options) -> Result<(), String> {
    servers::build_examples();
    let mut clients = clients::Clients::new().map_err(|error| error.to_string())?;
    let pairs = options.pairs.unwrap_or(if options.quick { 2 } else { 10 });
    let requests = if options.quick { 1_000 } else { 5_000 };
    let effort = Effort { pairs, requests, strace_all: !options.quick };
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut report = Report::new(["cargo bench --bench floods --", &arguments.join(" ")].join(" "));
    let wanted = |name: &str, quick: bool| match options.names.is_empty() {
        true => quick || !options.quick,
        false => options.names.iter().any(|part| name.contains(&**part)),
    };
    for mut scenario in scenario::all() {
        let asked =
            |entry: &Entry| options.servers.is_empty() || options.servers.iter().any(|s| s == entry.kind.name());
        scenario.entries.retain(asked);
        if wanted(&scenario.name, scenario.quick) {
            let (rows, absent) = run::run(&scenario, effort, &mut clients);
            report.scenarios.push((scenario, rows, absent));
        }
    }
    if wanted("felt", true) {
        let probes = if options.quick { 500 } else { 4_000 };
        for crowd in [100, 900] {
            report.felt.push(felt::overload(crowd, probes, &mut clients)?);
        }
        report.felt.push(felt::slow_writers(probes)?);
    }
    if wanted("memory", true) {
        for count in [1_000, 10_000] {
            report.parked.push((count, run::parked_bytes(count)?));
        }
    }
    print!("{}", report.table());
    let folder = report.save().map_err(|error| error.to_string())?;
    println!("\nTable, figures and charts are in {}.", folder.display());
    Ok(())
}
