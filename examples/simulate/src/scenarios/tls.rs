//! A service on a loop with TLS, whose peers drive their sessions by hand: both versions, both directions, every
//! end, and clients that do not speak it.

use super::chaos::count;
use super::report::{Check, Report, require};
use super::tls_peer::{Manner, Peer, configs};
use fastrand::Rng;
use pollstack::net::{self, Address};
use pollstack::sim::{Event, Fault, Faults, Sim, World};
use pollstack::tls::{Client, HANDSHAKE_BYTES, Identity, Tls};
use pollstack::{
    CloseReason, Closed, ConnId, ConnMap, Context, EofAction, EventLoop, Limits, ListenerConfig, ListenerId, Overload,
    Service,
};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a connection may take until its first byte.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How many connections each listener has places for.
const PLACES: usize = 4;

/// How many peers there are in a world at the most: handshakes are dear.
const PEERS: usize = 6;

/// Bytes that one read may take of a handshake. The read that sees that it is too long may be repeated.
const READ: usize = 17 * 1024;

/// Bytes that a client reads that is rejected.
const REJECTION: usize = 20;

pub(super) fn run(seed: u64, world: &World, report: &mut Report) -> Check {
    let mut random = Rng::with_seed(seed ^ 0x715);
    let narrow = random.bool();
    if narrow {
        world.set_buffers(random.usize(50..3000), random.usize(50..3000));
        world.set_window(random.usize(50..3000));
    }
    let unix = random.u8(..4) == 0;
    world.set_unix(unix);
    let faults = Faults::random(seed);
    world.set_faults(faults);
    let limits = match random.u8(..3) {
        0 => Limits::default(),
        _ => Limits::default()
            .input(random.usize(1..3000))
            .output(random.usize(REJECTION..30_000))
            .turn(random.usize(1..20_000)),
    };
    let outgoing = ListenerId::new();
    let service = Talker::new(random.fork(), outgoing, !narrow);
    let mut server = EventLoop::with_net(Tls::new(world.net()), service, limits);
    server.net_mut().set_identity(Some(Identity::new(Arc::clone(&configs()?.server))));
    server.net_mut().set_client(Some(Client::new(Arc::clone(&configs()?.client))));
    let overload = Overload::Reject(count(0, REJECTION).into());
    server.listen(ListenerConfig::new("127.0.0.1:1".parse()?).max_conns(PLACES).overload(overload))?;
    server.listen(ListenerConfig::unbound().id(outgoing).max_conns(2 * PEERS))?;
    let one_in = |fault| faults.one_in(fault) > 0;
    let writes_fail = [Fault::WouldBlock, Fault::FreshWouldBlock, Fault::Interrupted, Fault::ShortWrite].map(one_in);
    let scenario = Scenario {
        world: world.clone(),
        waits: random.bool(),
        answers_http: !narrow && !writes_fail.contains(&true),
        random,
        server,
        peers: Vec::new(),
        accepted: Vec::new(),
        called: Vec::new(),
    };
    scenario.play(report)
}

/// One connection, as the service sees it.
#[derive(Default)]
struct Talk {
    sent: u64,
    taken: u64,
    deadline: Option<Instant>,
    paused: bool,
    /// The peer's end has been told.
    heard_end: bool,
    /// Our half is to end behind what was sent, or the whole connection.
    shut: bool,
    finished: bool,
    aborted: bool,
    closed: bool,
    failed: Option<String>,
}

impl Talk {
    fn can_send(&self) -> bool {
        !self.shut && !self.finished && !self.aborted && !self.closed
    }
}

/// Sends to every connection bytes that count on, and does the rest that a service may do, at random.
struct Talker {
    random: Rng,
    outgoing: ListenerId,
    /// It may finish connections, with bytes on their way.
    finishes: bool,
    /// It has stopped doing things.
    calm: bool,
    talks: Vec<Talk>,
    open: BTreeMap<ConnId, usize>,
    /// How many clients have been let in or rejected, and the talks of those that were let in.
    decided: Cell<usize>,
    incoming: BTreeMap<usize, usize>,
    /// The connections that it has begun, and their talks.
    begun: VecDeque<usize>,
    called: ConnMap<usize>,
    wrong: Option<String>,
}

