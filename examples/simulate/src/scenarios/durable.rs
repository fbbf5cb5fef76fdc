//! The stack with a journal on a disk that takes its time, fails, and is there after a crash. Over all lives of the
//! server: a push that was answered is popped or is there; in one life nothing is popped twice; and at
//! rest the disk has what the stack has, in its order.

use super::report::{Check, Report, require};
use fastrand::Rng;
use pollstack::sim::{Client, Faults, Sim, World};
use pollstack::stack::wire::Item;
use pollstack::stack::{Batch, Finished, Journal, StackService, Trouble, wire};
use pollstack::{EventLoop, Limits, ListenerConfig, Overload};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

pub(super) fn run(seed: u64, world: &World, report: &mut Report) -> Check {
    let mut random = Rng::with_seed(seed ^ 0xD15C);
    let (capacity, answers_wait) = (random.usize(1..6), random.u8(..5) > 0);
    let disk = Rc::new(RefCell::new(Disk { answers_wait, ..Disk::default() }));
    let mut seen = Vec::new();
    for life in 0..random.u64(1..5) {
        // The first life is in the world whose trace is told.
        let world = if life == 0 { world.clone() } else { World::new(seed.wrapping_mul(31) + life) };
        if random.bool() {
            world.set_buffers(random.usize(1..50), random.usize(1..50));
        }
        world.set_faults(Faults::with_accepts(seed + life));
        let mut scenario = Scenario::start(&world, random.fork(), capacity, &disk, std::mem::take(&mut seen), life)?;
        for _ in 0..scenario.random.usize(10..150) {
            scenario.act();
            scenario.check(report)?;
        }
        let ends = scenario.random.u8(..3);
        seen = if ends == 0 { scenario.stop(report)? } else { scenario.crash() };
    }
    let world = World::new(seed);
    Scenario::start(&world, random.fork(), capacity, &disk, seen, u64::MAX)?.balance()
}

/// The disk. It outlives the servers.
#[derive(Debug, Default)]
struct Disk {
    items: BTreeMap<u64, Item>,
    committing: Option<Batch>,
    finished: Option<Finished>,
    is_woken: bool,
    answers_wait: bool,
    is_failing: bool,
}

impl Disk {
    fn apply(&mut self, batch: &Batch) {
        for (number, item) in batch.changes() {
            match item {
                Some(item) => drop(self.items.insert(number, *item)),
                None => drop(self.items.remove(&number)),
            }
        }
    }

    /// Ends the commit that runs, if one does.
    fn finish(&mut self, succeeds: bool) {
        let Some(batch) = self.committing.take() else { return };
        if succeeds {
            self.apply(&batch);
        }
        let trouble = Trouble { reason: "no space".to_owned(), is_final: false };
        self.finished = Some(Finished { batch, result: if succeeds { Ok(()) } else { Err(trouble) } });
        self.is_woken = true;
    }
}

/// The journal of one life of the server.
#[derive(Debug)]
struct Writing(Rc<RefCell<Disk>>);

impl Journal for Writing {
    fn commit(&mut self, batch: Batch) {
        let mut disk = self.0.borrow_mut();
        assert!(disk.committing.is_none() && disk.finished.is_none(), "one batch at a time");
        disk.committing = Some(batch);
    }

    fn finished(&mut self) -> Option<Finished> {
        self.0.borrow_mut().finished.take()
    }

    fn wait(&mut self) -> Option<Finished> {
        let mut disk = self.0.borrow_mut();
        disk.finish(true);
        disk.finished.take()
    }

    fn wake(&self) {
        self.0.borrow_mut().is_woken = true;
    }

    fn answers_wait(&self) -> bool {
        self.0.borrow().answers_wait
    }
}

struct Someone {
    client: Client,
    life: u64,
    /// The item that it pushes; `None` if it pops.
    item: Option<Vec<u8>>,
    got: Vec<u8>,
    left: bool,
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
    world: World,
    random: Rng,
    server: EventLoop<StackService, Sim>,
    disk: Rc<RefCell<Disk>>,
    clients: Vec<Someone>,
    capacity: usize,
    life: u64,
}

impl Scenario {
    fn start(
        world: &World,
        random: Rng,
        capacity: usize,
        disk: &Rc<RefCell<Disk>>,
        clients: Vec<Someone>,
        life: u64,
    ) -> Result<Scenario, Box<dyn std::error::Error>> {
        let items: Vec<(u64, Item)> = disk.borrow().items.iter().map(|(number, item)| (*number, *item)).collect();
        require(items.len() <= capacity, || format!("{} items are on the disk", items.len()))?;
        let mut stack = StackService::new(capacity);
        stack.keep(items, Box::new(Writing(disk.clone())));
        let mut server = EventLoop::with_net(world.net(), stack, Limits::default());
        let overload = Overload::EvictOldest { after: Duration::from_secs(1), otherwise: wire::BUSY.into() };
        server.listen(ListenerConfig::new("127.0.0.1:1".parse()?).max_conns(8).overload(overload))?;
        Ok(Scenario { world: world.clone(), random, server, disk: disk.clone(), clients, capacity, life })
    }

    fn act(&mut self) {
        match self.random.u8(..100) {
            0..30 => self.come(),
            30..42 => self.any(|someone, random| someone.got.extend(someone.client.read_at_most(random.usize(1..200)))),
            42..50 => self.any(|someone, random| {
                someone.read_all();
                someone.left = true;
                if random.bool() { someone.client.abort() } else { someone.client.end() }
            }),
            50..53 => self.world.advance(Duration::from_millis(self.random.u64(..1500))),
            53..68 => {
                let fails = self.disk.borrow().is_failing;
                self.disk.borrow_mut().finish(!fails);
            }
            68..71 => self.disk.borrow_mut().is_failing = self.random.u8(..3) == 0,
            _ => self.turn(),
        }
    }

