//! The stack server under clients who do what clients do, checked against a naive model.
//!
//! The model knows nothing of the loop. It reads the log of the simulated network, in which the
//! server's every read, write and close stands in its order, and says what has to come of it: which
//! request is decided when, who may be evicted or turned away, who is to be sent what. After every
//! turn of the loop both have to agree.

use super::model::Model;
use super::report::{Check, Report, require};
use fastrand::Rng;
use pollstack::sim::{Client, Fault, Faults, Sim, World};
use pollstack::stack::{StackService, wire};
use pollstack::{EventLoop, Limits, Listen, Overload};
use std::collections::VecDeque;
use std::time::Duration;

const EVICT_AFTER: Duration = Duration::from_secs(10);
const NANOSECOND: Duration = Duration::from_nanos(1);

/// One world: clients come and go, the loop has its turns, and at the end everything is put right
/// and has to be in order.
pub(crate) fn run(seed: u64, world: &World, report: &mut Report) -> Check {
    let mut random = Rng::with_seed(seed ^ 0x57AC);
    let (capacity, max_clients) = (random.usize(1..6), random.usize(1..8));
    let small = random.bool();
    if small {
        world.set_buffers(random.usize(1..40), random.usize(1..40));
    }
    // Some worlds are quiet: there the order of everything is known.
    let faults = if seed % 8 == 7 { Faults::default() } else { Faults::with_accepts(seed) };
    world.set_faults(faults);
    let mut server = EventLoop::on(world.net(), StackService::new(capacity), Limits::default());
    let overload = Overload::EvictOldest { after: EVICT_AFTER, otherwise: wire::BUSY.into() };
    let listen = Listen::new("127.0.0.1:1".parse()?).max_conns(max_clients).overload(overload);
    server.listen(listen)?;
    let model = Model::new(capacity, max_clients, EVICT_AFTER);
    let promised = faults.one_in(Fault::NoDescriptors) == 0;
    let delays = [
        Fault::ShortRead,
        Fault::WouldBlock,
        Fault::Interrupted,
        Fault::TruncatedEvents,
        Fault::ReorderedEvents,
        Fault::SpuriousEvent,
    ];
    let prompt = !small && delays.iter().all(|fault| faults.one_in(*fault) == 0);
    let mut play = Play { world: world.clone(), random, server, model, actors: Vec::new(), promised, prompt, clock: 0 };
    for _ in 0..play.random.usize(20..400) {
        play.act();
        play.check(report)?;
    }
    play.end(report)
}

struct Play {
    world: World,
    random: Rng,
    server: EventLoop<StackService, Sim>,
    model: Model,
    actors: Vec<Actor>,
    /// Answers are not lost: a server without descriptors lets go of those who only linger.
    promised: bool,
    /// What has come is read in the next turn, in the order in which it came.
    prompt: bool,
    clock: u64,
}

/// A client and its plan.
struct Actor {
    client: Client,
    /// What it has not sent of its request.
    left: VecDeque<u8>,
    /// It reads whatever comes, at once.
    reads: bool,
    received: Vec<u8>,
    /// When its request was whole, on a clock that only counts.
    whole_at: u64,
    /// Its request will never be whole.
    endless: bool,
    /// It has sent more than its request, or has ended or reset the connection.
    odd: bool,
    /// It has gone on with its request when it had its answer.
    late: bool,
}

impl Play {
    fn act(&mut self) {
        match self.random.u8(..100) {
            0..30 => self.connect(),
            30..50 => self.go_on(),
            50..53 => self.any(|actor, _| {
                actor.odd = true;
                actor.client.end();
            }),
            53..56 => self.any(|actor, _| {
                actor.odd = true;
                actor.client.abort();
            }),
            56..58 => self.any(|actor, _| {
                actor.odd = true;
                actor.client.send(b"more than it should");
            }),
            58..62 => self.any(|actor, random| actor.read(random.usize(1..10))),
            62..70 => self.pass_time(),
            70..73 => drop(self.world.settle(&mut self.server)),
            _ => self.world.turn(&mut self.server),
        }
        self.actors.iter_mut().filter(|actor| actor.reads).for_each(|actor| actor.read(usize::MAX));
    }

