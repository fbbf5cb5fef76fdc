//! A service that does at random all that a service may do, to every connection it has known: what the
//! loop promises to all services has to hold.

use super::report::{Check, Report, require};
use fastrand::Rng;
use pollstack::net::Address;
use pollstack::sim::{Client, Faults, Sim, World};
use pollstack::{
    CloseReason, Closed, ConnId, Context, EofAction, EventLoop, Limits, ListenerConfig, ListenerId, Overload, Service,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub(super) fn run(seed: u64, world: &World, report: &mut Report) -> Check {
    let mut random = Rng::with_seed(seed ^ 0xA11);
    if random.bool() {
        world.set_buffers(random.usize(1..50), random.usize(1..50));
    }
    world.set_unix(random.u8(..4) == 0);
    world.set_faults(Faults::with_accepts(seed));
    let limits = match random.u8(..3) {
        0 => Limits::default(),
        _ => {
            let (input, output, turn) = (random.usize(1..100), random.usize(1..300), random.usize(1..5000));
            Limits::default().input(input).output(output).turn(turn).accepts(2).lingering(3)
        }
    };
    let overload = match random.u8(..3) {
        0 => Overload::Defer,
        1 => Overload::Reject(b"".into()),
        _ => Overload::EvictOldest { after: Duration::from_secs(1), otherwise: b"".into() },
    };
    let evicts = matches!(overload, Overload::EvictOldest { .. });
    let service = Anything { random: random.fork(), input: limits.input, evicts, ..Anything::default() };
    let defers = matches!(overload, Overload::Defer);
    let mut server = EventLoop::with_net(world.net(), service, limits);
    let (max_conns, outgoing) = (random.usize(1..8), random.usize(1..4));
    server.listen(ListenerConfig::new("127.0.0.1:1".parse()?).max_conns(max_conns).overload(overload))?;
    let id = server.listen(ListenerConfig::unbound().max_conns(outgoing))?;
    server.call(|service, _| service.outgoing = Some(id));
    let mut scenario = Scenario {
        world: world.clone(),
        random,
        server,
        limits,
        max_conns: [max_conns, outgoing],
        defers,
        clients: Vec::new(),
        moved: Vec::new(),
    };
    for _ in 0..scenario.random.usize(20..300) {
        scenario.act();
        scenario.check(report)?;
    }
    scenario.end(report)
}

/// The bytes that it sends to a connection count on from those before, a byte at a time, and so does
/// those of the client: nothing can be lost, doubled or out of order unseen.
#[derive(Default)]
struct Anything {
    random: Rng,
    /// All connections it has ever known.
    known: Vec<ConnId>,
    /// The connections that are open.
    open: BTreeMap<ConnId, State>,
    /// The faults that it has seen.
    wrong: Option<String>,
    /// It has stopped doing things, and takes whatever comes.
    calm: bool,
    /// The most input that may be offered.
    input: usize,
    /// The listener of the connections that it makes, and those that it has not been told of yet.
    outgoing: Option<ListenerId>,
    called: Vec<(ConnId, State)>,
    /// Whether the loop evicts by age, and the connection that was to give way last, for which listener.
    evicts: bool,
    way: Option<(ListenerId, ConnId)>,
    /// The listener for which one has given way, and no other has come in yet.
    owed: Option<ListenerId>,
    /// When its timer goes off, and whether a wake is to come.
    timer: Option<Instant>,
    woken: bool,
}

#[derive(Default)]
struct State {
    listener: Option<ListenerId>,
    deadline: Option<Instant>,
    /// How much was sent to it, and how much was taken of what it has sent.
    sent: u64,
    taken: u64,
    ended: bool,
    /// It has been told that an end follows what is held back.
    announced: bool,
    /// Its output has been shut down.
    shut: bool,
    /// It is being made: it has not been told of an answer.
    connecting: bool,
    finished: bool,
    aborted: bool,
    paused: bool,
    ignored: bool,
}

/// Which connection it is, among those that were opened.
type Number = usize;

impl Anything {
    fn claim(&mut self, holds: bool, text: &str) {
        if !holds {
            self.wrong.get_or_insert_with(|| text.to_owned());
        }
    }

    /// Has an effect at random on a connection.
    fn act(&mut self, cx: &mut Context<'_>, me: Option<ConnId>) {
        if self.known.is_empty() || self.calm {
            return;
        }
        let listed: BTreeSet<ConnId> = cx.connections().collect();
        let made = |(id, state): (&ConnId, &State)| state.connecting || listed.contains(id);
        let right = listed.iter().all(|id| self.open.contains_key(id)) && self.open.iter().all(made);
        self.claim(right, "the connections that are listed are not those that are open");
        let recent = self.random.usize(..self.known.len().min(12));
        let number = self.known.len() - 1 - recent;
        let id = self.known[number];
        let is_open = cx.is_open(id);
        let state = self.open.get_mut(&id);
        let promised = state.as_ref().is_some_and(|state| !state.finished && !state.aborted && !state.shut);
        let exists = state.is_some();
        let ended = cx.has_ended(id);
        let told = state.as_ref().is_none_or(|state| state.ended || state.announced);
        self.claim(ended || !told, "an end is told that has not been read");
        self.claim(is_open == promised, "a connection is open when it should not be, or the other way round");
        self.claim(exists || cx.send_capacity(id) == 0 && cx.peer(id).is_none(), "a closed connection is not");
        let Some(state) = self.open.get_mut(&id) else {
            // Nothing of this reaches a connection.
            let _ = cx.send(id, b"none");
            cx.finish(id);
            cx.abort(id);
            cx.pause(id);
            return cx.set_deadline(id, Some(cx.now()));
        };
        match self.random.u8(..30) {
            0..12 => {
                let bytes = count(state.sent, self.random.usize(..40));
                let shared: Rc<[u8]> = bytes.clone().into();
                let sent = if self.random.bool() { cx.send(id, &bytes) } else { cx.send_shared(id, &shared) };
                state.sent += if sent.is_ok() { bytes.len() as u64 } else { 0 };
            }
            12 => {
                cx.finish(id);
                state.finished = true;
            }
            13 => {
                cx.finish_lingering(id);
                state.finished = true;
            }
            14 => {
                if self.random.bool() {
                    cx.abort(id)
                } else {
                    cx.reset(id)
                }
                state.aborted = true;
            }
            15..17 => {
                cx.pause(id);
                state.paused = true;
            }
            17 => {
                cx.shutdown_write(id);
                state.shut |= !state.finished && !state.aborted;
            }
            18..24 if me != Some(id) => {
                cx.resume(id);
                state.paused = false;
            }
            24..26 => {
                let deadline = cx.now() + Duration::from_millis(self.random.u64(..3000));
                cx.set_deadline(id, Some(deadline));
                state.deadline = Some(deadline);
            }
            26 => {
                cx.set_deadline(id, None);
                state.deadline = None;
            }
            27 if self.random.u8(..4) == 0 => {
                cx.ignore_input(id);
                state.ignored = true;
            }
            28 => {
                self.timer = self.random.bool().then(|| cx.now() + Duration::from_millis(self.random.u64(..3000)));
                cx.set_timer(self.timer);
            }
            29 if self.called.len() < 5 => self.connect(cx),
            _ => {}
        }
    }

    /// Asks for a connection, and does at once what it may do to one.
    fn connect(&mut self, cx: &mut Context<'_>) {
        let listener = if self.random.u8(..9) > 0 { self.outgoing } else { None };
        let id = cx.connect(listener.unwrap_or_else(ListenerId::new), Address::Unix("far".into()));
        let mut state = State { connecting: true, ..State::default() };
        let bytes = count(0, self.random.usize(..40));
        state.sent = if cx.send(id, &bytes).is_ok() { bytes.len() as u64 } else { 0 };
        if self.random.u8(..9) == 0 {
            cx.abort(id);
            state.aborted = true;
        }
        self.called.push((id, state));
    }

    fn acts(&mut self, cx: &mut Context<'_>, me: Option<ConnId>) {
        (0..self.random.usize(..3)).for_each(|_| self.act(cx, me));
    }
}

impl Service for Anything {
    type Conn = Number;

    /// Names any connection, of any listener, or one that has gone, or is still to be made.
    fn make_way(&mut self, listener: ListenerId) -> Option<ConnId> {
        let named = !self.calm && !self.known.is_empty() && self.random.bool();
        let still_to_be_made = self.called.last().map(|(id, _)| *id).filter(|_| self.random.bool());
        let id = named.then(|| still_to_be_made.unwrap_or_else(|| self.known[self.random.usize(..self.known.len())]));
        self.way = id.map(|id| (listener, id));
        id
    }

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> Number {
        let called = self.called.iter().position(|(called, _)| *called == id);
        let state = called.map(|at| self.called.remove(at).1).unwrap_or_default();
        let state = State { listener: Some(listener), ..state };
        self.owed.take_if(|owed| *owed == listener);
        let fresh = self.open.insert(id, state).is_none() && !self.known.contains(&id);
        self.claim(fresh, "an id is given out twice");
        self.known.push(id);
        self.acts(cx, None);
        self.known.len() - 1
    }

    fn on_connect(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut Number) {
        let first = self.open.get_mut(&id).is_some_and(|state| std::mem::take(&mut state.connecting));
        self.claim(first, "an answer is told twice, or of a connection that was not asked for");
        self.acts(cx, None);
    }

    fn on_early_eof(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut Number) {
        let held = self
            .open
            .get_mut(&id)
            .is_some_and(|state| state.paused && !state.ended && !std::mem::replace(&mut state.announced, true));
        self.claim(held, "an early end is told without need");
        self.acts(cx, Some(id));
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        let woken = std::mem::take(&mut self.woken);
        self.claim(woken, "a wake is told that was not");
        self.acts(cx, None);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>) {
        let due = self.timer.take().is_some_and(|at| at <= cx.now());
        self.claim(due, "the timer goes off when it should not");
        self.acts(cx, None);
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, number: &mut Number, input: &[u8]) -> usize {
        let state = self.open.get(&id);
        let wanted = state.is_some_and(|state| !state.paused && !state.finished && !state.ignored && !state.connecting);
        self.claim(wanted, "input comes when it must not");
        self.claim(self.known[*number] == id, "the state of a connection is another's");
        let right = self.open.get(&id).is_some_and(|state| *input == *count(state.taken, input.len()));
        self.claim(right && !input.is_empty(), "input is not what was sent");
        self.claim(input.len() <= self.input, "more input is kept than may be");
        self.acts(cx, Some(id));
        let all = self.calm || self.random.u8(..4) > 0;
        let taken = if all { input.len() } else { self.random.usize(..=input.len()) };
        self.open.entry(id).or_default().taken += taken as u64;
        taken
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut Number) -> EofAction {
        let first = self.open.get_mut(&id).is_some_and(|state| !std::mem::replace(&mut state.ended, true));
        self.claim(first, "the end is told twice");
        self.acts(cx, Some(id));
        let eof = [EofAction::Keep, EofAction::Finish, EofAction::Abort][self.random.usize(..3)];
        let Some(state) = self.open.get_mut(&id) else { return eof };
        state.finished |= eof == EofAction::Finish;
        state.aborted |= eof == EofAction::Abort;
        eof
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut Number) {
        let open = self.open.get(&id).is_some_and(|state| !state.finished && !state.connecting);
        self.claim(open, "a drain is told of a finished connection");
        self.acts(cx, None);
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut Number) {
        let deadline = self.open.get_mut(&id).and_then(|state| state.deadline.take());
        self.claim(deadline.is_some_and(|at| at <= cx.now()), "a deadline fires that was not set");
        self.acts(cx, None);
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, _: Number, closed: Closed) {
        let Some(state) = self.open.remove(&id) else { return self.claim(false, "a close is told twice") };
        self.claim(!cx.is_open(id) && closed.unsent <= state.sent, "more was not sent than was sent");
        let asked = match closed.reason {
            CloseReason::Finished => (state.finished || (state.shut && state.ended)) && closed.unsent == 0,
            CloseReason::Aborted => state.aborted,
            CloseReason::InputFull => !state.paused,
            CloseReason::Evicted => {
                self.evicts || self.way.is_some_and(|way| (state.listener, id) == (Some(way.0), way.1))
            }
            _ => true,
        };
        self.claim(asked, "a connection is closed for a reason that is not true");
        if matches!(closed.reason, CloseReason::Evicted) {
            self.owed = state.listener;
        }
        self.acts(cx, None);
    }
}

/// So many bytes that count on from `from`.
pub(super) fn count(from: u64, n: usize) -> Vec<u8> {
    (from..).take(n).map(|n| n as u8).collect()
}

struct Scenario {
    world: World,
    random: Rng,
    server: EventLoop<Anything, Sim>,
    limits: Limits,
    /// The connections that come in, and those that go out.
    max_conns: [usize; 2],
    /// Its listener accepts only as many as it has places.
    defers: bool,
    clients: Vec<Client>,
    /// How much each has sent and read.
    moved: Vec<(u64, u64)>,
}

impl Scenario {
    fn act(&mut self) {
        match self.random.u8(..100) {
            0..15 => {
                self.clients.push(self.world.connect());
                self.moved.push((0, 0));
            }
            15..35 => self.any(|client, (sent, _), random| {
                let bytes = count(*sent, random.usize(..100));
                *sent += bytes.len() as u64;
                client.send(&bytes);
            }),
            35..40 => self.any(|client, _, _| client.mark()),
            40..45 => self.soon(Client::end),
            45..50 => self.soon(Client::abort),
            50..52 => self.answer(),
            52 => {
                self.server.call(|service, _| service.woken = true);
                self.server.wake();
            }
            53 => self.server.call(|service, cx| service.acts(cx, None)),
            54..58 => self.pass_time(),
            58..61 => self.stall(),
            _ => self.world.turn(&mut self.server),
        }
        if self.random.bool() && !self.clients.is_empty() {
            let (client, n) = (self.random.usize(..self.clients.len()), self.random.usize(1..100));
            self.read(client, n);
        }
    }

    /// The next peer that the server has called answers, or refuses; or it is never heard of.
    fn answer(&mut self) {
        let Some(peer) = self.world.next_outgoing() else { return };
        match self.random.u8(..4) {
            0 => {}
            1 => peer.abort(),
            _ => {
                let (calls, answering) = (self.random.usize(..10), peer.clone());
                self.world.after(calls, move || answering.answer());
            }
        }
        self.clients.push(peer);
        self.moved.push((0, 0));
    }

    fn read(&mut self, client: usize, n: usize) {
        let bytes = self.clients[client].read_at_most(n);
        let right = bytes == count(self.moved[client].1, bytes.len());
        self.moved[client].1 += bytes.len() as u64;
        self.server.call(|service, _| service.claim(right, "a client reads what was not sent to it"));
    }

    /// A client does something, in the middle of a turn perhaps.
    fn soon(&mut self, act: fn(&Client)) {
        let (calls, world) = (self.random.usize(..10), self.world.clone());
        self.any(|client, _, _| {
            let client = client.clone();
            world.after(calls, move || act(&client));
        });
    }

    fn any(&mut self, act: impl FnOnce(&Client, &mut (u64, u64), &mut Rng)) {
        if let Some(last) = self.clients.len().checked_sub(1) {
            let index = last - self.random.usize(..=last.min(12));
            act(&self.clients[index], &mut self.moved[index], &mut self.random);
        }
    }

    /// The host is suspended between a wait and the turn.
    fn stall(&mut self) {
        let (time, world) = (Duration::from_millis(self.random.u64(..2000)), self.world.clone());
        self.world.turn_after(&mut self.server, || world.advance(time));
    }

    /// Deadlines that have passed are met in the next turn, however busy that is.
    fn pass_time(&mut self) {
        self.world.advance(Duration::from_millis(self.random.u64(..2000)));
        self.world.turn(&mut self.server);
        let now = self.world.now();
        let missed = self.server.service().open.values().any(|state| state.deadline.is_some_and(|at| at < now));
        let late = self.server.service().timer.is_some_and(|at| at < now);
        if missed || late || self.server.service().woken {
            self.server.call(|service, _| service.claim(false, "a deadline, a timer or a wake is missed"));
        }
    }

    fn check(&mut self, report: &mut Report) -> Check {
        report.listen(&self.world);
        let (stats, service) = (self.server.stats(), self.server.service());
        require(service.wrong.is_none(), || service.wrong.clone().unwrap_or_default())?;
        require(stats.open == service.open.len(), || format!("{} are open: {stats:?}", service.open.len()))?;
        let outgoing = service.open.values().filter(|state| state.listener == service.outgoing).count();
        let [most_in, most_out] = self.max_conns;
        let fits = outgoing <= most_out && stats.open - outgoing <= most_in;
        require(fits, || format!("more are in than may be: {outgoing} of {stats:?} are outgoing"))?;
        require(service.owed.is_none(), || "a connection has given way for nothing".to_owned())?;
        let lingering = self.limits.lingering.max(1);
        require(stats.lingering <= lingering, || format!("more linger than may: {stats:?}"))
    }

    fn settle(&mut self, report: &mut Report) -> Check {
        loop {
            self.world.settle(&mut self.server);
            (0..self.clients.len()).for_each(|client| self.read(client, usize::MAX));
            self.check(report)?;
            if !self.world.has_work(&mut self.server) {
                return Ok(());
            }
        }
    }

    /// A stop. Those in the backlog came before it, and are let in or rejected, be it with the
    /// descriptors that come free meanwhile.
    fn stop(&mut self, report: &mut Report) -> Check {
        for _ in 0..self.random.usize(..5) {
            self.clients.push(self.world.connect());
            self.moved.push((0, 0));
        }
        let accepts = self.random.usize(..6);
        self.world.fail_accepts(std::iter::repeat_n(ErrorKind::Other, accepts));
        self.server.stop(Duration::from_secs(1));
        for _ in 0..=accepts {
            self.settle(report)?;
            self.world.advance(Duration::from_millis(100));
        }
        let incoming = self.clients.iter().filter(|client| !client.was_called());
        let forgotten = incoming.filter(|client| !client.is_accepted() && !client.was_lost());
        let forgotten = forgotten.filter(|_| !self.defers).map(Client::number).next();
        require(forgotten.is_none(), || format!("client {forgotten:?} is reset in the backlog"))
    }

    /// Without faults, all clients go, and nothing is left.
    fn end(mut self, report: &mut Report) -> Check {
        self.world.set_faults(Faults::default());
        self.world.advance(Duration::from_secs(1));
        self.server.call(|service, _| service.calm = true);
        self.settle(report)?;
        self.server.call(|service, cx| {
            let untold = service.open.iter().any(|(id, state)| {
                cx.has_ended(*id) && state.paused && !state.ended && !state.announced && !state.ignored
            });
            service.claim(!untold, "the end of a paused connection is not told at rest");
            service.open.iter_mut().for_each(|(id, state)| {
                cx.resume(*id);
                state.paused = false;
            });
        });
        self.settle(report)?;
        let over = self.server.service().open.values().any(|state| state.shut && state.ended);
        require(!over, || "a connection whose halves have both ended is open at rest".to_owned())?;
        // Clients that wait now wait in the backlog.
        let unread = self.clients.iter().filter(|client| client.is_accepted() && !client.is_closed());
        let unread = unread.filter(|client| client.unread() > 0).map(Client::number).next();
        require(unread.is_none(), || format!("client {unread:?} is not read at rest"))?;
        self.stop(report)?;
        self.clients.iter().for_each(Client::end);
        for _ in 0..3 {
            self.settle(report)?;
            self.world.advance(Duration::from_secs(5));
        }
        require(self.server.is_stopped(), || format!("it does not stop: {:?}", self.server.stats()))?;
        require(self.server.service().open.is_empty(), || "a close is not told".to_owned())
    }
}
