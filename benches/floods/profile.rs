//! Where the time of a server goes in a scenario: samples of its stacks, its system calls, its instructions.

use crate::clients::Clients;
use crate::report::{self, folder};
use crate::run::{Found, RunConfig, run};
use crate::scenario::{Entry, Scenario};
use crate::target::Target;
use instrument::{Callgrind, Instructions, Page, Profile, Recording};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use test_support::machine::{self, Calls, Placement};

/// How long a server is recorded.
const TIME: Duration = Duration::from_secs(3);

/// Profiles the servers of a scenario, ours and the base if there is a choice. Returns where the page is.
pub(crate) fn profile(mut scenario: Scenario, config: RunConfig) -> Result<PathBuf, String> {
    test_support::keep_frames();
    let mut clients = Clients::new().map_err(|error| error.to_string())?;
    if let Some(base) = scenario.base_entry() {
        let first = scenario.entries[0];
        scenario.entries.retain(|entry| *entry == first || *entry == base);
        scenario.entries.dedup();
        scenario.entries.truncate(2);
    }
    let found = run(&scenario, config, &mut clients);
    if let Some(why) = found.failed.first() {
        return Err(why.clone());
    }
    let mut page = Page::new(&format!("Profile: {}", scenario.name), &instrument::run("floods"));
    page.table(&report::table(&scenario, &found));
    // Those that are left out have no row.
    for entry in found.rows.iter().map(|row| row.entry) {
        match samples(&scenario, entry, config, &mut clients) {
            Ok((profile, calls)) => {
                page.profile(&entry.name(), &profile, &calls, cpu(&scenario, &found, entry))?;
            }
            Err(why) => println!("left out: samples of {}: {why}", entry.name()),
        }
        match instructions(&scenario, entry, config.requests, &mut clients) {
            Ok(found) => page.table(&found.table(&entry.name())),
            Err(why) => println!("left out: instructions of {}: {why}", entry.name()),
        }
    }
    let path = folder().map_err(|error| error.to_string())?.join("profile.html");
    page.save(&path).map_err(|error| error.to_string())?;
    Ok(path)
}

/// The placement that is recorded: a server at its limit does not sleep.
fn placement(scenario: &Scenario) -> Placement {
    let at_limit = scenario.placements.contains(&Placement::Limit) && Placement::Limit.can_be_had();
    if at_limit { Placement::Limit } else { Placement::Apart }
}

/// Returns the processor time of a request, in microseconds, as it was without a recording.
fn cpu(scenario: &Scenario, found: &Found, entry: Entry) -> f64 {
    let row = found.rows.iter().find(|row| row.entry == entry);
    row.and_then(|row| row.half(placement(scenario))).map_or(f64::NAN, |half| half.cpu[1])
}

/// Records a server while it serves, and counts its system calls for each request.
fn samples(
    scenario: &Scenario,
    entry: Entry,
    config: RunConfig,
    clients: &mut Clients,
) -> Result<(Profile, Vec<(String, f64)>), String> {
    clients.place(Placement::Apart);
    let mut one = Target::prepare(scenario.load, entry, clients)?;
    one.target.place(placement(scenario));
    clients.place(placement(scenario));
    one.serve(clients, config.requests)?;
    let recording = Recording::start(one.target.server.pid())?;
    let start = Instant::now();
    while start.elapsed() < TIME {
        one.serve(clients, config.requests)?;
    }
    let profile = recording.stop()?;
    clients.place(Placement::Apart);
    one.target.place(Placement::Limit);
    let traced = one.trace(clients, config.requests.min(2_000))?;
    let each = |(Calls(calls), units): (Calls, f64)| calls.into_iter().map(move |(name, n)| (name, n as f64 / units));
    Ok((profile, traced.map(each).into_iter().flatten().collect()))
}

/// Returns the instructions of a request: the difference between a long and a short run.
fn instructions(
    scenario: &Scenario,
    entry: Entry,
    requests: usize,
    clients: &mut Clients,
) -> Result<Instructions, String> {
    let mut executed = |requests| {
        let callgrind = Callgrind::new().map_err(|error| error.to_string())?;
        clients.place(Placement::Apart);
        let mut one = Target::prepare_under(&callgrind.wrapper(), scenario.load, entry, clients)?;
        one.serve(clients, requests)?;
        let mut server = one.target.server;
        server.signal("TERM");
        server.wait();
        callgrind.read(Path::new(env!("CARGO_MANIFEST_DIR"))).map_err(|error| error.to_string())
    };
    if !machine::there("valgrind") {
        return Err("valgrind is not installed".to_owned());
    }
    let (short, long) = (executed(requests)?, executed(3 * requests)?);
    Ok(long.since(&short, 2 * requests))
}
