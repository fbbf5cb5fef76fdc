//! The connection to an engine: made, greeted, watched, and made again when it fails.

use super::script::{self, Said, command, said};
use super::target::Target;
use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use crate::net::Address;
use crate::operate::EngineState;
use crate::stack::Asks;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// How long a connection may take, and an answer. Then it is made again, to the next address.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before the second try, which doubles with each, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A connection to an engine, for an edge.
#[derive(Debug)]
pub struct Link {
    target: Target,
    addresses: Vec<Address>,
    /// The address in use, of these.
    at: usize,
    /// Where a node of a cluster has sent us.
    moved: Option<Address>,
    listener: ListenerId,
    channel: String,
    conn: Option<ConnId>,
    phase: Phase,
    digest: Vec<u8>,
    /// Tries that have failed, since one that has not.
    failures: u32,
    /// When the next try is due.
    retry: Option<Instant>,
    state: EngineState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Greeted, with so many answers to come.
    Greeting(u8),
    Ready,
}

/// An event of a link. There are no others.
#[derive(Debug)]
pub enum LinkEvent {
    /// It can be [sent to](Link::run). A batch without an answer is to be sent again.
    Ready,
    /// The engine has answered.
    Said(Said),
}

impl Link {
    /// Makes a link that connects to the engine at `addresses` by way of `listener`, and listens to the channel of
    /// `edge`. It begins with the first [`tend`](Self::tend).
    pub fn new(target: Target, addresses: Vec<Address>, listener: ListenerId, edge: u64) -> Link {
        let channel = script::channel(&target, edge);
        Link {
            target,
            addresses,
            at: 0,
            moved: None,
            listener,
            channel,
            conn: None,
            phase: Phase::Greeting(0),
            digest: Vec::new(),
            failures: 0,
            retry: None,
            state: EngineState::default(),
        }
    }

    /// Connects, if there is no connection and it is time.
    pub fn tend(&mut self, cx: &mut Context<'_>) {
        if self.conn.is_some() || self.retry.is_some_and(|retry| cx.now() < retry) {
            return;
        }
        let address = self.moved.take().unwrap_or_else(|| self.addresses[self.at].clone());
        let id = cx.connect(self.listener, address);
        let greeting = [
            command(&self.target.hello()),
            command(&["SCRIPT", "LOAD", script::SCRIPT]),
            command(&["SSUBSCRIBE", &self.channel]),
        ];
        let _ = cx.send(id, &greeting.concat()); // it is told if that is lost
        self.phase = Phase::Greeting(greeting.len() as u8);
        self.conn = Some(id);
        self.expect(cx);
    }

    /// Returns when [`tend`](Self::tend) has something to do.
    pub fn due(&self) -> Option<Instant> {
        self.retry.filter(|_| self.conn.is_none())
    }

    /// Returns whether requests can be sent.
    pub fn is_ready(&self) -> bool {
        self.conn.is_some() && self.phase == Phase::Ready
    }

    /// Returns how the engine does, and has done.
    pub fn state(&self) -> &EngineState {
        &self.state
    }

    /// Returns the target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Runs the script.
    pub fn run(&mut self, cx: &mut Context<'_>, capacity: usize, batch: &Asks) {
        if let Some(id) = self.conn.filter(|_| self.phase == Phase::Ready) {
            let _ = cx.send(id, &script::run(&self.digest, &self.target, capacity, batch));
            self.expect(cx);
        }
    }

    /// Waits for an answer.
    fn expect(&self, cx: &mut Context<'_>) {
        if let Some(id) = self.conn {
            cx.set_deadline(id, cx.now().checked_add(TIMEOUT));
        }
    }

    /// Reads what has come. Returns how many bytes it took, and what they say; a link that cannot go on says
    /// nothing more.
    pub fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, input: &[u8]) -> (usize, Option<LinkEvent>) {
        if self.conn != Some(id) {
            return (input.len(), None); // an answer on a connection that was given up is to nothing
        }
        let (what, len) = match said(input) {
            Ok(Some(read)) => read,
            Ok(None) => return (0, None),
            Err(error) => {
                self.give_up(cx, error);
                return (input.len(), None);
            }
        };
        (len, self.hear(cx, what))
    }

    fn hear(&mut self, cx: &mut Context<'_>, what: Said) -> Option<LinkEvent> {
        match what {
            Said::Refused(reason) => {
                self.give_up(cx, reason);
                None
            }
            Said::Moved(address) => {
                self.give_up(cx, format!("the keys are at {address}"));
                self.moved = Some(address);
                None
            }
            what => match self.phase {
                Phase::Greeting(left) => {
                    if let Said::Digest(digest) = what {
                        self.digest = digest;
                    }
                    self.phase = if left == 1 { Phase::Ready } else { Phase::Greeting(left - 1) };
                    self.is_ready().then(|| self.begin(cx))
                }
                Phase::Ready => {
                    if let (Said::Told(_), Some(id)) = (&what, self.conn) {
                        cx.set_deadline(id, None);
                        self.succeed();
                    }
                    Some(LinkEvent::Said(what))
                }
            },
        }
    }

    fn begin(&mut self, cx: &mut Context<'_>) -> LinkEvent {
        self.state.connects += 1;
        if let Some(id) = self.conn {
            cx.set_deadline(id, None);
        }
        LinkEvent::Ready
    }

    /// The engine does what it was asked for.
    fn succeed(&mut self) {
        self.failures = 0;
        if self.state.trouble.take().is_some() {
            log::info!("--engine {}: it answers again", self.target);
        }
    }

    fn give_up(&mut self, cx: &mut Context<'_>, reason: String) {
        if let Some(id) = self.conn.take() {
            cx.abort(id);
            self.fail(cx, reason);
        }
    }

    /// A connection has closed. Returns whether it was this link's.
    pub fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, reason: String) {
        if self.conn == Some(id) {
            self.conn = None;
            self.fail(cx, reason);
        }
    }

    /// The engine has not answered in time.
    pub fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId) {
        if self.conn == Some(id) {
            self.give_up(cx, format!("no answer within {TIMEOUT:?}"));
        }
    }

    /// Has the next connection be made after a pause, to the next address.
    fn fail(&mut self, cx: &mut Context<'_>, reason: String) {
        if self.state.trouble.is_none() {
            log::error!("--engine {}: {reason}; requests wait", self.target);
        }
        self.state.trouble = Some(reason);
        self.state.failures += 1;
        self.at = (self.at + 1) % self.addresses.len().max(1);
        let pause = PAUSE.0.saturating_mul(1 << self.failures.min(16)).min(PAUSE.1);
        self.failures += 1;
        // Between a half and the whole: edges that have lost the engine together do not come back together.
        let part = RandomState::new().hash_one(self.failures) % 512;
        self.retry = cx.now().checked_add(pause.mul_f64(0.5 + part as f64 / 1024.0));
    }

    /// Makes a new connection, for another edge.
    pub fn restart(&mut self, cx: &mut Context<'_>, edge: u64) {
        self.channel = script::channel(&self.target, edge);
        if let Some(id) = self.conn.take() {
            cx.abort(id);
        }
        self.retry = None;
    }

    /// Ends the connection, for good if [`tend`](Self::tend) is not called again.
    pub fn close(&mut self, cx: &mut Context<'_>) {
        if let Some(id) = self.conn.take() {
            cx.abort(id);
        }
    }
}
