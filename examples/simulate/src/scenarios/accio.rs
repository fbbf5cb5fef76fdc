//! The Accio server under clients that send files, or do not. Its report has to be what it has
//! read.

use super::report::{Check, Report, require};
use accio::Accio;
use fastrand::Rng;
use pollstack::sim::{Client, Entry, Event, Fault, Faults, Sim, World};
use pollstack::{EventLoop, Limits, ListenerConfig, Overload};
use std::collections::VecDeque;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE: &[u8] = b"confirm-accio\r\nconfirm-accio-again\r\n\r\n";

pub(super) fn run(seed: u64, world: &World, report: &mut Report) -> Check {
    let mut random = Rng::with_seed(seed ^ 0xACC10);
    if random.bool() {
        world.set_buffers(random.usize(1..200), random.usize(1..20));
    }
    let faults = Faults::with_accepts(seed);
    world.set_faults(faults);
    let honest = [Fault::WouldBlock, Fault::FreshWouldBlock].iter().all(|fault| faults.one_in(*fault) == 0);
    let parallel = random.usize(1..4);
    let accio = Accio::new(TIMEOUT, None, false, Vec::new());
    let mut server = EventLoop::with_net(world.net(), accio, Limits::default());
    server.listen(ListenerConfig::new("127.0.0.1:1".parse()?).max_conns(parallel).overload(Overload::Defer))?;
    let (world, expected, clients) = (world.clone(), VecDeque::new(), Vec::new());
    let mut scenario = Scenario { world, random, server, parallel, expected, clients, turned: None, honest };
    for _ in 0..scenario.random.usize(20..300) {
        scenario.act();
        scenario.check(report)?;
    }
    scenario.end(report)
}

struct Scenario {
    world: World,
    random: Rng,
    server: EventLoop<Accio<Vec<u8>>, Sim>,
    parallel: usize,
    /// The reports that are to come next.
    expected: VecDeque<String>,
    clients: Vec<Uploader>,
    /// When there was a turn that has not been checked yet.
    turned: Option<Duration>,
    /// The kernel hands over what has come.
    honest: bool,
}

struct Uploader {
    client: Client,
    left: VecDeque<u8>,
    /// The bytes that the server has read, and the time of the last.
    input: Vec<u8>,
    last: Duration,
    /// How many bytes it has sent.
    sent: usize,
    ended: bool,
    failed: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Accepted,
    Served,
    Over,
}

impl Scenario {
    fn act(&mut self) {
        match self.random.u8(..100) {
            0..15 => self.connect(),
            15..50 => {
                let n = if self.random.bool() { 1 } else { self.random.usize(1..1000) };
                self.any(|client, _| client.send(n));
            }
            50..60 => self.any(|client, random| {
                if client.left.is_empty() || random.u8(..5) == 0 {
                    client.client.end();
                }
            }),
            60..62 => self.any(|client, _| client.client.abort()),
            62..64 => self.any(|client, _| client.client.send(b"?")),
            64..68 => self.pass_time(),
            68..71 => self.stall(),
            _ => {
                self.world.turn(&mut self.server);
                self.turned = Some(self.world.elapsed());
            }
        }
        self.clients.iter().for_each(|client| drop(client.client.read()));
    }

    fn connect(&mut self) {
        let file = vec![b'x'; self.random.usize(..3000)];
        let left = [HANDSHAKE, &file].concat().into();
        let client = self.world.connect();
        self.clients.push(Uploader {
            client,
            left,
            input: Vec::new(),
            last: Duration::ZERO,
            sent: 0,
            ended: false,
            failed: false,
            stage: Stage::Waiting,
        });
    }

    fn any(&mut self, act: impl FnOnce(&mut Uploader, &mut Rng)) {
        // Those who are being served are more interesting than those who wait.
        let over = self.clients.iter().position(|client| client.stage != Stage::Over).unwrap_or(self.clients.len());
        if let Some(rest) = self.clients.len().checked_sub(over + 1) {
            let index = over + self.random.usize(..=rest.min(self.parallel + 2));
            act(&mut self.clients[index], &mut self.random);
        }
    }

    fn pass_time(&mut self) {
        self.world.settle(&mut self.server);
        let until = self.server.timeout().unwrap_or_default();
        let time = match self.random.u8(..4) {
            0 => until,
            1 => until.saturating_sub(Duration::from_nanos(1)),
            _ => Duration::from_millis(self.random.u64(..4000)),
        };
        self.world.advance(time);
    }

