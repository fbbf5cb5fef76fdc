//! Connection floods: how fast, at what cost, how near the baseline, and how the peers do the same.
//!
//! ```text
//! cargo bench --bench floods                      everything, under ten minutes
//! cargo bench --bench floods -- --quick           the most telling scenarios, under a minute
//! cargo bench --bench floods -- echo idle         those whose names say so
//! cargo bench --bench floods -- --list            the scenarios
//! cargo bench --bench floods -- --counts          only what is counted; fails if it is too much
//! cargo bench --bench floods -- --profile NAME    where the time of our server goes in a scenario
//! cargo bench --bench floods -- --save FILE       keeps the figures
//! cargo bench --bench floods -- --compare FILE    says what differs from figures that were kept
//! ```
//!
//! The servers are children of this program, the clients a loop in it, of the same kind. All
//! servers of a scenario have their turns there and back (A B B A). The measure is the processor
//! time that the server takes for a request, as a ratio within a pair of turns. The peers are in
//! `benches/peers`; those that are not installed are left out with a word. Results go to
//! `target/floods`; `index.html` there has them all. Linux only.

mod asking;
mod baseline;
mod charts;
mod clients;
mod counts;
mod interference;
mod others;
mod persistent_clients;
mod profile;
mod protocol;
mod report;
mod run;
mod scenario;
mod servers;
mod target;
mod upload;

use clap::Parser;
use instrument::Keep;
use report::Report;
use run::RunConfig;
use scenario::{Entry, Scenario};
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(name = "floods", about = "Connection floods, against the baseline and the peers")]
struct Options {
    /// Run only the scenarios whose names contain one of these.
    names: Vec<String>,
    /// Run the most telling scenarios, with fewer rounds: under a minute.
    #[arg(long)]
    quick: bool,
    /// Name the scenarios.
    #[arg(long)]
    list: bool,
    /// Count system calls and instructions only; fail if they are above the recorded ones.
    #[arg(long)]
    counts: bool,
    /// Only these servers, named as in the tables, such as `pollstack,baseline`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    servers: Vec<String>,
    /// Pairs of turns.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// Say where the time of our server goes, and of the one that it is compared with, in the first scenario of these.
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    keep: Keep,
    /// With --counts: fail, too, if something cannot be counted.
    #[arg(long)]
    strict: bool,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if baseline::run_if_asked() {
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    if !options.bench {
        println!("floods: to be run by `cargo bench --bench floods`");
        return ExitCode::SUCCESS; // `cargo test --all-targets` runs it, too
    }
    if !cfg!(target_os = "linux") {
        println!("floods: Linux only");
        return ExitCode::SUCCESS;
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let done = match &options {
        Options { list: true, .. } => list(),
        Options { counts: true, .. } => {
            counts::check(if options.quick { 2_000 } else { 10_000 }, options.strict).and_then(|()| others::check())
        }
        Options { profile: true, .. } => profile(&options),
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
    println!("interference: latency inside an overload, and of fast clients beside slow ones; a core each");
    println!("memory: bytes a parked client");
    Ok(())
}

fn config(options: &Options) -> RunConfig {
    let pairs = options.pairs.map_or(if options.quick { 1 } else { 3 }, usize::from);
    RunConfig { pairs, requests: if options.quick { 1_000 } else { 1_500 }, strace_all: !options.quick }
}

fn profile(options: &Options) -> Result<(), String> {
    let Some(scenario) = wanted_scenarios(options)?.into_iter().next() else { return Ok(()) };
    let path = profile::profile(scenario, config(options))?;
    println!("The page is {}.", path.display());
    Ok(())
}

fn measure(options: &Options) -> Result<(), String> {
    let then = options.keep.earlier()?;
    let scenarios = wanted_scenarios(options)?;
    let wanted = |name: &str| options.names.is_empty() || options.names.iter().any(|part| name.contains(&**part));
    let mut clients = clients::Clients::new().map_err(|error| error.to_string())?;
    let config = config(options);
    let mut report = Report::new();
    let mut failures = Vec::new();
    for scenario in scenarios {
        let start = Instant::now();
        let found = run::run(&scenario, config, &mut clients);
        eprintln!("{}: {} s", scenario.name, start.elapsed().as_secs());
        if found.ours_failed {
            failures.extend(found.failed.iter().map(|why| format!("{}: {why}", scenario.name)));
        }
        report.scenarios.push((scenario, found));
        report.save().map_err(|error| error.to_string())?; // so that nothing is lost if the next one hangs
    }
    if wanted("interference") {
        let (probes, start) = (if options.quick { 400 } else { 1_200 }, Instant::now());
        let crowds = [100, 900].map(|crowd| interference::overload(crowd, probes, &mut clients));
        let all = crowds.into_iter().chain([interference::slow_writers(probes, &mut clients)]);
        all.for_each(|interference| {
            interference.map_or_else(|why| failures.push(why), |interference| report.interference.push(interference))
        });
        eprintln!("interference: {} s", start.elapsed().as_secs());
    }
    if wanted("memory") {
        for count in [1_000, 10_000] {
            let bytes = target::parked_bytes(count);
            bytes.map_or_else(|why| failures.push(why), |bytes| report.parked.push((count, bytes)));
        }
    }
    let differences = options.keep.tell(&report.results(), then.as_ref())?;
    let saved = |error: std::io::Error| error.to_string();
    let folder = report.save().map_err(saved)?;
    charts::draw(&report, &folder).map_err(|error| error.to_string())?;
    report.save_page(&folder, differences.as_ref()).map_err(saved)?;
    println!("\nAll results are on {}.", folder.join("index.html").display());
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Returns the scenarios, and of each the servers, that have been asked for.
fn wanted_scenarios(options: &Options) -> Result<Vec<Scenario>, String> {
    let mut scenarios = scenario::all();
    let known: Vec<&str> = scenarios.iter().flat_map(|one| &one.entries).map(|entry| entry.kind.name()).collect();
    if let Some(unknown) = options.servers.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no server `{unknown}`"));
    }
    let matches = |name: &str, part: &String| name.contains(&**part);
    for part in &options.names {
        if !scenarios.iter().any(|one| matches(&one.name, part))
            && !["interference", "memory"].iter().any(|n| matches(n, part))
        {
            return Err(format!("no scenario is called `{part}`; --list names them"));
        }
    }
    scenarios.retain(|one| match options.names.is_empty() {
        true => one.quick || !options.quick,
        false => options.names.iter().any(|part| matches(&one.name, part)),
    });
    let asked = |entry: &Entry| options.servers.is_empty() || options.servers.iter().any(|s| s == entry.kind.name());
    scenarios.iter_mut().for_each(|one| one.entries.retain(asked));
    Ok(scenarios)
}
