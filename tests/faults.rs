//! The real server under real faults: system calls that fail (with strace, where it is installed),
//! and what concurrent clients have seen, checked against every order in which it could have been.
#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use test_support::history::{Done, What, is_linearizable, observe};
use test_support::{Client, Server, TEST_TIMEOUT, leave_out, start, wait_until};

// ---- system calls that fail ---------------------------------------------------------------------

/// A strace that makes system calls of a server fail, for as long as it lives.
struct Injection {
    strace: Child,
    /// Where the system tells the state of the server.
    status: String,
}

impl Injection {
    /// Makes the calls fail that `faults` say, in strace's words; `None` if there is no strace.
    fn attach(server: &Server, faults: &[&str]) -> Option<Injection> {
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-p", &server.pid().to_string()]);
        command.args(faults.iter().map(|fault| format!("--inject={fault}")));
        let child = test_support::spawn(command.stderr(Stdio::null())).ok()?;
        let status = format!("/proc/{}/status", server.pid());
        let traced = || fs::read_to_string(&status).unwrap().contains("TracerPid:\t0\n");
        wait_until("strace is attached", || (!traced()).then_some(()));
        Some(Injection { strace: child, status })
    }

    /// Waits until the server sleeps in the kernel. strace makes a call fail in two steps; detached
    /// between them, it would leave the server with ENOSYS.
    fn wait_for_sleep(&self) {
        let sleeps = || fs::read_to_string(&self.status).is_ok_and(|status| status.contains("State:\tS"));
        wait_until("the server sleeps", || sleeps().then_some(()));
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.wait_for_sleep();
        }
        let _guard = test_support::no_fork();
        let _ = Command::new("kill").args(["-INT", &self.strace.id().to_string()]).status();
        let _ = self.strace.wait();
    }
}

/// The answers that clients have read, while they pushed and popped as fast as they could.
#[derive(Default)]
struct Told {
    pushed: HashSet<Vec<u8>>,
    popped: Vec<Vec<u8>>,
    /// Pushes without an answer: stored or not.
    unknown: HashSet<Vec<u8>>,
    failures: usize,
}

/// Four clients push, and four pop, until so many requests have been made.
fn work(server: &Server, requests: u64) -> Told {
    let number = AtomicU64::new(0);
    let (stop, number) = (|| number.load(Ordering::Relaxed) >= requests, &number);
    let one = |pushes: bool| {
        let mut told = Told::default();
        while !stop() {
            let item = number.fetch_add(1, Ordering::Relaxed).to_string().into_bytes();
            let request = if pushes { test_support::push(&item) } else { vec![0x80] };
            let answer = answer(server.send(&request), stop);
            match (pushes, answer.split_first()) {
                (true, Some(_)) => drop(told.pushed.insert(item)),
                (true, None) => drop(told.unknown.insert(item)),
                (false, Some((_, item))) => told.popped.push(item.to_vec()),
                (false, None) => {}
            }
            told.failures += usize::from(answer.is_empty());
        }
        told
    };
    let mut sum = Told::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|n| scope.spawn(move || one(n % 2 == 0))).collect();
        for told in workers.into_iter().map(|worker| worker.join().unwrap()) {
            sum.pushed.extend(told.pushed);
            sum.popped.extend(told.popped);
            sum.unknown.extend(told.unknown);
            sum.failures += told.failures;
        }
    });
    sum
}

/// The answer of a client, which may be nothing. When all is over, one that is parked says so
/// with a FIN, and still reads what it is sent.
fn answer(mut client: Client, over: impl Fn() -> bool) -> Vec<u8> {
    let (mut answer, start, mut ended) = (Vec::new(), Instant::now(), false);
    client.stream().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    loop {
        match client.read_to_end(&mut answer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => return answer,
        }
        assert!(start.elapsed() < TEST_TIMEOUT, "a request is neither answered nor cancelled");
        if over() && !std::mem::replace(&mut ended, true) {
            // One that has been reset meanwhile is told at the next read.
            let _ = client.stream().shutdown(std::net::Shutdown::Write);
        }
    }
}

/// Lost otherwise: items, to a system that fails now and then. An acknowledged item is popped once
/// or is still there, and the server is none the worse.
#[test]
fn nothing_acknowledged_is_lost_when_system_calls_fail() {
    let all: [&[&str]; 8] = [
        &["accept4:error=EMFILE:when=3+7"],
        &["accept4:error=ECONNABORTED:when=2+3"],
        &["accept4:error=ENOMEM:when=5+11"],
        &["epoll_wait:error=EINTR:when=1+2"],
        &["sendto:error=EPIPE:when=4+9"],
        &["sendto:error=ECONNRESET:when=3+5"],
        &["recvfrom:error=ECONNRESET:when=4+9"],
        &["accept4:error=ENFILE:when=3+13", "sendto:error=EPIPE:when=6+17", "recvfrom:error=EINTR:when=2+5"],
    ];
    for faults in all {
        let server = start!(&["--capacity", "10"]);
        let descriptors = server.descriptors();
        let told = {
            let Some(_injection) = Injection::attach(&server, faults) else {
                return leave_out("strace is not installed");
            };
            work(&server, 300)
        };
        let mut popped = told.popped;
        popped.extend(std::iter::from_fn(|| top(&server)));
        let mut count: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        popped.into_iter().for_each(|item| *count.entry(item).or_default() += 1);
        assert!(count.values().all(|n| *n == 1), "{faults:?}: an item is popped twice");
        let known = |item: &&Vec<u8>| told.pushed.contains(*item) || told.unknown.contains(*item);
        assert!(count.keys().all(|item| known(&item)), "{faults:?}: an item comes from nowhere");
        let lost: Vec<_> = told.pushed.iter().filter(|item| !count.contains_key(*item)).collect();
        assert!(lost.is_empty(), "{faults:?}: {} acknowledged items are lost", lost.len());
        wait_until("all descriptors are back", || (server.descriptors() == descriptors).then_some(()));
    }
}

