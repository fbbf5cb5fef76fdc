//! Both halves as one service of one loop.

use super::face::{Ask, CLIENTS, Face, News};
use super::metrics::{self, EngineState, Text};
use crate::context::Context;
use crate::http::{Clock, Conn, ExchangeId, Guard, Http, Responder, Status};
use crate::id::{ConnId, ListenerId};
use crate::net::Peer;
use crate::service::{Closed, EofAction, Service};
use crate::stack::{Answer, ClientId, ClientState, Guest, StackService};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// How often the live page is told what has changed.
const TICK: Duration = Duration::from_secs(1);

/// The live page: one file.
const PAGE: &str = include_str!("page.html");

/// A [`StackService`], and an HTTP face of it on a listener of its own.
///
/// Requests of both kinds of clients wait in the same lines, in one order of arrival.
#[derive(Debug)]
pub struct Operated {
    stack: StackService,
    http: Http<Face>,
    face: ListenerId,
    limits: Places,
    start: Instant,
    /// The requests that wait, or are being decided.
    guests: HashMap<ExchangeId, Guest>,
    exchanges: HashMap<Guest, (ExchangeId, ConnId)>,
    /// Popped items whose responses are not known to be the kernel's, by connection.
    in_flight: HashMap<ConnId, Guest>,
    /// How many connections the face has.
    conns: usize,
    /// The live pages.
    watchers: HashSet<ExchangeId>,
    /// When they are told what has changed.
    tick: Option<Instant>,
    /// The engine that has the stack, if one has.
    engine: Option<EngineState>,
    /// Why it cannot go on.
    failure: Option<String>,
}

/// The most clients of each kind. Its fields are all there are.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Clients of the stack's own protocol.
    pub stack: usize,
    /// Connections of the face.
    pub face: usize,
}

/// The state of a connection.
#[derive(Debug)]
pub struct OperatedConn(Kind);

#[derive(Debug)]
enum Kind {
    Stack(usize),
    Face(Conn),
}

impl Operated {
    /// Serves `stack`, and its face on the listener `face`, whose requests `guard` checks.
    pub fn new(stack: StackService, face: ListenerId, guard: Guard, limits: Places, start: Instant) -> Operated {
        let http = Http::new(Face::new(guard), Clock::system()).server("pollstack");
        let (guests, exchanges, in_flight, watchers) = Default::default();
        Operated {
            stack,
            http,
            face,
            limits,
            start,
            guests,
            exchanges,
            in_flight,
            conns: 0,
            watchers,
            tick: None,
            engine: None,
            failure: None,
        }
    }

    /// Returns the stack.
    pub fn stack(&self) -> &StackService {
        &self.stack
    }

    /// Returns the stack, to be changed.
    pub fn stack_mut(&mut self) -> &mut StackService {
        &mut self.stack
    }

    /// Calls the stack, and answers what it has decided.
    pub fn on_stack<R>(
        &mut self,
        cx: &mut Context<'_>,
        call: impl FnOnce(&mut StackService, &mut Context<'_>) -> R,
    ) -> R {
        let result = call(&mut self.stack, cx);
        self.settle(cx);
        result
    }

    /// The engine of the stack has taken this edge for dead ([`StackService::expire`]).
    pub fn expire(&mut self, cx: &mut Context<'_>, edge: u64) {
        self.in_flight.keys().for_each(|id| cx.abort(*id));
        self.on_stack(cx, |stack, cx| stack.expire(cx, edge));
    }

    /// Tells how the engine of the stack does.
    pub fn set_engine(&mut self, state: &EngineState) {
        if self.engine.as_ref() != Some(state) {
            self.engine = Some(state.clone());
        }
    }

    /// Notes why the stack cannot go on.
    pub fn fail(&mut self, why: String) {
        self.failure = Some(why);
    }

    /// Returns why the stack cannot go on; `None` if it can.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Returns when the [timer](Service::on_timer) is due. There is one for the loop: a service around this
    /// one sets it to the sooner of its own and this.
    pub fn timer(&self) -> Option<Instant> {
        self.tick
    }

    fn set_tick(&mut self, cx: &mut Context<'_>, at: Option<Instant>) {
        self.tick = at;
        cx.set_timer(at);
    }

    /// Returns why the service cannot do all it is for.
    fn trouble(&self) -> Option<String> {
        let disk = self.stack.trouble().map(|trouble| format!("the data cannot be written: {}", trouble.reason));
        let engine = || self.engine.as_ref()?.trouble.as_ref().map(|why| format!("the engine does not answer: {why}"));
        disk.or_else(engine)
    }

    /// Carries out what the face was asked for, and answers what the stack has decided.
    fn settle(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(news) = self.http.handler_mut().news.pop_front() {
                self.hear(cx, news);
            } else if !self.answer_next(cx) {
                return;
            }
        }
    }