impl Talker {
    fn new(random: Rng, outgoing: ListenerId, finishes: bool) -> Talker {
        let (talks, open, decided, incoming) = (Vec::new(), BTreeMap::new(), Cell::new(0), BTreeMap::new());
        let (begun, called, wrong, calm) = (VecDeque::new(), ConnMap::new(), None, false);
        Talker { random, outgoing, finishes, calm, talks, open, decided, incoming, begun, called, wrong }
    }

    fn claim(&mut self, holds: bool, text: &str) {
        if !holds {
            self.wrong.get_or_insert_with(|| text.to_owned());
        }
    }

    fn begin(&mut self, cx: &mut Context<'_>, id: ConnId) -> usize {
        let deadline = cx.now().checked_add(TIMEOUT);
        cx.set_deadline(id, deadline);
        self.talks.push(Talk { deadline, ..Talk::default() });
        self.open.insert(id, self.talks.len() - 1);
        self.talks.len() - 1
    }

    fn connect(&mut self, cx: &mut Context<'_>) {
        let Ok(address) = "127.0.0.1:2".parse::<Address>() else { return };
        let id = cx.connect(self.outgoing, address);
        let talk = self.begin(cx, id);
        self.begun.push_back(talk);
        self.called.insert(id, talk);
        match self.random.u8(..4) {
            0 => {}
            1 if self.finishes => {
                self.send(cx, id, talk);
                self.finish(cx, id, talk);
            }
            _ => self.send(cx, id, talk),
        }
    }

    /// Does a few things with a connection.
    fn act(&mut self, cx: &mut Context<'_>, id: ConnId, talk: usize) {
        for _ in 0..self.random.usize(..3) {
            self.act_once(cx, id, talk);
        }
    }

    fn act_once(&mut self, cx: &mut Context<'_>, id: ConnId, talk: usize) {
        let state = &mut self.talks[talk];
        if self.calm || state.finished || state.aborted || state.closed {
            return;
        }
        match self.random.u8(..24) {
            0..10 if state.can_send() => self.send(cx, id, talk),
            10 => {
                cx.pause(id);
                state.paused = true;
            }
            11..14 => {
                cx.resume(id);
                state.paused = false;
            }
            14 if self.random.u8(..3) == 0 => {
                cx.shutdown_write(id);
                state.shut = true;
            }
            15 if self.finishes && self.random.u8(..3) == 0 => self.finish(cx, id, talk),
            16 if self.random.u8(..8) == 0 => {
                match self.random.bool() {
                    true => cx.reset(id),
                    false => cx.abort(id),
                }
                self.talks[talk].aborted = true;
            }
            _ => {}
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, id: ConnId, talk: usize) {
        let most = [50, 3000, 40_000][self.random.usize(..3)];
        let n = self.random.usize(..most).min(cx.send_capacity(id));
        let state = &mut self.talks[talk];
        if cx.send(id, &count(state.sent, n)).is_ok() {
            state.sent += n as u64;
        }
    }

    fn finish(&mut self, cx: &mut Context<'_>, id: ConnId, talk: usize) {
        cx.finish(id);
        self.talks[talk].finished = true;
    }
}

impl Service for Talker {
    /// The talk.
    type Conn = usize;

    fn is_welcome(&self, listener: ListenerId, _: &net::Peer) -> bool {
        self.decided.set(self.decided.get() + usize::from(listener != self.outgoing));
        true
    }

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> usize {
        if listener == self.outgoing {
            return self.called.get(id).copied().unwrap_or_default();
        }
        let talk = self.begin(cx, id);
        self.incoming.insert(self.decided.get() - 1, talk);
        self.act(cx, id, talk);
        talk
    }

