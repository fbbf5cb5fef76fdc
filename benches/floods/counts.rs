//! The gate: what can be counted, and must not grow. Counts do not depend on the machine's mood.

use crate::clients::{Clients, Flood, Order, Pace};
use crate::interference::settle;
use crate::protocol::{Outcome, Protocol, Request};
use crate::scenario::Load;
use crate::servers::{Kind, Setup};
use crate::target::{counted, park};
use std::time::Duration;
use test_support::machine::{self, Calls, Placement, Strace};

/// Instructions of our own for a request that is answered at once, 64 clients, push and pop in
/// turn, as `valgrind` counted them when this was last changed on purpose (Rust 1.95, x86-64): 105 more
/// since the shutdown goes before the close, and what the kernel may still hold is accounted for; 65 more
/// since connections go out, end one half alone, and are read while paused.
/// 85 of the last 140 are there since a second event loop, for the operator, is in the same binary: what
/// both loops share is inlined only where it says so.
const INSTRUCTIONS: f64 = 1800.0;
/// How far the count may be off: what a new compiler may cost, and no more.
const MARGIN: f64 = 0.05;

/// Calls that no request may need.
const NEEDLESS: [&str; 9] =
    ["setsockopt", "getsockopt", "clock_gettime", "brk", "mmap", "munmap", "write", "fcntl", "ioctl"];

/// Counts everything. A count above its bound is an error, and, if `strict`, one that cannot be
/// counted is one, too.
pub(crate) fn check(requests: usize, strict: bool) -> Result<(), String> {
    for tool in ["strace", "valgrind"] {
        if !machine::there(tool) {
            println!("left out: {tool} is not installed");
            if strict {
                return Err(format!("{tool} is needed"));
            }
        }
    }
    let mut clients = Clients::new().map_err(|error| error.to_string())?;
    if machine::there("strace") {
        println!("system calls of the server, each with its share of the waits:");
        system_calls(requests, &mut clients)?;
        alone(&mut clients)?;
        at_rest(Duration::from_secs(2))?;
    }
    segments(requests, &mut clients)?;
    if machine::there("valgrind") {
        instructions(requests, &mut clients)?;
    }
    Ok(())
}

fn system_calls(requests: usize, clients: &mut Clients) -> Result<(), String> {
    let alternating = Load::Flood { order: Order::Alternating, payload: 1, pace: Pace::Closed(64) };
    let parked = Load::Flood { order: Order::PopsFirst(32), payload: 1, pace: Pace::Closed(64) };
    for (what, load, most) in [
        ("a request, 64 clients", alternating, 5.3),
        // One that parks costs two calls more, a look for its end and its registration: 7.3 and 5.3.
        ("a request, half of them pops that park", parked, 6.3),
        ("a rejection, the request is there", Load::Crowd { request: Request::Push, clients: 100 }, 5.3),
        ("a rejection, the request comes later", Load::Crowd { request: Request::Late, clients: 100 }, 8.3),
        ("an eviction", Load::Evictions, 5.5),
    ] {
        let (calls, units) = counted(load, requests, clients)?.ok_or("strace cannot attach")?;
        judge(what, &calls, units, most)?;
    }
    Ok(())
}

/// Prints the calls of so many requests, and judges them.
fn judge(what: &str, calls: &Calls, units: f64, most: f64) -> Result<(), String> {
    let each = calls.total() as f64 / units;
    println!("  {what}: {each:.3} (at most {most})  {}", calls.list(units));
    if each > most {
        return Err(format!("{what}: more than {most} system calls"));
    }
    let needless = |(name, count): &&(String, usize)| NEEDLESS.contains(&&**name) && *count as f64 / units >= 0.001;
    match calls.0.iter().find(needless) {
        Some((name, _)) => Err(format!("{what}: {name} is needless")),
        None => Ok(()),
    }
}

