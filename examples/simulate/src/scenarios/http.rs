//! The HTTP layer, a handler of many moods, and clients who pipeline, cut up, stall and hang up.
//! Each of them has to read the answers to its requests, in their order.

use super::report::{Check, Report, require};
use fastrand::Rng;
use pollstack::http::{Body, Clock, ExchangeId, Handler, Http, Limits, Outcome, Request, Responder, Status};
use pollstack::sim::{Client, Entry, Event, Fault, Faults, Sim, World};
use pollstack::{EventLoop, ListenerConfig};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, UNIX_EPOCH};
use test_support::replies;

fn http_limits() -> Limits {
    Limits::default()
        .line(200)
        .head(400)
        .headers(10)
        .skip(100)
        .head_time(Duration::from_secs(5))
        .read_time(Duration::from_secs(3))
        .body_time(Duration::from_secs(1000)) // `tests/http` looks at how long a body may trickle
        .idle_time(Duration::from_secs(4))
        .stall_time(Duration::from_secs(6))
}

pub(super) fn run(seed: u64, world: &World, report: &mut Report) -> Check {
    let mut random = Rng::with_seed(seed ^ 0x477);
    if random.bool() {
        world.set_buffers(random.usize(1..200), random.usize(20..200));
    }
    world.set_window(random.usize(14_600..16_000));
    let faults = Faults::with_accepts(seed);
    world.set_faults(faults);
    let limits = match random.bool() {
        true => {
            let (output, turn) = (random.usize(600..2000), random.usize(1..5000));
            pollstack::Limits::default().output(output).turn(turn)
        }
        false => pollstack::Limits::default(),
    };
    let moody = Moody { random: random.fork(), ..Moody::default() };
    let clock = Clock::new(world.now(), UNIX_EPOCH);
    let mut server = EventLoop::with_net(world.net(), Http::new(moody, clock).limits(http_limits()), limits);
    server.listen(ListenerConfig::new("127.0.0.1:1".parse()?))?;
    let promised = faults.one_in(Fault::NoDescriptors) == 0;
    let mut scenario = Scenario { world: world.clone(), random, server, callers: Vec::new(), turned: false, promised };
    for _ in 0..scenario.random.usize(20..300) {
        scenario.act();
        scenario.check(report)?;
    }
    scenario.end(report)
}

/// Answers with what it has understood of a request: at once or later, whole or in pieces.
#[derive(Default)]
struct Moody {
    random: Rng,
    jobs: BTreeMap<ExchangeId, Job>,
    /// The faults that it has seen.
    wrong: Option<String>,
}

#[derive(Debug, Default)]
struct Job {
    /// The answer, or, of a stream, what is left of it.
    text: VecDeque<u8>,
    /// All of the request is there.
    whole: bool,
    streaming: bool,
    deadline: Option<Instant>,
    /// A reply without a length would be the last for a client of HTTP/1.0.
    is_old: bool,
}

impl Handler for Moody {
    fn body(&mut self, request: &Request<'_>) -> Body {
        match self.random.bool() {
            _ if request.target().contains("skip") => Body::Skip,
            true => Body::Collect(1000),
            false => Body::Stream,
        }
    }

    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        let line = format!("{} {} ", request.method(), request.target());
        let text = [line.as_bytes(), filler(request.target()).as_bytes(), request.body()].concat();
        let mut job = Job { text: text.into(), ..Job::default() };
        job.is_old = request.target().contains("old");
        job.whole = !request.target().contains("body") || !request.body().is_empty();
        let (whole, at_once) = (job.whole, self.random.bool());
        if whole && self.random.u8(..4) == 0 {
            job.deadline = Some(http.now() + Duration::from_millis(self.random.u64(1..3000)));
            http.set_deadline(id, job.deadline);
        }
        let twice = self.jobs.insert(id, job).is_some();
        self.claim(!twice, "an id is given out twice");
        if whole && at_once {
            self.answer(http, id);
        }
    }

    fn on_data(&mut self, _: &mut Responder<'_>, id: ExchangeId, data: &[u8]) -> usize {
        let n = if self.random.u8(..3) == 0 { 0 } else { self.random.usize(..=data.len()) };
        match self.jobs.get_mut(&id) {
            Some(job) => job.text.extend(&data[..n]),
            None => self.claim(false, "data for no exchange"),
        }
        n
    }

    fn on_data_end(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        let whole = self.jobs.get_mut(&id).map(|job| std::mem::replace(&mut job.whole, true));
        self.claim(whole == Some(false), "the end of a body that had none");
        if self.random.bool() {
            self.answer(http, id);
        }
    }

    fn on_room(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        self.pour(http, id);
    }

    fn on_deadline(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        let deadline = self.jobs.get_mut(&id).and_then(|job| job.deadline.take());
        self.claim(deadline.is_some_and(|at| at <= http.now()), "a deadline that is none");
        self.answer(http, id);
    }

    fn on_close(&mut self, _: &mut Responder<'_>, id: ExchangeId, outcome: Outcome) {
        let job = self.jobs.remove(&id);
        self.claim(job.is_some(), "an exchange is closed twice");
        let left = job.is_some_and(|job| !job.text.is_empty());
        self.claim(outcome == Outcome::Aborted || !left, "a reply is complete, and some of it is left");
    }
}

