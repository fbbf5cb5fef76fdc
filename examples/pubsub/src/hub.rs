//! The hub: channels, their histories, and the messages that each subscriber is to have. It knows no
//! sockets; its caller says how a message gets to a subscriber.
//!
//! # Ids
//!
//! All channels begin at the same id, the hub's `base`: the microseconds since 1970 at its start. So
//! ids go on increasing when the server is started again, as long as a channel has fewer than a
//! million messages a second, and a subscriber that returns with one of a former life is told of the
//! gap. When a channel with messages has to make room for another, `base` goes beyond its last
//! id, so that the same holds for one that is born again. They stay below 2^53, which is as far as
//! JavaScript counts, until the year 2255.

use super::channel::{Channel, History, Member};
use super::message::Message;
use super::router::{Failure, busy};
use super::start::Start;
use pollstack::arena::{Arena, Index};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

#[derive(Debug)]
pub(crate) struct Hub<S> {
    limits: Limits,
    base: u64,
    /// The first `base`. Channels that begin later may have been forgotten before.
    began: u64,
    names: HashMap<Rc<str>, Index>,
    channels: Arena<(Rc<str>, Channel<S>)>,
    /// Channels with messages that have not been given to all who have room, in turn.
    busy: VecDeque<Index>,
    /// How often something has been used.
    uses: u64,
    counts: Counts,
    /// Its channels are copies of those of an engine, which gives the ids.
    is_copy: bool,
    /// Channels that were forgotten, if it is a copy.
    forgotten: Vec<Rc<str>>,
}

/// Messages of a channel that are not given to all who have room: its publishers wait at so many.
const UNSWEPT_MESSAGES: u64 = 64;

/// Bytes of such messages.
const UNSWEPT_BYTES: usize = 256 * 1024;

/// How many messages a channel gives before the next has its turn.
const SHARE: usize = 64;

/// Bytes of a message that cost as much as a message.
const COST_BYTES: usize = 4096;

/// The bounds of the hub.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many channels there may be.
    pub channels: usize,
    /// How many subscribers there may be, in all channels together.
    pub subscribers: usize,
    /// The history of each channel.
    pub history: History,
}

/// The place of a subscriber. Once that is gone, it reaches no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    channel: Index,
    member: Index,
}

/// The result of sending a message to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It is on its way.
    Taken,
    /// So it is, and the subscriber wanted no more than one.
    Last,
    /// There is no room for it.
    Full,
    /// The subscriber is gone.
    Gone,
}

/// How far a subscriber is behind, when it has been sent what it could take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has everything.
    Current,
    /// It has to make room first.
    Behind,
    /// Its next message is not held any more, or it is gone. It is no subscriber now.
    Lost,
}

/// The hub is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    Channels,
    Subscribers,
}

impl From<Busy> for Failure {
    fn from(full: Busy) -> Self {
        busy(match full {
            Busy::Channels => "There are too many channels.",
            Busy::Subscribers => "There are too many subscribers.",
        })
    }
}

/// Totals since the start, and what there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Channels that are kept.
    pub channels: usize,
    /// Subscribers that are there.
    pub subscribers: usize,
    /// Messages that have been published.
    pub published: u64,
    /// Messages that have been sent, once for each subscriber.
    pub delivered: u64,
    /// Subscribers that were disconnected because they did not read.
    pub disconnected_slow: u64,
}

/// A message has been published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) id: u64,
    /// How many subscribers have it, or will have it when they have read what is before it.
    pub(crate) subscribers: usize,
}

impl<S: Copy> Hub<S> {
    pub(crate) fn new(limits: Limits, base: u64) -> Self {
        let (names, channels) = (HashMap::new(), Arena::new());
        let (busy, counts, forgotten) = Default::default();
        Hub { limits, base, began: base, names, channels, busy, uses: 0, counts, is_copy: false, forgotten }
    }

    /// Makes a hub with copies of an engine's channels.
    pub(crate) fn copy(limits: Limits) -> Self {
        Hub { is_copy: true, ..Hub::new(limits, 0) }
    }