/// The top item, if there is one; without waiting for a time to pass.
fn top(server: &Server) -> Option<Vec<u8>> {
    let mut pop = server.pop();
    server.barrier();
    server.stored(b"for the pop, if that waits");
    let item = pop.item();
    if item == b"for the pop, if that waits" {
        return None;
    }
    assert_eq!(server.popped(), b"for the pop, if that waits");
    Some(item)
}

// ---- linearizability ----------------------------------------------------------------------------

/// Lost otherwise: the meaning of every test above, to a checker that says yes to everything.
#[test]
fn the_checker_can_say_no() {
    let push = |began, ended, item: &[u8]| Done { began, ended, what: What::Push(item.to_vec()) };
    let pop = |began, ended, item: &[u8]| Done { began, ended, what: What::Pop(item.to_vec()) };
    let (a, b) = (b"a", b"b");
    assert!(is_linearizable(&[push(1, 2, a), push(3, 4, b), pop(5, 6, b), pop(7, 8, a)], 2));
    assert!(!is_linearizable(&[push(1, 2, a), push(3, 4, b), pop(5, 6, a), pop(7, 8, b)], 2), "first in, first out");
    assert!(is_linearizable(&[push(1, 4, a), push(2, 3, b), pop(5, 6, a), pop(7, 8, b)], 2), "they overlap");
    assert!(!is_linearizable(&[push(1, 2, a), push(3, 4, b), pop(5, 6, b), pop(7, 8, a)], 1), "more than fit");
    assert!(is_linearizable(&[push(1, 2, a), push(3, 7, b), pop(5, 6, a), pop(8, 9, b)], 1), "one waits");
    assert!(!is_linearizable(&[push(1, 2, a), pop(3, 4, a), pop(5, 6, a)], 2), "popped twice");
    assert!(!is_linearizable(&[pop(1, 2, a), push(3, 4, a)], 2), "popped before it was pushed");
}

/// Lost otherwise: the one order in which all that clients see can be explained. Four push and four
/// pop at the same time, in windows of 24 requests that begin and end with an empty stack; that is
/// small enough to try every order, and says nothing about histories that span windows.
#[test]
fn what_concurrent_clients_see_is_a_stack() {
    for capacity in 1..=4 {
        let server = start!(&["--capacity", &capacity.to_string()]);
        for _ in 0..50 {
            let history = observe(&[&server]);
            assert!(is_linearizable(&history, capacity), "a stack of {capacity} could not: {history:?}");
        }
    }
}

// ---- a soak -------------------------------------------------------------------------------------

/// A connection from one of many addresses, so that ports do not run out.
fn connect_from(n: u64, server: &Server) -> TcpStream {
    let source = SocketAddr::from(([127, 0, 0, 2 + (n % 200) as u8], 0));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&server.address().into()).unwrap();
    socket.into()
}

/// One connection of a soak: half of them push and pop, the others do what they should not.
fn visit(server: &Server, n: u64) {
    let mut client = Client::new(connect_from(n, server));
    let finish = |mut client: Client| drop(client.read_to_end(&mut Vec::new()));
    match n % 8 {
        0 | 2 => {
            client.send(&test_support::push(n.to_string().as_bytes()));
            finish(client);
        }
        1 | 3 => {
            client.send(&[0x80]);
            finish(client);
        }
        4 => client.reset(),
        5 => {
            client.send(b"\x05hal");
            client.fin();
            finish(client);
        }
        6 => {
            client.send(&[0]);
            finish(client);
        }
        _ => {
            client.send(b"\x05hal");
            client.reset();
        }
    }
}

/// Lost otherwise: descriptors or memory, a little with every client that behaves or does not. `SOAK`
/// says how many come.
#[test]
fn a_soak_leaves_nothing_behind() {
    let visits: u64 = std::env::var("SOAK").map_or(20_000, |n| n.parse().unwrap());
    let server = start!(&[]);
    let descriptors = server.descriptors();
    (0..50).for_each(|n| server.stored(&[n])); // so that no client waits: as many push as pop
    let soak = |visits: u64| {
        thread::scope(|scope| {
            for thread in 0..8 {
                let server = &server;
                scope.spawn(move || (0..visits / 8).for_each(|n| visit(server, n * 9 + thread)));
            }
        });
    };
    soak(4000);
    let memory = server.memory();
    soak(visits);
    wait_until("all descriptors are back", || (server.descriptors() == descriptors).then_some(()));
    let grown = server.memory().saturating_sub(memory);
    assert!(grown < 1 << 20, "{grown} bytes more are resident after {visits} connections");
}
