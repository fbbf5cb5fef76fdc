//! How near the server is to the floor: the plainest loop that can do the same work.
//!
//! ```text
//! cargo bench --bench floor               everything, about two minutes
//! cargo bench --bench floor -- --quick    fewer rounds
//! cargo bench --bench floor -- --counts   only what is counted; fails if it is more than it should be
//! ```
//!
//! It starts the release binary, a blocking accept, read, write, close loop, and the same loop
//! waiting for events, sends all the same requests, in turns (A B B A), and prints the ratio of the
//! processor time that the servers used for a request. Times mean little on a shared machine; ratios of the same run and
//! counts do. System calls are counted with strace, processors are pinned with taskset and chrt;
//! what is not installed is left out with a word. Linux only.

#[path = "../tests/common/mod.rs"]
mod common;
mod figures;

use common::{Server, pollstack};
use figures::{middle, spread};
use std::collections::VecDeque;
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 64;
/// The arguments with which this program is a floor.
const BLOCKING: &str = "--blocking-floor";
const EVENTS: &str = "--event-floor";
const PUSH: &[u8] = b"\x05hello";
const POP: &[u8] = b"\x80";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if has(BLOCKING) {
        return blocking_floor();
    }
    if has(EVENTS) {
        return event_floor().expect("an event loop");
    }
    if !cfg!(target_os = "linux") {
        return println!("floor: Linux only");
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let quick = has("--quick");
    system_calls(if quick { 5_000 } else { 20_000 });
    idle_system_calls(Duration::from_secs(if quick { 2 } else { 10 }));
    if !has("--counts") {
        many_connections();
        processor_time(if quick { 10 } else { 30 }); // last: it pins this process, and so its children
    }
}

// ---- the servers --------------------------------------------------------------------------------

/// What both floors do: read, write, close, and a stack. They cannot park, evict or refuse
/// anybody, and take the first read for the request.
struct Floor {
    stack: Vec<[u8; 128]>,
    buffer: Vec<u8>,
}

impl Floor {
    fn new() -> Floor {
        Floor { stack: Vec::new(), buffer: vec![0; 64 * 1024] }
    }

    fn serve(&mut self, mut stream: TcpStream) {
        match stream.read(&mut self.buffer) {
            Ok(1..) if self.buffer[0] >= 0x80 => {
                let item = self.stack.pop().unwrap_or([0; 128]);
                let _ = stream.write(&item[..=usize::from(item[0])]);
            }
            Ok(n @ 1..=128) => {
                let mut item = [0; 128];
                item[..n].copy_from_slice(&self.buffer[..n]);
                self.stack.push(item);
                let _ = stream.write(&[0]);
            }
            _ => {}
        }
    }
}

fn floor_listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("listening on {}", listener.local_addr().expect("an address"));
    listener
}

/// The floor: it waits in accept, and can wait for nothing else.
fn blocking_floor() {
    let (listener, mut floor) = (floor_listener(), Floor::new());
    while let Ok((stream, _)) = listener.accept() {
        floor.serve(stream);
    }
}

/// The floor of loops that wait for events, as all do that have more than one thing to wait for.
fn event_floor() -> io::Result<()> {
    let (listener, mut floor) = (floor_listener(), Floor::new());
    listener.set_nonblocking(true)?;
    let mut source = mio::net::TcpListener::from_std(listener.try_clone()?);
    let mut poll = mio::Poll::new()?;
    let mut events = mio::Events::with_capacity(16);
    poll.registry().register(&mut source, mio::Token(0), mio::Interest::READABLE)?;
    loop {
        poll.poll(&mut events, None)?;
        while let Ok((stream, _)) = listener.accept() {
            floor.serve(stream); // which is a blocking one
        }
    }
}