    fn hear(&mut self, cx: &mut Context<'_>, news: News) {
        match news {
            News::Asked(id, ask) => self.ask(cx, id, ask),
            News::Ended(id) => {
                self.watchers.remove(&id);
                if let Some(guest) = self.guests.remove(&id) {
                    self.exchanges.remove(&guest);
                    self.stack.cancel(cx, guest);
                }
            }
            News::Late(id) => self.late(cx, id),
            News::Stopping => {
                for id in std::mem::take(&mut self.watchers) {
                    self.http.call(cx, |_, http| http.finish(id));
                }
            }
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>, id: ExchangeId, ask: Ask) {
        match ask {
            Ask::Push(payload, timeout) => {
                if let Some(guest) = self.stack.push_for(cx, &payload) {
                    self.wait(cx, id, guest, timeout);
                }
            }
            Ask::Pop(timeout) => {
                let guest = self.stack.pop_for(cx);
                self.wait(cx, id, guest, timeout);
            }
            Ask::Stack => {
                let text = self.summary(cx).to_string();
                self.reply(cx, id, "application/json", &text);
            }
            Ask::Clients(most) => {
                let text = self.clients(cx, most).to_string();
                self.reply(cx, id, "application/json", &text);
            }
            Ask::Metrics => {
                let mut text = Text::new("pollstack");
                text.of_loop(cx.stats());
                text.of_uptime(cx.now() - self.start);
                text.by_listener([("stack", self.stack_conns().count()), ("http", self.conns)]);
                metrics::of_stack(&mut text, &self.stack);
                if let (Some(engine), Some(shares)) = (&self.engine, self.stack.shares()) {
                    metrics::of_engine(&mut text, engine, &shares);
                }
                self.reply(cx, id, Text::MEDIA, text.as_str());
            }
            Ask::Health => {
                let trouble = self.trouble().map(|trouble| format!("{trouble}\n"));
                let status = if trouble.is_none() { Status::OK } else { Status::SERVICE_UNAVAILABLE };
                let text = trouble.unwrap_or_else(|| "ok\n".to_owned());
                self.http.call(cx, |_, http| {
                    http.respond(id, status).header("Content-Type", "text/plain").body(text.as_bytes());
                });
            }
            Ask::Disconnect(number) => {
                let mut clients = self.stack.clients().filter_map(|client| self.conn_of(&client));
                let found = clients.find(|client| client.number() == number);
                drop(clients);
                found.into_iter().for_each(|client| cx.abort(client));
                let status = if found.is_some() { Status::NO_CONTENT } else { Status::NOT_FOUND };
                self.http.call(cx, |_, http| http.respond(id, status).empty());
            }
            Ask::Page => self.page(cx, id),
            Ask::Events => {
                self.http.call(cx, |_, http| {
                    let reply = http.respond(id, Status::OK).header("Content-Type", "text/event-stream");
                    reply.header("Cache-Control", "no-store").stream(None);
                });
                self.watchers.insert(id);
                self.set_tick(cx, Some(cx.now()));
            }
        }
    }

    /// Sends the live page. A browser is told to run the script in it and no other, by a number that no one can
    /// know before.
    fn page(&mut self, cx: &mut Context<'_>, id: ExchangeId) {
        let nonce = format!("{:016x}", RandomState::new().hash_one(PAGE.len()));
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let text = PAGE.replace("NONCE", &nonce);
        self.http.call(cx, |_, http| {
            let reply = http.respond(id, Status::OK).header("Content-Type", "text/html; charset=utf-8");
            reply.header("Content-Security-Policy", policy).header("Cache-Control", "no-store").body(text.as_bytes());
        });
    }

    /// Has a request wait until the stack has decided, or its time is over.
    fn wait(&mut self, cx: &mut Context<'_>, id: ExchangeId, guest: Guest, timeout: Option<Duration>) {
        let Some(conn) = self.http.call(cx, |_, http| http.connection(id)) else {
            return self.stack.cancel(cx, guest); // it has gone
        };
        self.guests.insert(id, guest);
        self.exchanges.insert(guest, (id, conn));
        if let Some(at) = timeout.and_then(|timeout| cx.now().checked_add(timeout)) {
            self.http.call(cx, |_, http| http.set_deadline(id, Some(at)));
        }
    }

    fn late(&mut self, cx: &mut Context<'_>, id: ExchangeId) {
        let Some(guest) = self.guests.get(&id).copied().filter(|guest| !self.stack.is_storing(*guest)) else {
            return; // an item that is on the stack is answered when it is on the disk
        };
        self.guests.remove(&id);
        self.exchanges.remove(&guest);
        let pushes = self.stack.is_pushing(guest);
        self.stack.cancel(cx, guest);
        self.http.call(cx, |_, http| match pushes {
            true => unavailable(http, id),
            false => http.respond(id, Status::NO_CONTENT).empty(),
        });
    }

    /// Answers the next request that the stack has decided. Returns whether there was one.
    fn answer_next(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((guest, answer)) = self.stack.next_answer() else { return false };
        let Some((id, conn)) = self.exchanges.remove(&guest) else {
            self.stack.cancel(cx, guest);
            return true;
        };
        self.guests.remove(&id);
        let http = &mut self.http;
        match answer {
            Answer::Stored => http.call(cx, |_, http| http.respond(id, Status::NO_CONTENT).empty()),
            Answer::Stopping => http.call(cx, |_, http| unavailable(http, id)),
            // The end of the connection tells whether the kernel took it.
            Answer::Popped(item) => http.call(cx, |_, http| {
                let reply = http.respond(id, Status::OK).header("Content-Type", "application/octet-stream");
                reply.header("Cache-Control", "no-store").closing().body(item);
            }),
        }
        match self.stack.is_popped(guest) {
            true => drop(self.in_flight.insert(conn, guest)),
            false => self.stack.settle(cx, guest),
        }
        true
    }

    fn reply(&mut self, cx: &mut Context<'_>, id: ExchangeId, media: &str, text: &str) {
        self.http.call(cx, |_, http| {
            let reply = http.respond(id, Status::OK).header("Content-Type", media);
            reply.header("Cache-Control", "no-store").body(text.as_bytes());
        });
    }

    /// Tells the live pages what has changed, and comes back in a second while there are any.
    fn tick(&mut self, cx: &mut Context<'_>) {
        if self.watchers.is_empty() {
            return self.set_tick(cx, None);
        }
        self.set_tick(cx, cx.now().checked_add(TICK));
        let counts = self.stack.counts();
        let stats = cx.stats();
        let now = json!({
            "stack": self.summary(cx),
            "clients": self.clients(cx, CLIENTS),
            "pushes": counts.pushes,
            "pops": counts.pops,
            "rejected": stats.rejected,
            "evicted": stats.evicted,
        });
        let event = format!("data: {now}\n\n");
        for id in self.watchers.clone() {
            // One that does not read misses some.
            let _ = self.http.call(cx, |_, http| http.send(id, event.as_bytes()));
        }
    }

    fn summary(&self, cx: &Context<'_>) -> Value {
        let ((pushes, pops), now) = (self.stack.parked(), cx.now());
        let (count, oldest) =
            self.stack_conns().fold((0, now), |(count, oldest), client| (count + 1, oldest.min(client.since)));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": (now - self.start).as_secs(),
            "depth": self.stack.items(),
            "capacity": self.stack.capacity(),
            "parked": { "pushes": pushes, "pops": pops },
            "clients": {
                "now": count,
                "most": self.limits.stack,
                "oldest_seconds": rounded(now - oldest),
                "lingering": cx.stats().lingering,
            },
            "http": { "now": self.conns, "most": self.limits.face },
        })
    }

    /// Returns how many clients there are, and tells of the oldest: of `most`, so that the time it takes is bounded, and
    /// the room.
    fn clients(&self, cx: &Context<'_>, most: usize) -> Value {
        let mut all: Vec<(Instant, ConnId, ClientState)> =
            self.stack.clients().filter_map(|client| Some((client.since, self.conn_of(&client)?, client))).collect();
        let total = all.len();
        let age = |(since, id, _): &(Instant, ConnId, ClientState)| (*since, id.number());
        if total > most {
            all.select_nth_unstable_by_key(most, age);
            all.truncate(most);
        }
        all.sort_unstable_by_key(age);
        let about = all.into_iter().map(|(_, id, client)| {
            let peer = cx.peer(id).map_or_else(|| "gone".to_owned(), |peer: Peer| peer.to_string());
            let age = rounded(cx.now() - client.since);
            let listener = if matches!(client.id, ClientId::Conn(_)) { "stack" } else { "http" };
            json!({
                "id": id.number(), "peer": peer, "listener": listener, "state": client.state, "age_seconds": age,
            })
        });
        json!({ "total": total, "oldest": about.collect::<Value>() })
    }

    /// Returns the clients of the stack's own protocol.
    fn stack_conns(&self) -> impl Iterator<Item = ClientState> {
        self.stack.clients().filter(|client| matches!(client.id, ClientId::Conn(_)))
    }

    /// Returns the connection of a client of either kind; `None` for one whose response is on its way.
    fn conn_of(&self, client: &ClientState) -> Option<ConnId> {
        match client.id {
            ClientId::Conn(id) => Some(id),
            ClientId::Guest(guest) => self.exchanges.get(&guest).map(|(_, conn)| *conn),
        }
    }

    /// Calls the half that a connection belongs to, and carries out what follows from it.
    fn both<R>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut OperatedConn,
        stack: impl FnOnce(&mut StackService, &mut Context<'_>, &mut usize) -> R,
        face: impl FnOnce(&mut Http<Face>, &mut Context<'_>, &mut Conn) -> R,
    ) -> R {
        let result = match &mut conn.0 {
            Kind::Stack(key) => stack(&mut self.stack, cx, key),
            Kind::Face(conn) => face(&mut self.http, cx, conn),
        };
        self.settle(cx);
        result
    }
}

