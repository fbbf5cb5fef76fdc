//! Several edges of one stack in an engine, over links that are cut, slow, and bring batches twice; edges that are
//! killed, stopped and continued; an engine without memory. A push that was answered is popped or is there; an item
//! is popped twice only if the edge that handed it out has died; and no edge answers with what is not its own.

use super::report::{Check, Report, require};
use crate::engine::Engine;
use fastrand::Rng;
use pollstack::sim::{Client, Faults, Sim, World};
use pollstack::stack::{Asks, ClientState, LEASE, StackService, Told, wire};
use pollstack::{EventLoop, Limits, ListenerConfig, Overload};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub(super) fn run(seed: u64, world: &World, report: &mut Report) -> Check {
    let mut random = Rng::with_seed(seed ^ 0x5A4E);
    let capacity = random.usize(1..6);
    let (engine, now) = (Engine::new(capacity), 1_000_000);
    let (edges, clients, dead) = Default::default();
    let mut scenario =
        Scenario { random, engine, now, capacity, edges, clients, dead, lives: 0, pushed: 0, is_calm: false };
    // The first edge is in the world whose trace is told.
    scenario.start(seed, world.clone())?;
    for n in 1..scenario.random.u64(1..4) {
        scenario.start(seed, World::new(seed.wrapping_mul(31) + n))?;
    }
    for _ in 0..scenario.random.usize(20..300) {
        scenario.act(seed)?;
        report.listen(world);
        scenario.check()?;
    }
    scenario.end(seed)
}

/// A connection of an edge to the engine.
#[derive(Default)]
struct Link {
    is_up: bool,
    /// Batches on their way.
    to_engine: VecDeque<Asks>,
    /// Answers on their way; `None` says that the edge has expired.
    to_edge: VecDeque<Option<Told>>,
}

struct Edge {
    world: World,
    server: EventLoop<StackService, Sim>,
    link: Link,
    /// Its name in the engine.
    life: u64,
    /// The process is stopped, and goes on later.
    is_stopped: bool,
    is_ending: bool,
}

struct Someone {
    client: Client,
    /// The life of the edge that it has come to.
    life: u64,
    /// The item that it pushes; `None` if it pops.
    item: Option<Vec<u8>>,
    got: Vec<u8>,
    left: bool,
    /// It reads all that comes, at once.
    is_quick: bool,
}

impl Someone {
    fn is_stored(&self) -> bool {
        self.item.is_some() && self.got == [0]
    }

    fn popped(&self) -> Option<&[u8]> {
        let (len, item) = self.got.split_first().filter(|_| self.item.is_none())?;
        (item.len() == usize::from(*len)).then_some(item)
    }

    fn read_all(&mut self) {
        self.client.set_room(1 << 30);
        self.got.extend(self.client.read());
    }
}

struct Scenario {
    random: Rng,
    engine: Engine,
    /// The engine's clock, in milliseconds.
    now: u64,
    capacity: usize,
    edges: Vec<Edge>,
    clients: Vec<Someone>,
    /// Lives that have ended without a word.
    dead: BTreeSet<u64>,
    lives: u64,
    pushed: usize,
    /// There are no faults any more.
    is_calm: bool,
}

impl Scenario {
    fn new_life(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }

    fn start(&mut self, seed: u64, world: World) -> Check {
        let life = self.new_life();
        if self.random.bool() {
            world.set_buffers(self.random.usize(1..50), self.random.usize(1..50));
        }
        world.set_faults(Faults::with_accepts(seed + life));
        let mut stack = StackService::new(self.capacity);
        stack.share(life);
        let mut server = EventLoop::with_net(world.net(), stack, Limits::default());
        let overload = Overload::EvictOldest { after: Duration::from_secs(1), otherwise: wire::BUSY.into() };
        server.listen(ListenerConfig::new("127.0.0.1:1".parse()?).max_conns(8).overload(overload))?;
        let link = Link { is_up: true, ..Link::default() };
        self.edges.push(Edge { world, server, link, life, is_stopped: false, is_ending: false });
        Ok(())
    }

