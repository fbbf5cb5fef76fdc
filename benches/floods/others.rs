//! The same counts for the four servers of the examples: each serves one client after the other, which waits for its
//! answer.

use crate::asking::{Asking, settle};
use crate::baseline::CONFIRMATIONS;
use instrument::Callgrind;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use test_support::machine::{self, Placement, Strace, ordinary};
use test_support::{Server, TEST_TIMEOUT, build, command};

/// A server and its load.
struct Subject {
    name: &'static str,
    unit: &'static str,
    program: fn(&Path) -> Command,
    /// It says on standard error where it listens.
    on_stderr: bool,
    /// Has so many units served. Returns the connections that are still open, so that no close is counted.
    load: fn(&Server, usize, Asking) -> io::Result<Vec<TcpStream>>,
    /// Makes a connection that stays, if there can be many.
    idle: Option<fn(SocketAddr, usize) -> io::Result<TcpStream>>,
    most: Most,
}

/// The bounds, each a little above what has been counted.
struct Most {
    calls: f64,
    instructions: f64,
    allocations: f64,
    segments: f64,
    bytes: f64,
}

/// How many units are counted, and connections.
const UNITS: usize = 200;
const IDLE: usize = 1_000;
/// The subscribers of a channel.
const SUBSCRIBERS: usize = 10;
/// It fits into the buffers of the machine, so the server finds it whole.
const FILE: usize = 32 << 10;

const SUBJECTS: [Subject; 5] = [
    Subject {
        name: "web",
        unit: "a file of 1 KiB on a kept connection",
        program: web,
        on_stderr: false,
        load: ask_on_one_connection,
        idle: Some(kept),
        most: Most { calls: 3.3, instructions: 7_600.0, allocations: 0.2, segments: 2.5, bytes: 730.0 },
    },
    Subject {
        name: "web",
        unit: "a file of 1 KiB on a connection of its own",
        program: web,
        on_stderr: false,
        load: ask_on_many_connections,
        idle: None,
        most: Most { calls: 7.2, instructions: 8_950.0, allocations: 0.2, segments: 9.5, bytes: 0.0 },
    },
    Subject {
        name: "pubsub",
        unit: "a delivery to one of ten subscribers",
        program: pubsub,
        on_stderr: false,
        load: publish,
        idle: Some(subscribed),
        most: Most { calls: 1.8, instructions: 3_750.0, allocations: 1.4, segments: 3.0, bytes: 1_090.0 },
    },
    Subject {
        name: "chat",
        unit: "a message from one user to another",
        program: chat,
        on_stderr: false,
        load: chatter,
        idle: Some(logged_in),
        most: Most { calls: 4.3, instructions: 4_670.0, allocations: 1.1, segments: 4.5, bytes: 750.0 },
    },
    Subject {
        name: "accio",
        unit: "a file of 32 KiB",
        program: accio,
        on_stderr: true,
        load: upload,
        idle: None,
        most: Most { calls: 13.4, instructions: 6_900.0, allocations: 2.1, segments: 15.0, bytes: 0.0 },
    },
];

/// Counts everything that there are tools for. A count above its bound is an error.
pub(crate) fn check() -> Result<(), String> {
    for subject in &SUBJECTS {
        println!("{}, {}:", subject.name, subject.unit);
        let wrong = |error: io::Error| format!("{}: {error}", subject.name);
        let site = site().map_err(wrong)?;
        let most = &subject.most;
        if machine::there("strace") {
            judge("system calls", subject.calls(site.path()).map_err(wrong)?, most.calls)?;
        }
        judge("segments, both ways", subject.segments(site.path()).map_err(wrong)?, most.segments)?;
        if machine::there("valgrind") {
            let (instructions, allocations) = subject.instructions(site.path()).map_err(wrong)?;
            judge("instructions", instructions, most.instructions)?;
            judge("allocations", allocations, most.allocations)?;
        }
        if let Some(idle) = subject.idle {
            judge("bytes a connection", subject.bytes(site.path(), idle).map_err(wrong)?, most.bytes)?;
        }
    }
    Ok(())
}

