//! The messages that an engine has taken, in order, and those of them that it has lost.

use std::collections::{BTreeMap, BTreeSet};

/// A message: its id, and its text.
type Message = (u64, String);

#[derive(Default)]
pub(super) struct Truth {
    channels: BTreeMap<usize, Vec<Message>>,
    /// The texts of lost ones.
    lost: BTreeSet<String>,
}

impl Truth {
    pub(super) fn add(&mut self, channel: usize, id: u64, text: String) {
        self.channels.entry(channel).or_default().push((id, text));
    }

    fn of(&self, channel: usize) -> impl Iterator<Item = &Message> {
        self.channels.get(&channel).into_iter().flatten()
    }

    /// Returns the id of the last message of a channel.
    pub(super) fn end(&self, channel: usize) -> Option<u64> {
        self.of(channel).last().map(|(id, _)| *id)
    }

    pub(super) fn has(&self, channel: usize, id: u64, text: &str) -> bool {
        self.of(channel).any(|one| one.0 == id && one.1 == text)
    }

    pub(super) fn is_lost(&self, text: &str) -> bool {
        self.lost.contains(text)
    }

    /// Returns a message between two ids that is not lost.
    pub(super) fn between(&self, channel: usize, one: u64, other: u64) -> Option<&Message> {
        self.of(channel).find(|(id, text)| (one + 1..other).contains(id) && !self.is_lost(text))
    }

    /// Returns how many messages each channel has.
    pub(super) fn lengths(&self) -> BTreeMap<usize, usize> {
        self.channels.iter().map(|(channel, messages)| (*channel, messages.len())).collect()
    }

    /// The engine has lost all but so many messages of each channel.
    pub(super) fn lose_all_but(&mut self, lengths: &BTreeMap<usize, usize>) {
        for (channel, messages) in &self.channels {
            let kept = lengths.get(channel).copied().unwrap_or(0);
            self.lost.extend(messages[kept..].iter().map(|(_, text)| text.clone()));
        }
    }

    /// Returns where each text is: its channel, and its id. A text that is there twice is an error.
    pub(super) fn places(&self) -> Result<BTreeMap<&str, (usize, u64)>, String> {
        let mut places = BTreeMap::new();
        for (channel, messages) in &self.channels {
            for (id, text) in messages {
                if let Some(other) = places.insert(text.as_str(), (*channel, *id)) {
                    return Err(format!("{text} is {id} of {channel}, and {other:?}"));
                }
            }
        }
        Ok(places)
    }
}
