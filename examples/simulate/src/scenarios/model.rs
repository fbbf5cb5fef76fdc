//! The stack, as simple as it can be said: lists, and no loop.

use super::report::{Check, require};
use pollstack::limits::LINGER_TIME;
use pollstack::sim::{Entry, Event};
use std::collections::VecDeque;
use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

pub(crate) struct Model {
    capacity: usize,
    max_clients: usize,
    evict_after: Duration,
    stack: Vec<Vec<u8>>,
    /// Items on their way out. Their room is theirs until they have left.
    leaving: usize,
    pushes: VecDeque<usize>,
    pops: VecDeque<usize>,
    /// The clients that are in, in the order in which they came.
    admitted: VecDeque<usize>,
    clients: Vec<Known>,
    /// A client has been evicted, and the newcomer is still to come.
    evicting: bool,
    /// The loop knows what had happened before its last wait.
    prompt: bool,
    /// The system does not run out of descriptors, for which those who linger would be given up.
    promised: bool,
}

/// A client, as the model knows it.
struct Known {
    stage: Stage,
    input: Vec<u8>,
    since: Duration,
    /// The bytes it has to be sent, and how many of them have been.
    answer: Vec<u8>,
    written: usize,
    /// The answer that it gets.
    item: Option<Vec<u8>>,
    failed: bool,
    closes: usize,
    /// How often the loop had waited when this client went.
    went: Option<usize>,
    /// It was rejected, and may still be sending its request.
    rejected: bool,
    /// When the server has ended its half.
    shut: Option<Duration>,
    /// The server has read the end.
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Backlog,
    Accepted,
    Reading,
    Pushing,
    Popping,
    /// Its answer is decided.
    Answered,
    /// It has sent what is no request.
    NoRequest,
    /// It was rejected.
    Rejected,
    /// It has hung up before it had its answer.
    Cancelled,
    /// It is closed for the server.
    Gone,
}

impl Model {
    pub(crate) fn new(capacity: usize, max_clients: usize, evict_after: Duration) -> Model {
        Model {
            capacity,
            max_clients,
            evict_after,
            stack: Vec::new(),
            leaving: 0,
            pushes: VecDeque::new(),
            pops: VecDeque::new(),
            admitted: VecDeque::new(),
            clients: Vec::new(),
            evicting: false,
            prompt: false,
            promised: false,
        }
    }

    /// The same, in a world where what has happened is `prompt`ly known, or where what is `promised` to
    /// those who linger is kept.
    pub(crate) fn in_world(self, prompt: bool, promised: bool) -> Model {
        Model { prompt, promised, ..self }
    }

    pub(crate) fn items(&self) -> usize {
        self.stack.len()
    }

    /// Items on the stack, waiting to be pushed, or on their way out.
    pub(crate) fn held(&self) -> usize {
        self.stack.len() + self.pushes.len() + self.leaving
    }

    pub(crate) fn parked(&self) -> (usize, usize) {
        (self.pushes.len(), self.pops.len())
    }

    pub(crate) fn admitted(&self) -> usize {
        self.admitted.len()
    }

    /// All bytes that a client is to read.
    pub(crate) fn answer(&self, client: usize) -> &[u8] {
        self.clients.get(client).map_or(&[], |known| &known.answer)
    }

    /// Returns whether the server has sent a client all, and has closed.
    pub(crate) fn is_answered(&self, client: usize) -> bool {
        self.clients
            .get(client)
            .is_some_and(|known| known.stage == Stage::Gone && !known.answer.is_empty() && known.is_sent())
    }

    /// Returns whether something has failed that no client is to blame for.
    pub(crate) fn has_failed(&self, client: usize) -> bool {
        self.clients.get(client).is_some_and(|known| known.failed)
    }

    /// Returns how long the oldest client is still safe.
    pub(crate) fn until_old_age(&self, now: Duration) -> Option<Duration> {
        let oldest = &self.clients[*self.admitted.front()?];
        (oldest.since + self.evict_after).checked_sub(now)
    }

    /// Returns whether the server has let a client in, and has not read its whole request yet.
    pub(crate) fn is_reading(&self, client: usize) -> bool {
        self.clients.get(client).is_some_and(|known| known.stage == Stage::Reading)
    }