    fn on_connect(&mut self, cx: &mut Context<'_>, id: ConnId, talk: &mut usize) {
        self.act(cx, id, *talk);
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, talk: &mut usize, input: &[u8]) -> usize {
        let state = &mut self.talks[*talk];
        cx.set_deadline(id, None);
        state.deadline = None;
        let wanted = !state.paused && !state.finished && !state.aborted && !state.heard_end;
        let right = *input == *count(state.taken, input.len());
        self.claim(wanted, "input comes when it must not");
        self.claim(right, "the service is given other bytes than were sent");
        self.act(cx, id, *talk);
        let state = &mut self.talks[*talk];
        let all = self.calm || self.random.u8(..4) > 0;
        let taken = if all { input.len() } else { self.random.usize(..=input.len()) };
        state.taken += taken as u64;
        if taken < input.len() {
            cx.pause(id);
            state.paused = true;
        }
        taken
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, talk: &mut usize) {
        self.act(cx, id, *talk);
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, id: ConnId, talk: &mut usize) -> EofAction {
        self.talks[*talk].heard_end = true;
        self.act(cx, id, *talk);
        EofAction::Keep
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, talk: &mut usize) {
        let due = self.talks[*talk].deadline.take().is_some_and(|at| at <= cx.now());
        self.claim(due, "a deadline fires that was not set");
        cx.abort(id);
        self.talks[*talk].aborted = true;
    }

    fn on_close(&mut self, _: &mut Context<'_>, id: ConnId, talk: usize, closed: Closed) {
        let state = &mut self.talks[talk];
        let known = self.open.remove(&id).is_some() && !state.closed;
        (state.closed, state.deadline) = (true, None);
        let right = match closed.reason {
            CloseReason::Finished => closed.unsent == 0 && (state.finished || (state.shut && state.heard_end)),
            CloseReason::Aborted => state.aborted,
            CloseReason::Failed(error) => {
                state.failed = Some(error.to_string());
                true
            }
            _ => false,
        };
        self.claim(known && right, "a connection is closed for a reason that is not true");
    }
}

struct Scenario {
    world: World,
    random: Rng,
    server: EventLoop<Talker, Tls<Sim>>,
    /// Time passes only in some worlds.
    waits: bool,
    /// The answer to plain HTTP finds room at once.
    answers_http: bool,
    peers: Vec<Peer>,
    /// The peers in the order in which they were accepted, and connected to.
    accepted: Vec<usize>,
    called: Vec<usize>,
}

impl Scenario {
    fn play(mut self, report: &mut Report) -> Check {
        for _ in 0..self.random.usize(20..200) {
            self.act()?;
            self.check(report)?;
        }
        self.world.set_faults(Faults::default());
        self.settle(report)?;
        self.check_at_rest()?;
        self.end(report)
    }

    fn act(&mut self) -> Check {
        match self.random.u8(..40) {
            0..2 if self.peers.len() < PEERS => self.connect()?,
            2 if self.peers.len() < PEERS => self.server.call(|service, cx| service.connect(cx)),
            3..6 => self.server.call(|service, cx| {
                let open: Vec<(ConnId, usize)> = service.open.iter().map(|(id, talk)| (*id, *talk)).collect();
                open.into_iter().for_each(|(id, talk)| service.act(cx, id, talk));
            }),
            6..11 => {
                let n = [10, 500, 20_000][self.random.usize(..3)];
                let n = self.random.usize(..n);
                self.any(|peer| peer.send(n));
            }
            11 if self.random.bool() => self.any(Peer::notify),
            12 if self.random.u8(..4) == 0 => self.any(Peer::end),
            13 => self.any(|peer| {
                if peer.notified {
                    peer.end();
                }
            }),
            14 if self.random.u8(..3) == 0 => self.any(Peer::rave),
            15 if self.random.u8(..6) == 0 => self.any(Peer::abort),
            16 if self.waits => self.pass_time(),
            17..20 => self.any_piece(Peer::say),
            20..24 => {
                let mut result = Ok(());
                self.any_piece(|peer, n| result = peer.hear(n));
                return result;
            }
            _ => self.world.turn(&mut self.server),
        }
        self.meet()
    }

