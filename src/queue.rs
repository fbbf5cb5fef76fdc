//! A FIFO queue that can also lose an element from its middle, in constant time.
//!
//! An element may leave before its turn: a parked client hangs up, an old connection closes. A
//! [`Queue`] is a doubly linked list through an arena, so its memory is that of the most elements
//! that ever waited at the same time, however many came and left.

use crate::arena::{Arena, Index};

/// A first-in first-out queue with removal from anywhere in O(1).
///
/// ```
/// use pollstack::queue::Queue;
///
/// let mut queue = Queue::new();
/// let ann = queue.push_back("ann");
/// queue.push_back("bob");
/// assert_eq!(queue.remove(ann), Some("ann"));
/// assert_eq!(queue.remove(ann), None, "a place is good for one removal");
/// assert_eq!(queue.pop_front(), Some("bob"));
/// ```
#[derive(Debug)]
pub struct Queue<T> {
    nodes: Arena<Node<T>>,
    front: Option<usize>,
    back: Option<usize>,
}

/// The place of an element in its queue. It is never given out twice: once the element has left, it
/// is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(Index);

#[derive(Debug)]
struct Node<T> {
    value: T,
    before: Option<usize>,
    behind: Option<usize>,
}

impl<T> Queue<T> {
    /// Makes an empty queue, which allocates nothing until the first element comes.
    pub const fn new() -> Self {
        Queue { nodes: Arena::new(), front: None, back: None }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether the queue has no elements.
    pub fn is_empty(&self) -> bool {
        self.front.is_none()
    }

    /// Returns the element that has waited longest.
    pub fn front(&self) -> Option<&T> {
        self.front.map(|key| &self.nodes[key].value)
    }

    /// Adds an element behind all others.
    #[inline(always)] // 10 instructions a request
    pub fn push_back(&mut self, value: T) -> Place {
        let place = self.nodes.insert(Node { value, before: self.back, behind: None });
        match self.back {
            Some(back) => self.nodes[back].behind = Some(place.key()),
            None => self.front = Some(place.key()),
        }
        self.back = Some(place.key());
        Place(place)
    }

    /// Removes the element that has waited longest.
    pub fn pop_front(&mut self) -> Option<T> {
        let node = self.nodes.remove_at(self.front?)?;
        Some(self.unlink(node))
    }

    /// Removes the element at `place`; returns `None` if it has left already.
    pub fn remove(&mut self, Place(place): Place) -> Option<T> {
        let node = self.nodes.remove(place)?;
        Some(self.unlink(node))
    }

    /// Returns the elements, the longest waiting first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let first = self.front.map(|key| &self.nodes[key]);
        std::iter::successors(first, |node| node.behind.map(|key| &self.nodes[key])).map(|node| &node.value)
    }

    /// Closes the gap that a node has left.
    fn unlink(&mut self, node: Node<T>) -> T {
        match node.before {
            Some(before) => self.nodes[before].behind = node.behind,
            None => self.front = node.behind,
        }
        match node.behind {
            Some(behind) => self.nodes[behind].before = node.before,
            None => self.back = node.before,
        }
        node.value
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// Lost otherwise: the order of parked clients, and items given to clients that have left.
        #[test]
        fn behaves_like_a_list_with_removal(steps in prop::collection::vec((0..3u8, 0..64usize), 0..400)) {
            let mut queue = Queue::new();
            let mut model: VecDeque<(Place, usize)> = VecDeque::new();
            let mut gone = Vec::new();
            for (n, (what, which)) in steps.into_iter().enumerate() {
                match what {
                    0 => model.push_back((queue.push_back(n), n)),
                    1 => prop_assert_eq!(queue.pop_front(), model.pop_front().map(|(_, value)| value)),
                    _ if model.is_empty() => {}
                    _ => {
                        let (place, value) = model.remove(which % model.len()).unwrap();
                        prop_assert_eq!(queue.remove(place), Some(value));
                        gone.push(place);
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
                prop_assert_eq!(queue.front(), model.front().map(|(_, value)| value));
                prop_assert!(queue.iter().eq(model.iter().map(|(_, value)| value)));
            }
            for place in gone {
                prop_assert_eq!(queue.remove(place), None);
            }
        }
    }

    /// Lost otherwise: memory, a little with each of a million clients that park and leave.
    #[test]
    fn holds_no_more_memory_than_ever_waited_at_once() {
        let mut queue = Queue::new();
        for n in 0..1_000_000 {
            let place = queue.push_back(n);
            queue.remove(place);
        }
        assert!(queue.nodes.capacity() <= 4, "capacity {}", queue.nodes.capacity());
    }
}