fn judge(what: &str, count: f64, most: f64) -> Result<(), String> {
    println!("  {what}: {count:.2} (at most {most})");
    if count > most { Err(format!("{what}: {count:.2} is more than {most}")) } else { Ok(()) }
}

impl Subject {
    fn start(&self, wrapper: &[&str], site: &Path) -> io::Result<Server> {
        let program = machine::under(wrapper, &(self.program)(site));
        let lines = if self.name == "chat" { 2 } else { 1 };
        let server = match self.on_stderr {
            true => Server::try_spawn_on_stderr(ordinary(&program), lines),
            false => Server::try_spawn(ordinary(&program), lines),
        };
        server.ok_or_else(|| io::Error::other("it does not start"))
    }

    fn calls(&self, site: &Path) -> io::Result<f64> {
        let server = self.start(&[], site)?;
        machine::place(&server, Placement::Apart);
        drop((self.load)(&server, UNITS / 4, Asking::AtOnce)?); // to warm up
        settle(&server);
        let strace = Strace::attach(server.pid()).ok_or_else(|| io::Error::other("strace cannot attach"))?;
        let open = (self.load)(&server, UNITS, Asking::Rested)?;
        settle(&server);
        let calls = strace.stop();
        drop(open);
        println!("  {}", calls.list(UNITS as f64));
        Ok(calls.total() as f64 / UNITS as f64)
    }

    fn segments(&self, site: &Path) -> io::Result<f64> {
        let server = self.start(&[], site)?;
        drop((self.load)(&server, UNITS / 4, Asking::AtOnce)?);
        settle(&server);
        let before = machine::segments_sent();
        let open = (self.load)(&server, UNITS, Asking::Rested)?;
        let sent = machine::segments_sent() - before;
        drop(open);
        Ok(sent as f64 / UNITS as f64)
    }

    /// Returns the instructions and the allocations of a unit: the difference between a long and a short run.
    fn instructions(&self, site: &Path) -> io::Result<(f64, f64)> {
        let executed = |units| {
            let callgrind = Callgrind::new()?;
            let mut server = self.start(&callgrind.wrapper(), site)?;
            drop((self.load)(&server, units, Asking::Stopped)?);
            server.signal("TERM");
            server.wait();
            callgrind.read(Path::new(env!("CARGO_MANIFEST_DIR")))
        };
        let (short, long) = (executed(UNITS)?, executed(3 * UNITS)?);
        let each = long.since(&short, 2 * UNITS);
        Ok((each.total(), each.allocations()))
    }

    fn bytes(&self, site: &Path, idle: fn(SocketAddr, usize) -> io::Result<TcpStream>) -> io::Result<f64> {
        let server = self.start(&[], site)?;
        let first = (0..10).map(|n| idle(server.address(), n)).collect::<io::Result<Vec<_>>>()?;
        let before = server.memory();
        let all = (0..IDLE).map(|n| idle(server.address(), 10 + n)).collect::<io::Result<Vec<_>>>()?;
        let bytes = server.memory().saturating_sub(before) as f64 / IDLE as f64;
        drop((first, all));
        Ok(bytes)
    }
}

/// Returns a folder with a file, and the configuration that has it served.
fn site() -> io::Result<TempDir> {
    let site = tempfile::tempdir()?;
    std::fs::create_dir(site.path().join("www"))?;
    std::fs::write(site.path().join("www/1k"), [b'x'; 1024])?;
    std::fs::write(site.path().join("web.conf"), "host default www\n")?;
    Ok(site)
}

fn web(site: &Path) -> Command {
    let mut web = command(build("--bin", "web"), &["--listen", "127.0.0.1:0", "--max-clients", "2000", "--config"]);
    web.arg(site.join("web.conf"));
    web
}

fn pubsub(_: &Path) -> Command {
    command(build("--bin", "pubsub"), &["--listen", "127.0.0.1:0", "--max-subscribers", "2000"])
}

fn chat(_: &Path) -> Command {
    command(build("--bin", "chat"), &["--port", "0", "--max-users", "2000"])
}

