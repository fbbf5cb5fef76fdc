//! A bounded LIFO stack, and the two lines of requests that wait for it. No I/O, no clock.
//!
//! Every request goes to the end of its line, pushes to one and pops to the other. Then
//! [`decide`](Lifo::decide) serves requests, one at a time: a push when there is room, a pop when there
//! is an item. Each line is served in order, and a waiting push before a waiting pop. A parked client
//! is one that has not been decided yet.
//!
//! A popped item keeps its room until its delivery is settled. [`delivered`](Lifo::delivered) frees
//! the room; [`undelivered`](Lifo::undelivered) puts the item back on top. So the stack never holds
//! more than its capacity, and never loses an item.

use crate::queue::{Place, Queue};

/// A bounded LIFO stack of items `T` for clients that are named by a `C`.
///
/// ```
/// use pollstack::stack::lifo::{Decision, Lifo};
///
/// let mut lifo = Lifo::new(1);
/// lifo.pop("ann");
/// assert_eq!(lifo.decide(), None, "ann waits");
/// lifo.push("bob", 7);
/// assert_eq!(lifo.decide(), Some(Decision::Stored("bob")));
/// assert_eq!(lifo.decide(), Some(Decision::Popped("ann", 7)));
/// assert_eq!(lifo.decide(), None);
/// lifo.delivered();
/// ```
#[derive(Debug)]
pub struct Lifo<T, C> {
    items: Vec<T>,
    capacity: usize,
    in_flight: usize,
    pushes: Queue<(C, T)>,
    pops: Queue<C>,
}

/// A request that has been served. A `match` may be exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<T, C> {
    /// This client's item is on the stack.
    Stored(C),
    /// This client gets this item. [`Lifo::delivered`] or [`Lifo::undelivered`] must follow.
    Popped(C, T),
}

/// A waiting request, for [`Lifo::cancel`]. It is void once the request has been decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(Line);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Push(Place),
    Pop(Place),
}

impl<T, C: Copy> Lifo<T, C> {
    /// Makes an empty stack for at most `capacity` items. It allocates as it fills.
    pub fn new(capacity: usize) -> Self {
        Lifo { items: Vec::new(), capacity, in_flight: 0, pushes: Queue::new(), pops: Queue::new() }
    }

    /// Lines up the push of `item` by `client`.
    pub fn push(&mut self, client: C, item: T) -> Ticket {
        Ticket(Line::Push(self.pushes.push_back((client, item))))
    }

    /// Lines up a pop by `client`.
    pub fn pop(&mut self, client: C) -> Ticket {
        Ticket(Line::Pop(self.pops.push_back(client)))
    }

    /// Puts an item on the stack that was there before: for a stack that is made anew.
    pub fn put(&mut self, item: T) {
        self.items.push(item);
    }

    /// Returns the item on top.
    pub fn top(&self) -> Option<&T> {
        self.items.last()
    }

    /// Serves the next request that can be served, and returns it. Call it after every change, until
    /// it returns `None`.
    pub fn decide(&mut self) -> Option<Decision<T, C>> {
        if self.items.len() + self.in_flight < self.capacity {
            if let Some((client, item)) = self.pushes.pop_front() {
                self.items.push(item);
                return Some(Decision::Stored(client));
            }
        }
        if self.pops.is_empty() {
            return None;
        }
        let item = self.items.pop()?;
        self.in_flight += 1;
        self.pops.pop_front().map(|client| Decision::Popped(client, item))
    }

