//! Clients that stay: echo with any size and depth, and many senders to one reader in the chat.

use crate::clients::{Tally, connect};
use crate::protocol::Outcome;
use pollstack::net::{Peer, Stream};
use pollstack::{Closed, ConnId, Context, EventLoop, Limits, ListenerConfig, ListenerId, Service};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};
use test_support::machine::{self, Placement};

/// A load of messages on connections that stay.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Messages {
    /// Each client has so many messages of so many bytes under way, and wants them back.
    Echo { clients: usize, bytes: usize, depth: usize },
    /// All clients but one send to that one, each with so many messages under way.
    FanIn { clients: usize, bytes: usize, depth: usize },
}

impl Messages {
    pub(crate) fn clients(self) -> usize {
        match self {
            Messages::Echo { clients, .. } | Messages::FanIn { clients, .. } => clients,
        }
    }

    /// Returns how many messages take about as long as so many requests do.
    pub(crate) fn scaled(self, requests: usize) -> usize {
        match self {
            Messages::Echo { bytes: 65_536.., .. } => requests / 25,
            Messages::Echo { depth, .. } | Messages::FanIn { depth, .. } => requests * 2 * depth.min(4),
        }
    }
}

/// The clients of one server, for as many runs as are wanted.
pub(crate) struct PersistentClients {
    poll: mio::Poll,
    events: mio::Events,
    clients: EventLoop<Speakers>,
    placement: Placement,
}

impl PersistentClients {
    /// Connects, and logs in where the server asks for it.
    pub(crate) fn connect(server: SocketAddr, messages: Messages) -> io::Result<PersistentClients> {
        let poll = mio::Poll::new()?;
        let limits = Limits::default().output(32 << 20).turn(4 << 20);
        let speakers = Speakers::new(messages);
        let mut clients = EventLoop::embedded(speakers, limits, poll.registry(), 0..8192)?;
        let outgoing = clients.listen(ListenerConfig::unbound().max_conns(messages.clients()))?;
        for n in 0..messages.clients() {
            let stream = connect(server, n)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            clients.adopt(outgoing, Stream::Tcp(mio::net::TcpStream::from_std(stream)), Peer::Tcp(server))?;
        }
        let events = mio::Events::with_capacity(1024);
        let mut persistent_clients = PersistentClients { poll, events, clients, placement: Placement::Apart };
        persistent_clients.until(|speakers| speakers.ready == messages.clients())?;
        Ok(persistent_clients)
    }

    /// Responder so many messages.
    pub(crate) fn run(&mut self, messages: usize, placement: Placement) -> io::Result<Tally> {
        self.placement = placement;
        self.clients.call(|speakers, cx| {
            speakers.to_send = messages;
            speakers.delivered = 0;
            speakers.tally = Tally::new();
            let ids = speakers.ids.clone();
            ids.into_iter().enumerate().for_each(|(number, id)| speakers.fill(cx, id, number));
        });
        let arrive = matches!(self.clients.service().messages, Messages::FanIn { .. });
        self.until(|speakers| {
            speakers.tally.requests() as usize >= messages && (!arrive || speakers.delivered == messages)
        })?;
        Ok(self.clients.call(|speakers, _| speakers.tally.clone()))
    }

    fn until(&mut self, over: impl Fn(&Speakers) -> bool) -> io::Result<()> {
        let start = Instant::now();
        loop {
            self.clients.turn();
            if over(self.clients.service()) {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(60) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer"));
            }
            if self.placement == Placement::Limit {
                thread::sleep(machine::NAP);
            }
            let longest = Duration::from_millis(500);
            let timeout = self.clients.timeout().map_or(longest, |timeout| timeout.min(longest));
            self.poll.poll(&mut self.events, Some(timeout))?;
            for event in &self.events {
                self.clients.handle_event(event);
            }
        }
    }
}