    fn connect(&mut self) -> Check {
        let manner = match self.random.u8(..12) {
            0 => Manner::Stalls(self.random.usize(..500)),
            1 => Manner::Plain,
            2 => Manner::Http,
            3 => Manner::Endless,
            _ => Manner::Right,
        };
        self.peers.push(Peer::client(self.world.connect(), manner, &mut self.random)?);
        Ok(())
    }

    /// The peers that our loop has begun to connect to answer, soon.
    fn meet(&mut self) -> Check {
        while let Some(wire) = self.world.next_outgoing() {
            let (calls, answering) = (self.random.usize(..20), wire.clone());
            self.world.after(calls, move || answering.answer());
            let manner =
                if self.random.u8(..8) == 0 { Manner::Stalls(self.random.usize(..700)) } else { Manner::Right };
            self.called.push(self.peers.len());
            self.peers.push(Peer::server(wire, manner, &mut self.random)?);
        }
        Ok(())
    }

    fn any(&mut self, act: impl FnOnce(&mut Peer)) {
        if !self.peers.is_empty() {
            let at = self.random.usize(..self.peers.len());
            act(&mut self.peers[at]);
        }
    }

    /// A peer moves a part of its ciphertext, or all of it.
    fn any_piece(&mut self, act: impl FnOnce(&mut Peer, usize)) {
        let n = [2, 300, 20_000, usize::MAX][self.random.usize(..4)];
        let n = self.random.usize(1..=n.min(1 << 20));
        self.any(|peer| act(peer, n));
    }

    /// Deadlines that have passed are met in the next turn, however far the handshake is.
    fn pass_time(&mut self) {
        self.world.advance(Duration::from_millis(self.random.u64(..4000)));
        self.world.turn(&mut self.server);
        let now = self.world.now();
        self.server.call(|service, _| {
            let late = service.talks.iter().any(|talk| !talk.finished && talk.deadline.is_some_and(|at| at < now));
            service.claim(!late, "a handshake that is late is waited for");
        });
    }

    fn check(&mut self, report: &mut Report) -> Check {
        for entry in report.listen(&self.world) {
            let Some(peer) = self.peers.iter().position(|peer| peer.wire.number() == entry.client) else { continue };
            match &entry.event {
                Event::Accepted => self.accepted.push(peer),
                Event::Read(bytes) => self.peers[peer].taken += bytes.len(),
                Event::Shut => self.peers[peer].has_end = true,
                _ => {}
            }
        }
        let service = self.server.service();
        require(service.wrong.is_none(), || service.wrong.clone().unwrap_or_default())?;
        for peer in &self.peers {
            let (taken, number) = (peer.taken, peer.wire.number());
            let bounded = peer.manner != Manner::Endless || taken <= HANDSHAKE_BYTES + 3 * READ;
            require(bounded, || format!("client {number} is read {taken} bytes of a handshake"))?;
        }
        Ok(())
    }

    /// Has turns, and all peers say and hear everything, until nothing more comes.
    fn settle(&mut self, report: &mut Report) -> Check {
        loop {
            self.world.settle(&mut self.server);
            self.check(report)?;
            let progress = |peers: &[Peer]| peers.iter().map(Peer::moved).sum::<usize>();
            let before = (report.known(), progress(&self.peers));
            for peer in &mut self.peers {
                peer.hear(usize::MAX)?;
                peer.say(usize::MAX);
            }
            self.meet()?;
            self.check(report)?;
            if before == (report.known(), progress(&self.peers)) && !self.world.has_work(&mut self.server) {
                return Ok(());
            }
        }
    }

    /// The pairs of a peer and its talk; peers that were rejected have none.
    fn pairs(&self) -> Vec<(&Peer, Option<&Talk>)> {
        let service = self.server.service();
        let incoming = self.accepted.iter().enumerate().map(|(n, peer)| (*peer, service.incoming.get(&n)));
        let outgoing = self.called.iter().zip(&service.begun).map(|(peer, talk)| (*peer, Some(talk)));
        let pairs = incoming.chain(outgoing);
        pairs.map(|(peer, talk)| (&self.peers[peer], talk.map(|talk| &service.talks[*talk]))).collect()
    }

