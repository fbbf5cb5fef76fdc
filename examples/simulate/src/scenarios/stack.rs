//! The stack server under clients who do what clients do, checked against a naive model.
//!
//! The model knows nothing of the loop. It reads the log of the simulated network, in which the
//! server's every read, write and close stands in its order, and says what has to come of it: which
//! request is decided when, who may be evicted or rejected, who is to be sent what. After every
//! turn of the loop both have to agree.

use super::model::Model;
use super::report::{Check, Report, require};
use fastrand::Rng;
use pollstack::sim::{Client, Event, Fault, Faults, Sim, World};
use pollstack::stack::{StackService, wire};
use pollstack::{EventLoop, Limits, ListenerConfig, Overload};
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
        // No kernel has a window that an answer does not fit in.
        world.set_window(random.usize(128..200));
    }
    let unix = random.u8(..4) == 0;
    world.set_unix(unix);
    // Some worlds are quiet: there the order of everything is known.
    let faults = match seed % 8 {
        6 => Faults::default().with(Fault::TruncatedEvents, 2),
        7 => Faults::default(),
        _ => Faults::with_accepts(seed),
    };
    world.set_faults(faults);
    let mut server = EventLoop::with_net(world.net(), StackService::new(capacity), Limits::default());
    let overload = Overload::EvictOldest { after: EVICT_AFTER, otherwise: wire::BUSY.into() };
    let listen = ListenerConfig::new("127.0.0.1:1".parse()?).max_conns(max_clients).overload(overload);
    server.listen(listen)?;
    let promised = faults.one_in(Fault::NoDescriptors) == 0;
    let delays = [
        Fault::ShortRead,
        Fault::WouldBlock,
        Fault::FreshWouldBlock,
        Fault::Interrupted,
        Fault::ReorderedEvents,
        Fault::SpuriousEvent,
    ];
    let prompt = !small && delays.iter().all(|fault| faults.one_in(*fault) == 0);
    let model = Model::new(capacity, max_clients, EVICT_AFTER).in_world(prompt, promised);
    let mut scenario =
        Scenario { world: world.clone(), random, server, model, actors: Vec::new(), promised, prompt, unix };
    for _ in 0..scenario.random.usize(20..400) {
        scenario.act();
        scenario.check(report)?;
    }
    scenario.end(report)
}

struct Scenario {
    world: World,
    random: Rng,
    server: EventLoop<StackService, Sim>,
    model: Model,
    actors: Vec<Actor>,
    /// Answers are not lost: a server without descriptors lets go of those who only linger.
    promised: bool,
    /// Requests are read in the next turn, in the order in which they came.
    prompt: bool,
    /// Through a Unix socket: there, a part of an answer ends like the whole.
    unix: bool,
}

/// A client and its plan.
struct Actor {
    client: Client,
    /// The rest of its request without a time to be sent, and how many bytes are unsent.
    left: VecDeque<u8>,
    unsent: usize,
    /// All that it has planned to send is sent by this call of the server.
    busy_until: usize,
    /// Some of it is sent in the middle of a turn.
    planned: bool,
    /// There is a mark within it.
    marked: bool,
    /// It reads whatever comes, at once.
    reads: bool,
    received: Vec<u8>,
    /// When the last of its request was sent, among all that has happened, and how often the loop had
    /// waited by then.
    whole_at: (usize, usize),
    /// Its request will never be whole.
    endless: bool,
    /// It has ended or reset the connection, or is about to.
    gone: bool,
    /// It has sent more than its request.
    strays: bool,
    /// It has gone on with its request when the server had closed.
    late: bool,
    over: bool,
}

