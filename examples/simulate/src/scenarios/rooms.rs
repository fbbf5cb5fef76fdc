//! Several nodes of pubsub, whose channels are in one engine, over links that are cut, slow, and lose what was on its way;
//! an engine that is away, starts again, forgets its script, has no memory, or loses what it had acknowledged; nodes that
//! are killed, stopped and continued. Readers of all forms go from node to node. Each reads every message of its channel,
//! in order, once, or is told of a gap; and a message that was answered is there.

use super::post::{Outcome, Post};
use super::reader::{Form, Reader, Seen};
use super::report::{Check, Report, require};
use super::truth::Truth;
use crate::channels::Channels;
use crate::redis::Redis;
use fastrand::Rng;
use pollstack::engine::{Link, Linked};
use pollstack::http::{Clock, Guard, Http};
use pollstack::sim::{Client, Faults, Sim, World};
use pollstack::{EventLoop, Limits, ListenerConfig, Overload};
use pubsub::{Config, History, HubLimits, Pubsub};
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

/// How long a message may be.
const LONGEST: usize = 400;

pub(super) fn run(seed: u64, world: &World, report: &mut Report) -> Check {
    fastrand::seed(seed); // the server's own
    let mut random = Rng::with_seed(seed ^ 0x4003);
    let is_small = random.bool();
    let messages = if is_small { random.usize(..12) } else { 10_000 };
    let channels = if is_small { random.usize(1..5) } else { 10 };
    let bytes = if is_small { random.usize(..4000) } else { 1 << 20 };
    let hub = HubLimits { channels, subscribers: 1000, history: History { messages, bytes } };
    let config = Config { message: LONGEST, unsent: 16 * 1024, hub, ..Config::default() };
    let loses = random.u8(..4) == 0;
    let mut rooms = Rooms {
        seed,
        config,
        is_small,
        loses,
        names: random.usize(1..4),
        random,
        redis: Redis::default(),
        nodes: Vec::new(),
        readers: Vec::new(),
        posts: Vec::new(),
        gone: Vec::new(),
        sockets: Vec::new(),
        truth: Truth::default(),
        saved: None,
        texts: 0,
        conns: 0,
        lives: 0,
        time: Duration::ZERO,
        is_away: false,
        is_calm: false,
    };
    // The first node is in the world whose trace is told.
    rooms.start(world.clone())?;
    for n in 1..rooms.random.u64(1..4) {
        rooms.start(World::new(seed.wrapping_mul(31) + n))?;
    }
    rooms.settle(5, |_| false)?; // the nodes connect
    for _ in 0..rooms.random.usize(20..400) {
        rooms.act()?;
        report.listen(world);
    }
    rooms.end()
}

type Server = EventLoop<Linked<Http<Pubsub>>, Sim>;

struct Node {
    world: World,
    server: Server,
    /// Its connections to the engine, and their numbers there.
    links: Vec<(Client, usize)>,
    life: u64,
    /// The process is stopped, and goes on later.
    is_stopped: bool,
}

struct Rooms {
    seed: u64,
    config: Config,
    /// Histories are short, and channels few: there may be gaps.
    is_small: bool,
    /// The engine may lose what it had acknowledged.
    loses: bool,
    /// How many channels are used.
    names: usize,
    random: Rng,
    redis: Redis,
    nodes: Vec<Node>,
    readers: Vec<Reader>,
    posts: Vec<Post>,
    /// Clients that have hung up.
    gone: Vec<Client>,
    /// The messages of each WebSocket: its connection, their channel and their texts.
    sockets: Vec<((u64, usize), usize, String)>,
    truth: Truth,
    /// The channels of the engine some time ago, and how many messages each had had by then.
    saved: Option<(Channels, BTreeMap<usize, usize>)>,
    texts: usize,
    conns: usize,
    lives: u64,
    time: Duration,
    /// The engine takes no connection.
    is_away: bool,
    /// There are no faults any more.
    is_calm: bool,
}

