//! The channels of an engine that several nodes share. A node listens to those that it has readers for, and keeps
//! their messages in its hub.
//!
//! A channel is read from the engine once; then its messages come as they are published. A hole in their ids, or a new
//! connection, has it read again from there. The engine is told the stamp of the last message here: so it notices that it
//! has lost that one, and given its id again.

use super::hub::Hub;
use super::name::Name;
use pollstack::engine::{Link, LinkEvent, Reply};
use pollstack::operate::Text;
use pollstack::stack::Histogram;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::FromStr;
use std::time::Instant;

/// The script in the engine.
pub const SCRIPT: &str = include_str!("channel.lua");

/// Bytes of messages in one answer, and the one that goes beyond.
const PAGE: usize = 32 * 1024;

/// How many commands there may be without an answer before publishers wait.
const UNANSWERED: usize = 64;

/// How many broken channels the log tells of.
const TOLD: usize = 16;

/// Bytes of a message's answer around it.
pub const AROUND: usize = PAGE + 16 * 1024;

/// The state of an engine, as it is known here. `P` names a publisher.
#[derive(Debug)]
pub(crate) struct Remote<P> {
    /// How many messages of a channel are kept.
    history: usize,
    channels: BTreeMap<Name, Channel>,
    /// Commands without an answer, in order, and when they were sent.
    sent: VecDeque<(Instant, Sent<P>)>,
    /// Channels that are still to be listened to.
    wanted: VecDeque<Name>,
    /// Messages that are still to be sent.
    messages: VecDeque<(Name, String, P)>,
    /// Channels of which the log has told, on this connection, that they are broken.
    told: BTreeSet<Name>,
    is_up: bool,
    counts: Counts,
}

/// The outcome of the commands so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    answered: u64,
    /// Messages that may be published, or not.
    unknown: u64,
    /// From a command to its answer.
    times: Histogram,
}

/// A channel that is listened to, or is to be.
#[derive(Clone, Copy, Debug)]
struct Channel {
    state: State,
    /// The last message that is here.
    last: Option<Entry>,
}

/// A message in the engine: its id, and the time at which it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    id: u64,
    stamp: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Messages are being read. Those that are published meanwhile are among them, or come behind.
    Reading,
    Live,
}

#[derive(Debug)]
enum Sent<P> {
    Publish(Name, P),
    /// From an id on.
    Read(Name, u64),
}

/// The result of what the engine has said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News<P> {
    /// A message is published, by this id: 0 if the engine has no room.
    Published(Name, P, u64),
    /// It may be published, or not: the link is down.
    Unknown(P),
    /// It is not: the channel is broken.
    Rejected(P),
    /// A channel can be read.
    Live(Name),
    /// It cannot: there are too many channels here.
    Full(Name),
    /// It cannot: another program's value is in its place.
    Broken(Name),
    /// A message has come to a channel, of so many bytes.
    Message(Name, usize),
    /// There is more to read.
    More,
    /// The engine's answer is not that of our script.
    Wrong,
}

impl<P> Remote<P> {
    pub(crate) fn new(history: usize) -> Remote<P> {
        let (channels, sent, wanted, messages, told) = Default::default();
        Remote { history, channels, sent, wanted, messages, told, is_up: false, counts: Counts::default() }
    }

    /// Returns whether a channel can be read.
    pub(crate) fn is_live(&self, name: &Name) -> bool {
        self.channels.get(name).is_some_and(|channel| channel.state == State::Live)
    }

