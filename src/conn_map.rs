//! A map from connections to values, without a hash.
//!
//! The state of a connection is [`Service::Conn`](crate::Service::Conn), which the loop lends to the callbacks of
//! that connection. State by which a service knows *other* connections belongs here.

use crate::id::ConnId;
use std::fmt;
use std::ops::{Index, IndexMut};

/// Values by [`ConnId`], one load and one comparison each.
///
/// Ids of one loop have small, dense keys, so the map is a vector. An id whose connection has closed
/// finds nothing that was inserted for another. Its memory is that of the most connections that were ever
/// open at the same time. Remove a value in [`Service::on_close`](crate::Service::on_close); one that is
/// left is dropped when a later connection with the same key is inserted.
///
/// ```
/// use pollstack::{ConnId, ConnMap, Context, ListenerId, Service};
///
/// /// Tells a client the names of all the others.
/// #[derive(Default)]
/// struct Names(ConnMap<String>);
///
/// impl Service for Names {
///     type Conn = ();
///     fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) {
///         for (other, name) in self.0.iter() {
///             let _ = cx.send(id, name.as_bytes());
///             let _ = cx.send(other, b"one more");
///         }
///         self.0.insert(id, id.to_string());
///     }
///     fn on_data(&mut self, _: &mut Context<'_>, id: ConnId, _: &mut (), input: &[u8]) -> usize {
///         self.0[id] = String::from_utf8_lossy(input).into_owned();
///         input.len()
///     }
///     fn on_close(&mut self, _: &mut Context<'_>, id: ConnId, _: (), _: pollstack::Closed) {
///         self.0.remove(id);
///     }
/// }
/// ```
pub struct ConnMap<T> {
    entries: Vec<Option<(ConnId, T)>>,
    len: usize,
}

impl<T> ConnMap<T> {
    /// Makes an empty map.
    pub const fn new() -> Self {
        ConnMap { entries: Vec::new(), len: 0 }
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets the value of a connection. Returns the one that it had.
    pub fn insert(&mut self, id: ConnId, value: T) -> Option<T> {
        let key = id.key();
        if key == usize::MAX {
            return None; // the id of a connection that was rejected, and never had a key
        }
        if key >= self.entries.len() {
            self.entries.resize_with(key + 1, || None);
        }
        let before = self.entries[key].replace((id, value));
        self.len += usize::from(before.is_none());
        before.filter(|(owner, _)| *owner == id).map(|(_, value)| value)
    }

    /// Returns the value of a connection.
    pub fn get(&self, id: ConnId) -> Option<&T> {
        self.entries.get(id.key())?.as_ref().filter(|(owner, _)| *owner == id).map(|(_, value)| value)
    }

    /// Returns the value of a connection, to be changed.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        self.entries.get_mut(id.key())?.as_mut().filter(|(owner, _)| *owner == id).map(|(_, value)| value)
    }

    /// Returns whether a connection has a value.
    pub fn contains(&self, id: ConnId) -> bool {
        self.get(id).is_some()
    }

    /// Takes the value of a connection out.
    pub fn remove(&mut self, id: ConnId) -> Option<T> {
        self.get(id)?;
        self.len -= 1;
        self.entries.get_mut(id.key())?.take().map(|(_, value)| value)
    }

    /// Returns the connections and their values, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        self.entries.iter().flatten().map(|(id, value)| (*id, value))
    }

    /// Returns the connections and their values, to be changed, in the order of their keys.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut T)> {
        self.entries.iter_mut().flatten().map(|(id, value)| (*id, value))
    }
}

impl<T> Default for ConnMap<T> {
    fn default() -> Self {
        ConnMap::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for ConnMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// For connections that are known to have a value.
///
/// # Panics
/// If the connection has none.
impl<T> Index<ConnId> for ConnMap<T> {
    type Output = T;

    fn index(&self, id: ConnId) -> &T {
        self.get(id).unwrap_or_else(|| missing(id))
    }
}

impl<T> IndexMut<ConnId> for ConnMap<T> {
    fn index_mut(&mut self, id: ConnId) -> &mut T {
        self.get_mut(id).unwrap_or_else(|| missing(id))
    }
}

#[cold]
fn missing<T>(id: ConnId) -> T {
    panic!("connection {id} has no value in the map")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Lost otherwise: the state of one connection, to another that has its key.
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((0..5u8, 0..64usize), 0..300)) {
            let (mut arena, mut map, mut model, mut ids) = (Arena::new(), ConnMap::new(), BTreeMap::new(), Vec::new());
            for (n, (what, which)) in steps.into_iter().enumerate() {
                if what < 2 || ids.is_empty() {
                    let id = ConnId(arena.insert(()));
                    ids.push(id);
                    prop_assert_eq!(map.insert(id, n), None);
                    model.retain(|other: &ConnId, _| other.key() != id.key());
                    model.insert(id, n);
                } else if what == 2 {
                    // The connection closes, and its value is forgotten or not.
                    let id = ids[which % ids.len()];
                    arena.remove(id.0);
                    if n % 2 == 0 {
                        prop_assert_eq!(map.remove(id), model.remove(&id));
                    }
                } else {
                    let id = ids[which % ids.len()];
                    if let Some(value) = map.get_mut(id) {
                        *value += 1;
                    }
                    model.entry(id).and_modify(|value| *value += 1);
                }
                prop_assert_eq!(map.len(), model.len());
                for id in &ids {
                    prop_assert_eq!(map.get(*id), model.get(id));
                }
                prop_assert!(map.iter().all(|(id, value)| model.get(&id) == Some(value)));
            }
        }
    }
}