impl Rooms {
    fn start(&mut self, world: World) -> Check {
        self.lives += 1;
        let life = self.lives;
        if self.random.bool() {
            world.set_buffers(self.random.usize(100..3000), self.random.usize(100..3000));
        }
        world.set_faults(if self.is_calm { Faults::default() } else { Faults::with_accepts(self.seed + life) });
        let mut pubsub = Pubsub::new(self.config, Guard::new(&[], &[], false), world.now(), 1)?;
        pubsub.share();
        let addresses = vec!["127.0.0.1:6379".parse()?];
        let link = Link::new("redis://127.0.0.1/rooms".parse()?, addresses, "script").seed(self.seed + life);
        let linked =
            Linked::new(Http::new(pubsub, Clock::new(world.now(), UNIX_EPOCH)), link.replicas(self.random.usize(..2)));
        let outgoing = linked.listener();
        let limits = Limits::default().output(self.config.unsent).input(LONGEST + pubsub::AROUND);
        let mut server = EventLoop::with_net(world.net(), linked, limits);
        let overload = Overload::Reject(pollstack::http::BUSY.into());
        server.listen(ListenerConfig::new("127.0.0.1:1".parse()?).max_conns(100).overload(overload))?;
        server.listen(ListenerConfig::unbound().id(outgoing).max_conns(Linked::<Http<Pubsub>>::CONNS))?;
        server.call(|linked, cx| linked.start(cx));
        self.nodes.push(Node { world, server, links: Vec::new(), life, is_stopped: false });
        Ok(())
    }

    fn act(&mut self) -> Check {
        let n = self.random.usize(..self.nodes.len());
        match self.random.u8(..100) {
            0..7 => self.come(n),
            7..18 => self.post(n),
            18..23 => self.say(),
            23..38 => self.any_reader(Rooms::read_some)?,
            38..42 => self.any_reader(Rooms::leave)?,
            42..45 => {
                let most = if self.random.bool() { 300 } else { 6000 };
                let millis = self.random.u64(..most);
                self.pass(Duration::from_millis(millis));
            }
            45..60 => self.carry(n)?,
            60..75 if self.seed % 4 > 0 || self.random.u8(..6) == 0 => self.deliver(n), // some links are slow
            75..77 => self.cut(n)?,
            77 => self.trouble()?,
            78 if self.random.bool() => self.kill(n)?,
            79..81 => self.nodes[n].is_stopped = self.random.bool(),
            _ => self.turn(n),
        }
        Ok(())
    }

    // ---- clients -------------------------------------------------------------------------------

    /// A reader comes to a node.
    fn come(&mut self, n: usize) {
        if self.readers.len() < 12 {
            let form = [Form::Events, Form::Poll, Form::Socket][self.random.usize(..3)];
            let (channel, last) = (self.random.usize(..self.names), self.random.bool().then_some(0));
            let node = &self.nodes[n];
            self.readers.push(Reader::new(node.world.connect(), form, channel, node.life, last));
        }
    }

    fn any_reader(&mut self, act: impl FnOnce(&mut Rooms, usize) -> Check) -> Check {
        let m = self.random.usize(..self.readers.len().max(1));
        if self.readers.is_empty() { Ok(()) } else { act(self, m) }
    }

    /// A reader hangs up, and comes back to a node with the id that it has.
    fn leave(&mut self, m: usize) -> Check {
        let client = &self.readers[m].client;
        if self.random.bool() {
            client.abort()
        } else {
            client.end()
        }
        self.come_back(m);
        Ok(())
    }

    fn come_back(&mut self, m: usize) {
        let node = &self.nodes[self.random.usize(..self.nodes.len())];
        let reader = &mut self.readers[m];
        let next = Reader::new(node.world.connect(), reader.form, reader.channel, node.life, reader.last);
        self.gone.push(std::mem::replace(reader, next).client);
    }

    /// A reader reads some, and may go to another node then, which may know less.
    fn read_some(&mut self, m: usize) -> Check {
        let bytes = self.random.usize(1..1500);
        self.read(m, bytes)?;
        if self.random.u8(..4) == 0 { self.leave(m) } else { Ok(()) }
    }

    /// A reader reads, and checks that it is what comes next.
    fn read(&mut self, m: usize, bytes: usize) -> Check {
        let reader = &mut self.readers[m];
        let seen = reader.read(bytes)?;
        let is_answered = !seen.is_empty();
        for one in seen {
            self.check(m, one)?;
        }
        if self.readers[m].is_over {
            self.come_back(m);
        } else if is_answered {
            self.readers[m].go_on();
        }
        Ok(())
    }