fn accio(_: &Path) -> Command {
    command(build("--bin", "accio"), &["0"])
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    Ok(stream)
}

/// Reads until what has come ends so.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> io::Result<Vec<u8>> {
    let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
    while !got.ends_with(end) {
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => got.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(got)
}

fn kept(address: SocketAddr, _: usize) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    stream.write_all(b"GET /1k HTTP/1.1\r\nHost: a\r\n\r\n")?;
    read_until(&mut stream, &[b'x'; 1024])?;
    Ok(stream)
}

fn ask_on_one_connection(server: &Server, units: usize, asking: Asking) -> io::Result<Vec<TcpStream>> {
    let mut stream = connect(server.address())?;
    for _ in 0..units {
        asking.ask(server, || stream.write_all(b"GET /1k HTTP/1.1\r\nHost: a\r\n\r\n"))?;
        read_until(&mut stream, &[b'x'; 1024])?;
    }
    Ok(vec![stream])
}

fn ask_on_many_connections(server: &Server, units: usize, asking: Asking) -> io::Result<Vec<TcpStream>> {
    for _ in 0..units {
        let mut stream = asking.ask(server, || {
            let mut stream = connect(server.address())?;
            stream.write_all(b"GET /1k HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            Ok(stream)
        })?;
        stream.read_to_end(&mut Vec::new())?;
    }
    Ok(Vec::new())
}

fn subscribed(address: SocketAddr, _: usize) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    stream.write_all(b"GET /channels/a/events HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    stream.read_exact(&mut [0; 12])?; // it is being answered
    Ok(stream)
}

/// Publishes a tenth as many messages as there are deliveries.
fn publish(server: &Server, units: usize, asking: Asking) -> io::Result<Vec<TcpStream>> {
    let subscribers = (0..SUBSCRIBERS).map(|n| subscribed(server.address(), n));
    let mut subscribers = subscribers.collect::<io::Result<Vec<_>>>()?;
    let mut publisher = connect(server.address())?;
    for n in 0..units / SUBSCRIBERS {
        let message = format!("message {n} ends here");
        let length = message.len();
        let head = "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain";
        let request = format!("{head}\r\nContent-Length: {length}\r\n\r\n{message}");
        asking.ask(server, || publisher.write_all(request.as_bytes()))?;
        publisher.read(&mut [0; 4096]).map(drop)?;
        for subscriber in &mut subscribers {
            let mut got = Vec::new();
            while !got.windows(length).any(|part| part == message.as_bytes()) {
                let mut buffer = [0; 4096];
                match subscriber.read(&mut buffer)? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    read => got.extend_from_slice(&buffer[..read]),
                }
            }
        }
    }
    subscribers.push(publisher);
    Ok(subscribers)
}

fn logged_in(address: SocketAddr, n: usize) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    stream.write_all(format!("HELLO-FROM user{n}\n").as_bytes())?;
    read_until(&mut stream, b"\n")?;
    Ok(stream)
}

fn chatter(server: &Server, units: usize, asking: Asking) -> io::Result<Vec<TcpStream>> {
    let (mut ann, mut bob) = (logged_in(server.address(), 0)?, logged_in(server.address(), 1)?);
    for _ in 0..units {
        asking.ask(server, || ann.write_all(b"SEND user1 hello\n"))?;
        read_until(&mut ann, b"SEND-OK\n")?;
        read_until(&mut bob, b"DELIVERY user0 hello\n")?;
    }
    Ok(vec![ann, bob])
}

fn upload(server: &Server, units: usize, asking: Asking) -> io::Result<Vec<TcpStream>> {
    for _ in 0..units {
        let mut stream = asking.ask(server, || {
            let mut stream = connect(server.address())?;
            stream.write_all(CONFIRMATIONS)?;
            Ok(stream)
        })?;
        stream.read_exact(&mut [0; 14])?;
        asking.ask(server, || {
            stream.write_all(&[0xA5; FILE])?;
            stream.shutdown(Shutdown::Write)
        })?;
        if server.line() != FILE.to_string() {
            return Err(io::Error::other("it has counted something else"));
        }
    }
    Ok(Vec::new())
}