    fn check_at_rest(&self) -> Check {
        for (peer, talk) in self.pairs() {
            let number = peer.wire.number();
            let told = !self.answers_http || peer.manner != Manner::Http || talk.is_none() || peer.was_told_of_tls();
            require(told || peer.aborted || peer.ended, || format!("client {number} is not told to speak TLS"))?;
            match talk {
                Some(talk) if peer.has_cut() => {
                    require(!talk.heard_end, || format!("client {number} is cut, and that passes for its end"))?;
                }
                Some(talk) if peer.is_right() && !talk.aborted => self.check_pair(peer, talk)?,
                None if peer.is_right() && !self.waits => {
                    let right = peer.read == REJECTION as u64 && ends_rightly(peer);
                    require(right, || format!("client {number} is rejected with {} bytes", peer.read))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks a connection that neither side has cut.
    fn check_pair(&self, peer: &Peer, talk: &Talk) -> Check {
        let number = peer.wire.number();
        let failed = talk.failed.as_ref().or(peer.failed.as_ref());
        require(failed.is_none(), || format!("client {number} fails: {}", failed.cloned().unwrap_or_default()))?;
        if self.waits && talk.finished && talk.closed && !peer.has_end {
            return Ok(()); // it took longer than a connection may linger
        }
        require(!peer.is_handshaking(), || format!("client {number} waits in its handshake"))?;
        require(peer.read == talk.sent, || format!("client {number} has {} of {} bytes", peer.read, talk.sent))?;
        if talk.shut || talk.finished {
            require(ends_rightly(peer), || format!("client {number} is not told the end rightly"))?;
        }
        if !talk.paused && !talk.finished {
            let (taken, sent) = (talk.taken, peer.sent);
            require(taken == sent, || format!("{taken} of {sent} bytes of client {number} are taken"))?;
            let right = talk.heard_end == peer.notified;
            require(right, || format!("the end of client {number} is told: {}", talk.heard_end))?;
        }
        Ok(())
    }

    /// All that is left is read, and all that was not ended is; those that stall are late. Then nothing is left.
    fn end(mut self, report: &mut Report) -> Check {
        self.server.call(|service, cx| {
            service.calm = true;
            service.open.iter().for_each(|(id, talk)| {
                cx.resume(*id);
                service.talks[*talk].paused = false;
            });
        });
        self.settle(report)?;
        self.check_at_rest()?;
        self.peers.iter_mut().for_each(Peer::notify);
        self.settle(report)?;
        self.server.call(|service, cx| {
            let open: Vec<(ConnId, usize)> = service.open.iter().map(|(id, talk)| (*id, *talk)).collect();
            let established = open.into_iter().filter(|(_, talk)| service.talks[*talk].deadline.is_none());
            established.collect::<Vec<_>>().into_iter().for_each(|(id, talk)| service.finish(cx, id, talk));
        });
        self.settle(report)?;
        self.check_at_rest()?;
        for _ in 0..2 {
            self.world.advance(TIMEOUT);
            self.settle(report)?;
        }
        let stats = self.server.stats();
        require(stats.open == 0 && stats.lingering == 0, || format!("connections are left: {stats:?}"))?;
        let open = self.pairs().into_iter().filter(|(peer, _)| !peer.wire.is_closed() && !peer.aborted);
        let open = open.map(|(peer, _)| peer.wire.number()).next();
        require(open.is_none(), || format!("client {open:?} is open at the end"))?;
        self.server.stop(Duration::ZERO);
        self.settle(report)?;
        require(self.server.is_stopped(), || "it does not stop".to_owned())
    }
}

/// Returns whether a peer has heard that our side sends no more, and the end of the stream has followed.
fn ends_rightly(peer: &Peer) -> bool {
    peer.heard_notify && peer.has_end
}
