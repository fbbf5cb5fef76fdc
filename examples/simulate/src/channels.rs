//! A model of the script of a channel (`examples/pubsub/src/channel.lua`), with a clock that is told to it.

use std::collections::{BTreeMap, VecDeque};

/// The most messages of a page.
const MOST_MESSAGES: usize = 64;

/// Milliseconds after which a channel that is not used is forgotten, and one to which nothing was ever published.
const LIFE: u64 = 30 * 24 * 60 * 60 * 1000;
const EMPTY_LIFE: u64 = 60 * 60 * 1000;

/// The channels of an engine.
#[derive(Clone, Debug, Default)]
pub struct Channels {
    channels: BTreeMap<String, Channel>,
    no_memory: bool,
}

#[derive(Clone, Debug, Default)]
struct Channel {
    /// The first id of its life, and the next one; `None` before anything is known of it.
    ids: Option<(u64, u64)>,
    messages: VecDeque<Message>,
    /// How long its numbers are kept, in milliseconds, from their last use on.
    life: u64,
    /// Another program's value is where its messages are to be.
    is_broken: bool,
}

/// A message in an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: u64,
    /// The microseconds at which it was published.
    pub stamp: u64,
    /// Its text.
    pub text: String,
}

/// A part of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The first id of the channel's life.
    pub first: u64,
    /// The next one.
    pub next: u64,
    /// Messages, in order.
    pub messages: Vec<Message>,
}

/// The channel's key has another program's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Channel {
    /// Begins a life. Returns false if there is no memory for it.
    fn begin(&mut self, first: u64, next: u64, no_memory: bool) -> bool {
        if !no_memory {
            self.ids = Some((first, next));
            self.life = EMPTY_LIFE;
        }
        !no_memory
    }
}

impl Channels {
    /// Publishes a message at `now`, in microseconds. Returns its id; `None` if there is no memory for it.
    ///
    /// # Errors
    /// [`Broken`]: there is another program's value.
    pub fn publish(&mut self, now: u64, name: &str, text: &str, keep: usize) -> Result<Option<u64>, Broken> {
        let no_memory = self.no_memory;
        let channel = self.channels.entry(name.to_owned()).or_default();
        if channel.ids.is_none() && !channel.begin(now, now, no_memory) {
            return Ok(None);
        }
        let Some((first, id)) = channel.ids.filter(|_| !no_memory) else { return Ok(None) };
        if channel.is_broken {
            return Err(Broken);
        }
        channel.messages.push_back(Message { id, stamp: now, text: text.to_owned() });
        channel.messages.drain(..channel.messages.len().saturating_sub(keep));
        channel.ids = Some((first, id + 1));
        channel.life = LIFE;
        Ok(Some(id))
    }

    /// Reads the messages of a channel from an id on, about `bytes` of them, for a reader that knows the stamp of the
    /// message before them, or not.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn read(&mut self, now: u64, name: &str, from: u64, bytes: usize, stamp: Option<u64>) -> Result<Page, Broken> {
        let no_memory = self.no_memory;
        let channel = self.channels.entry(name.to_owned()).or_default();
        if channel.ids.is_none() && !channel.begin(now, now, no_memory) {
            return Ok(Page { first: now, next: now, messages: Vec::new() });
        }
        let (_, next) = channel.ids.unwrap_or_default();
        let before = channel.messages.iter().find(|message| message.id + 1 == from);
        let is_another = before.is_some_and(|before| stamp.is_some_and(|stamp| stamp != before.stamp));
        if channel.is_broken && stamp.is_some() && from <= next {
            return Err(Broken);
        }
        if from > next || is_another {
            let first = now.max(from).max(next);
            channel.begin(first, first + 1, no_memory);
        }
        let (first, next) = channel.ids.unwrap_or_default();
        channel.life = if first == next { EMPTY_LIFE } else { LIFE };
        if channel.is_broken {
            return Err(Broken);
        }
        let mut taken = 0;
        let rest = channel.messages.iter().filter(|message| message.id >= from.max(first)).take(MOST_MESSAGES);
        let has_room = |message: &&Message| {
            taken += message.text.len();
            taken < bytes + message.text.len()
        };
        Ok(Page { first, next, messages: rest.take_while(has_room).cloned().collect() })
    }

    /// Forgets a channel, as when it was not used for long.
    pub fn forget(&mut self, name: &str) {
        self.channels.remove(name);
    }

    /// Puts another program's value where the messages of a channel are to be, or takes it away. Returns whether that
    /// is a change, with which the messages are gone.
    pub fn set_broken(&mut self, name: &str, is_broken: bool) -> bool {
        let channel = self.channels.entry(name.to_owned()).or_default();
        let changes = channel.is_broken != is_broken;
        if changes {
            channel.is_broken = is_broken;
            channel.messages.clear();
        }
        changes
    }

    /// Sets whether there is no memory for another message.
    pub fn set_no_memory(&mut self, no_memory: bool) {
        self.no_memory = no_memory;
    }

    /// Returns how many milliseconds a channel's numbers are kept; `None` if there are none.
    pub fn life(&self, name: &str) -> Option<u64> {
        self.channels.get(name).filter(|channel| channel.ids.is_some()).map(|channel| channel.life)
    }
}