    fn check(&mut self, m: usize, seen: Seen) -> Check {
        let Reader { channel, last, form, .. } = self.readers[m];
        let number = self.readers[m].client.number();
        let wrong =
            |text: String| format!("reader {m} of {channel}, {form:?}, client {number}, after {last:?}: {text}");
        let now = match seen {
            Seen::Begin(id) => {
                // A poll that has the beginning is told where that is.
                let fits = last.is_none_or(|last| last == id || last == 0);
                require(fits, || wrong(format!("goes on at {id}")))?;
                id
            }
            Seen::Message(id, text) => {
                let truth = &self.truth;
                require(truth.has(channel, id, &text), || wrong(format!("message {id} is {text}")))?;
                require(last.is_none_or(|last| last < id), || wrong(format!("message {id} comes again")))?;
                let missed = last.and_then(|last| truth.between(channel, last, id));
                require(missed.is_none(), || wrong(format!("message {id} comes, without {missed:?}")))?;
                // Its node had a message that the engine has lost, and this one follows another that has its id.
                let is_lost = truth.is_lost(&text);
                let before = self.readers[m].text.replace(text);
                let before = before.filter(|text| !self.is_small && !is_lost && truth.is_lost(text)).and(last);
                let other = before.and_then(|last| truth.between(channel, last.saturating_sub(1), last + 1));
                require(other.is_none(), || wrong(format!("message {id} comes, and {other:?} never came")))?;
                id
            }
            Seen::Gap { after, oldest, id } => {
                require(last == Some(after), || wrong(format!("a gap after {after}")))?;
                require(self.is_small || self.loses, || wrong(format!("a gap up to {oldest}, without a loss")))?;
                // It may go back where nothing was ever published, as without memory.
                let repeated = self.truth.between(channel, oldest.saturating_sub(1), after + 1);
                require(self.loses || repeated.is_none(), || wrong(format!("a gap up to {oldest}")))?;
                id
            }
            Seen::Rejected(why) => {
                let is_late = form == Form::Poll && why.contains("The engine does not answer");
                return require(self.is_small || is_late, || wrong(format!("is told {why}")));
            }
            Seen::Unpublished => return Ok(()),
        };
        self.readers[m].last = Some(now);
        Ok(())
    }

    fn text(&mut self) -> String {
        self.texts += 1;
        format!("{} {}", self.texts, "x".repeat(self.random.usize(..LONGEST - 10)))
    }

    fn post(&mut self, n: usize) {
        let channel = self.random.usize(..self.names);
        self.publish(n, channel);
    }

    fn publish(&mut self, n: usize, channel: usize) {
        let text = self.text();
        self.posts.push(Post::new(&self.nodes[n].world, self.nodes[n].life, channel, text));
    }

    /// A WebSocket publishes.
    fn say(&mut self) {
        let text = self.text();
        if let Some(reader) = self.random.choice(&self.readers).filter(|reader| reader.say(&text)) {
            self.sockets.push(((reader.life, reader.client.number()), reader.channel, text));
        }
    }

    // ---- the engine ----------------------------------------------------------------------------

    /// Returns its clock, in microseconds.
    fn now(&self) -> u64 {
        1_000_000_000 + self.time.as_micros() as u64
    }

    /// Time passes, for all.
    fn pass(&mut self, time: Duration) {
        self.time += time;
        self.nodes.iter().for_each(|node| node.world.advance(time));
    }

    /// The engine takes connections of a node, and some of what it has sent.
    fn carry(&mut self, n: usize) -> Check {
        let node = &mut self.nodes[n];
        while let Some(peer) = node.world.next_outgoing() {
            if self.is_away {
                peer.abort();
                continue;
            }
            peer.answer();
            self.conns += 1;
            self.redis.connect(self.conns);
            node.links.push((peer, self.conns));
        }
        let most = if self.is_calm { usize::MAX } else { self.random.usize(1..2000) };
        self.hear(n, most)
    }

    fn hear(&mut self, n: usize, most: usize) -> Check {
        let now = self.now();
        let node = &mut self.nodes[n];
        for (peer, conn) in &node.links {
            let bytes = peer.read_at_most(most);
            self.time += Duration::from_micros(1); // no two messages have the same time
            self.redis.hear(*conn, &bytes, now, self.random.bool())?;
            if peer.is_closed() && bytes.is_empty() {
                self.redis.close(*conn);
            }
        }
        node.links.retain(|(peer, _)| !peer.is_closed());
        for (name, id, text) in self.redis.take_published() {
            let channel = name.rsplit(':').next().ok_or("a name")?.parse()?;
            self.truth.add(channel, id, text);
        }
        Ok(())
    }

