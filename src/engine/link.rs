//! The connection to an engine: made, greeted, watched, and made again when it fails.

use super::resp::{Reader, Reply, command, evalsha, moved};
use super::target::Target;
use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use crate::net::Address;
use crate::operate::EngineState;
use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a connection may take, and an answer. Then it is made again, to the next address. A link that is silent
/// for so long asks whether the engine is there.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long replicas may take.
const REPLICATION: Duration = Duration::from_secs(1);

/// The pause before the second try, which doubles with each, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A connection to an engine, which has a script of ours. Commands are answered in order.
#[derive(Debug)]
pub struct Link {
    target: Target,
    addresses: Vec<Address>,
    /// The address in use, of these.
    at: usize,
    /// A thread looks the addresses up: names may have others by now.
    look_up: Option<Receiver<Result<Vec<Address>, String>>>,
    /// Where a node of a cluster has sent us.
    moved: Option<Address>,
    listener: ListenerId,
    script: &'static str,
    conn: Option<ConnId>,
    is_ready: bool,
    /// The engine is held back.
    is_held: bool,
    /// The name of the script in the engine.
    digest: Vec<u8>,
    /// Commands that are still to be sent.
    output: Vec<u8>,
    reader: Reader,
    /// The answers to come, in order.
    expected: VecDeque<Expected>,
    /// The deadline is that of an answer.
    is_waiting: bool,
    /// How many replicas have what an answer tells of, before it is told.
    replicas: usize,
    /// An answer that is not known to be theirs yet.
    unconfirmed: Option<Reply>,
    /// Tries that have failed, since one that has not.
    failures: u32,
    /// The pauses are those of this seed.
    seed: u64,
    /// When the next try is due.
    retry: Option<Instant>,
    /// The connection is to be given up, for this reason.
    given_up: Option<String>,
    state: EngineState,
}

/// An answer to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// To the greeting.
    Hello,
    /// The name of the script.
    Digest,
    /// To a command of the service.
    Answer,
    /// The same, which is told when the replicas have it.
    Write,
    /// How many replicas have it.
    Replicas,
    /// To our own question whether the engine is there.
    Pong,
}

/// An event of a link. There are no others.
#[derive(Debug)]
pub enum LinkEvent {
    /// It can be [sent to](Link::run). Commands without an answer are to be sent again.
    Ready,
    /// The answer to the command that was sent first, of those that have none.
    Answer(Reply),
    /// A message on a channel: the channel, and the message.
    Message(Vec<u8>, Vec<u8>),
    /// It is down. No answer comes any more.
    Down,
}

impl Link {
    /// Makes a link that connects to the engine at `addresses`, one after the other, and brings it `script`. If there are
    /// none, those of the target are looked up. It begins when its service is [started](super::Linked::start), in a loop
    /// on [the target's network](Target::network).
    pub fn new(target: Target, addresses: Vec<Address>, script: &'static str) -> Link {
        Link {
            target,
            addresses,
            at: 0,
            look_up: None,
            moved: None,
            listener: ListenerId::new(),
            script,
            conn: None,
            is_ready: false,
            is_held: false,
            digest: Vec::new(),
            output: Vec::new(),
            reader: Reader::default(),
            expected: VecDeque::new(),
            is_waiting: false,
            replicas: 0,
            unconfirmed: None,
            failures: 0,
            seed: RandomState::new().hash_one(()),
            retry: None,
            given_up: None,
            state: EngineState::default(),
        }
    }

    /// Has so many replicas take what a script has written before its answer is told
    /// ([WAIT](https://redis.io/docs/latest/commands/wait/)).
    pub fn replicas(self, replicas: usize) -> Link {
        Link { replicas, ..self }
    }

    /// Has its pauses be the same in each run, for a simulation. Otherwise they are random.
    pub fn seed(self, seed: u64) -> Link {
        Link { seed, ..self }
    }

    /// Returns the id for the listener that its connections count with.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }

    /// Returns the target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Returns how the engine does, and has done.
    pub fn state(&self) -> &EngineState {
        &self.state
    }

    /// Returns whether commands can be sent.
    pub fn is_ready(&self) -> bool {
        self.conn.is_some() && self.is_ready
    }

    /// Sends a command that is not answered but by messages, as SSUBSCRIBE. While the link is not ready, it is lost.
    pub fn send_unanswered<W: AsRef<[u8]>>(&mut self, words: &[W]) {
        if self.is_ready() {
            self.output.extend(command(words));
        }
    }

    fn send(&mut self, command: &[u8], expected: Expected) {
        if self.is_ready() {
            self.output.extend(command);
            self.expected.push_back(expected);
        }
    }

