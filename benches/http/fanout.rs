//! A message to many subscribers: what it costs, how long until the last of them has it, and the
//! memory of those who wait for it; and what they feel of others that never read.

use crate::contender::{Contender, Site, order};
use crate::subscribers::{Publisher, Subscribers, subscribe};
use hdrhistogram::Histogram;
use instrument::{Cell, Row, Table, quartiles};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use test_support::machine::{Placement, place_clients};

/// How long a message is, and where some never read.
const MESSAGE: usize = 100;
const LONG_MESSAGE: usize = 4096;
/// How many there are beside those who never read, and how many of those.
const READERS: usize = 1000;
const STALLED: usize = 100;

/// A server, and what has been found of it.
struct Hub {
    contender: Contender,
    /// Resident bytes for each subscriber.
    each: Option<u64>,
    /// Processor time for each message to each subscriber, in microseconds, turn by turn.
    cpu: Vec<f64>,
    latency: Histogram<u64>,
}

/// Subscribers, and who publishes to them.
pub(crate) struct Audience {
    address: SocketAddr,
    subscribers: Subscribers,
    publisher: Publisher,
}

pub(crate) fn measure(site: &Site, pairs: usize, quick: bool) -> Result<Table, String> {
    place_clients(Placement::Apart);
    let what = format!(
        "Messages of {MESSAGE} bytes, one after the other, to all subscribers (server-sent events) of a channel; latency \
         from before it is published until the last of them has it. A ratio above 1 is ahead of us."
    );
    let columns =
        ["messages for a second of CPU", "CPU us each", "times ours", "p50 ms", "p99 ms", "bytes resident each"];
    let mut table = Table::new("fan-out", what, &columns);
    table.case = "subscribers".to_owned();
    let counts: &[usize] = if quick { &[1_000] } else { &[1_000, 10_000] };
    for count in counts {
        if !are_allowed(count + 1000) {
            table.notes.push(format!("Left out: {count} subscribers; too few descriptors (see `ulimit -n`)."));
            continue;
        }
        let hubs = fan_out(site, *count, pairs, if quick { 50_000 } else { 100_000 })?;
        table.rows.extend(hubs.iter().map(|hub| row(*count, hub, &hubs[0])));
        eprintln!("fan-out to {count}: measured");
    }
    Ok(table)
}

fn are_allowed(descriptors: usize) -> bool {
    rlimit::Resource::NOFILE.get().is_ok_and(|(limit, _)| limit >= descriptors as u64)
}

/// Returns all servers with so many subscribers, there and back, with so many deliveries a turn.
fn fan_out(site: &Site, count: usize, pairs: usize, deliveries: u64) -> Result<Vec<Hub>, String> {
    let servers = [Contender::pubsub(), Contender::baseline(), Contender::nchan(site), Contender::node()];
    let mut hubs: Vec<Hub> = servers.into_iter().flatten().map(Hub::new).collect();
    let messages = (deliveries / count as u64).max(10);
    for pair in 0..=pairs {
        for one in order(hubs.len(), pair) {
            let hub = &mut hubs[one];
            let turn = hub.gather(count, MESSAGE).and_then(|mut audience| {
                hub.turn(&mut audience, messages.div_ceil(4), false)?; // to warm up
                hub.turn(&mut audience, messages, pair > 0)
            });
            turn.map_err(|error| format!("{}: {error}", hub.contender.name))?;
        }
    }
    Ok(hubs)
}

impl Hub {
    fn new(contender: Contender) -> Hub {
        contender.place();
        let latency = Histogram::new(3).expect("three digits can be had");
        Hub { contender, each: None, cpu: Vec::new(), latency }
    }

    /// Subscribes so many, for messages of so many bytes. The first to come show what memory they take.
    fn gather(&mut self, count: usize, bytes: usize) -> io::Result<Audience> {
        let before = self.contender.memory();
        let subscribers = Subscribers::connect(&self.contender, count)?;
        let memory = self.contender.memory().saturating_sub(before);
        self.each.get_or_insert(memory / count as u64);
        let publisher = Publisher::connect(self.contender.address, bytes)?;
        Ok(Audience { address: self.contender.address, subscribers, publisher })
    }

    fn turn(&mut self, audience: &mut Audience, messages: u64, counts: bool) -> io::Result<()> {
        let before = self.contender.cpu();
        for _ in 0..messages {
            let took = audience.publish()?;
            if counts {
                self.latency.record(took.as_nanos() as u64).map_err(io::Error::other)?;
            }
        }
        if counts {
            let cpu = self.contender.cpu().saturating_sub(before);
            self.cpu.push(cpu.as_secs_f64() * 1e6 / (messages * audience.subscribers.count()) as f64);
        }
        Ok(())
    }
}