    /// Takes a request out of its line. Returns whether it still waited. Nothing is stored or handed out
    /// for it.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        match ticket.0 {
            Line::Push(place) => self.pushes.remove(place).is_some(),
            Line::Pop(place) => self.pops.remove(place).is_some(),
        }
    }

    /// Frees the room of a popped item that has reached its client.
    pub fn delivered(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Puts a popped item that has not reached its client back on top.
    pub fn undelivered(&mut self, item: T) {
        self.delivered();
        self.items.push(item);
    }

    /// Returns how many items there may be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns how many items are on the stack.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether no item is on the stack.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns how many popped items are neither delivered nor back.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns how many pushes and how many pops wait.
    pub fn waiting(&self) -> (usize, usize) {
        (self.pushes.len(), self.pops.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, so plainly that it is right: lists searched from their ends.
    #[derive(Default)]
    struct Naive {
        capacity: usize,
        items: Vec<u32>,
        in_flight: Vec<u32>,
        pushes: Vec<u32>,
        pops: Vec<u32>,
    }

    impl Naive {
        fn decide(&mut self) -> Vec<Decision<u32, u32>> {
            let mut decisions = Vec::new();
            loop {
                if !self.pushes.is_empty() && self.items.len() + self.in_flight.len() < self.capacity {
                    let client = self.pushes.remove(0);
                    self.items.push(client);
                    decisions.push(Decision::Stored(client));
                } else if !self.pops.is_empty() && !self.items.is_empty() {
                    let item = self.items.pop().unwrap();
                    self.in_flight.push(item);
                    decisions.push(Decision::Popped(self.pops.remove(0), item));
                } else {
                    return decisions;
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Push,
        Pop,
        Cancel(usize),
        Delivered(usize),
        Undelivered(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => Just(Op::Push),
            3 => Just(Op::Pop),
            2 => any::<usize>().prop_map(Op::Cancel),
            2 => any::<usize>().prop_map(Op::Delivered),
            1 => any::<usize>().prop_map(Op::Undelivered),
        ]
    }

    proptest! {
        /// Were this to fail, an item would be lost, doubled, or handed out in the wrong order.
        #[test]
        fn behaves_like_the_naive_stack(capacity in 0..4usize, ops in prop::collection::vec(op(), 0..200)) {
            let mut lifo = Lifo::new(capacity);
            let mut naive = Naive { capacity, ..Naive::default() };
            if capacity > 0 {
                lifo.put(1000);
                naive.items.push(1000);
            }
            let mut tickets = Vec::new();
            for (n, op) in ops.into_iter().enumerate() {
                let client = n as u32; // and what it pushes
                match op {
                    Op::Push => {
                        tickets.push((client, lifo.push(client, client)));
                        naive.pushes.push(client);
                    }
                    Op::Pop => {
                        tickets.push((client, lifo.pop(client)));
                        naive.pops.push(client);
                    }
                    Op::Cancel(i) if !tickets.is_empty() => {
                        let (client, ticket) = tickets[i % tickets.len()];
                        let before = naive.pushes.len() + naive.pops.len();
                        naive.pushes.retain(|who| *who != client);
                        naive.pops.retain(|who| *who != client);
                        let waited = naive.pushes.len() + naive.pops.len() < before;
                        prop_assert_eq!(lifo.cancel(ticket), waited);
                    }
                    Op::Delivered(i) if !naive.in_flight.is_empty() => {
                        naive.in_flight.remove(i % naive.in_flight.len());
                        lifo.delivered();
                    }
                    Op::Undelivered(i) if !naive.in_flight.is_empty() => {
                        let item = naive.in_flight.remove(i % naive.in_flight.len());
                        naive.items.push(item);
                        lifo.undelivered(item);
                    }
                    _ => {}
                }
                let decisions: Vec<_> = std::iter::from_fn(|| lifo.decide()).collect();
                prop_assert_eq!(decisions, naive.decide());
                prop_assert_eq!(lifo.waiting(), (naive.pushes.len(), naive.pops.len()));
                prop_assert_eq!((lifo.len(), lifo.in_flight()), (naive.items.len(), naive.in_flight.len()));
                prop_assert_eq!((lifo.top(), lifo.is_empty()), (naive.items.last(), naive.items.is_empty()));
                prop_assert_eq!(lifo.capacity(), capacity);
                prop_assert!(lifo.len() + lifo.in_flight() <= capacity);
            }
        }
    }

    /// Were this to fail, a push let in by a pop would exceed the bound when that pop's item
    /// comes back.
    #[test]
    fn an_item_on_its_way_keeps_its_room() {
        let mut lifo = Lifo::new(1);
        lifo.push('a', 1);
        lifo.decide();
        lifo.pop('b');
        assert_eq!(lifo.decide(), Some(Decision::Popped('b', 1)));
        lifo.push('c', 2);
        assert_eq!(lifo.decide(), None, "c waits until 1 has arrived");
        lifo.undelivered(1);
        assert_eq!(lifo.decide(), None, "1 is back, c waits on");
        lifo.pop('d');
        assert_eq!(lifo.decide(), Some(Decision::Popped('d', 1)));
        lifo.delivered();
        assert_eq!(lifo.decide(), Some(Decision::Stored('c')));
    }
}
