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
    sweep: Option<Sweep>,
}

/// A walk past the members of a channel, which gives each of them what it has yet to have.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    /// The key of the member that is next.
    at: usize,
    /// Members that have room have everything before this id.
    from: u64,
    /// The end of what there was when the walk began. Later messages take another one.
    goal: u64,
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
        Channel { members: Arena::new(), ring: VecDeque::new(), bytes: 0, first, next: first, used: 0, sweep: None }
    }

    /// Goes on at `next`, in a life that began at `first`: what is before is not held.
    pub(crate) fn jump(&mut self, first: u64, next: u64) {
        self.ring.clear();
        if self.next == self.first && next == first {
            // Nothing was ever published, in this life or in that: all who are there have everything.
            self.members.retain(|member| {
                member.next = next;
                true
            });
        } else if next < self.next {
            // Ids are given again: all who are there are behind what is held, and told of a gap when they come back.
            self.members.retain(|member| {
                member.next = 0;
                true
            });
        }
        (self.bytes, self.first, self.next) = (0, first, next);
        self.sweep = (!self.members.is_empty()).then_some(Sweep { at: 0, from: next, goal: next });
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
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

    /// Adds a message. Returns whether a walk past the members begins with it.
    pub(crate) fn push(&mut self, text: &str) -> bool {
        let id = self.next;
        self.ring.push_back(Message::new(id, text));
        self.bytes += text.len();
        self.next += 1;
        let begins = self.sweep.is_none() && !self.members.is_empty();
        if begins {
            self.sweep = Some(Sweep { at: 0, from: id, goal: self.next });
        }
        begins
    }

    /// Returns whether all members with room have everything.
    pub(crate) fn is_swept(&self) -> bool {
        self.sweep.is_none()
    }

    /// Returns the first id that members with room may be without.
    pub(crate) fn swept(&self) -> u64 {
        self.sweep.map_or(self.next, |sweep| sweep.from)
    }

    /// Returns the key of the next member of the walk, and goes on; `None` if there is no walk.
    pub(crate) fn next_member(&mut self) -> Option<usize> {
        let sweep = self.sweep.as_mut()?;
        loop {
            let key = sweep.at;
            sweep.at += 1;
            if self.members.at(key).is_some() {
                return Some(key);
            }
            if key >= self.members.capacity() {
                if self.next == sweep.goal || self.members.is_empty() {
                    self.sweep = None;
                    return None;
                }
                *sweep = Sweep { at: 0, from: sweep.goal, goal: self.next };
            }
        }
    }

    /// Drops what is beyond the bounds, apart from what the walk has yet to give.
    pub(crate) fn trim(&mut self, history: History) {
        let swept = self.swept();
        while self.ring.len() > history.messages || self.bytes > history.bytes {
            match self.ring.front() {
                Some(message) if message.id < swept => {
                    self.bytes -= message.text.len();
                    self.ring.pop_front();
                }
                _ => return,
            }
        }
    }

    /// Returns the oldest id that there will be when a message of `len` bytes has been added and given.
    pub(crate) fn oldest_behind(&self, len: usize, history: History) -> u64 {
        let (mut count, mut bytes) = (self.ring.len() + 1, self.bytes + len);
        let mut oldest = self.oldest();
        for message in &self.ring {
            if count <= history.messages && bytes <= history.bytes {
                return oldest;
            }
            count -= 1;
            bytes -= message.text.len();
            oldest += 1;
        }
        oldest
    }

    /// Returns how many messages, and bytes, the walk has yet to give.
    pub(crate) fn unswept(&self) -> (u64, usize) {
        let from = self.swept();
        (self.next - from, self.from(from).map(|message| message.text.len()).sum())
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
    /// is, `None` for what comes from now on. `is_all` tells that no channel of this name can have been
    /// forgotten.
    ///
    /// An id from before what is held, or from beyond the newest, which the clock of another life
    /// must have given, has an unknown number of messages behind it that are lost.
    pub(crate) fn start(&self, after: Option<u64>, is_all: bool) -> Start {
        let oldest = self.oldest();
        match after {
            None => Start { next: self.next, gap: None },
            Some(0) if oldest == self.first && is_all => Start { next: oldest, gap: None },
            Some(after) if after.checked_add(1).is_some_and(|next| (oldest..=self.next).contains(&next)) => {
                Start { next: after + 1, gap: None }
            }
            Some(after) => Start { next: oldest, gap: Some(Gap { after, oldest }) },
        }
    }
}
