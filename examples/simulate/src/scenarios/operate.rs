//! The stack and its HTTP face, under clients of both kinds who push, pop, read a little, and leave. Items are
//! conserved: one whose push was answered is popped once, or is there at the end; none is there twice.

use super::report::{Check, Report, require};
use fastrand::Rng;
use pollstack::http::Guard;
use pollstack::operate::{Operated, Places};
use pollstack::sim::{Client, Faults, Sim, World};
use pollstack::stack::{StackService, wire};
use pollstack::{EventLoop, Limits, ListenerConfig, ListenerId, Overload};
use std::collections::BTreeSet;
use std::time::Duration;

/// The listeners, in the order in which they are opened.
const STACK: usize = 0;
const FACE: usize = 1;

pub(super) fn run(seed: u64, world: &World, report: &mut Report) -> Check {
    let mut random = Rng::with_seed(seed ^ 0x09E2);
    if random.bool() {
        world.set_buffers(random.usize(1..300), random.usize(1..300));
    }
    world.set_faults(Faults::with_accepts(seed));
    let (face, places, capacity) = (ListenerId::new(), Places { stack: 10, face: 10 }, random.usize(1..6));
    let operated = Operated::new(StackService::new(capacity), face, Guard::new(&[], &[], false), places, world.now());
    let mut server = EventLoop::with_net(world.net(), operated, Limits::default());
    let listen = |reply: &'static [u8]| -> Result<ListenerConfig, pollstack::net::ParseAddressError> {
        Ok(ListenerConfig::new("127.0.0.1:1".parse()?).max_conns(10).overload(Overload::Reject(reply.into())))
    };
    server.listen(listen(wire::BUSY)?)?;
    server.listen(listen(pollstack::http::BUSY)?.id(face))?;
    let (world, clients) = (world.clone(), Vec::new());
    let mut scenario = Scenario { world, random, server, clients, capacity };
    for _ in 0..scenario.random.usize(20..200) {
        scenario.act();
        scenario.check(report)?;
    }
    scenario.end(report)
}

struct Scenario {
    world: World,
    random: Rng,
    server: EventLoop<Operated, Sim>,
    clients: Vec<Someone>,
    capacity: usize,
}

struct Someone {
    client: Client,
    over_http: bool,
    /// The item that it pushes; `None` if it pops.
    item: Option<String>,
    got: Vec<u8>,
    left: bool,
}

impl Someone {
    fn read(&mut self, most: usize) {
        self.got.extend(self.client.read_at_most(most));
    }

    /// Returns whether its push was answered as stored.
    fn is_stored(&self) -> bool {
        self.item.is_some() && if self.over_http { self.got.starts_with(b"HTTP/1.1 204 ") } else { self.got == [0] }
    }

    /// Returns the item that it has popped, if it has read all of it.
    fn popped(&self) -> Option<String> {
        let item = match (&self.item, self.over_http) {
            (Some(_), _) => return None,
            (None, true) => {
                let body =
                    self.got.strip_prefix(b"HTTP/1.1 200 ").and_then(|rest| memchr::memmem::find(rest, b"\r\n\r\n"))?;
                let length = memchr::memmem::find(&self.got, b"Content-Length: ")? + b"Content-Length: ".len();
                let digits = self.got[length..].split(|byte| *byte == b'\r').next()?;
                let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
                self.got.get(13 + body + 4..13 + body + 4 + length)?
            }
            (None, false) => {
                let (len, item) = self.got.split_first()?;
                (item.len() == usize::from(*len)).then_some(item)?
            }
        };
        Some(String::from_utf8_lossy(item).into_owned())
    }
}

impl Scenario {
    fn act(&mut self) {
        match self.random.u8(..100) {
            0..25 => self.come(),
            25..40 => self.any(|someone, random| someone.read(random.usize(1..200))),
            40..48 => self.leave(),
            48..52 => self.any(|someone, random| someone.client.set_room(random.usize(..100))),
            52..56 => self.world.advance(Duration::from_millis(self.random.u64(..1500))),
            56..62 => drop(self.world.settle(&mut self.server)),
            _ => self.world.turn(&mut self.server),
        }
    }