    /// Runs the script, which may write, with keys and arguments. It is answered.
    pub fn run<K: AsRef<[u8]>, A: AsRef<[u8]>>(&mut self, keys: &[K], args: &[A]) {
        if self.replicas == 0 {
            return self.ask(keys, args);
        }
        self.send(&evalsha(&self.digest, keys, args), Expected::Write);
        let wait = ["WAIT", &self.replicas.to_string(), &REPLICATION.as_millis().to_string()];
        self.send(&command(&wait), Expected::Replicas);
    }

    /// Runs the script as [`run`](Self::run) does, without replicas: to read.
    pub fn ask<K: AsRef<[u8]>, A: AsRef<[u8]>>(&mut self, keys: &[K], args: &[A]) {
        self.send(&evalsha(&self.digest, keys, args), Expected::Answer);
    }

    /// Has the connection be given up: the engine does not do what it was asked for. A new one is made after a
    /// pause.
    pub fn give_up(&mut self, reason: &str) {
        self.given_up = Some(reason.to_owned());
    }

    /// Connects, if there is no connection and it is time; sends what is to be sent.
    pub(super) fn tend(&mut self, cx: &mut Context<'_>) -> Option<LinkEvent> {
        if let Some(reason) = self.given_up.take() {
            return self.fail(cx, reason);
        }
        if self.conn.is_none() && self.retry.is_none_or(|retry| retry <= cx.now()) {
            self.connect(cx);
        }
        let id = self.conn.filter(|_| !self.output.is_empty())?;
        let fits = self.output.len().min(cx.send_capacity(id));
        if cx.send(id, &self.output[..fits]).is_ok() {
            self.output.drain(..fits);
        }
        if !self.is_waiting {
            self.wait(cx); // one that waits already is not put off
        }
        None
    }

    fn connect(&mut self, cx: &mut Context<'_>) {
        self.take_addresses();
        let Some(address) = self.moved.take().or_else(|| self.addresses.get(self.at).cloned()) else {
            return self.try_later(cx, "it has no address".to_owned());
        };
        self.conn = Some(cx.connect(self.listener, address));
        (self.retry, self.unconfirmed) = (None, None);
        (self.is_ready, self.is_held, self.is_waiting) = (false, false, false);
        self.output = [command(&self.target.hello()), command(&["SCRIPT", "LOAD", self.script])].concat();
        self.expected = [Expected::Hello, Expected::Digest].into();
        self.reader = Reader::default();
    }

    /// Looks the addresses up anew, on a thread: this may take seconds. The next tries go on with those that there are.
    fn look_up(&mut self) {
        if self.look_up.is_some() || !(self.addresses.is_empty() || self.target.has_names()) {
            return;
        }
        let (sender, receiver) = channel();
        let target = self.target.clone();
        let started = thread::Builder::new().spawn(move || sender.send(target.addresses()));
        self.look_up = started.is_ok().then_some(receiver);
    }

    /// Takes what a look-up has found, if there is one and it is over.
    fn take_addresses(&mut self) {
        let Some(found) = self.look_up.as_ref().map(Receiver::try_recv) else { return };
        match found {
            Err(TryRecvError::Empty) => return,
            Ok(Ok(addresses)) if addresses != self.addresses => {
                log::info!("--engine {}: its addresses have changed: {addresses:?}", self.target);
                (self.addresses, self.at) = (addresses, 0);
            }
            Ok(Err(error)) => log::debug!("--engine {}: {error}; its addresses stay", self.target),
            _ => {}
        }
        self.look_up = None;
    }