    /// Forgets the channels that are not to be kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Name) -> bool) {
        self.channels.retain(|name, _| keep(name));
    }

    /// Returns how many channels are listened to, or are to be.
    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Has a channel be listened to, and read.
    pub(crate) fn want(&mut self, name: &Name) {
        let is_reading = self.channels.get(name).is_some_and(|channel| channel.state == State::Reading);
        if !is_reading {
            self.set(name, State::Reading);
            self.wanted.push_back(name.clone());
        }
    }

    fn set(&mut self, name: &Name, state: State) -> &mut Channel {
        let channel = self.channels.entry(name.clone()).or_insert(Channel { state, last: None });
        channel.state = state;
        channel
    }

    /// Returns whether a message may be published now.
    pub(crate) fn takes_messages(&self) -> bool {
        self.is_up && self.sent.len() + self.messages.len() < UNANSWERED
    }

    /// Returns whether a message is on its way.
    pub(crate) fn is_publishing(&self) -> bool {
        !self.messages.is_empty() || self.sent.iter().any(|(_, sent)| matches!(sent, Sent::Publish(..)))
    }

    pub(crate) fn publish(&mut self, name: &Name, text: &str, who: P) {
        self.messages.push_back((name.clone(), text.to_owned(), who));
    }

    fn send(&mut self, now: Instant, link: &mut Link, name: Name, text: &str, who: P) {
        let channel = key(link, &name, "");
        link.run(&keys(link, &name), &["publish", text, &self.history.to_string(), &channel]);
        self.sent.push_back((now, Sent::Publish(name, who)));
    }

    fn read(&mut self, now: Instant, link: &mut Link, name: &Name, from: u64) {
        let last = self.set(name, State::Reading).last.filter(|last| last.id.checked_add(1) == Some(from));
        let stamp = last.map(|last| last.stamp.to_string()).unwrap_or_default();
        link.ask(&keys(link, name), &["read", &from.to_string(), &PAGE.to_string(), &stamp]);
        self.sent.push_back((now, Sent::Read(name.clone(), from)));
    }

    /// Sends messages; listens to the channels that are wanted, and no more to those that the hub has forgotten.
    pub(crate) fn settle<S: Copy>(&mut self, now: Instant, link: &mut Link, hub: &mut Hub<S>) {
        for name in hub.take_forgotten() {
            let name: Result<Name, _> = name.parse();
            if let Some(name) = name.ok().filter(|name| self.is_live(name) && !hub.has(name.as_str())) {
                self.abandon(link, &name);
            }
        }
        while let Some((name, text, who)) = if self.is_up { self.messages.pop_front() } else { None } {
            self.send(now, link, name, &text, who);
        }
        while self.is_up && self.sent.len() < UNANSWERED {
            let Some(name) = self.wanted.pop_front() else { return };
            link.send_unanswered(&["SSUBSCRIBE", &key(link, &name, "")]);
            self.read(now, link, &name, hub.next(name.as_str()).unwrap_or(0));
        }
    }

    /// Takes what the engine says.
    pub(crate) fn hear<S: Copy>(
        &mut self,
        now: Instant,
        link: &mut Link,
        hub: &mut Hub<S>,
        event: LinkEvent,
    ) -> Vec<News<P>> {
        match event {
            LinkEvent::Ready => {
                self.is_up = true;
                self.told.clear();
                self.wanted = self.channels.keys().cloned().collect();
                self.channels.values_mut().for_each(|channel| channel.state = State::Reading);
                Vec::new()
            }
            LinkEvent::Down => {
                self.is_up = false;
                let publisher =
                    |(_, sent)| if let Sent::Publish(_, who) = sent { Some(News::Unknown(who)) } else { None };
                let news: Vec<_> = self.sent.drain(..).filter_map(publisher).collect();
                self.counts.unknown += news.len() as u64;
                news
            }
            LinkEvent::Message(channel, message) => {
                self.message(now, link, hub, &channel, &message).into_iter().collect()
            }
            LinkEvent::Answer(Reply::Error(error)) => self.rejected(now, link, &error).into_iter().collect(),
            LinkEvent::Answer(reply) => match self.answered(now) {
                Some(Sent::Publish(name, who)) => match reply.number() {
                    Some(id) => vec![News::Published(name, who, id)],
                    None => {
                        self.counts.unknown += 1;
                        vec![News::Unknown(who), News::Wrong]
                    }
                },
                Some(Sent::Read(name, from)) => vec![self.page(now, link, hub, name, from, &reply)],
                None => vec![News::Wrong],
            },
        }
    }

    /// Returns the command that is answered now.
    fn answered(&mut self, now: Instant) -> Option<Sent<P>> {
        let (then, sent) = self.sent.pop_front()?;
        self.counts.answered += 1;
        self.counts.times.add(now.saturating_duration_since(then));
        Some(sent)
    }

    /// Adds its counts.
    pub(crate) fn metrics(&self, text: &mut Text) {
        let Counts { answered, unknown, times } = &self.counts;
        text.one("engine_requests_total", "counter", "Commands that the engine has answered.", answered);
        let lost = "Messages that may be published or not, as the engine went away.";
        text.one("engine_unknown_total", "counter", lost, unknown);
        text.histogram("engine_seconds", "From a command to its answer.", times);
    }

    /// A channel is broken: another program's value is in its place.
    fn rejected(&mut self, now: Instant, link: &mut Link, error: &str) -> Option<News<P>> {
        let (name, news) = match self.answered(now)? {
            Sent::Publish(name, who) => (name, News::Rejected(who)),
            Sent::Read(name, _) => {
                self.abandon(link, &name);
                (name.clone(), News::Broken(name))
            }
        };
        if self.told.len() < TOLD && self.told.insert(name.clone()) {
            log::error!(
                "--engine {}: channel {}: {error}; delete {}",
                link.target(),
                name.as_str(),
                key(link, &name, ":*")
            );
        }
        Some(news)
    }

    /// Listens to a channel no more.
    fn abandon(&mut self, link: &mut Link, name: &Name) {
        self.channels.remove(name);
        link.send_unanswered(&["SUNSUBSCRIBE", &key(link, name, "")]);
    }

    fn message<S: Copy>(
        &mut self,
        now: Instant,
        link: &mut Link,
        hub: &mut Hub<S>,
        channel: &[u8],
        message: &[u8],
    ) -> Option<News<P>> {
        let channel = std::str::from_utf8(channel).ok()?;
        let name: Name = channel.strip_prefix(&prefix(link))?.parse().ok()?;
        let (entry, text) = std::str::from_utf8(message).ok()?.split_once(' ')?;
        let (entry, next) = (entry.parse::<Entry>().ok()?, hub.next(name.as_str())?);
        if !self.is_live(&name) {
            return None; // it is among what is being read
        }
        if entry.id != next {
            // There is a hole, or the engine has lost messages and gives their ids again.
            self.read(now, link, &name, next);
            return None;
        }
        self.append(hub, &name, entry, text);
        Some(News::Message(name, text.len()))
    }

    fn append<S: Copy>(&mut self, hub: &mut Hub<S>, name: &Name, entry: Entry, text: &str) {
        hub.append(name.as_str(), entry.id, text);
        if let Some(channel) = self.channels.get_mut(name) {
            channel.last = Some(entry);
        }
    }

    /// Takes messages of a channel that is being read, and asks for more if there are.
    fn page<S: Copy>(
        &mut self,
        now: Instant,
        link: &mut Link,
        hub: &mut Hub<S>,
        name: Name,
        from: u64,
        reply: &Reply,
    ) -> News<P> {
        let Some(Page { first, end, messages }) = page(reply) else { return News::Wrong };
        // The hub has forgotten what was read before; or the engine has lost what is here.
        if from > 0 && hub.next(name.as_str()).is_none_or(|next| end < next) {
            self.read(now, link, &name, 0);
            return News::More;
        }
        let begins = messages.first().map_or(end, |(entry, _)| entry.id);
        if !hub.open(name.as_str(), first, begins) {
            self.abandon(link, &name);
            return News::Full(name);
        }
        for (entry, text) in messages {
            self.append(hub, &name, entry, text);
        }
        match hub.next(name.as_str()) {
            Some(next) if next < end => {
                self.read(now, link, &name, next);
                News::More
            }
            _ => {
                self.set(&name, State::Live);
                News::Live(name)
            }
        }
    }
}

