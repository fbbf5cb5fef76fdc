//! A message to many subscribers: what it costs, how long until the last of them has it, and the
//! memory of those who wait for it; and what they feel of others that never read.

use crate::contender::{Contender, Site};
use crate::subscribers::{Publisher, Subscribers, subscribe};
use crate::{in_words, middle};
use hdrhistogram::Histogram;
use std::fmt::Write;
use std::io;
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
struct Audience {
    subscribers: Subscribers,
    publisher: Publisher,
}

pub(crate) fn measure(site: &Site, pairs: usize, quick: bool) -> Result<String, String> {
    place_clients(Placement::Apart);
    let mut text = format!(
        "\n### fan-out\n\nMessages of {MESSAGE} bytes, one after the other, to all subscribers (server-sent events) of a \
         channel; latency from before it is published until the last of them has it.\n\n\
         | subscribers | server | messages delivered for a second of CPU | CPU us each | times ours | p50 ms | p99 ms \
         | bytes resident each |\n| --: | --- | --: | --: | --: | --: | --: | --: |\n"
    );
    let counts: &[usize] = if quick { &[1_000] } else { &[1_000, 5_000, 10_000] };
    for count in counts {
        if !are_allowed(count + 1000) {
            let _ = writeln!(text, "\nLeft out: {count} subscribers; too few descriptors (see `ulimit -n`).");
            continue;
        }
        add_rows(&mut text, *count, &fan_out(site, *count, pairs)?);
        eprintln!("fan-out to {count}: measured");
    }
    text += &beside_stalled(if quick { 4 } else { 20 }).map_err(|error| format!("those who never read: {error}"))?;
    Ok(text)
}

fn are_allowed(descriptors: usize) -> bool {
    rlimit::Resource::NOFILE.get().is_ok_and(|(limit, _)| limit >= descriptors as u64)
}

/// Returns all servers with so many subscribers, there and back.
fn fan_out(site: &Site, count: usize, pairs: usize) -> Result<Vec<Hub>, String> {
    let servers = [Contender::pubsub(), Contender::baseline(), Contender::nchan(site), Contender::node()];
    let mut hubs: Vec<Hub> = servers.into_iter().flatten().map(Hub::new).collect();
    let messages = (200_000 / count as u64).max(20);
    for pair in 0..=pairs {
        if pair % 2 == 1 {
            hubs.reverse();
        }
        for hub in &mut hubs {
            let turn = hub.gather(count, MESSAGE).and_then(|mut audience| {
                hub.turn(&mut audience, messages.div_ceil(4), false)?; // to warm up
                hub.turn(&mut audience, messages, pair > 0)
            });
            turn.map_err(|error| format!("{}: {error}", hub.contender.name))?;
        }
    }
    hubs.sort_by_key(|hub| hub.contender.name != Contender::PUBSUB);
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
        Ok(Audience { subscribers, publisher })
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

fn add_rows(text: &mut String, count: usize, hubs: &[Hub]) {
    for hub in hubs {
        let [_, cpu, _] = middle(hub.cpu.clone());
        let times = hubs[0].cpu.iter().zip(&hub.cpu).map(|(ours, own)| own / ours).collect();
        let at = |percentile| hub.latency.value_at_percentile(percentile) as f64 / 1e6;
        let _ = writeln!(
            text,
            "| {count} | {} | {:.0} | {cpu:.2} | {} | {:.1} | {:.1} | {} |",
            hub.contender.name,
            1e6 / cpu,
            in_words(middle(times)),
            at(50.0),
            at(99.0),
            hub.each.unwrap_or(0),
        );
    }
}

/// Measures subscribers that read beside some that do not.
fn beside_stalled(rounds: usize) -> io::Result<String> {
    let Some(contender) = Contender::pubsub() else { return Ok(String::new()) };
    let mut hub = Hub::new(contender);
    let mut readers = hub.gather(READERS, LONG_MESSAGE)?;
    let [mut quiet, mut loud] = [Vec::new(), Vec::new()];
    hub.turn(&mut readers, 100, false)?;
    for _ in 0..rounds {
        quiet.push(round(&mut hub, &mut readers)?);
        let stalled: Vec<_> =
            (0..STALLED).map(|_| subscribe(hub.contender.address, Some(4096))).collect::<io::Result<_>>()?;
        loud.push(round(&mut hub, &mut readers)?);
        drop(stalled);
    }
    let cells = [0, 1, 2].map(|n| {
        let median = |rounds: &[[f64; 3]]| middle(rounds.iter().map(|round| round[n]).collect())[1];
        let times = quiet.iter().zip(&loud).map(|(quiet, loud)| loud[n] / quiet[n]).collect();
        format!("{:.2} | {:.2} | {}", median(&quiet), median(&loud), in_words(middle(times)))
    });
    let mut text = format!(
        "\n### beside {STALLED} that never read\n\n{READERS} subscribers, messages of {LONG_MESSAGE} bytes. At most {:.1} MiB \
         were resident.\n\n| | without | with | times |\n| --- | --: | --: | --: |\n",
        hub.contender.peak_memory() as f64 / 1048576.0
    );
    for (name, cell) in
        ["p50 ms to the last reader", "p99 ms", "CPU us for each message to each reader"].iter().zip(cells)
    {
        let _ = writeln!(text, "| {name} | {cell} |");
    }
    Ok(text)
}

/// Percentiles in milliseconds, and the processor time for each message to each reader.
fn round(hub: &mut Hub, readers: &mut Audience) -> io::Result<[f64; 3]> {
    hub.latency.reset();
    hub.turn(readers, 100, true)?;
    let at = |percentile| hub.latency.value_at_percentile(percentile) as f64 / 1e6;
    Ok([at(50.0), at(99.0), hub.cpu.last().copied().unwrap_or(f64::NAN)])
}