    /// Returns when there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.retry.filter(|_| self.conn.is_none())
    }

    /// Sets the deadline of the next answer; or of the silence, if none is to come.
    fn wait(&mut self, cx: &mut Context<'_>) {
        self.is_waiting = !self.expected.is_empty();
        if let Some(id) = self.conn {
            cx.set_deadline(id, cx.now().checked_add(TIMEOUT));
        }
    }

    /// Holds the engine back, or no more.
    pub(super) fn hold(&mut self, cx: &mut Context<'_>, is_held: bool) {
        self.is_held = is_held;
        if let Some(id) = self.conn {
            if is_held { cx.pause(id) } else { cx.resume(id) }
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Reads what has come. Returns how many bytes it took, and what they say.
    pub(super) fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, input: &[u8]) -> (usize, Option<LinkEvent>) {
        if self.conn != Some(id) {
            return (input.len(), None); // an answer on a connection that was given up is to nothing
        }
        match self.reader.read(input) {
            Ok(Some((reply, len))) => (len, self.hear(cx, reply)),
            Ok(None) => (0, None),
            Err(error) => (input.len(), self.fail(cx, error)),
        }
    }

    fn hear(&mut self, cx: &mut Context<'_>, reply: Reply) -> Option<LinkEvent> {
        let reply = match reply {
            Reply::Push(mut words) if words.len() == 3 && words[0] == b"smessage" => {
                let message = words.pop()?;
                return Some(LinkEvent::Message(words.pop()?, message));
            }
            Reply::Push(_) => return None, // a channel is listened to, or no more
            Reply::Error(text) if !is_for_service(&text) => return self.rejected(cx, text),
            reply => reply,
        };
        let expected = self.expected.pop_front();
        self.wait(cx);
        match expected? {
            Expected::Hello => None,
            Expected::Digest => {
                self.digest = if let Reply::Text(digest) = reply { digest } else { Vec::new() };
                self.is_ready = true;
                self.state.connects += 1;
                Some(LinkEvent::Ready)
            }
            Expected::Answer => Some(self.answered(reply)),
            Expected::Write => {
                self.unconfirmed = Some(reply);
                None
            }
            Expected::Replicas => {
                let (found, wanted) = (reply.number().unwrap_or(0), self.replicas as u64);
                if found < wanted {
                    return self.fail(cx, format!("{found} replicas have what was written, not {wanted}"));
                }
                self.unconfirmed.take().map(|answer| self.answered(answer))
            }
            Expected::Pong => {
                self.succeed();
                None
            }
        }
    }

    fn answered(&mut self, answer: Reply) -> LinkEvent {
        self.succeed();
        LinkEvent::Answer(answer)
    }

    /// The engine does what it was asked for.
    fn succeed(&mut self) {
        self.failures = 0;
        if self.state.trouble.take().is_some() {
            log::info!("--engine {}: it answers again", self.target);
        }
    }

    fn rejected(&mut self, cx: &mut Context<'_>, text: String) -> Option<LinkEvent> {
        let moved = moved(&text);
        let event = self.fail(cx, text);
        self.moved = moved;
        event
    }

    fn fail(&mut self, cx: &mut Context<'_>, reason: String) -> Option<LinkEvent> {
        let id = self.conn?;
        cx.abort(id);
        self.on_close(cx, id, reason)
    }

    /// A connection has closed.
    pub(super) fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, reason: String) -> Option<LinkEvent> {
        if self.conn != Some(id) {
            return None;
        }
        self.conn = None;
        self.try_later(cx, reason);
        Some(LinkEvent::Down)
    }

    /// Goes on after a pause, with the next address.
    fn try_later(&mut self, cx: &Context<'_>, reason: String) {
        if self.state.trouble.is_none() {
            log::error!("--engine {}: {reason}; requests wait", self.target);
        }
        self.state.trouble = Some(reason);
        self.state.failures += 1;
        self.at = (self.at + 1) % self.addresses.len().max(1);
        if self.at == 0 {
            self.look_up();
        }
        let pause = PAUSE.0.saturating_mul(1 << self.failures.min(16)).min(PAUSE.1);
        self.failures += 1;
        // Between a half and the whole: edges that have lost the engine together do not come back together.
        let part = BuildHasherDefault::<DefaultHasher>::default().hash_one((self.seed, self.state.failures)) % 512;
        self.retry = cx.now().checked_add(pause.mul_f64(0.5 + part as f64 / 1024.0));
        self.output.clear();
    }

    /// The engine has not answered in time; or there was nothing to answer.
    pub(super) fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId) -> Option<LinkEvent> {
        if self.conn != Some(id) {
            return None;
        }
        if self.is_held {
            self.wait(cx); // its answer is perhaps there
            return None;
        }
        if self.is_ready() && self.expected.is_empty() {
            self.send(&command(&["PING"]), Expected::Pong);
            return None;
        }
        self.fail(cx, format!("no answer within {TIMEOUT:?}"))
    }

    /// Makes a new connection at once: this one is another's from now on.
    pub fn restart(&mut self, cx: &mut Context<'_>) {
        self.close(cx);
    }

    /// Ends the connection.
    pub(super) fn close(&mut self, cx: &mut Context<'_>) {
        self.output.clear();
        self.retry = None;
        if let Some(id) = self.conn.take() {
            cx.abort(id);
        }
    }
}

/// Returns whether an error is one of a script of ours.
fn is_for_service(error: &str) -> bool {
    ["EXPIRED ", "CAPACITY ", "CHANNEL "].iter().any(|kind| error.starts_with(kind))
}
