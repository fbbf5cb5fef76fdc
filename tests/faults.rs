//! The real server under real faults: system calls that fail (with strace, where it is installed),
//! and what concurrent clients have seen, checked against every order in which it could have been.
#![cfg(target_os = "linux")]

mod common;

use common::{PATIENCE, Server, wait_until};
use pollstack::client::{Client, ClientError};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

// ---- system calls that fail ---------------------------------------------------------------------

/// A strace that makes system calls of a server fail, for as long as it lives.
struct Injection(Child);

impl Injection {
    /// Makes the calls fail that `faults` say, in strace's words; `None` if there is no strace.
    fn attach(server: &Server, faults: &[&str]) -> Option<Injection> {
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-p", &server.pid().to_string()]);
        command.args(faults.iter().map(|fault| format!("--inject={fault}")));
        let child = {
            let _guard = common::no_fork();
            command.stderr(Stdio::null()).spawn().ok()?
        };
        let status = format!("/proc/{}/status", server.pid());
        let traced = || fs::read_to_string(&status).unwrap().contains("TracerPid:\t0\n");
        wait_until("strace is attached", || (!traced()).then_some(()));
        Some(Injection(child))
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        let _guard = common::no_fork();
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// What clients have been told, while they pushed and popped as fast as they could.
#[derive(Default)]
struct Told {
    pushed: HashSet<Vec<u8>>,
    popped: Vec<Vec<u8>>,
    /// Pushes that nobody knows about: the server, or the way to it, failed.
    unknown: HashSet<Vec<u8>>,
    failures: usize,
}

/// Four clients push, and four pop, for as long as `go_on` says.
fn work(client: &Client, go_on: impl Fn() -> bool + Sync) -> Told {
    let (number, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let one = |pushes: bool| {
        let mut told = Told::default();
        while !stop.load(Ordering::Relaxed) {
            let result = if pushes {
                let item = number.fetch_add(1, Ordering::Relaxed).to_string().into_bytes();
                let result = client.push(&item);
                match &result {
                    Ok(()) => told.pushed.insert(item),
                    Err(ClientError::Busy) => true,
                    Err(_) => told.unknown.insert(item),
                };
                result
            } else {
                client.pop().map(|item| told.popped.push(item))
            };
            told.failures += usize::from(result.is_err());
        }
        told
    };
    let mut sum = Told::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|n| scope.spawn(move || one(n % 2 == 0))).collect();
        while go_on() {
            thread::sleep(Duration::from_millis(5)); // the time in which they work
        }
        stop.store(true, Ordering::Relaxed);
        // Whoever is parked now is let go by somebody who comes.
        while !workers.iter().all(|worker| worker.is_finished()) {
            let _ = client.push(b"end").and_then(|()| client.pop());
        }
        for worker in workers {
            let told = worker.join().unwrap();
            sum.pushed.extend(told.pushed);
            sum.popped.extend(told.popped);
            sum.unknown.extend(told.unknown);
            sum.failures += told.failures;
        }
    });
    sum
}

/// Lost otherwise: items, to a system that fails now and then. What was acknowledged is popped once
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
        let server = Server::start(&["--capacity", "10"]);
        let (client, descriptors) = (Client::new(server.address()).patience(PATIENCE), server.descriptors());
        let told = {
            let Some(_injection) = Injection::attach(&server, faults) else {
                return println!("left out: strace is not installed");
            };
            let opened = AtomicU64::new(0);
            work(&client, || opened.fetch_add(1, Ordering::Relaxed) < 60)
        };
        let mut popped = told.popped;
        popped.extend(std::iter::from_fn(|| top(&server)));
        let mut count: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        popped.into_iter().filter(|item| item != b"end").for_each(|item| *count.entry(item).or_default() += 1);
        assert!(count.values().all(|n| *n == 1), "{faults:?}: an item is popped twice");
        let known = |item: &&Vec<u8>| told.pushed.contains(*item) || told.unknown.contains(*item);
        assert!(count.keys().all(|item| known(&item)), "{faults:?}: an item comes from nowhere");
        let lost: Vec<_> = told.pushed.iter().filter(|item| !count.contains_key(*item)).collect();
        // A pop that failed on its way may have had one: at most one each, and none but for these.
        let in_doubt = if faults.iter().any(|fault| fault.starts_with("sendto")) { 0 } else { told.failures };
        assert!(lost.len() <= in_doubt, "{faults:?}: {} acknowledged items are lost", lost.len());
        wait_until("all descriptors are back", || (server.descriptors() == descriptors).then_some(()));
    }
}

/// The top item, if there is one; without waiting for a time to pass.
fn top(server: &Server) -> Option<Vec<u8>> {
    let mut pop = server.pop();
    server.barrier();
    server.stored(b"end"); // it is for the pop, if that waits
    let item = pop.item();
    if item == b"end" {
        return None;
    }
    assert_eq!(server.popped(), b"end");
    Some(item)
}