    fn turn(&mut self) {
        if std::mem::take(&mut self.disk.borrow_mut().is_woken) {
            self.server.wake();
        }
        self.world.turn(&mut self.server);
    }

    /// A client comes, and asks for something.
    fn come(&mut self) {
        let name = format!("{}-{}", self.life, self.clients.len());
        let item = self.random.bool().then(|| name.into_bytes());
        let client = self.world.connect();
        match &item {
            Some(item) => client.send(&[&[item.len() as u8], &item[..]].concat()),
            None => client.send(&[wire::POP]),
        }
        if self.random.u8(..4) == 0 {
            client.set_room(self.random.usize(..20));
        }
        self.clients.push(Someone { client, life: self.life, item, got: Vec::new(), left: false });
    }

    fn any(&mut self, act: impl FnOnce(&mut Someone, &mut Rng)) {
        let here = |n: &usize| !self.clients[*n].left && self.clients[*n].life == self.life;
        let open: Vec<usize> = (0..self.clients.len()).filter(here).collect();
        if let Some(n) = self.random.choice(&open) {
            act(&mut self.clients[*n], &mut self.random);
        }
    }

    fn check(&self, report: &mut Report) -> Check {
        report.listen(&self.world);
        let (stack, on_disk) = (self.server.service().items(), self.disk.borrow().items.len());
        require(stack <= self.capacity, || format!("{stack} items are on the stack"))?;
        require(on_disk <= 2 * self.capacity, || format!("{on_disk} items are on the disk"))
    }

    /// The process is gone. A commit that runs is on the disk, or not.
    fn crash(mut self) -> Vec<Someone> {
        let mut disk = self.disk.borrow_mut();
        if let Some(batch) = disk.committing.take().filter(|_| self.random.bool()) {
            disk.apply(&batch);
        }
        disk.finished = None;
        drop(disk);
        self.read_the_last()
    }

    /// The clients read what the kernel of a server that is gone had taken.
    fn read_the_last(mut self) -> Vec<Someone> {
        let life = self.life;
        self.clients.iter_mut().filter(|someone| someone.life == life).for_each(Someone::read_all);
        drop(self.server); // begins no commit
        self.disk.borrow_mut().is_woken = false;
        self.clients
    }

    /// All settles, with a disk that works.
    fn settle(&mut self) {
        self.world.set_faults(Faults::default());
        self.disk.borrow_mut().is_failing = false;
        self.world.advance(Duration::from_secs(1)); // descriptors are tried again
        for _ in 0..1000 {
            self.world.settle(&mut self.server);
            self.disk.borrow_mut().finish(true);
            let life = self.life;
            self.clients.iter_mut().filter(|someone| someone.life == life).for_each(Someone::read_all);
            if !self.disk.borrow().is_woken && !self.world.has_work(&mut self.server) {
                break;
            }
            self.turn();
        }
    }

    /// At rest, no push waits for the disk, and the disk has what the stack has, in its order. Then, or in the middle
    /// of everything, the server is stopped, and brings what is left to the disk.
    fn stop(mut self, report: &mut Report) -> Result<Vec<Someone>, Box<dyn std::error::Error>> {
        if self.random.bool() {
            self.settle();
            self.check(report)?;
            let storing = self.server.service().storing();
            require(storing == 0, || format!("{storing} pushes wait for the disk at rest"))?;
            self.clients.iter().filter(|someone| someone.life == self.life).for_each(|someone| someone.client.end());
            self.settle(); // pushes that waited for room are cancelled
            self.compare()?;
            self.take_off()?;
        }
        self.server.stop(Duration::ZERO);
        for _ in 0..100 {
            self.turn();
        }
        let closed = self.server.call(|stack, _| stack.close());
        require(closed.is_ok(), || format!("{closed:?}"))?;
        self.compare()?;
        Ok(self.read_the_last())
    }

    fn compare(&self) -> Check {
        let (on_disk, stack) = (self.disk.borrow().items.len(), self.server.service().items());
        require(on_disk == stack, || format!("{on_disk} items are on the disk, {stack} on the stack"))
    }

    /// Takes off all that is there: in the order of the disk.
    fn take_off(&mut self) -> Check {
        let expected: Vec<Vec<u8>> =
            self.disk.borrow().items.values().rev().map(|item| item.payload().to_vec()).collect();
        for item in &expected {
            let client = self.world.connect();
            client.send(&[wire::POP]);
            self.clients.push(Someone { client, life: self.life, item: None, got: Vec::new(), left: false });
            self.settle();
            let popped = self.clients.last().and_then(Someone::popped);
            require(popped == Some(item), || format!("{item:?} is on top of the disk, and {popped:?} is popped"))?;
        }
        Ok(())
    }

    /// Takes off what is there, and compares with what has been seen in all lives.
    fn balance(mut self) -> Check {
        self.take_off()?;
        let mut seen = BTreeSet::new();
        let mut popped = BTreeSet::new();
        for (someone, item) in self.clients.iter().filter_map(|someone| Some((someone, someone.popped()?))) {
            let known = self.clients.iter().any(|other| other.item.as_deref() == Some(item));
            require(known, || format!("{item:?} was never pushed"))?;
            require(seen.insert((someone.life, item)), || format!("{item:?} is popped twice in one life"))?;
            popped.insert(item);
        }
        let is_safe = self.disk.borrow().answers_wait;
        for someone in self.clients.iter().filter(|someone| is_safe && someone.is_stored()) {
            let item = someone.item.as_deref().ok_or("it pushes")?;
            require(popped.contains(item), || format!("{item:?} was stored, and is lost"))?;
        }
        Ok(())
    }
}