/// Where the two ends run.
#[derive(Clone, Copy)]
enum Placement {
    /// Both on one processor, the server in the batch class: it runs when all clients wait, and
    /// finds a request of each. That is a server at its limit.
    Saturated,
    /// A processor each. The client needs more of its own than the server, which therefore sleeps
    /// and wakes again for every request or two.
    TwoCores,
}

impl Placement {
    fn command(self, program: &Command) -> Command {
        let mut command = match self {
            Placement::Saturated => Command::new("chrt"),
            Placement::TwoCores => Command::new("taskset"),
        };
        match self {
            Placement::Saturated => command.args(["-b", "0", "taskset", "-c", "0"]),
            Placement::TwoCores => command.args(["-c", "1"]),
        };
        command.arg(program.get_program()).args(program.get_args());
        command
    }

    fn pollstack(self) -> Server {
        Server::spawn(self.command(&pollstack(&["--listen", "127.0.0.1:0"])), 1)
    }

    fn floor(self, which: &str) -> Server {
        let mut program = Command::new(env::current_exe().expect("the path of this program"));
        program.arg(which);
        Server::spawn(self.command(&program), 1)
    }
}

// ---- the load -----------------------------------------------------------------------------------

/// One request; the clients come from eight addresses, so that ports do not run out.
fn send(server: SocketAddr, request: &[u8], n: usize) -> TcpStream {
    let source = SocketAddr::from(([127, 0, 0, 2 + (n % 8) as u8], 0));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&source.into()).expect("an address of the loopback");
    socket.connect(&server.into()).expect("the server accepts");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    stream.write_all(request).expect("the server takes the request");
    stream
}

/// Reads an answer to the end of the stream.
fn finish(mut stream: TcpStream, expected: &[u8]) {
    let mut answer = Vec::with_capacity(16);
    stream.read_to_end(&mut answer).expect("an orderly end");
    assert_eq!(answer, expected, "every answer is right");
}

fn request(n: usize) -> (&'static [u8], &'static [u8]) {
    if n % 2 == 0 { (PUSH, &[0]) } else { (POP, PUSH) }
}

/// `requests` requests, pushes and pops in turn, `clients` of them at any time.
fn closed_loop(server: SocketAddr, requests: usize, clients: usize) {
    let mut ring: VecDeque<(TcpStream, usize)> = VecDeque::new();
    for n in 0..requests {
        if ring.len() == clients {
            ring.pop_front().into_iter().for_each(|(stream, n)| finish(stream, request(n).1));
        }
        ring.push_back((send(server, request(n).0, n), n));
    }
    ring.into_iter().for_each(|(stream, n)| finish(stream, request(n).1));
}

/// Fills the stack to the half, so that nothing parks.
fn half_fill(server: SocketAddr) {
    (0..50).for_each(|n| finish(send(server, PUSH, n), &[0]));
}

// ---- processor time -----------------------------------------------------------------------------

fn processor_time(pairs: usize) {
    const REQUESTS: usize = 20_000;
    let before = Validity::read();
    println!("processor time of the server for a request, {CLIENTS} clients, push and pop in turn,");
    println!("{pairs} rounds (A B B A) of {REQUESTS} requests each; median, and the middle half:");
    for placement in [Placement::Saturated, Placement::TwoCores] {
        let (name, client) = match placement {
            Placement::Saturated => ("saturated", "one core"),
            Placement::TwoCores => ("two cores", "the client is the bottleneck"),
        };
        if Command::new("chrt").arg("--version").stdout(Stdio::null()).status().is_err() {
            return println!("  left out: chrt and taskset (util-linux) are not installed");
        }
        let _ = Command::new("taskset").args(["-pc", "0", &std::process::id().to_string()]).output();
        let ours = placement.pollstack();
        let floors = [BLOCKING, BLOCKING, EVENTS].map(|which| placement.floor(which));
        for server in floors.iter().chain([&ours]) {
            half_fill(server.address());
            closed_loop(server.address(), REQUESTS, CLIENTS);
        }
        let time = |server: &Server| {
            let before = server.cpu();
            closed_loop(server.address(), REQUESTS, CLIENTS);
            (server.cpu() - before).as_secs_f64() * 1e6 / REQUESTS as f64
        };
        let (mut times, mut to_blocking, mut to_events, mut noise) = (vec![], vec![], vec![], vec![]);
        for pair in 0..pairs {
            let mut order = [&ours, &floors[0], &floors[1], &floors[2]];
            if pair % 2 == 1 {
                order.reverse();
            }
            let mut figures = order.map(time);
            if pair % 2 == 1 {
                figures.reverse();
            }
            let [own, blocking, other, events] = figures;
            times.push(own);
            to_blocking.push(own / blocking);
            to_events.push(own / events);
            noise.push(other / blocking);
        }
        println!(
            "  {name}: {:.2} us; {} times the blocking floor, {} times the event floor; floor to floor {}  ({client})",
            middle(&mut times)[1],
            spread(&mut to_blocking),
            spread(&mut to_events),
            spread(&mut noise)
        );
    }
    before.report();
}