impl Service for Operated {
    type Conn = OperatedConn;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> OperatedConn {
        match listener == self.face {
            true => {
                self.conns += 1;
                OperatedConn(Kind::Face(self.http.on_open(cx, id, listener)))
            }
            false => OperatedConn(Kind::Stack(self.stack.on_open(cx, id, listener))),
        }
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut OperatedConn, input: &[u8]) -> usize {
        self.both(
            cx,
            conn,
            |stack, cx, at| stack.on_data(cx, id, at, input),
            |http, cx, at| http.on_data(cx, id, at, input),
        )
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut OperatedConn) -> EofAction {
        self.both(cx, conn, |stack, cx, at| stack.on_eof(cx, id, at), |http, cx, at| http.on_eof(cx, id, at))
    }

    fn on_early_eof(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut OperatedConn) {
        self.both(
            cx,
            conn,
            |stack, cx, at| stack.on_early_eof(cx, id, at),
            |http, cx, at| http.on_early_eof(cx, id, at),
        );
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut OperatedConn) {
        self.both(cx, conn, |stack, cx, at| stack.on_drain(cx, id, at), |http, cx, at| http.on_drain(cx, id, at));
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut OperatedConn) {
        self.both(cx, conn, |stack, cx, at| stack.on_deadline(cx, id, at), |http, cx, at| http.on_deadline(cx, id, at));
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, conn: OperatedConn, closed: Closed) {
        match conn.0 {
            Kind::Stack(key) => self.stack.on_close(cx, id, key, closed),
            Kind::Face(conn) => {
                let delivered = closed.unsent == 0;
                self.conns -= 1;
                self.http.on_close(cx, id, conn, closed);
                match self.in_flight.remove(&id) {
                    Some(guest) if delivered => self.stack.settle(cx, guest),
                    Some(guest) => self.stack.cancel(cx, guest),
                    None => {}
                }
            }
        }
        self.settle(cx);
    }

    fn is_request_complete(&self, listener: ListenerId, input: &[u8]) -> bool {
        match listener == self.face {
            true => self.http.is_request_complete(listener, input),
            false => self.stack.is_request_complete(listener, input),
        }
    }

    fn make_way(&mut self, listener: ListenerId) -> Option<ConnId> {
        match listener == self.face {
            true => self.http.make_way(listener),
            false => self.stack.make_way(listener),
        }
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        self.stack.on_wake(cx);
        self.settle(cx);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>) {
        if self.tick.is_some_and(|at| at <= cx.now()) {
            self.tick(cx);
            self.settle(cx);
        }
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        self.stack.on_shutdown(cx);
        self.http.on_shutdown(cx);
        self.settle(cx);
    }
}

/// Answers that the request may be sent again.
fn unavailable(http: &mut Responder<'_>, id: ExchangeId) {
    http.respond(id, Status::SERVICE_UNAVAILABLE).header("Retry-After", "1").error_page();
}

/// Returns seconds, to the millisecond.
fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
