//! The latency of some clients beside a crowd: the same probes alone, and beside it.

use crate::clients::{Clients, Flood, Order, Pace, Tally, connect};
use crate::protocol::{Outcome, Protocol, Request};
use crate::scenario::PLACES;
use crate::servers::{Instance, Kind, Setup};
use instrument::quartiles;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use test_support::machine::{self, Placement, Times, Void};

/// From one probe to the next: longer than a newcomer waits in the backlog behind a crowd, so that
/// the places are taken nearly all the time.
const INTERVAL: Duration = Duration::from_millis(4);
/// Probes of a round.
const ROUND: usize = 200;
/// The answer to a client that is rejected.
const BUSY: u8 = 0xFF;
/// How many clients write a byte at a time, and how often.
const SLOW: usize = 50;
const SLOW_INTERVAL: Duration = Duration::from_millis(10);

/// The latencies of the probes.
pub(crate) struct Interference {
    pub(crate) name: String,
    /// Round by round, a quiet one and a loud one in turn.
    quiet: Vec<Tally>,
    loud: Vec<Tally>,
    /// The results of the crowd meanwhile.
    pub(crate) crowd: Tally,
    crowd_time: Duration,
    /// The probes beside others, one by one.
    beside: Vec<Probe>,
    pub(crate) void: Void,
}

/// A probe: how long it took, and what the server and the probe did meanwhile.
#[derive(Clone, Copy)]
struct Probe {
    took: Duration,
    server: Times,
    own: Times,
}

/// The share of the probes that counts as the slowest.
const SLOWEST: usize = 100;

/// Measures the 100 that are in beside a crowd that is rejected.
pub(crate) fn overload(crowd: usize, probes: usize, clients: &mut Clients) -> Result<Interference, String> {
    let flood =
        Flood { protocol: Protocol::Stack, order: Order::Only(Request::Push), payload: 1, pace: Pace::Closed(crowd) };
    let mut interference = Interference::new(format!("the {PLACES} that are in, of {crowd} that are not"));
    let server = Kind::Pollstack.start(Setup { endless: true, ..Setup::default() })?;
    machine::place(&server.server, Placement::Apart);
    clients.place(Placement::Apart);
    let address = server.address;
    let inside = (0..PLACES).map(|n| incomplete(address, n)).collect::<io::Result<Vec<_>>>();
    let mut inside = inside.map_err(|error| error.to_string())?;
    let void = Void::read();
    for loud in turns(probes) {
        thread::scope(|scope| {
            let probing = scope.spawn(|| probe_inside(&server, &mut inside, ROUND));
            let start = Instant::now();
            while loud && !probing.is_finished() {
                let rejected = clients.run(&[address], flood, 2_000).map_err(|error| error.to_string())?;
                interference.crowd.add(&rejected);
            }
            interference.crowd_time += if loud { start.elapsed() } else { Duration::ZERO };
            interference.take(loud, probing.join().map_err(|_| "a probe failed")?)
        })?;
    }
    interference.void.add_since(void);
    Ok(interference)
}

/// Measures fast clients beside slow ones that send a byte at a time.
pub(crate) fn slow_writers(probes: usize, clients: &mut Clients) -> Result<Interference, String> {
    let mut interference =
        Interference::new(format!("fast clients, of {SLOW} that send a byte every {SLOW_INTERVAL:?}"));
    let server = Kind::Pollstack.start(Setup { endless: true, ..Setup::default() })?;
    machine::place(&server.server, Placement::Apart);
    clients.place(Placement::Apart);
    let void = Void::read();
    for loud in turns(probes) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let slow = loud.then(|| scope.spawn(|| write_slowly(&server, &over)));
            let tally = scope.spawn(|| probe_afresh(&server, ROUND)).join();
            over.store(true, Ordering::Relaxed);
            if let Some(slow) = slow {
                slow.join().map_err(|_| "a slow client failed")?.map_err(|error| error.to_string())?;
            }
            interference.take(loud, tally.map_err(|_| "a probe failed")?)
        })?;
    }
    interference.void.add_since(void);
    Ok(interference)
}

impl Interference {
    fn new(name: String) -> Interference {
        Interference {
            name,
            quiet: vec![],
            loud: vec![],
            crowd: Tally::new(),
            crowd_time: Duration::ZERO,
            beside: vec![],
            void: Void::default(),
        }
    }

    fn take(&mut self, loud: bool, round: io::Result<(Tally, Vec<Probe>)>) -> Result<(), String> {
        let (tally, probes) = round.map_err(|error| error.to_string())?;
        if tally.errors > 0 {
            return Err(format!("{}: {} probes were answered wrongly", self.name, tally.errors));
        }
        if loud {
            self.loud.push(tally);
            self.beside.extend(probes);
        } else {
            self.quiet.push(tally);
        }
        Ok(())
    }

    /// A percentile without and beside the others, in microseconds, and the factor between them:
    /// the medians over all rounds, because a machine that stalls for once stalls for either.
    pub(crate) fn percentile(&self, percentile: f64) -> [f64; 3] {
        let at = |tally: &Tally| tally.latency.value_at_percentile(percentile) as f64 / 1e3;
        let median = |figures: Vec<f64>| quartiles(figures)[1];
        let ratios = self.quiet.iter().zip(&self.loud).map(|(quiet, loud)| at(loud) / at(quiet)).collect();
        let [quiet, loud] = [&self.quiet, &self.loud].map(|rounds| median(rounds.iter().map(at).collect()));
        [quiet, loud, median(ratios)]
    }