    fn act(&mut self, seed: u64) -> Check {
        let n = self.random.usize(..self.edges.len());
        match self.random.u8(..100) {
            0..20 => self.come(n),
            20..26 => self.any(n, |someone, random| {
                someone.got.extend(someone.client.read_at_most(random.usize(1..200)));
            }),
            26..32 => self.any(n, |someone, random| {
                someone.read_all();
                someone.left = true;
                if random.bool() { someone.client.abort() } else { someone.client.end() }
            }),
            32..36 => {
                let time = if self.random.bool() { 300 } else { 4000 };
                let time = self.random.u64(..time);
                self.pass(time);
            }
            36..50 => self.speak(n),
            50..65 => self.carry(n),
            65..80 => self.hear(n)?,
            80..82 => self.cut(n),
            82..84 => self.edges[n].is_stopped = self.random.bool(),
            84 => self.kill(n, seed)?,
            85 => self.engine.set_no_memory(self.random.u8(..3) == 0),
            86 if self.random.bool() => self.leave(n),
            87 => self.work(n)?,
            _ => self.turn(n),
        }
        Ok(())
    }

    /// A client comes to an edge, and asks for something.
    fn come(&mut self, n: usize) {
        let item = self.random.bool().then(|| self.pushed.to_string().into_bytes());
        self.pushed += usize::from(item.is_some());
        let client = self.edges[n].world.connect();
        match &item {
            Some(item) => client.send(&[&[item.len() as u8], &item[..]].concat()),
            None => client.send(&[wire::POP]),
        }
        let is_quick = self.random.u8(..3) > 0;
        if !is_quick {
            client.set_room(self.random.usize(..20));
        }
        self.clients.push(Someone { client, life: self.edges[n].life, item, got: Vec::new(), left: false, is_quick });
    }

    fn any(&mut self, n: usize, act: impl FnOnce(&mut Someone, &mut Rng)) {
        let here = |m: &usize| !self.clients[*m].left && self.clients[*m].life == self.edges[n].life;
        let open: Vec<usize> = (0..self.clients.len()).filter(here).collect();
        if let Some(m) = self.random.choice(&open) {
            act(&mut self.clients[*m], &mut self.random);
        }
    }