/// Publishes messages to an audience, which is gathered at first; returns how many were delivered.
pub(crate) fn deliver(contender: &Contender, audience: &mut Option<Audience>) -> Result<f64, String> {
    const MESSAGES: u64 = 400;
    let gathered = || {
        let subscribers = Subscribers::connect(contender, READERS)?;
        Ok::<_, io::Error>(Audience {
            address: contender.address,
            subscribers,
            publisher: Publisher::connect(contender.address, MESSAGE)?,
        })
    };
    // A server that has gone took its audience along.
    if audience.as_ref().is_none_or(|audience| audience.address != contender.address) {
        *audience = Some(gathered().map_err(|error| error.to_string())?);
    }
    for one in audience.iter_mut() {
        (0..MESSAGES).try_for_each(|_| one.publish().map(drop)).map_err(|error| error.to_string())?;
    }
    Ok((MESSAGES * READERS as u64) as f64)
}

impl Audience {
    /// Publishes a message. Returns how long it took until all subscribers had it.
    fn publish(&mut self) -> io::Result<Duration> {
        let all = self.subscribers.messages + self.subscribers.count();
        let start = Instant::now();
        self.publisher.publish()?;
        self.subscribers.read_until(all)?;
        let took = start.elapsed();
        self.publisher.answer()?;
        Ok(took)
    }
}

fn row(count: usize, hub: &Hub, ours: &Hub) -> Row {
    let cpu = quartiles(hub.cpu.clone())[1];
    let times = ours.cpu.iter().zip(&hub.cpu).map(|(ours, own)| own / ours).collect();
    let at = |percentile| Cell::Number(hub.latency.value_at_percentile(percentile) as f64 / 1e6, 1);
    let (rate, times) = (Cell::Number(1e6 / cpu, 0), Cell::Quartiles(quartiles(times), 2));
    let each = Cell::number(hub.each.map(|bytes| bytes as f64), 0);
    Row::new(hub.contender.name, vec![rate, Cell::Number(cpu, 2), times, at(50.0), at(99.0), each])
        .case(count.to_string())
}

/// Measures subscribers that read beside some that do not.
pub(crate) fn beside_stalled(quick: bool) -> Result<Table, String> {
    place_clients(Placement::Apart);
    let mut table = Table::new("fan-out, beside some that never read", "", &["without", "with", "times"]);
    table.case = "figure".to_owned();
    let Some(contender) = Contender::pubsub() else { return Ok(table) };
    let mut hub = Hub::new(contender);
    let rounds = rounds(&mut hub, if quick { 2 } else { 10 }).map_err(|error| error.to_string())?;
    table.what = format!(
        "{READERS} subscribers, messages of {LONG_MESSAGE} bytes, without and with {STALLED} more that never read. At most \
         {:.1} MiB were resident.",
        hub.contender.peak_memory() as f64 / 1048576.0
    );
    for (n, name) in
        ["p50 ms to the last reader", "p99 ms", "CPU us for each message to each reader"].into_iter().enumerate()
    {
        let median = |which: usize| quartiles(rounds.iter().map(|round| round[which][n]).collect())[1];
        let times = quartiles(rounds.iter().map(|[quiet, loud]| loud[n] / quiet[n]).collect());
        let cells = vec![Cell::Number(median(0), 2), Cell::Number(median(1), 2), Cell::Quartiles(times, 2)];
        table.rows.push(Row::new(Contender::PUBSUB, cells).case(name));
    }
    Ok(table)
}

/// Returns rounds without, and with, subscribers that never read.
fn rounds(hub: &mut Hub, rounds: usize) -> io::Result<Vec<[[f64; 3]; 2]>> {
    let mut readers = hub.gather(READERS, LONG_MESSAGE)?;
    hub.turn(&mut readers, 100, false)?;
    (0..rounds)
        .map(|_| {
            let quiet = round(hub, &mut readers)?;
            let stalled: io::Result<Vec<_>> =
                (0..STALLED).map(|_| subscribe(hub.contender.address, Some(4096))).collect();
            let _stalled = stalled?;
            Ok([quiet, round(hub, &mut readers)?])
        })
        .collect()
}

/// Percentiles in milliseconds, and the processor time for each message to each reader.
fn round(hub: &mut Hub, readers: &mut Audience) -> io::Result<[f64; 3]> {
    hub.latency.reset();
    hub.turn(readers, 100, true)?;
    let at = |percentile| hub.latency.value_at_percentile(percentile) as f64 / 1e6;
    Ok([at(50.0), at(99.0), hub.cpu.last().copied().unwrap_or(f64::NAN)])
}
