//! A slab whose keys are good for one value only.
//!
//! Slab keys are small and dense, which makes them good indexes, and they are given out again, which
//! makes them bad names: a stale one reaches a stranger. An [`Index`] is a key together with a serial
//! number that is never given out twice. Connections, places in a queue and exchanges are named by it.

use slab::Slab;
use std::ops;

/// Values under keys that are reused, and names that are not.
///
/// ```
/// use pollstack::arena::Arena;
///
/// let mut arena = Arena::new();
/// let ann = arena.insert("ann");
/// assert_eq!(arena.remove(ann), Some("ann"));
/// let bob = arena.insert("bob");
/// assert_eq!(bob.key(), ann.key(), "the key is free again");
/// assert_eq!(arena.get(ann), None, "the name is not");
/// ```
#[derive(Debug)]
pub struct Arena<T> {
    slots: Slab<Slot<T>>,
    serial: u64,
}

/// The name of a value in an [`Arena`]. Names are ordered as the values were inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Index {
    serial: u64,
    key: usize,
}

#[derive(Debug)]
struct Slot<T> {
    serial: u64,
    value: T,
}

impl Index {
    /// Returns the key, which is less than the largest number of values that were ever in the arena
    /// at the same time. Another value has it later.
    pub fn key(self) -> usize {
        self.key
    }

    /// Returns the serial number: 1 for the first value of an arena.
    pub fn serial(self) -> u64 {
        self.serial
    }
}

impl<T> Arena<T> {
    /// Makes an empty arena, which allocates nothing until the first value comes.
    pub const fn new() -> Self {
        Arena::starting_after(0)
    }

    /// Makes an empty arena whose first value has the serial number behind `serial`. So the names of
    /// several arenas can be kept apart.
    pub(crate) const fn starting_after(serial: u64) -> Self {
        Arena { slots: Slab::new(), serial }
    }

    /// Gives the next value the serial number behind `serial`, unless that has been given out.
    pub(crate) fn skip_to(&mut self, serial: u64) {
        self.serial = self.serial.max(serial);
    }

    /// Returns the serial number that was given out last.
    pub(crate) fn last_serial(&self) -> u64 {
        self.serial
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the number of values that fit without another allocation.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Returns the index that the next [`insert`](Self::insert) will return.
    pub fn next_index(&self) -> Index {
        Index { serial: self.serial + 1, key: self.slots.vacant_key() }
    }

    /// Gives out a name that no value has, nor will have.
    pub(crate) fn skip(&mut self) -> Index {
        self.serial += 1;
        Index { serial: self.serial, key: usize::MAX }
    }

    /// Adds a value.
    pub fn insert(&mut self, value: T) -> Index {
        self.serial += 1;
        let serial = self.serial;
        Index { serial, key: self.slots.insert(Slot { serial, value }) }
    }

    /// Takes a value out; `None` if it has been taken out before.
    pub fn remove(&mut self, index: Index) -> Option<T> {
        self.get(index)?;
        self.remove_at(index.key)
    }

    /// Takes out the value under `key`.
    pub fn remove_at(&mut self, key: usize) -> Option<T> {
        self.slots.try_remove(key).map(|slot| slot.value)
    }

    /// Returns the value with this name.
    pub fn get(&self, index: Index) -> Option<&T> {
        self.slots.get(index.key).filter(|slot| slot.serial == index.serial).map(|slot| &slot.value)
    }

    /// Returns the value with this name, to be changed.
    pub fn get_mut(&mut self, index: Index) -> Option<&mut T> {
        self.slots.get_mut(index.key).filter(|slot| slot.serial == index.serial).map(|slot| &mut slot.value)
    }

    /// Returns the value under `key`.
    pub fn at(&self, key: usize) -> Option<&T> {
        self.slots.get(key).map(|slot| &slot.value)
    }

    /// Returns the value under `key`, to be changed.
    pub fn at_mut(&mut self, key: usize) -> Option<&mut T> {
        self.slots.get_mut(key).map(|slot| &mut slot.value)
    }

    /// Returns the value under `key`, to be changed, with its name.
    pub fn entry_at(&mut self, key: usize) -> Option<(Index, &mut T)> {
        self.slots.get_mut(key).map(|slot| (Index { serial: slot.serial, key }, &mut slot.value))
    }

    /// Returns the name of the value under `key`.
    pub fn index_at(&self, key: usize) -> Option<Index> {
        self.slots.get(key).map(|slot| Index { serial: slot.serial, key })
    }

    /// Keeps the values for which `keep` returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        self.slots.retain(|_, slot| keep(&mut slot.value));
    }

    /// Returns the values with their names, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (Index, &T)> {
        self.slots.iter().map(|(key, slot)| (Index { serial: slot.serial, key }, &slot.value))
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena::new()
    }
}

/// For keys that have just been seen in the arena.
impl<T> ops::Index<usize> for Arena<T> {
    type Output = T;

    fn index(&self, key: usize) -> &T {
        &self.slots[key].value
    }
}

impl<T> ops::IndexMut<usize> for Arena<T> {
    fn index_mut(&mut self, key: usize) -> &mut T {
        &mut self.slots[key].value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Lost otherwise: answers, to a client that has the key of one that has gone.
        #[test]
        fn a_name_reaches_its_own_value_or_none(steps in prop::collection::vec((any::<bool>(), 0..64usize), 0..400)) {
            let (mut arena, mut model, mut names) = (Arena::new(), BTreeMap::new(), Vec::new());
            for (n, (inserts, which)) in steps.into_iter().enumerate() {
                if inserts || names.is_empty() {
                    let expected = arena.next_index();
                    let index = arena.insert(n);
                    prop_assert_eq!(index, expected);
                    prop_assert_eq!(arena.index_at(index.key()), Some(index));
                    model.insert(index, n);
                    names.push(index);
                } else {
                    let index = names[which % names.len()];
                    prop_assert_eq!(arena.remove(index), model.remove(&index));
                }
                for name in &names {
                    prop_assert_eq!(arena.get(*name), model.get(name));
                }
                prop_assert_eq!(arena.len(), model.len());
                prop_assert_eq!(arena.iter().count(), model.len());
                prop_assert!(arena.capacity() >= arena.len());
            }
            arena.retain(|value| *value % 2 == 0);
            prop_assert!(arena.iter().all(|(_, value)| *value % 2 == 0));
            prop_assert_eq!(arena.len(), model.values().filter(|value| **value % 2 == 0).count());
        }
    }
}