    fn connect(&mut self) {
        let number = self.actors.len();
        let request = match self.random.u8(..20) {
            0..9 => push(number, self.random.usize(..20)),
            9..18 => vec![self.random.u8(0x80..)],
            18 => vec![0],
            _ => vec![127; self.random.usize(1..127)], // it will never be whole
        };
        let (all, reads) = (self.random.u8(..4) > 0, self.random.u8(..4) > 0);
        let now = self.tick();
        let actor = self.come(request, reads);
        if all {
            actor.send(usize::MAX, now);
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn come(&mut self, request: Vec<u8>, reads: bool) -> &mut Actor {
        let endless = (1..128).contains(&request[0]) && request.len() <= usize::from(request[0]);
        let (client, left) = (self.world.connect(), request.into());
        self.actors.push(Actor {
            client,
            left,
            reads,
            received: Vec::new(),
            whole_at: 0,
            endless,
            odd: false,
            late: false,
        });
        let last = self.actors.len() - 1;
        &mut self.actors[last]
    }

    fn go_on(&mut self) {
        let n = if self.random.bool() { 1 } else { self.random.usize(1..30) };
        let now = self.tick();
        self.any(|actor, _| actor.send(n, now));
    }

    fn any(&mut self, act: impl FnOnce(&mut Actor, &mut Rng)) {
        if !self.actors.is_empty() {
            // Most of those who came long ago have gone.
            let back = self.random.usize(..self.actors.len().min(20));
            let index = self.actors.len() - 1 - back;
            act(&mut self.actors[index], &mut self.random);
        }
    }

    /// Time passes only when there is nothing to do: a busy loop's turns take none here.
    fn pass_time(&mut self) {
        self.world.settle(&mut self.server);
        let to_old_age = self.model.until_old_age(self.world.elapsed());
        let time = match (self.random.u8(..8), to_old_age) {
            (0, Some(time)) => time.saturating_sub(NANOSECOND),
            (1, Some(time)) => time,
            (2 | 3, Some(time)) => time + NANOSECOND,
            (4, _) => Duration::from_secs(self.random.u64(..20)),
            (5, _) => self.server.timeout().unwrap_or(NANOSECOND),
            _ => Duration::from_millis(self.random.u64(..2000)),
        };
        self.world.pass(time);
    }

    /// Compares what the server has done with what the model says.
    fn check(&mut self, report: &mut Report) -> Check {
        for entry in report.listen(&self.world) {
            let was_reading = self.model.is_reading(entry.client);
            let newcomer = self.model.hear(entry)?;
            let actor = self.actors.get(entry.client).filter(|actor| actor.is_whole());
            let decided = actor.filter(|_| was_reading && !self.model.is_reading(entry.client));
            // What was there before this turn comes before a newcomer, and what was whole before
            // another request comes before that.
            if let Some(since) = decided.map(|actor| actor.whole_at).or(newcomer.then_some(u64::MAX)) {
                let waiting = self.actors.iter().filter(|a| a.is_whole() && self.model.is_reading(a.number()));
                let overtaken = waiting.filter(|actor| actor.whole_at < since).map(Actor::number).next();
                let right = !self.prompt || overtaken.is_none();
                require(right, || format!("{entry} overtakes client {overtaken:?}"))?;
            }
        }
        self.model.ends_a_turn()?;
        let (stats, stack) = (self.server.stats(), self.server.service());
        require(stats.open == self.model.admitted(), || {
            format!("{} are open, not {}", stats.open, self.model.admitted())
        })?;
        require(stack.items() == self.model.items(), || {
            format!("{} items, not {}", stack.items(), self.model.items())
        })?;
        require(stack.held() == self.model.held(), || {
            format!("{} items are held, not {}", stack.held(), self.model.held())
        })?;
        let (parked, expected) = (stack.parked(), self.model.parked());
        require(parked == expected, || format!("{parked:?} pushes and pops are parked, not {expected:?}"))?;
        self.actors.iter().try_for_each(|actor| actor.check(&self.model, self.promised))
    }

    /// Everybody reads, nothing goes wrong any more, the stack is emptied, and everybody goes.
    fn end(mut self, report: &mut Report) -> Check {
        self.world.set_faults(Faults::default());
        self.world.pass(Duration::from_secs(1)); // no descriptors: the loop tries again soon
        self.settle(report)?;
        self.model.is_at_rest()?;
        self.world.pass(Limits::default().linger_time);
        self.settle(report)?;
        let lingering = self.server.stats().lingering;
        require(lingering == 0, || format!("{lingering} linger longer than they may"))?;
        for _ in 0..=self.model.items() + self.actors.len() {
            let (pushes, pops) = self.model.parked();
            if self.model.items() == 0 && pushes == 0 {
                break;
            }
            self.world.pass(EVICT_AFTER + NANOSECOND); // so that there is a place for one more
            let request = if pops > 0 { push(self.actors.len(), 3) } else { vec![0x80] };
            let now = self.tick();
            self.come(request, true).send(usize::MAX, now);
            self.settle(report)?;
        }
        require(self.model.items() == 0, || "items are left".to_owned())?;
        self.actors.iter().for_each(|actor| actor.client.end());
        self.settle(report)?;
        let stats = self.server.stats();
        require((stats.open, stats.lingering) == (0, 0), || format!("somebody is left: {stats:?}"))?;
        require(self.server.timeout().is_none(), || "a deadline is left".to_owned())?;
        self.model.is_over()
    }

    fn settle(&mut self, report: &mut Report) -> Check {
        loop {
            self.world.settle(&mut self.server);
            self.actors.iter_mut().for_each(|actor| actor.read(usize::MAX));
            self.check(report)?;
            if !self.world.has_work(&mut self.server) {
                return Ok(());
            }
        }
    }
}

impl Actor {
    fn number(&self) -> usize {
        self.client.number()
    }

    /// Whether it has sent a whole request, and nothing else.
    fn is_whole(&self) -> bool {
        self.left.is_empty() && !self.odd && !self.endless
    }

    fn send(&mut self, n: usize, now: u64) {
        let n = n.min(self.left.len());
        let part: Vec<u8> = self.left.drain(..n).collect();
        if !part.is_empty() {
            self.late |= self.client.has_ended() || self.client.was_reset();
            self.client.send(&part);
            self.whole_at = now;
        }
    }

    fn read(&mut self, n: usize) {
        self.received.extend(self.client.read_at_most(n));
    }

    /// What a client is promised, from where it stands.
    fn check(&self, model: &Model, promised: bool) -> Check {
        let (number, expected) = (self.number(), model.answer(self.number()));
        let fits = expected.starts_with(&self.received);
        require(fits, || format!("client {number} has read {:?}, not {expected:?}", self.received))?;
        let part = !self.odd && self.client.has_ended() && !self.received.is_empty() && self.received != expected;
        require(!part, || format!("client {number} takes a part of its answer for the whole"))?;
        if promised && self.reads && !self.odd && model.is_answered(number) {
            let whole = self.received == expected;
            require(whole, || format!("client {number} has lost its answer, {expected:?}, for nothing"))?;
            let reset = self.client.was_reset() && !self.late;
            require(!reset, || format!("client {number} has read a reset behind its answer"))?;
        }
        Ok(())
    }
}

/// A push request, of an item that tells whose it is.
fn push(number: usize, more: usize) -> Vec<u8> {
    let mut request = vec![0];
    request.extend(number.to_string().bytes());
    request.extend(std::iter::repeat_n(b'.', more));
    request[0] = (request.len() - 1) as u8;
    request
}