impl Scenario {
    fn act(&mut self) {
        match self.random.u8(..100) {
            0..30 => self.connect(),
            30..50 => self.go_on(),
            50..53 => self.soon(|actor| {
                actor.gone = true;
                Box::new(Client::end)
            }),
            53..56 => self.soon(|actor| {
                actor.gone = true;
                Box::new(Client::abort)
            }),
            56..58 => self.soon(|actor| {
                actor.strays = true; // a reset may follow the answer
                Box::new(Client::mark)
            }),
            58..60 => self.stray(),
            60..62 => self.any(|actor, random| actor.read(random.usize(1..10))),
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
        let calls = self.calls();
        let world = self.world.clone();
        let actor = self.come(request, reads);
        if all {
            actor.send(&world, calls, usize::MAX);
        }
        if self.random.u8(..4) == 0 {
            self.stray();
        }
    }

    /// In how many calls of the server something happens: mostly at once, or in the middle of a turn.
    fn calls(&mut self) -> Option<usize> {
        if self.random.bool() { None } else { Some(self.random.usize(..20)) }
    }

    /// Has a client do something, now or in the middle of a turn.
    fn soon(&mut self, plan: impl FnOnce(&mut Actor) -> Box<dyn FnOnce(&Client)>) {
        let (calls, world) = (self.calls(), self.world.clone());
        self.any(|actor, _| {
            let (act, client) = (plan(actor), actor.client.clone());
            match calls {
                None => act(&client),
                Some(calls) => world.after(calls, move || act(&client)),
            }
        });
    }

    /// A client sends more than its request, a few bytes at a time.
    fn stray(&mut self) {
        let (n, world) = (self.random.usize(1..4), self.world.clone());
        self.any(|actor, random| {
            if !actor.left.is_empty() || actor.endless {
                return;
            }
            actor.strays = true;
            let behind = actor.busy_until.saturating_sub(world.calls());
            for _ in 0..n {
                let client = actor.client.clone();
                world.after(behind + random.usize(..12), move || client.send(b"more than it should"));
            }
        });
    }

    fn come(&mut self, request: Vec<u8>, reads: bool) -> &mut Actor {
        let endless = (1..128).contains(&request[0]) && request.len() <= usize::from(request[0]);
        let (client, unsent, left) = (self.world.connect(), request.len(), request.into());
        self.actors.push(Actor {
            client,
            left,
            unsent,
            busy_until: 0,
            planned: false,
            marked: false,
            reads,
            received: Vec::new(),
            whole_at: (0, 0),
            endless,
            gone: false,
            strays: false,
            late: false,
            over: false,
        });
        let last = self.actors.len() - 1;
        &mut self.actors[last]
    }

    fn go_on(&mut self) {
        let n = if self.random.bool() { 1 } else { self.random.usize(1..30) };
        let (calls, world) = (self.calls(), self.world.clone());
        self.any(|actor, _| actor.send(&world, calls, n));
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
        self.world.advance(time);
    }

    /// Compares what the server has done with what the model says.
    fn check(&mut self, report: &mut Report) -> Check {
        let known = report.known();
        for (n, entry) in report.listen(&self.world).iter().enumerate() {
            if let Some(actor) = self.actors.get_mut(entry.client) {
                actor.hear(&entry.event, (known + n, entry.waits));
            }
            let was_reading = self.model.is_reading(entry.client);
            let newcomer = self.model.hear(entry)?;
            let actor = self.actors.get(entry.client).filter(|actor| actor.is_whole());
            let decided = actor.filter(|_| was_reading && !self.model.is_reading(entry.client));
            // Clients of before this turn come before a newcomer, and what was whole before
            // another request comes before that.
            let since = decided.map(|actor| (actor.whole_at, actor.planned));
            if let Some((since, planned)) = since.or(newcomer.then_some(((usize::MAX, usize::MAX), false))) {
                // That of a newcomer's request there is more behind a mark, nothing tells before the next wait.
                let waiting = self.actors.iter().filter(|a| a.is_whole() && !a.marked);
                let waiting = waiting.filter(|a| self.model.is_reading(a.number()));
                // Bytes in the middle of a turn may come between a read and the watch behind it, and
                // is in no order with what else the next wait brings.
                let before = |actor: &&Actor| {
                    let ((at, wait), in_order) = (actor.whole_at, !actor.planned && !planned);
                    at < since.0 && wait < entry.waits && (wait < since.1 || in_order)
                };
                let overtaken = waiting.filter(before).map(Actor::number).next();
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
        self.actors.iter().try_for_each(|actor| actor.check(&self.model, self.promised, self.unix))
    }

    /// Without faults, all clients read, the stack is emptied, and all clients go.
    fn end(mut self, report: &mut Report) -> Check {
        self.world.set_faults(Faults::default());
        self.world.advance(Duration::from_secs(1)); // no descriptors: the loop tries again soon
        self.settle(report)?;
        self.model.is_at_rest()?;
        let unread = self.actors.iter().find(|actor| actor.is_whole() && self.model.is_reading(actor.number()));
        require(unread.is_none(), || format!("client {:?} is not read at rest", unread.map(Actor::number)))?;
        self.world.advance(Limits::default().linger_time);
        self.settle(report)?;
        let lingering = self.server.stats().lingering;
        require(lingering == 0, || format!("{lingering} linger longer than they may"))?;
        for _ in 0..=self.model.items() + self.actors.len() {
            let (pushes, pops) = self.model.parked();
            if self.model.items() == 0 && pushes == 0 {
                break;
            }
            self.world.advance(EVICT_AFTER + NANOSECOND); // so that there is a place for one more
            let request = if pops > 0 { push(self.actors.len(), 3) } else { vec![0x80] };
            let world = self.world.clone();
            self.come(request, true).send(&world, None, usize::MAX);
            self.settle(report)?;
        }
        require(self.model.items() == 0, || "items are left".to_owned())?;
        self.actors.iter().for_each(|actor| actor.client.end());
        self.settle(report)?;
        let stats = self.server.stats();
        require((stats.open, stats.lingering) == (0, 0), || format!("a client is left: {stats:?}"))?;
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

    /// Returns whether it has sent a whole request, and still waits for its answer.
    fn is_whole(&self) -> bool {
        self.unsent == 0 && !self.gone && !self.endless
    }

    fn send(&mut self, world: &World, calls: Option<usize>, n: usize) {
        let n = n.min(self.left.len());
        let part: Vec<u8> = self.left.drain(..n).collect();
        let (client, last, marked) = (self.client.clone(), self.busy_until, n % 4 == 3);
        if part.is_empty() {
            return;
        }
        self.strays |= marked; // a reset may follow the answer
        self.marked |= marked;
        let send = move || {
            if marked {
                client.send(&part[..1]);
                client.mark();
            }
            client.send(&part[usize::from(marked)..]);
        };
        match calls {
            None if last <= world.calls() => send(),
            calls => {
                self.planned = true;
                // Behind what it is about to send.
                let calls = calls.unwrap_or_default().max(last.saturating_sub(world.calls()));
                self.busy_until = world.calls() + calls + 1;
                world.after(calls, send);
            }
        }
    }

    /// Follows what it has done, and what the server has done to it.
    fn hear(&mut self, event: &Event, at: (usize, usize)) {
        match event {
            Event::Sent(bytes) if self.unsent > 0 => {
                self.unsent = self.unsent.saturating_sub(bytes.len());
                self.whole_at = at;
                self.late |= self.over;
            }
            Event::Shut | Event::Closed | Event::Reset => self.over = true,
            _ => {}
        }
    }

    fn read(&mut self, n: usize) {
        self.received.extend(self.client.read_at_most(n));
    }

    /// The answer that a client is promised, from where it stands.
    fn check(&self, model: &Model, promised: bool, unix: bool) -> Check {
        let (number, expected) = (self.number(), model.answer(self.number()));
        let fits = expected.starts_with(&self.received);
        require(fits, || format!("client {number} has read {:?}, not {expected:?}", self.received))?;
        let part = !self.gone && self.client.has_ended() && !self.received.is_empty() && self.received != expected;
        require(unix || !part, || format!("client {number} takes a part of its answer for the whole"))?;
        // Whatever it has sent behind its request, and whenever.
        if promised && self.reads && !self.gone && model.is_answered(number) {
            let whole = self.received == expected;
            require(whole, || format!("client {number} has lost its answer, {expected:?}, for nothing"))?;
            let reset = self.client.was_reset() && !self.late && !self.strays && !model.has_failed(number);
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
