//! What some clients feel of what others do: the same probes beside nobody, and beside a crowd.

use crate::clients::{Clients, Flood, Order, Pace, Tally, connect};
use crate::common::wait_until;
use crate::machine::{self, Placement};
use crate::servers::{Kind, Setup, Target};
use crate::tongue::{Outcome, Tongue, Wish};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How many clients a server holds at once.
const PLACES: usize = 100;
/// From one probe to the next.
const INTERVAL: Duration = Duration::from_millis(1);
/// How many clients write a byte at a time, and how often.
const SLOW: usize = 50;
const SLOW_INTERVAL: Duration = Duration::from_millis(10);

/// What the probes felt.
pub(crate) struct Felt {
    pub(crate) name: String,
    pub(crate) quiet: Tally,
    pub(crate) loud: Tally,
}

impl Felt {
    /// By what factor a percentile is worse.
    pub(crate) fn factor(&self, percentile: f64) -> f64 {
        let at = |tally: &Tally| tally.latency.value_at_percentile(percentile) as f64;
        at(&self.loud) / at(&self.quiet)
    }
}

/// What the 100 that are in feel of so many that are turned away.
pub(crate) fn overload(crowd: usize, probes: usize, clients: &mut Clients) -> Result<Felt, String> {
    let flood = Flood { tongue: Tongue::Stack, order: Order::Only(Wish::Push), payload: 1, pace: Pace::Closed(crowd) };
    let mut felt =
        Felt { name: format!("the 100 that are in, of {crowd} that are not"), quiet: Tally::new(), loud: Tally::new() };
    let server = Kind::Pollstack.start(Setup { endless: true, ..Setup::default() })?;
    machine::place(&server.server, Placement::Apart);
    clients.place(Placement::Apart);
    let address = server.address;
    let inside = (0..PLACES).map(|n| incomplete(address, n)).collect::<io::Result<Vec<_>>>();
    let mut inside = inside.map_err(|error| error.to_string())?;
    for round in 0..4 {
        thread::scope(|scope| {
            let probing = scope.spawn(|| probe_inside(address, &mut inside, probes / 2));
            // Both ways round, so that a change of the machine in the meantime does not count.
            let loud = matches!(round, 1 | 2);
            while loud && !probing.is_finished() {
                clients.run(address, flood, 2_000).map_err(|error| error.to_string())?;
            }
            let tally = probing.join().map_err(|_| "a probe failed")?.map_err(|error| error.to_string())?;
            if loud {
                felt.loud.add(&tally)
            } else {
                felt.quiet.add(&tally)
            }
            Ok::<(), String>(())
        })?;
    }
    Ok(felt)
}

/// What fast clients feel of others that send a byte at a time.
pub(crate) fn slow_writers(probes: usize) -> Result<Felt, String> {
    let name = format!("fast clients, of {SLOW} that send a byte every {SLOW_INTERVAL:?}");
    let mut felt = Felt { name, quiet: Tally::new(), loud: Tally::new() };
    let server = Kind::Pollstack.start(Setup { endless: true, ..Setup::default() })?;
    machine::place(&server.server, Placement::Apart);
    for loud in [false, true, true, false] {
        let over = AtomicBool::new(false);
        let tally = thread::scope(|scope| {
            let slow = loud.then(|| scope.spawn(|| write_slowly(&server, &over)));
            let tally = scope.spawn(|| probe_afresh(server.address, probes / 2)).join();
            over.store(true, Ordering::Relaxed);
            slow.map(|slow| slow.join());
            tally.map_err(|_| "a probe failed")?.map_err(|error| error.to_string())
        })?;
        if loud { felt.loud.add(&tally) } else { felt.quiet.add(&tally) }
    }
    Ok(felt)
}

/// A connection that has sent all but the last byte of a push.
fn incomplete(server: SocketAddr, n: usize) -> io::Result<TcpStream> {
    let mut stream = connect(server, n)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"\x01")?;
    Ok(stream)
}

/// Completes one request after the other, and comes in again for the next time; a tenth of a
/// second later, as all others have had their turn. Who was turned away meanwhile does not count
/// as inside.
fn probe_inside(server: SocketAddr, inside: &mut [TcpStream], probes: usize) -> io::Result<Tally> {
    machine::hurry();
    let mut tally = Tally::new();
    let start = Instant::now();
    for n in 0..probes {
        thread::sleep((start + INTERVAL * n as u32).saturating_duration_since(Instant::now()));
        let place = n % inside.len();
        let stream = &mut inside[place];
        let since = Instant::now();
        let reply = stream.write_all(b"x").and_then(|()| read(stream));
        match reply {
            Ok(reply) if reply == [0] => tally.record(Outcome::Served, since),
            Ok(reply) if reply == [0xFF] => tally.busy += 1,
            _ => tally.errors += 1,
        }
        *stream = incomplete(server, n)?;
    }
    Ok(tally)
}

/// Comes with a whole request each time.
fn probe_afresh(server: SocketAddr, probes: usize) -> io::Result<Tally> {
    machine::hurry();
    let mut tally = Tally::new();
    let start = Instant::now();
    for n in 0..probes {
        thread::sleep((start + INTERVAL * n as u32).saturating_duration_since(Instant::now()));
        let since = Instant::now();
        let mut stream = connect(server, n)?;
        stream.write_all(b"\x01x")?;
        let reply = read(&mut stream)?;
        tally.record(if reply == [0] { Outcome::Served } else { Outcome::Wrong }, since);
    }
    Ok(tally)
}

fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut reply = Vec::with_capacity(16);
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

/// Clients that send their pushes of 127 bytes a byte at a time, until it is over.
fn write_slowly(target: &Target, over: &AtomicBool) {
    let open = |n| connect(target.address, n).and_then(|mut stream| stream.write_all(&[127]).map(|()| stream));
    let Ok(mut writers) = (0..SLOW).map(open).collect::<io::Result<Vec<_>>>() else { return };
    for turn in 1.. {
        thread::sleep(SLOW_INTERVAL);
        for (n, writer) in writers.iter_mut().enumerate() {
            let sent = writer.write_all(b"x");
            if sent.is_err() || turn % 127 == 0 {
                open(n).into_iter().for_each(|fresh| *writer = fresh);
            }
        }
        if over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Waits until a server sleeps.
pub(crate) fn settle(target: &Target) {
    wait_until("the server waits", || {
        let wchan = std::fs::read_to_string(format!("/proc/{}/wchan", target.server.pid())).ok()?;
        wchan.contains("poll").then_some(())
    });
}