    /// Time passes, for all.
    fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.edges.iter().for_each(|edge| edge.world.advance(Duration::from_millis(millis)));
    }

    /// Seconds pass for an edge at once, while the others work: the engine takes it for dead.
    fn work(&mut self, idle: usize) -> Check {
        let rest = self.random.usize(..6);
        for _ in 0..rest {
            self.pass(900);
            for n in (0..self.edges.len()).filter(|n| *n != idle) {
                self.turn(n);
                self.speak(n);
                self.carry(n);
                self.hear(n)?;
            }
        }
        Ok(())
    }

    fn turn(&mut self, n: usize) {
        let edge = &mut self.edges[n];
        if !edge.is_stopped {
            edge.world.turn(&mut edge.server);
        }
    }

    /// An edge sends its batch, if it has one.
    fn speak(&mut self, n: usize) {
        let edge = &mut self.edges[n];
        if edge.is_stopped || !edge.link.is_up {
            return;
        }
        if edge.is_ending && edge.server.service().clients().next().is_none() {
            edge.server.call(|stack, _| stack.leave());
        }
        let batch = edge.server.call(|stack, cx| stack.next_batch(cx.now()).cloned());
        edge.link.to_engine.extend(batch);
    }

    /// The engine takes the next batch of an edge, and answers.
    fn carry(&mut self, n: usize) {
        let Some(batch) = self.edges[n].link.to_engine.pop_front() else { return };
        let told = self.engine.apply(self.now, LEASE.as_millis() as u64, &batch);
        let edge = &mut self.edges[n];
        // That is so for a batch of a connection before, too: its answer has nowhere to go.
        if edge.link.is_up && batch.edge == edge.life {
            edge.link.to_edge.push_back(told.ok());
        }
    }

    /// An edge takes the next thing that the engine says.
    fn hear(&mut self, n: usize) -> Check {
        let edge = &mut self.edges[n];
        if edge.is_stopped || !edge.link.is_up {
            return Ok(());
        }
        if self.engine.take_call(edge.life) {
            edge.server.call(|stack, _| stack.call());
        }
        let Some(said) = edge.link.to_edge.pop_front() else { return Ok(()) };
        let is_looked_at = self.random.u8(..3) == 0;
        if is_looked_at {
            self.flush(n);
        }
        let edge = &mut self.edges[n];
        match said {
            Some(told) => edge.server.call(|stack, cx| stack.hear(cx, told)),
            None => self.expire(n),
        }
        if is_looked_at {
            let answered: Vec<usize> = self.flush(n);
            self.look(n, &answered)?;
        }
        Ok(())
    }

    /// All that an edge has for clients that read goes out. Returns those who have got something.
    fn flush(&mut self, n: usize) -> Vec<usize> {
        let edge = &mut self.edges[n];
        edge.world.set_faults(Faults::default());
        let mut answered = Vec::new();
        for _ in 0..100 {
            edge.world.settle(&mut edge.server);
            let before = answered.len();
            for (m, someone) in self.clients.iter_mut().enumerate() {
                let known = someone.got.len();
                if someone.is_quick && !someone.left && someone.life == edge.life {
                    someone.read_all();
                }
                if known < someone.got.len() {
                    answered.push(m);
                }
            }
            if answered.len() == before {
                break;
            }
        }
        if !self.is_calm {
            edge.world.set_faults(Faults::with_accepts(edge.life));
        }
        answered
    }

    /// Checks that an edge has just begun to hand out only items of its own.
    fn look(&mut self, n: usize, answered: &[usize]) -> Check {
        let life = self.edges[n].life;
        for someone in answered.iter().map(|m| &self.clients[*m]) {
            if let Some(item) = someone.popped() {
                let is_its = self.engine.in_flight(life).any(|other| other.payload() == item);
                require(is_its, || format!("edge {life} hands out {item:?}, which is not its own"))?;
            }
        }
        Ok(())
    }

    /// An edge learns that the engine has taken it for dead.
    fn expire(&mut self, n: usize) {
        let life = self.new_life();
        let edge = &mut self.edges[n];
        self.dead.insert(edge.life);
        edge.server.call(|stack, cx| stack.expire(cx, life));
        // Clients that have not asked yet are the new one's; those that have are closed.
        for someone in self.clients.iter_mut().filter(|someone| someone.life == edge.life) {
            someone.read_all();
            someone.life = if someone.client.has_ended() || someone.client.was_reset() { someone.life } else { life };
        }
        edge.life = life;
        edge.link = Link { is_up: true, ..Link::default() };
    }

    /// A link breaks, or is made again. Batches and answers on their way are lost, or reach the engine late.
    fn cut(&mut self, n: usize) {
        let is_late = self.random.bool();
        let edge = &mut self.edges[n];
        if edge.is_stopped {
            return;
        }
        edge.link.is_up = !edge.link.is_up;
        edge.link.to_edge.clear();
        if edge.link.is_up {
            let again = edge.server.call(|stack, cx| stack.unanswered_batch(cx.now()).cloned());
            edge.link.to_engine.extend(again);
        } else {
            edge.link.to_engine.retain(|_| is_late);
        }
    }

    /// The process of an edge ends, at any instant, and another one takes its place.
    fn kill(&mut self, n: usize, seed: u64) -> Check {
        let edge = self.edges.swap_remove(n);
        self.dead.insert(edge.life);
        drop(edge.server);
        self.clients.iter_mut().filter(|someone| someone.life == edge.life).for_each(Someone::read_all);
        self.start(seed, World::new(seed ^ self.lives))
    }

    fn leave(&mut self, n: usize) {
        let edge = &mut self.edges[n];
        if !edge.is_stopped && !edge.is_ending {
            edge.is_ending = true;
            edge.server.stop(Duration::from_secs(5));
        }
    }

    fn check(&self) -> Check {
        let held = self.engine.held();
        require(held <= self.capacity, || format!("{held} items are held"))
    }

    /// All links and edges work, for some time.
    fn settle(&mut self) -> Check {
        self.engine.set_no_memory(false);
        self.is_calm = true;
        for n in 0..self.edges.len() {
            self.edges[n].world.set_faults(Faults::default());
            self.edges[n].is_stopped = false;
            self.edges[n].link.is_up = false;
            self.cut(n);
        }
        for _ in 0..60 {
            self.pass(100);
            for n in 0..self.edges.len() {
                for _ in 0..3 {
                    let edge = &mut self.edges[n];
                    edge.world.settle(&mut edge.server);
                    self.speak(n);
                    self.carry(n);
                    self.hear(n)?;
                }
            }
            self.clients.iter_mut().for_each(Someone::read_all);
        }
        self.check()
    }

    /// At rest no request waits that could be served. Then all is taken off, and compared with what has been seen.
    fn end(mut self, seed: u64) -> Check {
        self.start(seed, World::new(seed))?; // others may have left: the dead are found by those that live
        self.settle()?;
        let (items, (pushes, pops)) = (self.engine.items().len(), self.engine.waiting());
        require(pops == 0 || items == 0, || format!("{pops} pops wait for {items} items"))?;
        let room = self.capacity - self.engine.held();
        require(pushes == 0 || room == 0, || format!("{pushes} pushes wait, and there is room for {room}"))?;
        let waits = |client: &ClientState| matches!(client.state, "pushing" | "popping");
        let waiting: usize = self.edges.iter().map(|edge| edge.server.service().clients().filter(waits).count()).sum();
        require(waiting == pushes + pops, || format!("{waiting} clients wait for {pushes} pushes and {pops} pops"))?;
        for someone in &mut self.clients {
            someone.left = true;
            someone.client.abort();
        }
        self.settle()?;
        require(self.engine.held() == self.engine.items().len(), || "an item is in flight at rest".to_owned())?;
        require(self.engine.waiting() == (0, 0), || format!("{:?} wait at rest", self.engine.waiting()))?;
        let last = self.edges.len() - 1;
        let expected: Vec<Vec<u8>> = self.engine.items().iter().rev().map(|item| item.payload().to_vec()).collect();
        for item in &expected {
            let client = self.edges[last].world.connect();
            client.send(&[wire::POP]);
            let (life, got) = (self.edges[last].life, Vec::new());
            self.clients.push(Someone { client, life, item: None, got, left: false, is_quick: false });
            self.settle()?;
            let popped = self.clients.last().and_then(Someone::popped);
            require(popped == Some(item), || format!("{item:?} is on top, and {popped:?} is popped"))?;
        }
        self.balance()
    }

    fn balance(&self) -> Check {
        let mut poppers: BTreeMap<&[u8], Vec<u64>> = BTreeMap::new();
        for someone in &self.clients {
            if let Some(item) = someone.popped() {
                poppers.entry(item).or_default().push(someone.life);
            }
        }
        for (item, lives) in &poppers {
            let known = self.clients.iter().any(|other| other.item.as_deref() == Some(item));
            require(known, || format!("{item:?} was never pushed"))?;
            let alive = lives.iter().filter(|life| !self.dead.contains(life)).count();
            require(alive <= 1, || format!("{item:?} is popped {} times by edges that live", lives.len()))?;
        }
        for someone in self.clients.iter().filter(|someone| someone.is_stored()) {
            let item = someone.item.as_deref().ok_or("it pushes")?;
            require(poppers.contains_key(item), || format!("{item:?} was stored, and is lost"))?;
        }
        Ok(())
    }
}