impl Moody {
    fn claim(&mut self, holds: bool, text: &str) {
        if !holds {
            self.wrong.get_or_insert_with(|| text.to_owned());
        }
    }

    fn answer(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.whole && !job.streaming) else { return };
        let text = Vec::from_iter(job.text.iter().copied());
        let reply = http.respond(id, Status::OK);
        match self.random.u8(..4) {
            n @ 0..2 => {
                job.text.clear();
                if n == 0 { reply.body(&text) } else { reply.shared(&text.into()) }
            }
            n => {
                job.streaming = true;
                reply.stream((n == 2 || job.is_old).then_some(text.len() as u64));
                self.pour(http, id);
            }
        }
    }

    /// Sends some of a stream, as much as there is room for, and its end behind the last of it.
    fn pour(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.streaming) else { return };
        while !job.text.is_empty() {
            let n = http.send_capacity(id).min(job.text.len()).min(self.random.usize(1..40));
            if n == 0 {
                return;
            }
            let piece = Vec::from_iter(job.text.drain(..n));
            if http.send(id, &piece).is_err() {
                return; // the client is gone, or content for a HEAD is dropped
            }
        }
        http.finish(id);
    }

    /// Goes on with one of those who wait.
    fn stir(&mut self, http: &mut Responder<'_>) {
        if !self.jobs.is_empty() {
            let n = self.random.usize(..self.jobs.len());
            self.go_on(http, n);
        }
    }

    fn go_on(&mut self, http: &mut Responder<'_>, n: usize) {
        let Some((id, job)) = self.jobs.iter().nth(n) else { return };
        let (id, whole) = (*id, job.whole);
        if whole {
            self.answer(http, id)
        } else {
            http.resume(id)
        }
        self.pour(http, id);
    }
}

/// A length that makes some answers longer than the output of a connection.
fn filler(target: &str) -> String {
    "+".repeat(match target.as_bytes().last() {
        Some(b'3') => 3000,
        Some(b'1') => 20_000,
        _ => 0,
    })
}

struct Scenario {
    world: World,
    random: Rng,
    server: EventLoop<Http<Moody>, Sim>,
    callers: Vec<Caller>,
    /// There was a turn that has not been checked yet.
    turned: bool,
    /// Those who linger are not given up for want of descriptors.
    promised: bool,
}

/// A request, and the response that it has to have.
struct Ask {
    method: &'static str,
    answer: String,
    closes: bool,
}

struct Caller {
    client: Client,
    unsent: VecDeque<u8>,
    /// It sends nothing any more.
    ended: bool,
    asked: Vec<Ask>,
    heard: Vec<u8>,
    /// How many answers are complete, and how many bytes those are.
    told: usize,
    parsed: usize,
    /// It has done something for which it may be cut off.
    erred: bool,
    /// When the server has read something of it last.
    came: Duration,
    /// When it was sent something last.
    went: Duration,
    /// The server has nothing more to say, and does not listen any more.
    shut: bool,
    shut_at: Option<Duration>,
    over: bool,
}

impl Scenario {
    fn act(&mut self) {
        let n = self.random.usize(..self.callers.len().max(1));
        let (random, caller) = (&mut self.random, self.callers.get_mut(n));
        match (random.u8(..100), caller) {
            (0..10, _) | (_, None) => self.callers.push(Caller::new(self.world.connect(), self.world.elapsed())),
            (10..25, Some(caller)) => caller.ask(random),
            (25..45, Some(caller)) => {
                let n = if random.bool() { random.usize(1..10) } else { random.usize(1..500) };
                caller.send(n);
            }
            (45..60, Some(caller)) => caller.read(random.usize(1..500)),
            (60..62, Some(caller)) => {
                caller.erred |= !caller.unsent.is_empty();
                caller.unsent.clear();
                caller.ended = true;
                caller.client.end();
            }
            (62..64, Some(caller)) => {
                (caller.erred, caller.ended) = (true, true);
                caller.client.abort();
            }
            (64..65, Some(caller)) if caller.unsent.is_empty() && !caller.ended => {
                caller.erred = true;
                caller.client.send(b"\0");
            }
            (65..68, Some(_)) => self.pass_time(),
            (68..73, Some(caller)) => {
                let text = random.usize(1..20);
                caller.stray(&self.world, random.usize(..10), text);
            }
            (73..80, Some(_)) => self.server.call(|http, cx| http.call(cx, Moody::stir)),
            _ => {
                self.world.turn(&mut self.server);
                self.turned = true;
            }
        }
    }