/// A part of a channel: the first id of its life, the next one, and messages.
struct Page<'a> {
    first: u64,
    end: u64,
    messages: Vec<(Entry, &'a str)>,
}

impl FromStr for Entry {
    type Err = ();

    fn from_str(text: &str) -> Result<Entry, ()> {
        let (id, stamp) = text.split_once('-').ok_or(())?;
        Ok(Entry { id: id.parse().map_err(drop)?, stamp: stamp.parse().map_err(drop)? })
    }
}

fn page(reply: &Reply) -> Option<Page<'_>> {
    let Reply::List(parts) = reply else { return None };
    let (head, rest) = parts.split_at_checked(2)?;
    let mut messages = Vec::with_capacity(rest.len() / 2);
    for pair in rest.chunks(2) {
        let [Reply::Text(entry), Reply::Text(text)] = pair else { return None };
        messages.push((std::str::from_utf8(entry).ok()?.parse().ok()?, std::str::from_utf8(text).ok()?));
    }
    Some(Page { first: head[0].number()?, end: head[1].number()?, messages })
}

fn prefix(link: &Link) -> String {
    link.target().prefix() + "channel:"
}

fn key(link: &Link, name: &Name, kind: &str) -> String {
    format!("{}{}{kind}", prefix(link), name.as_str())
}

fn keys(link: &Link, name: &Name) -> [String; 2] {
    [key(link, name, ":numbers"), key(link, name, ":stream")]
}