    /// A node gets some of what the engine has for it.
    fn deliver(&mut self, n: usize) {
        let most = if self.is_calm { usize::MAX } else { self.random.usize(1..2000) };
        for (peer, conn) in &self.nodes[n].links {
            peer.send(&self.redis.take_output(*conn, most));
        }
    }

    /// The links of a node break. Commands on their way are lost, or reach the engine, whose answers are lost.
    fn cut(&mut self, n: usize) -> Check {
        if self.random.bool() {
            self.hear(n, usize::MAX)?;
        }
        for (peer, conn) in self.nodes[n].links.drain(..) {
            peer.abort();
            self.redis.close(conn);
        }
        Ok(())
    }

    fn trouble(&mut self) -> Check {
        let kinds = if self.loses && self.random.bool() { 5..7 } else { 0..8 };
        match self.random.u8(kinds) {
            0 => self.is_away = self.random.bool(),
            1 => self.redis.forget_script(),
            2 => self.redis.is_loading = self.random.bool(),
            3 if self.is_small => self.redis.channels.set_no_memory(self.random.bool()),
            4 if self.is_small => {
                let name = name(self.random.usize(..self.names));
                self.redis.channels.set_broken(&name, self.random.bool());
            }
            5 if self.loses => {
                self.saved = Some((self.redis.channels.clone(), self.truth.lengths()));
            }
            6 if self.loses => self.fail_over()?,
            _ => self.restart()?,
        }
        Ok(())
    }

    fn restart(&mut self) -> Check {
        for n in 0..self.nodes.len() {
            self.cut(n)?;
        }
        self.redis.restart();
        Ok(())
    }

    /// Another engine takes its place, which is behind.
    fn fail_over(&mut self) -> Check {
        self.restart()?;
        if let Some((channels, lengths)) = self.saved.take() {
            self.redis.channels = channels;
            self.truth.lose_all_but(&lengths);
        }
        Ok(())
    }

    // ---- the nodes -----------------------------------------------------------------------------

    fn turn(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if !node.is_stopped {
            node.world.turn(&mut node.server);
        }
    }

    /// The process of a node ends, at any instant, and another one takes its place.
    fn kill(&mut self, n: usize) -> Check {
        self.cut(n)?;
        drop(self.nodes.swap_remove(n));
        self.start(World::new(self.seed ^ self.lives))
    }

    // ---- the end -------------------------------------------------------------------------------

    /// All is well, and for some time.
    fn settle(&mut self, rounds: usize, is_done: impl Fn(&Rooms) -> bool) -> Check {
        for _ in 0..rounds {
            self.pass(Duration::from_millis(100));
            for n in 0..self.nodes.len() {
                for _ in 0..3 {
                    let node = &mut self.nodes[n];
                    node.world.settle(&mut node.server);
                    self.carry(n)?;
                    self.deliver(n);
                }
            }
            (0..self.readers.len()).try_for_each(|m| self.read(m, usize::MAX))?;
            self.posts.iter_mut().try_for_each(Post::read)?;
            if is_done(self) {
                break;
            }
        }
        Ok(())
    }

    fn is_current(&self) -> bool {
        // One that never had an id may be sent away by the last message, where ids were lost, and come back behind it.
        let is_at_end = |one: &Reader| one.last == self.truth.end(one.channel) || (self.loses && one.last.is_none());
        self.readers.iter().all(is_at_end) && self.unanswered() == 0
    }

    fn subscribers(&self) -> usize {
        self.nodes.iter().map(|node| node.server.service().service().handler().counts().subscribers).sum()
    }

    fn unanswered(&self) -> usize {
        let is_alive = |post: &&Post| self.nodes.iter().any(|node| node.life == post.life);
        self.posts.iter().filter(is_alive).filter(|post| post.waits()).count()
    }