    fn pass_time(&mut self) {
        self.world.settle(&mut self.server);
        let until = self.server.timeout().unwrap_or_default();
        self.world.advance(match self.random.u8(..4) {
            0 => until,
            1 => until.saturating_sub(Duration::from_nanos(1)),
            _ => Duration::from_millis(self.random.u64(..2000)),
        });
    }

    fn check(&mut self, report: &mut Report) -> Check {
        for Entry { at, client, event, .. } in report.listen(&self.world) {
            self.callers[*client].hear(*at, event, self.promised);
        }
        let now = self.world.now();
        let moody = self.server.service().handler();
        require(moody.wrong.is_none(), || moody.wrong.clone().unwrap_or_default())?;
        if std::mem::take(&mut self.turned) {
            let late = moody.jobs.iter().find(|(_, job)| job.deadline.is_some_and(|at| at <= now));
            require(late.is_none(), || format!("a deadline has been forgotten: {late:?}, {now:?}"))?;
        }
        self.callers.iter_mut().try_for_each(Caller::check)
    }

    /// All clients send and read the rest, and all requests that wait are answered.
    fn end(mut self, report: &mut Report) -> Check {
        self.world.set_faults(Faults::default());
        self.world.advance(Duration::from_millis(100)); // so that no accept waits for descriptors any more
        if self.random.bool() {
            self.callers.iter_mut().for_each(Caller::give_up);
        }
        for _ in 0..10_000 {
            self.callers.iter_mut().for_each(|caller| caller.send(usize::MAX));
            self.world.settle(&mut self.server);
            self.callers.iter_mut().for_each(|caller| caller.read(usize::MAX));
            self.check(report)?;
            let waiting = self.server.service().handler().jobs.len();
            let stir = |moody: &mut Moody, http: &mut Responder<'_>| (0..waiting).for_each(|n| moody.go_on(http, n));
            self.server.call(|http, cx| http.call(cx, stir));
            if waiting == 0 && !self.world.has_work(&mut self.server) && self.callers.iter().all(Caller::is_done) {
                break;
            }
        }
        self.check(report)?;
        let undone = self.callers.iter().find(|caller| !caller.is_done()).map(|caller| caller.client.number());
        let jobs = &self.server.service().handler().jobs;
        require(undone.is_none(), || format!("client {undone:?} is not answered; {jobs:?}"))?;
        self.world.advance(Duration::from_secs(10)); // longer than the server waits for anything
        while self.world.has_work(&mut self.server) {
            self.world.settle(&mut self.server);
            self.callers.iter_mut().for_each(|caller| caller.read(usize::MAX));
            self.check(report)?;
        }
        let kept = self.callers.iter().find(|caller| !caller.shut).map(|caller| caller.client.number());
        require(kept.is_none(), || format!("client {kept:?} is waited for without end"))?;
        self.callers.iter().for_each(|caller| caller.client.end());
        self.world.settle(&mut self.server);
        self.check(report)?;
        let open = self.callers.iter().filter(|caller| !caller.over).count();
        require(open == 0, || format!("{open} connections are never closed"))
    }
}

impl Ask {
    /// A request of some form. Its target is told apart by a number.
    fn any(random: &mut Rng, number: usize) -> (Ask, String) {
        let method = ["GET", "HEAD", "PUT", "POST"][random.usize(..4)];
        let (is_old, has_body) = (random.u8(..5) == 0, method.starts_with('P') && random.bool());
        let closes = random.u8(..4) == 0;
        let skips = has_body && random.u8(..3) == 0;
        let content = [["", ""], ["body", "skip"]][usize::from(has_body)][usize::from(skips)];
        let target = format!("/{}{content}{number}", if is_old { "old" } else { "" });
        let mut text = format!("{method} {target} HTTP/1.{}\r\nHost: a\r\n", u8::from(!is_old));
        match (is_old, closes) {
            (true, false) => text += "Connection: keep-alive\r\n",
            (false, true) => text += "Connection: close\r\n",
            _ => {}
        }
        let longest = if skips { http_limits().skip as usize } else { 200 };
        let body: String = (0..random.usize(1..longest)).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
        match (has_body, !is_old && random.bool()) {
            (false, _) => text += "\r\n",
            (true, false) => text += &format!("Content-Length: {}\r\n\r\n{body}", body.len()),
            (true, true) => {
                text += "Transfer-Encoding: chunked\r\n\r\n";
                let size = random.usize(1..50);
                for chunk in body.as_bytes().chunks(size) {
                    text += &format!("{:x};e=1\r\n{}\r\n", chunk.len(), chunk.escape_ascii());
                }
                text += "0\r\nTrailer: x\r\n\r\n";
            }
        }
        let said = if method == "HEAD" { String::new() } else { format!("{method} {target} {}", filler(&target)) };
        (Ask { method, answer: said + if content == "body" { &body } else { "" }, closes }, text)
    }
}