    /// Returns whether a channel is kept.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Returns the id of the next message of a channel; `None` if it is not kept.
    pub(crate) fn next(&self, name: &str) -> Option<u64> {
        self.find(name).map(Channel::next)
    }

    /// Keeps a channel whose life began at `first`, with messages from `begin` on; one that is kept goes on, if there
    /// is no hole before that. Returns false if there are too many.
    pub(crate) fn open(&mut self, name: &str, first: u64, begin: u64) -> bool {
        let Ok(key) = self.channel(name) else { return false };
        if let Some((_, channel)) = self.channels.get_mut(key) {
            if channel.next() != begin || channel.first() != first {
                channel.jump(first, begin);
                if !channel.is_swept() {
                    self.busy.push_back(key);
                }
            }
        }
        true
    }

    /// Adds the next message of a channel that is kept.
    pub(crate) fn append(&mut self, name: &str, id: u64, text: &str) {
        let Some(&key) = self.names.get(name) else { return };
        let Some((_, channel)) = self.channels.get_mut(key) else { return };
        if channel.next() == id {
            if channel.push(text) {
                self.busy.push_back(key);
            }
            channel.trim(self.limits.history);
            self.counts.published += 1;
        }
    }

    /// Returns the names of channels that have been forgotten since the last time.
    pub(crate) fn take_forgotten(&mut self) -> Vec<Rc<str>> {
        std::mem::take(&mut self.forgotten)
    }

    /// Counts a connection that was cut because it did not read.
    pub(crate) fn count_slow(&mut self) {
        self.counts.disconnected_slow += 1;
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts { channels: self.channels.len(), ..self.counts }
    }

    /// Adds a message to a channel. Its subscribers get it by [`work`](Self::work).
    pub(crate) fn publish(&mut self, name: &str, text: &str) -> Result<Published, Busy> {
        let key = self.channel(name)?;
        let Some((_, channel)) = self.channels.get_mut(key) else { return Err(Busy::Channels) };
        let id = channel.next();
        if channel.push(text) {
            self.busy.push_back(key);
        }
        channel.trim(self.limits.history);
        self.counts.published += 1;
        Ok(Published { id, subscribers: channel.members.len() })
    }

    /// Returns whether a message may be published now, or its publisher has to wait: for what was published
    /// before to be given to all, or for a subscriber that `reads` and would lose a message.
    pub(crate) fn may_publish(&self, name: &str, len: usize, reads: impl Fn(S) -> bool) -> bool {
        let Some(channel) = self.find(name) else { return true };
        let (messages, bytes) = channel.unswept();
        if messages >= UNSWEPT_MESSAGES || bytes >= UNSWEPT_BYTES {
            return false;
        }
        let kept = channel.oldest_behind(len, self.limits.history).min(channel.swept());
        let is_held = |member: &Member<S>| (channel.oldest()..kept).contains(&member.next) && reads(member.who);
        kept == channel.oldest() || !channel.members.iter().any(|(_, member)| is_held(member))
    }