// ---- system calls -------------------------------------------------------------------------------

/// A strace that counts the calls of a process.
struct Strace {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Strace {
    fn attach(pid: u32) -> Option<Strace> {
        let output = tempfile::NamedTempFile::new().expect("a file");
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(output.path()).args(["-p", &pid.to_string()]).stderr(Stdio::null());
        let child = command.spawn().ok()?;
        let traced = || fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| !s.contains("TracerPid:\t0\n"));
        common::wait_until("strace is attached", || traced().then_some(()));
        Some(Strace { child, output })
    }

    /// The calls by name, most frequent first.
    fn stop(mut self) -> Vec<(String, usize)> {
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
        let text = fs::read_to_string(self.output.path()).unwrap_or_default();
        let rows = text.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()));
        let mut calls: Vec<(String, usize)> = rows
            .filter_map(|row| {
                let columns: Vec<&str> = row.split_whitespace().collect();
                Some(((*columns.last()?).to_owned(), columns.get(3)?.parse().ok()?))
            })
            .filter(|(name, _)| name != "total")
            .collect();
        calls.sort_by_key(|(_, count)| usize::MAX - count);
        calls
    }
}

/// Prints the calls of `requests` requests, and fails if there were more than `most` for each.
fn report_calls(what: &str, requests: usize, calls: &[(String, usize)], most: f64) {
    let each = |count: usize| count as f64 / requests as f64;
    let total = each(calls.iter().map(|(_, count)| count).sum());
    let list: Vec<String> = calls.iter().map(|(name, count)| format!("{name} {:.3}", each(*count))).collect();
    println!("  {what}: {total:.3}  ({})", list.join(", "));
    assert!(total <= most, "more than {most} system calls a request");
    let needless = ["setsockopt", "clock_gettime", "brk", "mmap", "write"];
    assert!(calls.iter().all(|(name, count)| !needless.contains(&&**name) || each(*count) < 0.001), "needless calls");
}

fn system_calls(requests: usize) {
    println!("system calls a request, {CLIENTS} clients (strace slows the server down: it is at its limit):");
    let server = Server::start(&[]);
    half_fill(server.address());
    closed_loop(server.address(), 1_000, CLIENTS);
    let Some(strace) = Strace::attach(server.pid()) else {
        return println!("  left out: strace is not installed");
    };
    closed_loop(server.address(), requests, CLIENTS);
    report_calls("answered at once", requests, &strace.stop(), 4.3);

    let server = Server::start(&["--max-clients", "1000"]);
    let Some(strace) = Strace::attach(server.pid()) else { return };
    let rounds = requests / (2 * CLIENTS);
    for _ in 0..rounds {
        let pops: Vec<TcpStream> = (0..CLIENTS).map(|n| send(server.address(), POP, n)).collect();
        let pushes: Vec<TcpStream> = (0..CLIENTS).map(|n| send(server.address(), PUSH, n)).collect();
        pushes.into_iter().for_each(|push| finish(push, &[0]));
        pops.into_iter().for_each(|pop| finish(pop, PUSH));
    }
    // A parked request costs one call more than the other, its registration: 5.3 and 4.3.
    let what = "pops that park and as many pushes that serve them, the mean of both";
    report_calls(what, rounds * 2 * CLIENTS, &strace.stop(), 4.8);
}