    /// A client comes, and asks for something.
    fn come(&mut self) {
        let over_http = self.random.bool();
        let item =
            self.random.bool().then(|| format!("{}{}", self.clients.len(), "x".repeat(self.random.usize(..100))));
        let client = self.world.connect_to(if over_http { FACE } else { STACK });
        let timeout = ["", "", "?timeout=0", "?timeout=1"][self.random.usize(..4)];
        let request = match (&item, over_http) {
            (Some(item), true) => {
                format!("POST /push{timeout} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{item}", item.len())
                    .into_bytes()
            }
            (None, true) => format!("POST /pop{timeout} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
            (Some(item), false) => [&[item.len() as u8], item.as_bytes()].concat(),
            (None, false) => vec![wire::POP],
        };
        let cut = if self.random.u8(..5) == 0 { self.random.usize(..request.len()) } else { request.len() };
        client.send(&request[..cut]);
        client.send(&request[cut..]);
        if self.random.u8(..4) == 0 {
            client.set_room(self.random.usize(..150));
        }
        self.clients.push(Someone { client, over_http, item, got: Vec::new(), left: false });
    }

    /// A client leaves, when it has read what there is for it.
    fn leave(&mut self) {
        self.any(|someone, random| {
            someone.client.set_room(usize::MAX / 2);
            someone.read(usize::MAX);
            someone.left = true;
            if random.bool() { someone.client.abort() } else { someone.client.end() }
        });
    }

    fn any(&mut self, act: impl FnOnce(&mut Someone, &mut Rng)) {
        let open: Vec<usize> = (0..self.clients.len()).filter(|n| !self.clients[*n].left).collect();
        if let Some(n) = self.random.choice(&open) {
            act(&mut self.clients[*n], &mut self.random);
        }
    }

    fn check(&self, report: &mut Report) -> Check {
        report.listen(&self.world);
        let stack = self.server.service().stack();
        require(stack.items() <= self.capacity, || format!("{} items are on the stack", stack.items()))
    }

    fn end(mut self, report: &mut Report) -> Check {
        self.world.set_faults(Faults::default());
        for someone in self.clients.iter_mut().filter(|someone| !someone.left) {
            someone.client.set_room(1 << 30);
        }
        self.world.advance(Duration::from_secs(2));
        for _ in 0..1000 {
            let before: usize = self.clients.iter().map(|someone| someone.got.len()).sum();
            self.world.settle(&mut self.server);
            self.clients.iter_mut().for_each(|someone| someone.read(usize::MAX));
            if before == self.clients.iter().map(|someone| someone.got.len()).sum::<usize>() {
                break;
            }
        }
        for someone in self.clients.iter().filter(|someone| !someone.left) {
            someone.client.end(); // those that wait are cancelled
        }
        self.world.settle(&mut self.server);
        self.clients.iter_mut().for_each(|someone| someone.read(usize::MAX));
        self.world.advance(Duration::from_secs(100));
        self.world.settle(&mut self.server);
        self.check(report)?;
        self.balance()
    }

    /// Takes off what is there, and compares.
    fn balance(mut self) -> Check {
        let left = self.server.service().stack().items();
        let held = self.server.service().stack().held();
        require(left == held, || format!("{held} items are held, and {left} are on the stack"))?;
        for _ in 0..left {
            let client = self.world.connect_to(STACK);
            client.send(&[wire::POP]);
            let mut got = Vec::new();
            for _ in 0..1000 {
                self.world.settle(&mut self.server);
                got.extend(client.read());
                if client.has_ended() {
                    break;
                }
            }
            self.clients.push(Someone { client, over_http: false, item: None, got, left: true });
        }
        let mut seen = BTreeSet::new();
        for item in self.clients.iter().filter_map(Someone::popped) {
            require(self.clients.iter().any(|other| other.item.as_ref() == Some(&item)), || {
                format!("{item} was never pushed")
            })?;
            require(seen.insert(item.clone()), || format!("{item} is popped twice"))?;
        }
        for someone in self.clients.iter().filter(|someone| someone.is_stored()) {
            let item = someone.item.as_ref().ok_or("it pushes")?;
            require(seen.contains(item), || format!("{item} was stored, and is lost"))?;
        }
        Ok(())
    }
}