    /// Gives subscribers what they have yet to have, for about `budget` messages of usual length, channel by
    /// channel. Returns whether there is more to do.
    pub(crate) fn work(
        &mut self,
        budget: &mut usize,
        mut deliver: impl FnMut(S, &Message) -> Delivery,
        mut lose: impl FnMut(S),
    ) -> bool {
        while let Some(key) = self.busy.pop_front() {
            let mut share = SHARE.min(*budget);
            *budget -= share;
            while share > 0 {
                let Some(member) = self.channels.get_mut(key).and_then(|(_, channel)| channel.next_member()) else {
                    break;
                };
                share = share.saturating_sub(self.give(key, member, &mut deliver, &mut lose));
            }
            let history = self.limits.history;
            let Some((_, channel)) = self.channels.get_mut(key) else { continue };
            channel.trim(history);
            if channel.is_swept() {
                *budget += share;
                self.forget_if_empty(key);
            } else {
                self.busy.push_back(key);
                if *budget == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// Gives a member of a walk what it has room for. Returns the cost.
    fn give(
        &mut self,
        channel: Index,
        member: usize,
        deliver: &mut impl FnMut(S, &Message) -> Delivery,
        lose: &mut impl FnMut(S),
    ) -> usize {
        let mut cost = 1;
        let Some((_, at)) = self.channels.get(channel) else { return cost };
        let Some(member) = at.members.index_at(member) else { return cost };
        let Some(who) = at.members.get(member).map(|member| member.who) else { return cost };
        let before = self.counts.disconnected_slow;
        self.advance(Seat { channel, member }, |who, message| {
            cost += 1 + message.text.len() / COST_BYTES;
            deliver(who, message)
        });
        if self.counts.disconnected_slow > before {
            lose(who);
        }
        cost
    }

    /// Returns where a subscriber begins to read a channel that has the message `after`.
    pub(crate) fn start(&self, name: &str, after: Option<u64>) -> Start {
        let new = Channel::new(self.base);
        let channel = self.find(name).unwrap_or(&new);
        channel.start(after, self.is_copy || channel.first() == self.began)
    }

    /// Returns the messages of a channel from an id on.
    pub(crate) fn messages(&self, name: &str, from: u64) -> impl Iterator<Item = &Message> {
        self.find(name).into_iter().flat_map(move |channel| channel.from(from))
    }

    /// Returns how many subscribers a channel has.
    pub(crate) fn subscribers(&self, name: &str) -> usize {
        self.find(name).map_or(0, |channel| channel.members.len())
    }

    /// Adds a subscriber from the message `next` on. It gets the messages that are held already with
    /// [`advance`](Self::advance).
    pub(crate) fn subscribe(&mut self, name: &str, who: S, next: u64) -> Result<Seat, Busy> {
        if self.counts.subscribers >= self.limits.subscribers {
            return Err(Busy::Subscribers);
        }
        let key = self.channel(name)?;
        let Some((_, channel)) = self.channels.get_mut(key) else { return Err(Busy::Channels) };
        self.counts.subscribers += 1;
        // Making room for the channel may have moved its beginning.
        let next = next.max(channel.oldest());
        let member = channel.members.insert(Member { who, next });
        Ok(Seat { channel: key, member })
    }

    /// Sends a subscriber the messages that it is to have, as far as it has room.
    pub(crate) fn advance(&mut self, seat: Seat, mut deliver: impl FnMut(S, &Message) -> Delivery) -> Progress {
        let Some((channel, mut next, who)) = self.seated(seat) else { return Progress::Lost };
        let end = channel.next();
        while next < end {
            let delivery = match self.channels.get(seat.channel).and_then(|(_, channel)| channel.get(next)) {
                Some(message) => deliver(who, message),
                None => {
                    self.counts.disconnected_slow += 1;
                    self.leave(seat);
                    return Progress::Lost;
                }
            };
            if delivery == Delivery::Full {
                break;
            }
            next += 1;
            if delivery == Delivery::Taken {
                self.counts.delivered += 1;
            } else {
                self.counts.delivered += u64::from(delivery == Delivery::Last);
                self.leave(seat);
                return Progress::Lost;
            }
        }
        if let Some((_, channel)) = self.channels.get_mut(seat.channel) {
            if let Some(member) = channel.members.get_mut(seat.member) {
                member.next = next;
            }
        }
        if next < end { Progress::Behind } else { Progress::Current }
    }

    /// Removes a subscriber, which may be gone already.
    pub(crate) fn leave(&mut self, seat: Seat) {
        if self.seated(seat).is_none() {
            return;
        }
        if let Some((_, channel)) = self.channels.get_mut(seat.channel) {
            channel.members.remove(seat.member);
            self.counts.subscribers -= 1;
        }
        self.forget_if_empty(seat.channel);
    }

    /// Forgets a channel. Returns its subscribers, which are none any more.
    pub(crate) fn remove(&mut self, name: &str) -> Vec<S> {
        let Some(&key) = self.names.get(name) else { return Vec::new() };
        let members = self.channels.get(key).into_iter().flat_map(|(_, channel)| channel.members.iter());
        let members: Vec<S> = members.map(|(_, member)| member.who).collect();
        self.counts.subscribers -= members.len();
        self.forget(key);
        members
    }

    /// Returns the id of the message that a subscriber is to have next.
    pub(crate) fn next_of(&self, seat: Seat) -> Option<u64> {
        self.seated(seat).map(|(_, next, _)| next)
    }

    fn seated(&self, seat: Seat) -> Option<(&Channel<S>, u64, S)> {
        let (_, channel) = self.channels.get(seat.channel)?;
        let member = channel.members.get(seat.member)?;
        Some((channel, member.next, member.who))
    }

    fn find(&self, name: &str) -> Option<&Channel<S>> {
        self.channels.get(*self.names.get(name)?).map(|(_, channel)| channel)
    }

    /// Returns the channel with a name; a new one if there is none. If there are too many, the least
    /// recently used channel without subscribers is forgotten for it.
    fn channel(&mut self, name: &str) -> Result<Index, Busy> {
        self.uses += 1;
        if let Some(&key) = self.names.get(name) {
            if let Some((_, channel)) = self.channels.get_mut(key) {
                channel.used = self.uses;
            }
            return Ok(key);
        }
        if self.channels.len() >= self.limits.channels {
            let unused = self.channels.iter().filter(|(_, (_, channel))| channel.members.is_empty());
            let (key, _) = unused.min_by_key(|(_, (_, channel))| channel.used).ok_or(Busy::Channels)?;
            self.forget(key);
        }
        let name: Rc<str> = name.into();
        let mut channel = Channel::new(self.base);
        channel.used = self.uses;
        let key = self.channels.insert((Rc::clone(&name), channel));
        self.names.insert(name, key);
        Ok(key)
    }

    fn forget_if_empty(&mut self, key: Index) {
        if self.channels.get(key).is_some_and(|(_, channel)| channel.is_empty()) {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: Index) {
        if let Some((name, channel)) = self.channels.remove(key) {
            self.names.remove(&name);
            if self.is_copy {
                self.forgotten.push(Rc::clone(&name));
            }
            self.base = self.base.max(channel.next());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::start::Gap;
    use super::*;
    use proptest::prelude::*;

    const BASE: u64 = 1000;

    fn hub(channels: usize, messages: usize, bytes: usize) -> Hub<usize> {
        Hub::new(Limits { channels, subscribers: 4, history: History { messages, bytes } }, BASE)
    }

    fn say(hub: &mut Hub<usize>, name: &str, text: &str) -> u64 {
        let id = hub.publish(name, text).unwrap().id;
        finish(hub, |_, _| Delivery::Taken);
        id
    }

    /// Has everything given. Returns the subscribers that are lost.
    fn finish(hub: &mut Hub<usize>, mut deliver: impl FnMut(usize, &Message) -> Delivery) -> Vec<usize> {
        let mut lost = Vec::new();
        while hub.work(&mut 3, &mut deliver, |who| lost.push(who)) {}
        lost
    }

    fn held(hub: &Hub<usize>, name: &str) -> Vec<u64> {
        hub.messages(name, 0).map(|message| message.id).collect()
    }

    /// Lost otherwise: memory, to histories; or more of a history than has to go.
    #[test]
    fn a_history_has_two_bounds() {
        let mut hub = hub(2, 3, 10);
        for text in ["a", "b", "c", "d"] {
            say(&mut hub, "x", text);
        }
        assert_eq!(held(&hub, "x"), [BASE + 1, BASE + 2, BASE + 3]);
        say(&mut hub, "x", "123456789");
        assert_eq!(held(&hub, "x"), [BASE + 3, BASE + 4]);
        say(&mut hub, "x", "12345678901");
        assert_eq!(held(&hub, "x"), [0; 0], "too long to be kept, and nothing before it is, either");
        assert_eq!(hub.start("x", Some(0)).gap, Some(Gap { after: 0, oldest: BASE + 6 }));
        assert_eq!(hub.start("x", Some(BASE + 5)), Start { next: BASE + 6, gap: None });
    }

    /// Lost otherwise: a message of which no gap tells, when a channel is born again.
    #[test]
    fn a_channel_that_made_room_comes_back_with_higher_ids() {
        let mut hub = hub(2, 3, 10);
        let last = say(&mut hub, "old", "a");
        let seat = hub.subscribe("kept", 1, BASE).unwrap();
        assert_eq!(say(&mut hub, "new", "b"), last + 1, "the old one was not listened to");
        assert!(held(&hub, "old").is_empty());
        assert_eq!(hub.start("old", Some(last)), Start { next: last + 1, gap: None }, "it has everything");
        assert_eq!(hub.start("old", Some(BASE - 1)).gap.map(|gap| gap.after), Some(BASE - 1));
        let other = hub.subscribe("new", 2, BASE + 2).unwrap();
        assert_eq!(hub.subscribe("third", 3, BASE), Err(Busy::Channels));
        hub.leave(seat);
        hub.leave(seat);
        assert_eq!(hub.counts().channels, 1, "nothing was ever said there");
        hub.leave(other);
        assert_eq!(hub.counts(), Counts { channels: 1, published: 2, ..Counts::default() });
    }

    /// Lost otherwise: a gap, to a reader of a room whose history had to make room for others.
    #[test]
    fn a_history_that_may_have_been_forgotten_is_a_gap() {
        let mut hub = hub(2, 3, 10);
        assert_eq!(hub.start("room", Some(0)).gap, None, "nothing was ever said anywhere");
        say(&mut hub, "room", "a");
        assert_eq!(hub.start("room", Some(0)).gap, None, "all of it is held");
        for name in ["b", "c", "d"] {
            say(&mut hub, name, "x");
        }
        assert!(hub.start("room", Some(0)).gap.is_some());
        say(&mut hub, "room", "again");
        assert!(hub.start("room", Some(0)).gap.is_some(), "it was born again");
    }

    /// Lost otherwise: every subscriber that comes to a new channel on a server that is full of channels.
    #[test]
    fn a_subscriber_that_made_room_for_its_channel_gets_its_messages() {
        let mut hub = hub(1, 3, 10);
        say(&mut hub, "old", "a");
        let next = hub.start("new", None).next;
        let seat = hub.subscribe("new", 1, next).unwrap();
        assert_eq!(hub.advance(seat, |_, _| Delivery::Taken), Progress::Current);
        let mut got = Vec::new();
        let published = hub.publish("new", "b").unwrap();
        finish(&mut hub, |_, message: &Message| {
            got.push(message.id);
            Delivery::Taken
        });
        assert_eq!((published.subscribers, got), (1, vec![published.id]));
    }

    /// Lost otherwise: a subscriber's place, to one who has gone before.
    #[test]
    fn a_stale_seat_reaches_no_other_subscriber() {
        let mut hub = hub(2, 3, 10);
        let first = hub.subscribe("x", 1, BASE).unwrap();
        hub.leave(first);
        let second = hub.subscribe("x", 2, BASE).unwrap();
        hub.leave(first);
        assert_eq!((hub.next_of(first), hub.next_of(second)), (None, Some(BASE)));
        assert_eq!(hub.advance(first, |_, _| Delivery::Taken), Progress::Lost);
        assert_eq!(hub.counts().subscribers, 1);
    }

    /// A naive hub's record of a subscriber: all that it has been given, and how much more it takes.
    #[derive(Debug)]
    struct Reader {
        seat: Option<Seat>,
        got: Vec<u64>,
        room: usize,
        begin: u64,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Publish(usize),
        Subscribe(u64),
        Room(usize, usize),
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..6usize).prop_map(Step::Publish),
            1 => (0..12u64).prop_map(Step::Subscribe),
            2 => (0..8usize, 1..5usize).prop_map(|(who, room)| Step::Room(who, room)),
            1 => (0..8usize).prop_map(Step::Leave),
        ];
        proptest::collection::vec(step, 1..120)
    }

    proptest! {
        /// Lost otherwise: a message, or the order of two. A subscriber has been given every message
        /// from where it began, in order, once; all of them, while it has room; and it is one until
        /// it leaves, or has no room for a message that comes when it has all others, or falls
        /// behind what is held.
        #[test]
        fn every_subscriber_has_every_message_in_order(steps in steps()) {
            let mut hub = hub(1, 5, 20);
            hub.subscribe("x", 0, BASE).unwrap(); // so that the channel stays
            let mut lengths: Vec<usize> = Vec::new();
            let mut readers: Vec<Reader> = vec![Reader { seat: None, got: Vec::new(), room: usize::MAX, begin: BASE }];
            let mut slow = 0;
            for step in steps {
                let give = |readers: &mut Vec<Reader>, who: usize, id: u64| {
                    let reader = &mut readers[who];
                    if reader.room == 0 {
                        return Delivery::Full;
                    }
                    reader.room -= 1;
                    reader.got.push(id);
                    Delivery::Taken
                };
                let oldest = |lengths: &[usize]| {
                    let (mut kept, mut bytes) = (0, 0);
                    for len in lengths.iter().rev() {
                        bytes += len;
                        if kept == 5 || bytes > 20 {
                            break;
                        }
                        kept += 1;
                    }
                    BASE + (lengths.len() - kept) as u64
                };
                match step {
                    Step::Publish(len) => {
                        let id = BASE + lengths.len() as u64;
                        let subscribers = 1 + readers.iter().filter(|reader| reader.seat.is_some()).count();
                        let published = hub.publish("x", &"m".repeat(len)).unwrap();
                        prop_assert_eq!((published.id, published.subscribers), (id, subscribers));
                        lengths.push(len);
                        // Those who are behind what is held now are found out by the walk.
                        let behind: Vec<usize> = (1..readers.len()).filter(|who| {
                            let reader = &readers[*who];
                            reader.seat.is_some() && reader.begin + (reader.got.len() as u64) < oldest(&lengths)
                        }).collect();
                        let mut lost = finish(&mut hub, |who, message| give(&mut readers, who, message.id));
                        lost.sort();
                        prop_assert_eq!(&lost, &behind);
                        for who in lost {
                            readers[who].seat = None;
                            slow += 1;
                        }
                    }
                    Step::Subscribe(back) => {
                        let next = BASE + lengths.len() as u64;
                        let after = next - back.min(next);
                        let start = hub.start("x", Some(after));
                        let oldest = oldest(&lengths);
                        let resumes = after + 1 >= oldest && after < next;
                        prop_assert_eq!(start.gap, (!resumes).then_some(Gap { after, oldest }));
                        prop_assert_eq!(start.next, if resumes { after + 1 } else { oldest });
                        if let Ok(seat) = hub.subscribe("x", readers.len(), start.next) {
                            readers.push(Reader { seat: Some(seat), got: Vec::new(), room: 2, begin: start.next });
                            prop_assert!(hub.counts().subscribers <= 4);
                        }
                    }
                    Step::Room(who, room) => {
                        let Some(seat) = readers.get(who).and_then(|reader| reader.seat) else { continue };
                        readers[who].room = room;
                        let progress = hub.advance(seat, |who, message| give(&mut readers, who, message.id));
                        let next = readers[who].begin + readers[who].got.len() as u64;
                        let end = BASE + lengths.len() as u64;
                        let lost = next < oldest(&lengths);
                        let expected = match next == end {
                            true => Progress::Current,
                            false if lost => Progress::Lost,
                            false => Progress::Behind,
                        };
                        prop_assert_eq!(progress, expected);
                        if lost {
                            readers[who].seat = None;
                            slow += 1;
                        }
                    }
                    Step::Leave(who) => {
                        if let Some(seat) = readers.get_mut(who).and_then(|reader| reader.seat.take()) {
                            hub.leave(seat);
                        }
                    }
                }
                for reader in &readers[1..] {
                    let expected: Vec<u64> = (reader.begin..).take(reader.got.len()).collect();
                    prop_assert_eq!(&reader.got, &expected);
                }
                prop_assert_eq!(held(&hub, "x"), (oldest(&lengths)..BASE + lengths.len() as u64).collect::<Vec<_>>());
            }
            let counts = hub.counts();
            prop_assert_eq!(counts.disconnected_slow, slow);
            prop_assert_eq!(counts.subscribers, 1 + readers.iter().filter(|reader| reader.seat.is_some()).count());
            prop_assert_eq!(counts.published, lengths.len() as u64);
            prop_assert_eq!(counts.delivered, readers.iter().map(|reader| reader.got.len() as u64).sum::<u64>());
        }
    }
}