/// With one client, who waits for each answer, the server sleeps between two requests, and finds
/// none behind each. It has to be given the time: under strace it would be the slower one.
fn alone(clients: &mut Clients) -> Result<(), String> {
    const REQUESTS: usize = 90;
    let target = Kind::Pollstack.start(Setup::default())?;
    machine::place(&target.server, Placement::Apart);
    clients.place(Placement::Apart);
    let strace = Strace::attach(target.server.pid()).ok_or("strace cannot attach")?;
    for _ in 0..REQUESTS {
        settle(&target.server);
        let flood =
            Flood { protocol: Protocol::Stack, order: Order::Only(Request::Push), payload: 1, pace: Pace::Closed(1) };
        clients.run(&target.addresses(), flood, 1).map_err(|error| error.to_string())?.check(Outcome::Served)?;
    }
    settle(&target.server);
    judge("a request, 1 client", &strace.stop(), REQUESTS as f64, 7.1)
}

/// Counts the segments of a request, both ways: three to connect, the request and its
/// acknowledgement, the answer with the end, the client's end, and an acknowledgement of each.
fn segments(requests: usize, clients: &mut Clients) -> Result<(), String> {
    const MOST: f64 = 8.5;
    let target = Kind::Pollstack.start(Setup::default())?;
    let flood = |order| Flood { protocol: Protocol::Stack, order, payload: 1, pace: Pace::Closed(10) };
    let mut run = |order, requests| {
        clients
            .run(&target.addresses(), flood(order), requests)
            .map_err(|error| error.to_string())?
            .check(Outcome::Served)
    };
    run(Order::Only(Request::Push), 50)?;
    let before = machine::segments_sent();
    run(Order::Alternating, requests)?;
    let each = (machine::segments_sent() - before) as f64 / requests as f64;
    println!("segments on the wire for a request, both ways: {each:.3} (at most {MOST})");
    if each > MOST { Err(format!("more than {MOST} segments a request")) } else { Ok(()) }
}

/// A server that has parked clients and nothing to do, does nothing.
fn at_rest(time: Duration) -> Result<(), String> {
    let target = Kind::Pollstack.start(Setup::default())?;
    let _parked = park(&target, 10)?;
    settle(&target.server);
    let strace = Strace::attach(target.server.pid()).ok_or("strace cannot attach")?;
    std::thread::sleep(time);
    let calls = strace.stop().total();
    println!("  at rest with 10 parked clients, {time:?}: {calls}");
    // Attaching and leaving may interrupt the wait that the server is in, which it then repeats.
    if calls > 2 { Err("an idle server does something".to_owned()) } else { Ok(()) }
}

/// Returns the difference between a long and a short run, so that the start does not count.
fn instructions(requests: usize, clients: &mut Clients) -> Result<(), String> {
    let [short, long] = [executed(requests, clients)?, executed(3 * requests, clients)?];
    let each = (long - short) / (2 * requests) as f64;
    println!("instructions of the server for a request: {each:.0} (recorded: {INSTRUCTIONS})");
    if each > INSTRUCTIONS * (1.0 + MARGIN) {
        return Err(format!("{each:.0} instructions a request are more than {INSTRUCTIONS} and {MARGIN} of it"));
    }
    if each < INSTRUCTIONS * (1.0 - MARGIN) {
        println!("  that is better than what is recorded: have benches/floods/counts.rs say so");
    }
    Ok(())
}

/// Returns all instructions of a server, from its start to its end, with so many requests in between.
fn executed(requests: usize, clients: &mut Clients) -> Result<f64, String> {
    let output = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let file = format!("--callgrind-out-file={}", output.path().display());
    let target = Kind::Pollstack.start_under(&["valgrind", "--quiet", "--tool=callgrind", &file], Setup::default())?;
    let flood = |order, pace| Flood { protocol: Protocol::Stack, order, payload: 1, pace };
    for (order, clients_at_once, requests) in [(Order::Only(Request::Push), 10, 50), (Order::Alternating, 64, requests)]
    {
        let tally = clients.run(&target.addresses(), flood(order, Pace::Closed(clients_at_once)), requests);
        tally.map_err(|error| error.to_string())?.check(Outcome::Served)?;
    }
    target.server.signal("TERM");
    let mut server = target.server;
    server.wait();
    let text = std::fs::read_to_string(output.path()).map_err(|error| error.to_string())?;
    let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
    total.and_then(|total| total.trim().parse().ok()).ok_or_else(|| "valgrind says nothing".to_owned())
}