fn idle_system_calls(time: Duration) {
    let server = Server::start(&[]);
    let descriptors = server.descriptors();
    let parked: Vec<TcpStream> = (0..10).map(|n| send(server.address(), POP, n)).collect();
    server.barrier();
    common::wait_until("only they are there", || (server.descriptors() == descriptors + 10).then_some(()));
    server.wait_until_asleep();
    let Some(strace) = Strace::attach(server.pid()) else { return };
    thread::sleep(time);
    let calls: usize = strace.stop().iter().map(|(_, count)| count).sum();
    println!("idle with 10 parked clients for {time:?}: {calls} system calls");
    // Attaching and leaving may interrupt the wait that the server is in, which it then repeats.
    assert!(calls <= 2, "an idle server does something");
    drop(parked);
}

// ---- many connections ---------------------------------------------------------------------------

fn many_connections() {
    println!("parked clients: resident bytes of the server for each, and what a newcomer costs that evicts one:");
    for count in [100, 1_000, 10_000] {
        let clients = count.to_string();
        let server = Server::start(&["--max-clients", &clients, "--evict-after", "1ns"]);
        (0..200).for_each(|n| finish(send(server.address(), request(n).0, n), request(n).1));
        let (empty, descriptors) = (resident(&server), server.descriptors());
        let mut ring: VecDeque<TcpStream> = (0..count).map(|n| send(server.address(), POP, n)).collect();
        let start = Instant::now();
        let all_in = common::wait_until("all are in", || {
            let all_in = server.descriptors() == descriptors + count;
            (all_in || start.elapsed() > Duration::from_secs(5)).then_some(all_in)
        });
        if !all_in {
            println!("  {count}: left out, the descriptor limit is too low");
            continue;
        }
        let bytes = resident(&server).saturating_sub(empty) / count as u64;
        const NEWCOMERS: usize = 5_000;
        let before = server.cpu();
        for n in 0..NEWCOMERS {
            let oldest = ring.pop_front();
            ring.push_back(send(server.address(), POP, n));
            oldest.into_iter().for_each(|oldest| finish(oldest, &[]));
        }
        let newcomer = (server.cpu() - before).as_secs_f64() * 1e6 / NEWCOMERS as f64;
        println!("  {count:>6}: {bytes} bytes, {newcomer:.1} us");
    }
}

fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

// ---- validity -----------------------------------------------------------------------------------

/// Counters of the kernel that must not move: connections that it dropped or reset.
struct Validity(Vec<(&'static str, u64)>);

impl Validity {
    fn read() -> Validity {
        let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
        let rows: Vec<Vec<&str>> =
            text.lines().filter(|l| l.starts_with("TcpExt:")).map(|l| l.split_whitespace().collect()).collect();
        let value = |name| {
            let column = rows.first()?.iter().position(|column| *column == name)?;
            rows.get(1)?.get(column)?.parse().ok()
        };
        let names = ["ListenOverflows", "ListenDrops", "TCPAbortOnClose"];
        Validity(names.into_iter().map(|name| (name, value(name).unwrap_or(0))).collect())
    }

    fn report(&self) {
        let moved = |((name, before), (_, after)): (&(_, u64), &(_, u64))| format!("{name} +{}", after - before);
        let now = Validity::read();
        let list: Vec<String> = self.0.iter().zip(&now.0).map(moved).collect();
        println!("the run is void if one of these has moved: {}", list.join(", "));
    }
}