    /// Follows what happens between a client and the server; whether the client was a newcomer.
    pub(crate) fn hear(&mut self, Entry { at, waits, client, event }: &Entry) -> Result<bool, Box<dyn Error>> {
        let client = *client;
        self.hang_ups(*waits);
        let newcomer = self.clients.get(client).is_some_and(|known| known.stage == Stage::Accepted);
        match event {
            Event::Connected => self.clients.push(Known::new()),
            Event::Ended | Event::Aborted => {
                self.clients[client].went.get_or_insert(*waits);
                return Ok(false);
            }
            Event::Sent(_) | Event::Marked => return Ok(false), // only the server's view counts
            Event::Accepted => self.enter(client, Stage::Backlog, Stage::Accepted)?,
            Event::Lost => self.enter(client, Stage::Backlog, Stage::Gone)?,
            _ if newcomer => self.greet(client, *at)?,
            _ => {}
        }
        match event {
            Event::Read(bytes) if bytes.is_empty() => {
                self.clients[client].ended = true;
                self.cancel(client);
            }
            Event::Read(bytes) => self.read(client, bytes),
            Event::Wrote(bytes) => self.wrote(client, bytes)?,
            Event::Failed(kind) => {
                let known = &mut self.clients[client];
                known.failed = true;
                if *kind == ErrorKind::NotConnected {
                    known.written = 0; // the last of its answer was kept back, and is lost
                }
                self.cancel(client);
            }
            Event::Shut => {
                self.clients[client].shut = Some(*at);
                self.leave(client, *at)?;
            }
            Event::Closed | Event::Reset => {
                self.clients[client].closes += 1;
                require(self.clients[client].closes == 1, || format!("client {client} is closed twice"))?;
                let right = !self.promised || self.clients[client].may_be_closed(*at);
                require(right, || format!("client {client} is rejected, and its request is met by a reset"))?;
                self.leave(client, *at)?;
            }
            _ => {}
        }
        Ok(newcomer)
    }

    fn enter(&mut self, client: usize, from: Stage, to: Stage) -> Check {
        let stage = std::mem::replace(&mut self.clients[client].stage, to);
        require(stage == from, || format!("client {client} is {to:?}, but was {stage:?}"))
    }

    /// The server looks at a newcomer for the first time.
    fn greet(&mut self, client: usize, at: Duration) -> Check {
        if self.admitted.len() < self.max_clients {
            self.clients[client].stage = Stage::Reading;
            self.clients[client].since = at;
            self.admitted.push_back(client);
            self.evicting = false;
            return Ok(());
        }
        let age = self.age_of_oldest(at);
        require(age <= self.evict_after, || format!("client {client} is rejected, but the oldest is {age:?} old"))?;
        let known = &mut self.clients[client];
        (known.stage, known.rejected, known.answer) = (Stage::Rejected, true, vec![0xFF]);
        Ok(())
    }

    fn age_of_oldest(&self, at: Duration) -> Duration {
        self.admitted.front().map_or(Duration::ZERO, |oldest| at - self.clients[*oldest].since)
    }

    fn read(&mut self, client: usize, bytes: &[u8]) {
        let known = &mut self.clients[client];
        if known.rejected {
            known.input.extend(bytes);
        }
        if known.stage != Stage::Reading {
            return;
        }
        known.input.extend(bytes);
        let header = usize::from(known.input[0]);
        match header {
            0 => known.stage = Stage::NoRequest,
            1..128 if known.input.len() > header => {
                known.item = Some(known.input[1..=header].to_vec());
                known.stage = Stage::Pushing;
                self.pushes.push_back(client);
            }
            1..128 => {}
            _ => {
                known.stage = Stage::Popping;
                self.pops.push_back(client);
            }
        }
        self.decide();
    }

    fn decide(&mut self) {
        loop {
            if self.stack.len() + self.leaving < self.capacity && !self.pushes.is_empty() {
                let Some(client) = self.pushes.pop_front() else { return };
                let known = &mut self.clients[client];
                self.stack.extend(known.item.take());
                known.answer = vec![0];
                known.stage = Stage::Answered;
            } else if !self.stack.is_empty() && !self.pops.is_empty() {
                let Some(client) = self.pops.pop_front() else { return };
                let known = &mut self.clients[client];
                known.item = self.stack.pop();
                let item = known.item.as_deref().unwrap_or_default();
                known.answer = [&[item.len() as u8], item].concat();
                known.stage = Stage::Answered;
                self.leaving += 1;
            } else {
                return;
            }
        }
    }

    /// A parked client that went before the loop's last wait gets no answer any more, whatever the order
    /// in which the server finds out.
    fn hang_ups(&mut self, waits: usize) {
        if !self.prompt {
            return;
        }
        let parked = self.pushes.iter().chain(&self.pops).copied();
        let gone = |client: &usize| self.clients[*client].went.is_some_and(|went| went < waits);
        let gone: Vec<usize> = parked.filter(gone).collect();
        gone.into_iter().for_each(|client| self.cancel(client));
    }