    /// The host is suspended between a wait and the turn; some clients go on sending meanwhile.
    fn stall(&mut self) {
        let time = Duration::from_millis(self.random.u64(..12_000));
        let (world, random, clients) = (&self.world, &mut self.random, &mut self.clients);
        world.turn_after(&mut self.server, || {
            let first = clients.iter().position(|client| client.stage != Stage::Over).unwrap_or_default();
            for client in clients[first..].iter_mut().take(6) {
                client.send(random.usize(..1000));
            }
            world.advance(time);
        });
        self.turned = Some(self.world.elapsed());
    }

    fn check(&mut self, report: &mut Report) -> Check {
        for entry in report.listen(&self.world) {
            self.hear(entry)?;
        }
        let text = String::from_utf8(self.server.call(|accio, _| std::mem::take(&mut accio.results)))?;
        for line in text.lines() {
            let expected = self.expected.pop_front();
            require(expected.as_deref() == Some(line), || format!("it reports {line}, not {expected:?}"))?;
        }
        require(self.expected.is_empty(), || format!("it does not report {:?}", self.expected))?;
        if let Some(now) = self.turned.take() {
            let late = |client: &&Uploader| client.stage == Stage::Served && client.last + TIMEOUT <= now;
            let late = self.clients.iter().find(late).map(|client| client.client.number());
            require(late.is_none(), || format!("client {late:?} has been silent for too long"))?;
        }
        let served =
            self.clients.iter().filter(|client| matches!(client.stage, Stage::Accepted | Stage::Served)).count();
        require(served <= self.parallel, || format!("{served} at a time, not {}", self.parallel))
    }

    fn hear(&mut self, Entry { at, client, event, .. }: &Entry) -> Check {
        let earlier = self.clients[..*client].iter().all(|client| client.stage != Stage::Waiting);
        let uploader = &mut self.clients[*client];
        if uploader.stage == Stage::Accepted && !matches!(event, Event::Sent(_) | Event::Ended | Event::Aborted) {
            // The turn after its accept is its first.
            (uploader.stage, uploader.last) = (Stage::Served, *at);
        }
        match event {
            Event::Accepted => {
                require(earlier, || format!("client {client} is served before its turn"))?;
                uploader.stage = Stage::Accepted;
            }
            Event::Sent(bytes) => uploader.sent += bytes.len(),
            Event::Lost => uploader.stage = Stage::Over,
            Event::Read(bytes) if bytes.is_empty() => uploader.ended = !uploader.failed,
            Event::Read(bytes) => {
                uploader.input.extend(bytes);
                uploader.last = *at;
            }
            Event::Failed(_) => uploader.failed = true,
            Event::Closed | Event::Reset if uploader.stage == Stage::Served => {
                uploader.stage = Stage::Over;
                let honest = self.honest;
                require(uploader.may_close(*at, honest), || format!("client {client} is closed for nothing"))?;
                self.expected.push_back(uploader.result());
            }
            _ => {}
        }
        Ok(())
    }

    /// All clients go on to the end.
    fn end(mut self, report: &mut Report) -> Check {
        self.world.set_faults(Faults::default());
        self.world.advance(Duration::from_secs(1));
        self.clients.iter_mut().for_each(|client| {
            client.send(usize::MAX);
            client.client.end();
        });
        for _ in 0..self.clients.len() + 1 {
            self.world.settle(&mut self.server);
            self.clients.iter().for_each(|client| drop(client.client.read()));
            self.check(report)?;
            self.world.advance(TIMEOUT); // for those who wait for room to be told that there is some
        }
        let waiting = self.clients.iter().filter(|client| client.stage != Stage::Over).count();
        require(waiting == 0, || format!("{waiting} are not served"))
    }
}

impl Uploader {
    fn send(&mut self, n: usize) {
        let part: Vec<u8> = self.left.drain(..n.min(self.left.len())).collect();
        self.client.send(&part);
    }

    fn has_confirmed(&self) -> bool {
        self.input.starts_with(HANDSHAKE)
    }

    /// Returns whether there is a reason to close it. Bytes that it has sent before are no silence.
    fn may_close(&self, at: Duration, honest: bool) -> bool {
        let wrong = !HANDSHAKE.starts_with(&self.input) && !self.has_confirmed();
        let silent = at - self.last >= TIMEOUT && (self.sent == self.input.len() || !honest);
        self.ended || self.failed || wrong || silent
    }

    fn result(&self) -> String {
        match self.has_confirmed() && self.ended {
            true => (self.input.len() - HANDSHAKE.len()).to_string(),
            false => "ERROR".to_owned(),
        }
    }
}
