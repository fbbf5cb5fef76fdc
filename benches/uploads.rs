//! How fast the Accio server receives a file, and what it takes of the processor, beside a blocking
//! read loop with the same buffer, the same loop waiting for events, as every loop must that has more
//! than one thing to wait for, and `nc -l >/dev/null`.
//!
//! ```text
//! cargo bench --bench uploads               4 GiB a file, about a minute and a half
//! cargo bench --bench uploads -- --quick    1 GiB a file, fewer rounds
//! ```
//!
//! All receive the same file from the same client, a processor each for client and server, in turns
//! (A B B A). Times mean little on a shared machine; ratios of the same run do. Linux only.

#[path = "../tests/common/mod.rs"]
mod common;
mod figures;

use common::{Server, example};
use figures::{middle, spread};
use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The arguments with which this program is a floor.
const BLOCKING: &str = "--blocking-floor";
const EVENTS: &str = "--event-floor";
/// What the loop reads at once.
const BUFFER: usize = pollstack::limits::READ_BYTES;
const COMMAND: &[u8] = b"accio\r\n";
const CONFIRMATIONS: &[u8] = b"confirm-accio\r\nconfirm-accio-again\r\n\r\n";
const GIB: u64 = 1 << 30;

fn main() {
    let has = |name: &str| env::args().any(|argument| argument == name);
    if has(BLOCKING) {
        return floor(blocking_read);
    }
    if has(EVENTS) {
        return floor(event_read);
    }
    if !cfg!(target_os = "linux") {
        return println!("uploads: Linux only");
    }
    if Command::new("taskset").arg("--version").stdout(Stdio::null()).status().is_err() {
        return println!("left out: taskset (util-linux) is not installed");
    }
    let (size, rounds) = if has("--quick") { (GIB, 5) } else { (4 * GIB, 15) };
    let _ = Command::new("taskset").args(["-pc", "0", &std::process::id().to_string()]).output();
    // Benchmarks are built without the examples.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(["build", "--quiet", "--release", "--locked", "--example", "accio"]).status();
    assert!(built.is_ok_and(|status| status.success()), "the example is built");
    let accio = Server::spawn(pinned(&example("accio", &["0"])), 1);
    let floors = [BLOCKING, BLOCKING, EVENTS].map(|which| {
        let mut program = Command::new(env::current_exe().expect("the path of this program"));
        Server::spawn(pinned(program.arg(which)), 1)
    });
    compare([&accio, &floors[0], &floors[1], &floors[2]], size, rounds);
}

/// A server's command, on the processor that is not the client's.
fn pinned(program: &Command) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "1"]).arg(program.get_program()).args(program.get_args());
    command
}

/// The plainest receiver: one client after the other, and `read` counts what comes.
fn floor(read: fn(TcpStream, &mut [u8]) -> u64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("listening on {}", listener.local_addr().expect("an address"));
    let mut buffer = vec![0; BUFFER];
    while let Ok((mut stream, _)) = listener.accept() {
        let _ = stream.write_all(&[COMMAND, COMMAND].concat());
        let _ = stream.read_exact(&mut buffer[..CONFIRMATIONS.len()]);
        println!("{}", read(stream, &mut buffer));
    }
}

/// Waits in read, and can wait for nothing else.
fn blocking_read(mut stream: TcpStream, buffer: &mut [u8]) -> u64 {
    let mut bytes = 0;
    while let Ok(n @ 1..) = stream.read(buffer) {
        bytes += n as u64;
    }
    bytes
}

/// Waits for events, and reads until a read is short.
fn event_read(stream: TcpStream, buffer: &mut [u8]) -> u64 {
    stream.set_nonblocking(true).expect("a socket");
    let mut stream = mio::net::TcpStream::from_std(stream);
    let mut poll = mio::Poll::new().expect("a poll");
    let mut events = mio::Events::with_capacity(16);
    poll.registry().register(&mut stream, mio::Token(0), mio::Interest::READABLE).expect("a poll");
    let (mut bytes, mut ended) = (0, false);
    loop {
        poll.poll(&mut events, None).expect("a poll");
        ended |= events.iter().any(mio::event::Event::is_read_closed);
        loop {
            match stream.read(buffer) {
                Ok(0) => return bytes,
                Ok(n) => {
                    bytes += n as u64;
                    if n < buffer.len() && !ended {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
    }
}

/// Sends a file of so many bytes; when it began.
fn send(stream: &mut TcpStream, size: u64) -> Instant {
    let part = vec![0xA5; 256 * 1024];
    let start = Instant::now();
    for _ in 0..size / part.len() as u64 {
        stream.write_all(&part).expect("the server reads");
    }
    stream.shutdown(Shutdown::Write).expect("an end");
    start
}

/// One upload: how long it took, and what it took of the server's processor, in seconds.
fn upload(server: &Server, size: u64) -> (f64, f64) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.address().port()));
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.write_all(CONFIRMATIONS).expect("the server reads");
    stream.read_exact(&mut [0; 2 * COMMAND.len()]).expect("the server commands");
    let before = server.cpu();
    let start = send(&mut stream, size);
    assert_eq!(server.line(), size.to_string());
    (start.elapsed().as_secs_f64(), (server.cpu() - before).as_secs_f64())
}

/// The same to `nc -l >/dev/null`, if there is one: how long it took.
fn netcat(size: u64) -> Option<f64> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mut program = Command::new("nc");
    program.args(["-l", "127.0.0.1", &free.port().to_string()]);
    let mut child = pinned(&program).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let mut stream = loop {
        match TcpStream::connect(free) {
            Ok(stream) => break stream,
            Err(_) if child.try_wait().ok()?.is_some() => return None, // not installed, or another nc
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    let start = send(&mut stream, size);
    drop(stream);
    child.wait().ok()?;
    Some(start.elapsed().as_secs_f64())
}

/// Compares the first with the others: a floor, the same floor again, and one that waits for events.
fn compare(servers: [&Server; 4], size: u64, rounds: usize) {
    println!("uploads of {} GiB, {rounds} rounds; median, and the middle half:", size / GIB);
    let mut ratios: [(Vec<f64>, Vec<f64>); 3] = Default::default();
    let (mut times, mut cpus, mut to_nc) = (vec![], vec![], vec![]);
    for round in 0..rounds {
        let mut order = servers;
        if round % 2 == 1 {
            order.reverse();
        }
        let mut figures = order.map(|server| upload(server, size));
        if round % 2 == 1 {
            figures.reverse();
        }
        let [own, floor, again, events] = figures;
        times.push(own.0);
        cpus.push(own.1);
        for (ratios, (one, other)) in ratios.iter_mut().zip([(own, floor), (own, events), (again, floor)]) {
            ratios.0.push(one.0 / other.0);
            ratios.1.push(one.1 / other.1);
        }
        to_nc.extend(netcat(size).map(|time| own.0 / time));
    }
    let gib = size as f64 / GIB as f64;
    println!("  {:.2} GiB/s, {:.3} s of the processor a GiB", gib / middle(&mut times)[1], middle(&mut cpus)[1] / gib);
    let names = ["accio to the blocking floor", "accio to the event floor", "blocking floor to itself"];
    for (name, (times, cpus)) in names.iter().zip(&mut ratios) {
        println!("  {name}: time {}, processor {}", spread(times), spread(cpus));
    }
    match to_nc.len() {
        0 => println!("  nc: left out, there is none that takes `nc -l ADDRESS PORT`"),
        _ => println!("  accio to nc -l >/dev/null: time {}", spread(&mut to_nc)),
    }
}