    /// The server knows that a client has gone. If it has no answer yet, it will get none.
    fn cancel(&mut self, client: usize) {
        if matches!(self.clients[client].stage, Stage::Reading | Stage::Pushing | Stage::Popping) {
            self.clients[client].stage = Stage::Cancelled;
            self.pushes.retain(|parked| *parked != client);
            self.pops.retain(|parked| *parked != client);
            self.decide();
        }
    }

    fn wrote(&mut self, client: usize, bytes: &[u8]) -> Check {
        let known = &mut self.clients[client];
        let right = known.answer[known.written..].starts_with(bytes);
        require(right, || format!("client {client} is sent {bytes:?}, not {:?}", &known.answer[known.written..]))?;
        known.written += bytes.len();
        Ok(())
    }

    /// The server has closed a client, or lets it linger.
    fn leave(&mut self, client: usize, at: Duration) -> Check {
        let known = &mut self.clients[client];
        let (stage, sent, failed) = (known.stage, known.is_sent(), known.failed);
        match stage {
            Stage::Gone => return Ok(()), // it has lingered
            Stage::Reading | Stage::Pushing | Stage::Popping => self.evict(client, at)?,
            Stage::Answered if !sent && !failed => self.evict(client, at)?,
            Stage::Answered => {}
            Stage::Rejected => {
                require(sent || failed || !self.promised, || format!("client {client} is rejected without a word"))?;
            }
            Stage::NoRequest | Stage::Cancelled => {}
            Stage::Backlog | Stage::Accepted => return Err(format!("client {client} is closed unseen").into()),
        }
        let known = &mut self.clients[client];
        known.stage = Stage::Gone;
        if let (Stage::Answered, Some(item)) = (stage, known.item.take()) {
            self.leaving -= 1;
            self.stack.extend((!sent).then_some(item));
        }
        self.admitted.retain(|admitted| *admitted != client);
        self.decide();
        Ok(())
    }

    /// A client that has not got its answer is closed: that may only be for a newcomer, and for old age.
    fn evict(&mut self, client: usize, at: Duration) -> Check {
        let age = self.age_of_oldest(at);
        let newcomer = self.clients.iter().any(|known| known.stage == Stage::Accepted);
        let oldest = self.admitted.front() == Some(&client);
        let full = self.admitted.len() == self.max_clients;
        let right = newcomer && oldest && full && age > self.evict_after && !self.evicting;
        self.evicting = true;
        self.cancel(client);
        require(right, || {
            format!("client {client} is evicted: oldest: {oldest}, {age:?} old; full: {full}, a newcomer: {newcomer}")
        })
    }

    pub(crate) fn ends_a_turn(&self) -> Check {
        require(!self.evicting, || "a client was evicted without a newcomer".to_owned())
    }

    /// Nothing can be done, all has been read, and nothing goes wrong: no client waits without need.
    pub(crate) fn is_at_rest(&self) -> Check {
        for (client, known) in self.clients.iter().enumerate() {
            let waits = matches!(known.stage, Stage::Backlog | Stage::Accepted | Stage::Answered | Stage::NoRequest);
            require(!waits, || format!("client {client} is {:?} at rest", known.stage))?;
        }
        Ok(())
    }

    /// All clients have gone.
    pub(crate) fn is_over(&self) -> Check {
        require(self.leaving == 0 && self.parked() == (0, 0), || "a client still waits".to_owned())?;
        for (client, known) in self.clients.iter().enumerate() {
            let over = known.stage == Stage::Gone;
            require(over, || format!("client {client} is {:?} in the end", known.stage))?;
        }
        Ok(())
    }
}

impl Known {
    fn new() -> Known {
        Known {
            stage: Stage::Backlog,
            input: Vec::new(),
            since: Duration::ZERO,
            answer: Vec::new(),
            written: 0,
            item: None,
            failed: false,
            closes: 0,
            went: None,
            rejected: false,
            shut: None,
            ended: false,
        }
    }

    /// Returns whether its close is none that its request would be met by: a reset for a client that was turned
    /// away before it had sent that.
    fn may_be_closed(&self, at: Duration) -> bool {
        let whole = match self.input.first().copied() {
            None => false,
            Some(header @ 1..128) => self.input.len() > usize::from(header),
            Some(_) => true,
        };
        let lingered = self.shut.is_some_and(|shut| at >= shut + LINGER_TIME);
        !self.rejected || whole || self.ended || self.failed || lingered
    }

    fn is_sent(&self) -> bool {
        self.written == self.answer.len()
    }
}
