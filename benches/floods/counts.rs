//! The gate: what can be counted, and must not grow. Counts do not depend on the machine's mood.

use crate::clients::{Clients, Flood, Order, Pace};
use crate::felt::settle;
use crate::machine::{self, Placement, Strace};
use crate::run;
use crate::scenario::Load;
use crate::servers::{Kind, Setup, Target};
use crate::tongue::{Tongue, Wish};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Instructions of our own for a request that is answered at once, 64 clients, push and pop in
/// turn, as `valgrind` counted them when this was last changed on purpose (Rust 1.95, x86-64).
const INSTRUCTIONS: f64 = 1450.0;
/// How far the count may be off: what a new compiler may cost, and no more.
const MARGIN: f64 = 0.05;

/// Calls that no request may need.
const NEEDLESS: [&str; 9] =
    ["setsockopt", "getsockopt", "clock_gettime", "brk", "mmap", "munmap", "write", "fcntl", "ioctl"];

/// Counts everything; what is more than it should be is an error.
pub(crate) fn check(requests: usize) -> Result<(), String> {
    let mut clients = Clients::new().map_err(|error| error.to_string())?;
    println!("system calls of the server:");
    let alternating = |clients| Load::Flood { order: Order::Alternating, payload: 1, pace: Pace::Closed(clients) };
    let parked = Load::Flood { order: Order::PopsFirst(32), payload: 1, pace: Pace::Closed(64) };
    for (what, load, most) in [
        ("a request, 64 clients", alternating(64), 4.3),
        // It sleeps after each: there is nobody else.
        ("a request, 1 client", alternating(1), 6.1),
        // One that parks costs a call more, its registration: 5.3 and 4.3.
        ("a request, half of them pops that park", parked, 4.8),
        ("a rejection, the request is there", Load::Crowd { wish: Wish::Push, clients: 100 }, 4.3),
        ("a rejection, the request comes later", Load::Crowd { wish: Wish::Late, clients: 100 }, 8.3),
        ("an eviction", Load::Evictions, 6.3),
    ] {
        let alone = matches!(load, Load::Flood { pace: Pace::Closed(1), .. });
        let placement = if alone { Placement::Apart } else { Placement::Limit };
        let Some((calls, counted)) = run::counted(load, placement, requests, &mut clients)? else {
            println!("  left out: strace is not installed");
            break;
        };
        let each = calls.total() as f64 / counted;
        println!("  {what}: {each:.3} (at most {most})  {}", calls.list(counted));
        if each > most {
            return Err(format!("{what}: more than {most} system calls"));
        }
        let needless =
            |(name, count): &&(String, usize)| NEEDLESS.contains(&&**name) && *count as f64 / counted >= 0.001;
        if let Some((name, _)) = calls.0.iter().find(needless) {
            return Err(format!("{what}: {name} is needless"));
        }
    }
    segments(requests, &mut clients)?;
    at_rest(Duration::from_secs(2))?;
    instructions(requests, &mut clients)
}

/// What goes over the wire for a request, both ways: three to connect, the request and its
/// acknowledgement, the answer with the end, the client's end, and an acknowledgement of each.
fn segments(requests: usize, clients: &mut Clients) -> Result<(), String> {
    const MOST: f64 = 8.5;
    let target = Kind::Pollstack.start(Setup::default())?;
    let flood = |order| Flood { tongue: Tongue::Stack, order, payload: 1, pace: Pace::Closed(10) };
    let mut run = |order, requests| clients.run(target.address, flood(order), requests).map_err(|e| e.to_string());
    run(Order::Only(Wish::Push), 50)?;
    let before = machine::segments_sent();
    run(Order::Alternating, requests)?;
    let each = (machine::segments_sent() - before) as f64 / requests as f64;
    println!("segments on the wire for a request, both ways: {each:.3} (at most {MOST})");
    if each > MOST { Err(format!("more than {MOST} segments a request")) } else { Ok(()) }
}

/// A server that has parked clients and nothing to do, does nothing.
fn at_rest(time: Duration) -> Result<(), String> {
    let target = Kind::Pollstack.start(Setup::default())?;
    let _parked = run::park(&target, 10);
    settle(&target);
    let Some(strace) = Strace::attach(&target.server) else { return Ok(()) };
    std::thread::sleep(time);
    let calls = strace.stop().total();
    println!("  at rest with 10 parked clients, {time:?}: {calls}");
    // Attaching and leaving may interrupt the wait that the server is in, which it then repeats.
    if calls > 2 { Err("an idle server does something".to_owned()) } else { Ok(()) }
}

/// The difference between a long and a short run, so that the start does not count.
fn instructions(requests: usize, clients: &mut Clients) -> Result<(), String> {
    let counts = [requests, 3 * requests].map(|requests| executed(requests, clients));
    let [Some(short), Some(long)] = counts else {
        println!("instructions: left out, valgrind is not installed");
        return Ok(());
    };
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

/// All instructions of a server, from its start to its end, with so many requests in between.
fn executed(requests: usize, clients: &mut Clients) -> Option<f64> {
    let installed = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    installed.ok()?;
    let output = tempfile::NamedTempFile::new().ok()?;
    let file = format!("--callgrind-out-file={}", output.path().display());
    let target = Target::under(&["valgrind", "--quiet", "--tool=callgrind", &file]).ok()?;
    let flood = |order, pace| Flood { tongue: Tongue::Stack, order, payload: 1, pace };
    clients.run(target.address, flood(Order::Only(Wish::Push), Pace::Closed(10)), 50).ok()?;
    clients.run(target.address, flood(Order::Alternating, Pace::Closed(64)), requests).ok()?;
    target.server.signal("TERM");
    let mut server = target.server;
    server.wait();
    let text = std::fs::read_to_string(output.path()).ok()?;
    text.lines().find_map(|line| line.strip_prefix("summary: "))?.trim().parse().ok()
}