/// The service of these clients.
struct Speakers {
    messages: Messages,
    /// In the order in which they were opened; the first is the reader of the chat.
    ids: Vec<ConnId>,
    /// When each message under way was sent, client by client.
    under_way: Vec<VecDeque<Instant>>,
    /// The message of a client, as often as it may send it.
    words: Rc<[u8]>,
    ready: usize,
    to_send: usize,
    /// Messages that have reached the reader of the chat.
    delivered: usize,
    tally: Tally,
}

impl Speakers {
    fn new(messages: Messages) -> Speakers {
        let words = match messages {
            Messages::Echo { bytes, .. } => (0..bytes).map(|n| n as u8).collect(),
            Messages::FanIn { bytes, .. } => format!("SEND u0 {}\n", "x".repeat(bytes)).into_bytes().into(),
        };
        let tally = Tally::new();
        Speakers { messages, ids: vec![], under_way: vec![], words, ready: 0, to_send: 0, delivered: 0, tally }
    }

    fn depth(&self, number: usize) -> usize {
        match self.messages {
            Messages::Echo { depth, .. } => depth,
            Messages::FanIn { .. } if number == 0 => 0,
            Messages::FanIn { depth, .. } => depth,
        }
    }

    /// Sends as many messages as the client may have under way. Short ones go out in one piece,
    /// as those of a pipelining client do.
    fn fill(&mut self, cx: &mut Context<'_>, id: ConnId, number: usize) {
        while self.to_send > 0 && self.under_way[number].len() < self.depth(number) {
            let sent = match self.words.len() {
                0..4096 => cx.send(id, &self.words),
                _ => cx.send_shared(id, &self.words),
            };
            if sent.is_err() {
                return;
            }
            self.to_send -= 1;
            self.under_way[number].push_back(Instant::now());
        }
    }

    /// Notes that the oldest message of a client has been answered.
    fn answered(&mut self, number: usize, outcome: Outcome) {
        if let Some(sent) = self.under_way[number].pop_front() {
            self.tally.record(outcome, sent);
        }
    }

    /// Counts whole messages that came back; `at` is how much of the current one has.
    fn hear_echo(&mut self, number: usize, at: &mut usize, mut input: &[u8]) {
        while !input.is_empty() {
            let n = input.len().min(self.words.len() - *at);
            let (now, rest) = input.split_at(n);
            let right = now == &self.words[*at..*at + n];
            *at += n;
            input = rest;
            if !right || *at == self.words.len() {
                *at = 0;
                self.answered(number, if right { Outcome::Served } else { Outcome::Wrong });
            }
        }
    }

    /// Counts confirmations; returns how much of the input is whole lines.
    fn hear_chat(&mut self, number: usize, input: &[u8]) -> usize {
        let mut taken = 0;
        for line in input.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            taken += line.len();
            match line {
                _ if line.starts_with(b"HELLO ") => self.ready += 1,
                _ if line.starts_with(b"DELIVERY ") && number == 0 => self.delivered += 1,
                b"SEND-OK\n" => self.answered(number, Outcome::Served),
                _ => self.answered(number, Outcome::Wrong),
            }
        }
        taken
    }
}

impl Service for Speakers {
    /// Its number, and how much of a message has come back.
    type Conn = (usize, usize);

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) -> (usize, usize) {
        let number = self.ids.len();
        self.ids.push(id);
        self.under_way.push(VecDeque::new());
        match self.messages {
            Messages::Echo { .. } => self.ready += 1,
            Messages::FanIn { .. } => drop(cx.send(id, format!("HELLO-FROM u{number}\n").as_bytes())),
        }
        (number, 0)
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn, input: &[u8]) -> usize {
        let (number, at) = conn;
        let taken = match self.messages {
            Messages::Echo { .. } => {
                self.hear_echo(*number, at, input);
                input.len()
            }
            Messages::FanIn { .. } => self.hear_chat(*number, input),
        };
        self.fill(cx, id, *number);
        taken
    }

    fn on_close(&mut self, _: &mut Context<'_>, _: ConnId, conn: Self::Conn, _: Closed) {
        while !self.under_way[conn.0].is_empty() {
            self.answered(conn.0, Outcome::Wrong);
        }
    }
}
