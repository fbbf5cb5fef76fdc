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
use super::start::Start;
use pollstack::arena::{Arena, Index};
use std::collections::HashMap;
use std::rc::Rc;

#[derive(Debug)]
pub(crate) struct Hub<S> {
    limits: Limits,
    base: u64,
    names: HashMap<Rc<str>, Index>,
    channels: Arena<(Rc<str>, Channel<S>)>,
    /// How often something has been used.
    uses: u64,
    counts: Counts,
}

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
        Hub { limits, base, names, channels, uses: 0, counts: Counts::default() }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts { channels: self.channels.len(), ..self.counts }
    }

    /// Publishes a message to all subscribers of a channel that have everything before it. Those that
    /// are behind get it in its turn. One whose next message is not held any more is lost.
    pub(crate) fn publish(
        &mut self,
        name: &str,
        text: &str,
        mut deliver: impl FnMut(S, &Message) -> Delivery,
        mut lose: impl FnMut(S),
    ) -> Result<Published, Busy> {
        let key = self.channel(name)?;
        let Some((_, channel)) = self.channels.get_mut(key) else { return Err(Busy::Channels) };
        let (id, oldest) = (channel.next(), channel.oldest());
        channel.push(text);
        self.counts.published += 1;
        let mut subscribers = channel.members.len();
        let mut members = std::mem::take(&mut channel.members);
        if let Some(message) = channel.get(id) {
            let counts = &mut self.counts;
            members.retain(|member| {
                if member.next < oldest {
                    counts.count(Delivery::Full);
                    subscribers -= 1;
                    lose(member.who);
                    return false;
                }
                if member.next != id {
                    return true;
                }
                let delivery = deliver(member.who, message);
                if delivery == Delivery::Full {
                    return true; // it is behind, and goes on when there is room
                }
                member.next += 1;
                counts.count(delivery);
                subscribers -= usize::from(delivery == Delivery::Gone);
                delivery == Delivery::Taken
            });
        }
        channel.members = members;
        channel.trim(self.limits.history);
        self.forget_if_empty(key);
        Ok(Published { id, subscribers })
    }

    /// Returns where a subscriber begins to read a channel that has the message `after`.
    pub(crate) fn start(&self, name: &str, after: Option<u64>) -> Start {
        match self.find(name) {
            Some(channel) => channel.start(after),
            None => Channel::<S>::new(self.base).start(after),
        }
    }

    /// Returns the messages of a channel from an id on.
    pub(crate) fn messages(&self, name: &str, from: u64) -> impl Iterator<Item = &Message> {
        self.find(name).into_iter().flat_map(move |channel| channel.from(from))
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
            self.base = self.base.max(channel.next());
        }
    }
}

impl Counts {
    /// Counts a message for a subscriber that has everything before it.
    fn count(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Taken => self.delivered += 1,
            Delivery::Last => {
                self.delivered += 1;
                self.subscribers -= 1;
            }
            Delivery::Full => {
                self.disconnected_slow += 1;
                self.subscribers -= 1;
            }
            Delivery::Gone => self.subscribers -= 1,
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
        hub.publish(name, text, |_, _| Delivery::Taken, |_| ()).unwrap().id
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

    /// Lost otherwise: every subscriber that comes to a new channel on a server that is full of channels.
    #[test]
    fn a_subscriber_that_made_room_for_its_channel_gets_its_messages() {
        let mut hub = hub(1, 3, 10);
        say(&mut hub, "old", "a");
        let next = hub.start("new", None).next;
        let seat = hub.subscribe("new", 1, next).unwrap();
        assert_eq!(hub.advance(seat, |_, _| Delivery::Taken), Progress::Current);
        let mut got = Vec::new();
        let deliver = |_, message: &Message| {
            got.push(message.id);
            Delivery::Taken
        };
        let published = hub.publish("new", "b", deliver, |_| ()).unwrap();
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
                        let current: Vec<usize> = (1..readers.len()).filter(|who| {
                            let reader = &readers[*who];
                            reader.seat.is_some() && reader.begin + (reader.got.len() as u64) < oldest(&lengths)
                        }).collect();
                        let published = hub
                            .publish("x", &"m".repeat(len), |who, message| give(&mut readers, who, message.id), |_| ())
                            .unwrap();
                        lengths.push(len);
                        prop_assert_eq!(published.id, id);
                        for who in current {
                            readers[who].seat = None;
                            slow += 1;
                        }
                        prop_assert_eq!(published.subscribers, 1 + readers.iter().filter(|r| r.seat.is_some()).count());
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
