//! The chat server under users who write, read, stall and go. The lines that it writes to every user,
//! in its order, has to make sense: every answer that of the next request, every `SEND-OK` behind
//! its `DELIVERY`.

use super::report::{Check, Report, require};
use chat::Chat;
use chat::protocol::BUSY;
use fastrand::Rng;
use pollstack::sim::{Client, Entry, Event, Fault, Faults, Sim, World};
use pollstack::{EventLoop, Limits, ListenerConfig, Overload};
use std::collections::HashSet;
use std::io::ErrorKind;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// More than there are connections: none gives way to another here.
const MAX_STRANGERS: usize = 12;

pub(super) fn run(seed: u64, world: &World, report: &mut Report) -> Check {
    let mut random = Rng::with_seed(seed ^ 0xC4A7);
    if random.bool() {
        world.set_buffers(random.usize(100..5000), random.usize(BUSY.len()..5000));
        world.set_window(random.usize(100..5000));
    }
    let faults = Faults::with_accepts(seed);
    world.set_faults(faults);
    let chat = Chat::new(random.usize(1..8), MAX_STRANGERS, TIMEOUT);
    let limits = chat.limits(Limits::default());
    let mut server = EventLoop::with_net(world.net(), chat, limits);
    let listen = ListenerConfig::new("127.0.0.1:1".parse()?).max_conns(12).overload(Overload::Reject(BUSY.into()));
    server.listen(listen)?;
    let big = [0, 0, 1, 7][random.usize(..4)];
    let honest =
        [Fault::WouldBlock, Fault::FreshWouldBlock, Fault::Interrupted].iter().all(|fault| faults.one_in(*fault) == 0);
    let exhausted = faults.one_in(Fault::NoDescriptors) > 0;
    let mut scenario = Scenario { world: world.clone(), random, server, users: Vec::new(), big, honest, exhausted };
    for _ in 0..scenario.random.usize(20..400) {
        scenario.act();
        scenario.check(report)?;
    }
    scenario.end(report)
}

struct Scenario {
    world: World,
    random: Rng,
    server: EventLoop<Chat, Sim>,
    users: Vec<User>,
    /// How many messages of eight are big ones.
    big: u8,
    /// The kernel takes what it has room for.
    honest: bool,
    /// The system runs out of descriptors now and then.
    exhausted: bool,
}

struct User {
    client: Client,
    /// Lines, or parts of them, that it has not sent yet.
    left: Vec<u8>,
    /// How many lines it has made up; the first is its name.
    lines: usize,
    reads: bool,
    /// It has ended or reset the connection.
    gone: bool,
    /// Its requests, as far as the server has read them: a recipient, or something else.
    asked: Vec<Request>,
    input: Vec<u8>,
    /// The part of a line that the server has written.
    output: Vec<u8>,
    answers: usize,
    /// The messages that it has been sent whole: from whom, and which of that one's requests.
    delivered: HashSet<(usize, usize)>,
    last: [Option<usize>; 100],
    logged_in: bool,
    /// It is to be let go, for what it has sent.
    rejected: bool,
    closed: bool,
    last_write: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Hello,
    List,
    /// To whom, and whether that one had logged in by then.
    Send(usize, bool),
    Nonsense,
}

impl Scenario {
    fn act(&mut self) {
        match self.random.u8(..100) {
            0..8 => self.connect(),
            8..50 => self.ask(),
            50..52 => self.soon(|user| {
                user.gone = true;
                Client::end
            }),
            52..54 => self.soon(|user| {
                user.gone = true;
                Client::abort
            }),
            54..60 => self.any(|user, random| drop(user.client.read_at_most(random.usize(1..10_000)))),
            60..62 => self.any(|user, random| user.reads = random.u8(..3) > 0),
            62..65 => self.pass_time(),
            65 => self.any(|user, _| user.client.mark()),
            66..70 => drop(self.world.settle(&mut self.server)),
            _ => self.world.turn(&mut self.server),
        }
        self.users.iter().filter(|user| user.reads).for_each(|user| drop(user.client.read()));
    }

    fn connect(&mut self) {
        if self.users.len() == 100 {
            return;
        }
        let number = self.users.len();
        let name = if self.random.u8(..10) == 0 { "a,b".to_owned() } else { format!("u{number}") };
        let mut user = User::new(self.world.connect());
        user.left = if self.random.u8(..20) == 0 { b"LIST\n".to_vec() } else { format!("HELLO-FROM {name}\n").into() };
        user.send(&mut self.random);
        self.users.push(user);
    }