    /// Tells whose time that of the slowest probes was, in words: the mean of the hundredth of them that took longest.
    pub(crate) fn slowest_in_words(&self) -> String {
        let mut probes = self.beside.clone();
        probes.sort_by_key(|probe| std::cmp::Reverse(probe.took));
        probes.truncate(self.beside.len().div_ceil(SLOWEST).max(1));
        let mean = |of: fn(&Probe) -> Duration| {
            probes.iter().map(of).sum::<Duration>().as_micros() / probes.len().max(1) as u128
        };
        format!(
            "the slowest hundredth took {} us, in which the server ran for {}, was ready and had no processor for {}, and \
             the probe had none for {}",
            mean(|probe| probe.took),
            mean(|probe| probe.server.ran),
            mean(|probe| probe.server.waited),
            mean(|probe| probe.own.waited),
        )
    }

    /// Returns how many probes there were beside the others; as many were without.
    pub(crate) fn probes(&self) -> u64 {
        self.loud.iter().map(|tally| tally.served).sum()
    }

    /// The crowd's results in words, if there was one: a client that finds a place free for a moment is
    /// served.
    pub(crate) fn crowd_in_words(&self) -> String {
        let Tally { busy, served, .. } = self.crowd;
        let a_second = busy as f64 / self.crowd_time.as_secs_f64();
        let share = 100.0 * busy as f64 / (busy + served) as f64;
        if busy == 0 { String::new() } else { format!("; {share:.0} % rejected, {a_second:.0} a second") }
    }
}

/// So many probes in rounds, quiet ones and loud ones there and back.
fn turns(probes: usize) -> impl Iterator<Item = bool> {
    [false, true, true, false].into_iter().cycle().take(2 * probes / ROUND)
}

/// A connection that has sent all but the last byte of a push.
fn incomplete(server: SocketAddr, n: usize) -> io::Result<TcpStream> {
    let mut stream = connect(server, n)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"\x01")?;
    Ok(stream)
}

/// Completes one request after the other, and comes in again for the next time, when all others
/// have had their turn. A client that is rejected tries again, so that no place stays free: through a
/// single one, a whole crowd would be served.
fn probe_inside(server: &Instance, inside: &mut [TcpStream], probes: usize) -> io::Result<(Tally, Vec<Probe>)> {
    machine::hurry();
    let (mut tally, mut each, start) = (Tally::new(), Vec::new(), Instant::now());
    for n in 0..probes {
        let due = wait_for(start, n);
        let place = n % inside.len();
        let stream = &mut inside[place];
        let before = (Instant::now(), Times::of(server.server.pid()), Times::own());
        stream.write_all(b"x")?;
        let reply = read(stream)?;
        // One that the server had not yet accepted when the probe looked was not in, and is no probe.
        if reply != [BUSY] {
            tally.record(if reply == [0] { Outcome::Served } else { Outcome::Wrong }, due);
            each.push(Probe::ended(server, before));
        }
        loop {
            *stream = incomplete(server.address, n)?;
            thread::sleep(INTERVAL / 4);
            if is_in(stream)? {
                break;
            }
        }
    }
    Ok((tally, each))
}

impl Probe {
    /// A probe that began then, when its server and itself had run for so long.
    fn ended(server: &Instance, (start, of_server, own): (Instant, Times, Times)) -> Probe {
        let took = start.elapsed();
        Probe { took, server: Times::of(server.server.pid()).since(of_server), own: Times::own().since(own) }
    }
}

/// Returns whether a connection that waits has response nothing yet.
fn is_in(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let response = (&*stream).read(&mut [0]);
    stream.set_nonblocking(false)?;
    Ok(response.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
}

/// Comes with a whole request each time.
fn probe_afresh(server: &Instance, probes: usize) -> io::Result<(Tally, Vec<Probe>)> {
    machine::hurry();
    let (mut tally, mut each, start) = (Tally::new(), Vec::new(), Instant::now());
    for n in 0..probes {
        let due = wait_for(start, n);
        let before = (Instant::now(), Times::of(server.server.pid()), Times::own());
        let mut stream = connect(server.address, n)?;
        stream.write_all(b"\x01x")?;
        let reply = read(&mut stream)?;
        tally.record(if reply == [0] { Outcome::Served } else { Outcome::Wrong }, due);
        each.push(Probe::ended(server, before));
    }
    Ok((tally, each))
}

/// Waits until a probe is due; its time counts from then, whatever the one before has taken.
fn wait_for(start: Instant, n: usize) -> Instant {
    let due = start + INTERVAL * n as u32;
    thread::sleep(due.saturating_duration_since(Instant::now()));
    due
}

fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut reply = Vec::with_capacity(16);
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

/// Clients that send their pushes of 127 bytes a byte at a time, until it is over.
fn write_slowly(target: &Instance, over: &AtomicBool) -> io::Result<()> {
    let open = |n| connect(target.address, n).and_then(|mut stream| stream.write_all(&[127]).map(|()| stream));
    let mut writers = (0..SLOW).map(open).collect::<io::Result<Vec<_>>>()?;
    for turn in 1.. {
        thread::sleep(SLOW_INTERVAL);
        for (n, writer) in writers.iter_mut().enumerate() {
            writer.write_all(b"x")?;
            if turn % 127 == 0 {
                read(writer)?;
                *writer = open(n)?;
            }
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}