impl Caller {
    fn new(client: Client, now: Duration) -> Caller {
        Caller {
            client,
            unsent: VecDeque::new(),
            ended: false,
            asked: Vec::new(),
            heard: Vec::new(),
            told: 0,
            parsed: 0,
            erred: false,
            came: now,
            went: now,
            shut: false,
            shut_at: None,
            over: false,
        }
    }

    fn ask(&mut self, random: &mut Rng) {
        if self.ended {
            return;
        }
        // A client that goes on behind its last request may find a closed connection, and read nothing.
        self.erred |= self.asked.iter().any(|ask| ask.closes);
        let (ask, text) = Ask::any(random, self.asked.len());
        self.asked.push(ask);
        self.unsent.extend(text.bytes());
    }

    fn send(&mut self, n: usize) {
        let part = Vec::from_iter(self.unsent.drain(..n.min(self.unsent.len())));
        if !part.is_empty() {
            self.erred |= self.over; // it will find a closed connection, and not read what was
            self.client.send(&part);
        }
    }

    /// Sends bytes behind what it has called its last request, in the middle of a turn: they must not
    /// cost it the answers.
    fn stray(&mut self, world: &World, calls: usize, n: usize) {
        if self.unsent.is_empty() && !self.ended && self.asked.last().is_some_and(|ask| ask.closes) {
            let client = self.client.clone();
            world.after(calls, move || client.send(&vec![b'\n'; n]));
        }
    }

    /// Leaves it at half a request, if there is one.
    fn give_up(&mut self) {
        self.erred |= !self.unsent.is_empty();
        self.unsent.clear();
        self.ended = true;
    }

    fn read(&mut self, n: usize) {
        self.heard.extend(self.client.read_at_most(n));
    }

    /// Returns how many answers there will be: up to the one that ends the connection.
    fn due(&self) -> usize {
        self.asked.iter().position(|ask| ask.closes).map_or(self.asked.len(), |last| last + 1)
    }

    fn is_done(&self) -> bool {
        self.erred || self.told >= self.due()
    }

    fn hear(&mut self, at: Duration, event: &Event, promised: bool) {
        if matches!(event, Event::Closed | Event::Reset) {
            // How long the close may wait for a client, and for how long, is bounded.
            let lingered = self.shut_at.is_some_and(|shut| at >= shut + pollstack::limits::LINGER_TIME);
            self.erred |= self.shut && (lingered || !promised);
        }
        match event {
            Event::Read(bytes) if !bytes.is_empty() => self.came = at,
            Event::Wrote(_) => self.went = at,
            Event::Failed(_) => self.erred = true,
            Event::Shut | Event::Closed | Event::Reset | Event::Lost => {
                // A silent client is cut off, and so is one that does not read.
                let silent = at.saturating_sub(self.came) >= http_limits().read_time.min(http_limits().idle_time);
                let stalled = at.saturating_sub(self.went) >= http_limits().stall_time;
                self.erred |= silent || stalled || *event == Event::Lost;
                self.shut = true;
                self.shut_at.get_or_insert(at);
                self.over |= *event != Event::Shut;
            }
            _ => {}
        }
    }

    /// Returns whether all that it has read so far is what it should have.
    fn check(&mut self) -> Check {
        while self.parsed < self.heard.len() {
            let number = self.client.number();
            let rest = &self.heard[self.parsed..];
            let method = self.asked.get(self.told).map_or("GET", |ask| ask.method);
            // Of what it rejects, the server knows the method only if it has come so far.
            let rejected = rest.starts_with(b"HTTP/1.1 4");
            let whole = replies::replies(rest, &[if rejected { "GET" } else { method }]);
            let end = rejected && self.client.has_ended() && self.client.unread() == 0;
            let bare = || replies::replies(rest, &[method]).filter(|(_, len)| end && *len == rest.len());
            let Some((found, len)) = whole.or_else(bare) else { return Ok(()) };
            let reply = found.last().ok_or("no reply")?;
            self.parsed += len;
            if reply.status != 200 {
                self.erred = true;
                require(reply.closes() && self.parsed == self.heard.len(), || format!("{number}: behind {reply:?}"))?;
                return require([400, 408].contains(&reply.status), || format!("client {number} is told {reply:?}"));
            }
            let ask = self.asked.get(self.told).ok_or("an answer to nothing")?;
            require(reply.text() == ask.answer, || {
                format!("client {number} is told {}, not {}", reply.text(), ask.answer)
            })?;
            self.told += 1;
            require(self.told <= self.due(), || format!("client {number} is answered behind the last"))?;
        }
        Ok(())
    }
}