    fn ask(&mut self) {
        let (all, big) = (self.users.len() + 1, self.big);
        self.any(|user, random| {
            let number = user.lines;
            let line = match random.u8(..20) {
                0..12 => {
                    let size = if random.u8(..8) < big { random.usize(..60_000) } else { random.usize(..200) };
                    format!("SEND u{} {number} {}\n", random.usize(..all), "x".repeat(size))
                }
                12..15 => "LIST\n".to_owned(),
                15 => "NONSENSE\n".to_owned(),
                16 => "SEND u1\n".to_owned(),
                _ => String::new(), // only goes on with what is left
            };
            user.lines += usize::from(!line.is_empty());
            user.left.extend(line.bytes());
            user.send(random);
        });
    }

    /// A client does something, in the middle of a turn perhaps.
    fn soon(&mut self, plan: impl FnOnce(&mut User) -> fn(&Client)) {
        let (calls, world) = (self.random.usize(..10), self.world.clone());
        self.any(|user, _| {
            let (act, client) = (plan(user), user.client.clone());
            world.after(calls, move || act(&client));
        });
    }

    fn any(&mut self, act: impl FnOnce(&mut User, &mut Rng)) {
        if !self.users.is_empty() {
            let index = self.random.usize(..self.users.len());
            act(&mut self.users[index], &mut self.random);
        }
    }

    fn pass_time(&mut self) {
        self.world.settle(&mut self.server);
        let time = match self.random.u8(..3) {
            0 => self.server.timeout().unwrap_or_default(),
            1 => self.server.timeout().unwrap_or_default().saturating_sub(Duration::from_nanos(1)),
            _ => Duration::from_millis(self.random.u64(..3000)),
        };
        self.world.advance(time);
    }

