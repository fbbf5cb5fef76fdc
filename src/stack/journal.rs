//! The changes of a stack, and where they are kept.

use super::wire::Item;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Changes that are committed together: an item by its number, or `None` for one that has gone.
///
/// Numbers grow from the bottom of the stack to its top. Each is given to one item only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(BTreeMap<u64, Option<Item>>);

impl FromIterator<(u64, Option<Item>)> for Batch {
    fn from_iter<I: IntoIterator<Item = (u64, Option<Item>)>>(changes: I) -> Batch {
        Batch(changes.into_iter().collect())
    }
}

impl Batch {
    /// Returns the changes, from the bottom to the top.
    pub fn changes(&self) -> impl Iterator<Item = (u64, Option<&Item>)> {
        self.0.iter().map(|(number, item)| (*number, item.as_ref()))
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, number: u64, item: Item) {
        self.0.insert(number, Some(item));
    }

    /// Notes that an item has gone. Returns whether it is to be written at all: one that came in this batch
    /// leaves no trace.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let came_here = self.0.remove(&number).is_some();
        if !came_here {
            self.0.insert(number, None);
        }
        !came_here
    }

    /// Adds changes that came later. Returns the numbers of the items that came here and have gone.
    pub(super) fn append(&mut self, later: Batch) -> Vec<u64> {
        let mut gone = Vec::new();
        for (number, item) in later.0 {
            match item {
                Some(item) => self.insert(number, item),
                None if self.remove(number) => {}
                None => gone.push(number),
            }
        }
        gone
    }
}

/// Keeps a stack on a disk. It commits one batch at a time, beside the loop.
pub trait Journal: Debug {
    /// Begins to commit a batch. All of it is on the disk in the end, or none.
    fn commit(&mut self, batch: Batch);

    /// Returns what has become of the batch, once it is known.
    fn finished(&mut self) -> Option<Finished>;

    /// Waits until it is known; the loop is over.
    fn wait(&mut self) -> Option<Finished>;

    /// Has the loop call [`StackService::on_wake`](super::StackService) soon. It does so by itself when a
    /// batch is finished.
    fn wake(&self);

    /// Returns whether a push is answered only when it is on the disk.
    fn answers_wait(&self) -> bool;
}

/// The end of a batch. There is no more to it.
#[derive(Debug)]
pub struct Finished {
    /// The batch.
    pub batch: Batch,
    /// Whether it is on the disk. If not, it is committed again, with what has come meanwhile.
    pub result: Result<(), Trouble>,
}

/// The reason why a batch is not on the disk. Its fields are all there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The reason.
    pub reason: String,
    /// No other try can succeed: the server has to end.
    pub is_final: bool,
}
