//! A channel: its last messages, and the subscribers that are to have the next.

use super::message::Message;
use super::start::{Gap, Start};
use pollstack::arena::Arena;
use std::collections::VecDeque;

/// One channel. Its ids increase by one, without holes.
#[derive(Debug)]
pub(crate) struct Channel<S> {
    pub(crate) members: Arena<Member<S>>,
    ring: VecDeque<Message>,
    /// The bytes of all texts in the ring.
    bytes: usize,
    /// The first id of its life, and the next one.
    first: u64,
    next: u64,
    /// When it was used last, as the hub counts.
    pub(crate) used: u64,
}

/// A subscriber of a channel.
#[derive(Debug)]
pub(crate) struct Member<S> {
    pub(crate) who: S,
    /// The id of the message that it is to have next.
    pub(crate) next: u64,
}

/// The bounds of a channel's history.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// How many messages of a channel.
    pub messages: usize,
    /// How many bytes of a channel's messages.
    pub bytes: usize,
}

impl<S> Channel<S> {
    pub(crate) fn new(first: u64) -> Self {
        Channel { members: Arena::new(), ring: VecDeque::new(), bytes: 0, first, next: first, used: 0 }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.next - self.ring.len() as u64
    }

    /// Returns whether nothing would be lost with it.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.next == self.first
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.ring.push_back(Message::new(self.next, text));
        self.bytes += text.len();
        self.next += 1;
    }

    /// Drops what is beyond the bounds.
    pub(crate) fn trim(&mut self, history: History) {
        while self.ring.len() > history.messages || self.bytes > history.bytes {
            let Some(message) = self.ring.pop_front() else { return };
            self.bytes -= message.text.len();
        }
    }

    /// Returns the message with an id, if it is held.
    pub(crate) fn get(&self, id: u64) -> Option<&Message> {
        let at = id.checked_sub(self.oldest())?;
        self.ring.get(usize::try_from(at).ok()?)
    }

    /// Returns the messages from an id on.
    pub(crate) fn from(&self, id: u64) -> impl Iterator<Item = &Message> {
        let skip = usize::try_from(id.saturating_sub(self.oldest())).unwrap_or(usize::MAX);
        self.ring.iter().skip(skip)
    }

    /// Returns where a subscriber begins that has the message `after`: 0 for the beginning of what there
    /// is, `None` for what comes from now on.
    ///
    /// An id from before what is held, or from beyond the newest, which the clock of another life
    /// must have given, has an unknown number of messages behind it that are lost.
    pub(crate) fn start(&self, after: Option<u64>) -> Start {
        let oldest = self.oldest();
        match after {
            None => Start { next: self.next, gap: None },
            Some(0) if oldest == self.first => Start { next: oldest, gap: None },
            Some(after) if after.checked_add(1).is_some_and(|next| (oldest..=self.next).contains(&next)) => {
                Start { next: after + 1, gap: None }
            }
            Some(after) => Start { next: oldest, gap: Some(Gap { after, oldest }) },
        }
    }
}