    fn check(&mut self, report: &mut Report) -> Check {
        for Entry { at, client, event, .. } in report.listen(&self.world) {
            match event {
                Event::Read(bytes) if !bytes.is_empty() => {
                    let present: Vec<bool> = self.users.iter().map(|user| user.logged_in).collect();
                    self.users[*client].hears(bytes, &present);
                }
                Event::Wrote(bytes) => {
                    self.users[*client].last_write = *at;
                    self.wrote(*client, bytes)?;
                }
                Event::Lost => self.users[*client].closed = true,
                Event::Failed(kind) => {
                    let user = &mut self.users[*client];
                    user.gone = true;
                    if *kind == ErrorKind::NotConnected {
                        user.delivered.clear(); // the last of it was kept back, and is lost
                    }
                }
                Event::Closed | Event::Reset => self.close(*client, *at)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The server has written something: it has to be right, line by line.
    fn wrote(&mut self, client: usize, bytes: &[u8]) -> Check {
        self.users[client].output.extend(bytes);
        while let Some(end) = self.users[client].output.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.users[client].output.drain(..=end).collect();
            let line = String::from_utf8(line)?;
            self.line(client, line.trim_end())
                .map_err(|error| format!("client {client} is sent {line:.60}: {error}"))?;
        }
        Ok(())
    }

    fn line(&mut self, client: usize, line: &str) -> Check {
        let mut words = line.split(' ');
        let header = words.next().unwrap_or_default();
        if header == "DELIVERY" {
            let from: usize = words.next().and_then(|name| name.strip_prefix('u')).unwrap_or_default().parse()?;
            let number = words.next().unwrap_or_default().parse()?;
            let user = &mut self.users[client];
            let in_order = user.last[from].is_none_or(|last| last < number);
            user.last[from] = Some(number);
            user.delivered.insert((from, number));
            return require(in_order, || "out of order".to_owned());
        }
        let number = self.users[client].answers;
        self.users[client].answers += 1;
        let request = self.users[client].asked.get(number).copied();
        let right = match (header, request) {
            ("HELLO", Some(Request::Hello)) => {
                self.users[client].logged_in = true;
                true
            }
            ("SEND-OK", Some(Request::Send(to, _))) => self.users[to].delivered.contains(&(client, number)),
            ("BAD-DEST-USER", Some(Request::Send(to, present))) => self.users.get(to).is_none_or(|recipient| {
                !recipient.delivered.contains(&(client, number)) && (!present || recipient.is_leaving())
            }),
            ("LIST-OK", Some(Request::List)) => {
                let names = words.next().unwrap_or_default().split(',').filter(|name| !name.is_empty());
                let known = |name: &str| {
                    name[1..].parse().is_ok_and(|n: usize| self.users[n].asked.first() == Some(&Request::Hello))
                };
                self.users[client].logged_in && names.clone().all(known)
            }
            ("BAD-RQST-HDR", Some(_)) if !self.users[client].logged_in => self.users[client].reject(),
            ("BAD-RQST-BODY" | "IN-USE", Some(Request::Hello)) => self.users[client].reject(),
            ("BUSY", _) if number == 0 => self.users[client].reject(), // some at the door
            ("BAD-RQST-HDR" | "BAD-RQST-BODY", Some(Request::Nonsense)) => true,
            _ => false,
        };
        require(right, || format!("that is not the answer to request {number}, {request:?}"))
    }

    /// No client is closed without a reason.
    fn close(&mut self, client: usize, at: Duration) -> Check {
        let user = &mut self.users[client];
        user.closed = true;
        let idle = at - user.last_write;
        let silent = idle >= TIMEOUT && !(self.honest && user.logged_in && user.reads);
        // Without descriptors, those go first whom there was no place for and who wait to be told so.
        let no_room = self.exhausted && user.answers == 0 && user.output.is_empty();
        let reason = user.gone || user.rejected || silent || no_room;
        require(reason, || format!("client {client} is closed for nothing, {idle:?} after the last write"))
    }

    /// All users read, and every request is answered.
    fn end(mut self, report: &mut Report) -> Check {
        self.world.set_faults(Faults::default());
        self.users.iter_mut().for_each(|user| {
            user.reads = true;
            user.client.read();
        });
        self.world.advance(Duration::from_secs(1));
        loop {
            self.world.settle(&mut self.server);
            let read: usize = self.users.iter().map(|user| user.client.read().len()).sum();
            self.check(report)?;
            if read == 0 && !self.world.has_work(&mut self.server) {
                break;
            }
        }
        for user in self.users.iter().filter(|user| !user.gone && !user.closed && !user.rejected) {
            let (number, unread) = (user.client.number(), user.client.unread());
            require(unread == 0, || format!("client {number} is not read: {unread} bytes"))?;
            let (answers, asked) = (user.answers, user.asked.len());
            require(answers == asked, || format!("client {number} has {answers} answers to {asked} requests"))?;
        }
        self.users.iter().for_each(|user| user.client.abort());
        self.world.settle(&mut self.server);
        let open = self.server.stats().open;
        require(open == 0, || format!("{open} are left"))
    }
}

impl User {
    fn new(client: Client) -> User {
        User {
            client,
            left: Vec::new(),
            lines: 1,
            reads: true,
            gone: false,
            asked: Vec::new(),
            input: Vec::new(),
            output: Vec::new(),
            answers: 0,
            delivered: HashSet::new(),
            last: [None; 100],
            logged_in: false,
            rejected: false,
            closed: false,
            last_write: Duration::ZERO,
        }
    }

    /// Sends what is left, or a part of it.
    fn send(&mut self, random: &mut Rng) {
        let n = if random.u8(..3) > 0 { self.left.len() } else { random.usize(..=self.left.len()) };
        let part: Vec<u8> = self.left.drain(..n).collect();
        self.client.send(&part);
    }

    /// The server has read something of what it has sent.
    fn hears(&mut self, bytes: &[u8], present: &[bool]) {
        self.input.extend(bytes);
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |name: &str| name.strip_prefix('u').and_then(|n| n.parse().ok());
            let send = |to: usize| Request::Send(to, present.get(to) == Some(&true));
            self.asked.push(match words[..] {
                ["HELLO-FROM", _] => Request::Hello,
                ["LIST"] => Request::List,
                ["SEND", name, _, ..] => number(name).map_or(Request::Nonsense, send),
                _ => Request::Nonsense,
            });
        }
    }

    /// Returns whether it is gone, or on its way.
    fn is_leaving(&self) -> bool {
        self.gone || self.rejected || self.closed
    }

    fn reject(&mut self) -> bool {
        self.rejected = true;
        true
    }
}