    fn end(mut self) -> Check {
        self.calm_down();
        // More than once: a reader that was there may have been sent away, and come back.
        for _ in 0..3 {
            self.settle(200, |rooms| rooms.unanswered() == 0 && rooms.subscribers() == rooms.readers.len())?;
        }
        // One message more in each channel, which all readers are to have.
        (0..self.names).for_each(|channel| self.publish(0, channel));
        self.settle(200, Rooms::is_current)?;
        let unanswered = self.unanswered();
        require(unanswered == 0, || format!("{unanswered} publishers are not answered"))?;
        require(self.is_current(), || self.late())?;
        self.rest()?;
        self.balance()?;
        self.part()
    }

    fn calm_down(&mut self) {
        (self.is_calm, self.is_away, self.redis.is_loading) = (true, false, false);
        self.redis.channels.set_no_memory(false);
        for channel in 0..self.names {
            self.redis.channels.set_broken(&name(channel), false);
        }
        // Where there are too many channels, the readers of some give way.
        self.names = self.names.min(self.config.hub.channels);
        let is_gone = |reader: &&Reader| reader.channel >= self.names;
        self.readers.iter().filter(is_gone).for_each(|reader| reader.client.abort());
        self.readers.retain(|reader| reader.channel < self.names);
        for node in &mut self.nodes {
            node.world.set_faults(Faults::default());
            node.is_stopped = false;
        }
    }

    fn late(&self) -> String {
        let ends: Vec<_> = (0..self.names).map(|channel| self.truth.end(channel)).collect();
        let lasts: Vec<_> = self.readers.iter().map(|one| (one.channel, one.form, one.last, one.life)).collect();
        format!("readers are not where they should be: {lasts:?}, of channels that end at {ends:?}")
    }

    /// At rest no node has more to do than questions whether the engine is there, and heartbeats.
    fn rest(&mut self) -> Check {
        for n in 0..self.nodes.len() {
            let mut turns = 0;
            for _ in 0..10 {
                self.pass(Duration::from_secs(1));
                let node = &mut self.nodes[n];
                turns += node.world.settle(&mut node.server);
                for other in 0..self.nodes.len() {
                    self.carry(other)?;
                    self.deliver(other);
                }
            }
            require(turns <= 60, || format!("{turns} turns in ten seconds of rest"))?;
        }
        Ok(())
    }

    /// A message that was answered is there, none is there twice, and those of one client are in its order.
    fn balance(&self) -> Check {
        let places = self.truth.places()?;
        for post in &self.posts {
            let (text, place) = (&post.text, places.get(post.text.as_str()));
            if let Some(Outcome::Published(id)) = post.outcome {
                let is_there = place == Some(&(post.channel, id));
                require(is_there, || format!("{text} is not {id} of {}: {place:?}", post.channel))?;
            }
            require(place.is_none() || post.may_be_published(), || format!("{text} is rejected, and published"))?;
        }
        for (n, (socket, channel, text)) in self.sockets.iter().enumerate() {
            let Some(place) = places.get(text.as_str()) else { continue };
            require(place.0 == *channel, || format!("{text} is in channel {}", place.0))?;
            let before = self.sockets[..n].iter().filter(|(other, ..)| other == socket);
            let overtaken = before.filter_map(|(.., text)| places.get(text.as_str())).find(|other| *other > place);
            require(overtaken.is_none(), || format!("{text} overtakes {overtaken:?}"))?;
        }
        Ok(())
    }

    /// All clients go, and then the nodes.
    fn part(mut self) -> Check {
        self.readers.drain(..).for_each(|reader| reader.client.abort());
        self.posts.drain(..).for_each(|post| post.client.abort());
        self.gone.drain(..).for_each(|client| client.abort());
        self.settle(20, |_| false)?;
        for node in &mut self.nodes {
            let counts = node.server.service().service().handler().counts();
            let (most, open) = (self.config.hub.channels, node.server.stats().open);
            require(counts.subscribers == 0, || format!("subscribers are left: {counts:?}"))?;
            require(counts.channels <= most, || format!("{} channels are kept, of {most}", counts.channels))?;
            require(open == node.links.len(), || format!("{open} are open, and {} links", node.links.len()))?;
            node.server.stop(Duration::from_secs(5));
        }
        self.settle(10, |_| false)?;
        let running = self.nodes.iter().filter(|node| !node.server.is_stopped()).count();
        require(running == 0, || format!("{running} nodes do not stop"))
    }
}

/// Returns the name that a channel has in the engine.
fn name(channel: usize) -> String {
    format!("{{pollstack:rooms}}:channel:{channel}")
}
