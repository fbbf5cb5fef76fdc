//! The gate: what can be counted, and must not grow, however busy the machine is.

use crate::asking::{Asking, settle};
use crate::clients::{Clients, Flood, Order, Pace};
use crate::protocol::{Outcome, Protocol, Request};
use crate::scenario::Load;
use crate::servers::{Instance, Kind, Setup};
use crate::target::{counted, park};
use instrument::Callgrind;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;
use test_support::TEST_TIMEOUT;
use test_support::machine::{self, Calls, Placement, Strace};

/// Instructions of our own for a request that is answered at once, push and pop in turn, as `valgrind` counted them when
/// this was last changed on purpose (Rust 1.95, x86-64). Before it was counted with the server stopped between two rounds,
/// it was 1738 to 1892 for the same program, as the machine was busy or not.
const INSTRUCTIONS: f64 = 1693.0;
/// How many ask at once.
const AT_ONCE: usize = 64;
/// How far the count may be off: what a new compiler, or another C library, may cost, and no more.
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
        instructions()?;
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
fn instructions() -> Result<(), String> {
    const ROUNDS: usize = 25;
    let [short, long] = [executed(ROUNDS)?, executed(3 * ROUNDS)?];
    let each = (long - short) / (2 * ROUNDS * AT_ONCE) as f64;
    println!("instructions of the server for a request: {each:.0} (recorded: {INSTRUCTIONS})");
    if each > INSTRUCTIONS * (1.0 + MARGIN) {
        return Err(format!("{each:.0} instructions a request are more than {INSTRUCTIONS} and {MARGIN} of it"));
    }
    if each < INSTRUCTIONS * (1.0 - MARGIN) {
        println!("  that is better than what is recorded: have benches/floods/counts.rs say so");
    }
    Ok(())
}

/// Returns all instructions of a server, from its start to its end, with so many rounds in between.
fn executed(rounds: usize) -> Result<f64, String> {
    let wrong = |error: io::Error| error.to_string();
    let callgrind = Callgrind::new().map_err(wrong)?;
    let target = Kind::Pollstack.start_under(&callgrind.wrapper(), Setup::default())?;
    (0..rounds).try_for_each(|_| round(&target)).map_err(wrong)?;
    let mut server = target.server;
    server.signal("TERM");
    server.wait();
    Ok(callgrind.read(Path::new(env!("CARGO_MANIFEST_DIR"))).map_err(wrong)?.total())
}

/// Has as many clients push and pop in turn, all at once.
fn round(target: &Instance) -> io::Result<()> {
    let ask = |n: usize| {
        let request = if n % 2 == 0 { Request::Push } else { Request::Pop };
        let mut client = TcpStream::connect(target.address)?;
        client.set_read_timeout(Some(TEST_TIMEOUT))?;
        client.write_all(&Protocol::Stack.ask(request, 1))?;
        Ok(client)
    };
    let clients = Asking::Stopped.ask(&target.server, || (0..AT_ONCE).map(ask).collect::<io::Result<Vec<_>>>())?;
    clients.into_iter().enumerate().try_for_each(|(n, mut client)| {
        let mut reply = Vec::new();
        client.read_to_end(&mut reply)?;
        let expected: &[u8] = if n % 2 == 0 { &[0] } else { b"\x01x" };
        if reply == expected { Ok(()) } else { Err(io::Error::other(format!("{reply:?} is no answer"))) }
    })
}
