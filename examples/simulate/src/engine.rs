//! A model of the script in the engine (`src/engine/stack.lua`), with a clock that is told to it.

use pollstack::stack::wire::Item;
use pollstack::stack::{Ask, Asks, Told};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many answers one batch brings.
const MOST_ANSWERS: usize = 256;

/// Milliseconds without a batch, after which the engine has been away.
const QUIET: u64 = 2000;

/// A request: its edge, and the edge's number for it.
type Name = (u64, u64);

/// An engine with one stack.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    capacity: usize,
    seq: u64,
    seen: u64,
    /// From the bottom to the top.
    items: Vec<Item>,
    pushes: VecDeque<(Name, Item)>,
    pops: VecDeque<Name>,
    /// Popped items, with the sequence number of the pop.
    flight: BTreeMap<Name, (u64, Item)>,
    /// The edges, and the milliseconds at which their leases end.
    edges: BTreeMap<u64, u64>,
    /// The last number and the last answer of each edge.
    replies: BTreeMap<u64, (u64, Told)>,
    answers: BTreeMap<u64, Vec<(u64, Option<Item>)>>,
    /// The edges that have been called, and do not know yet.
    calls: BTreeSet<u64>,
    no_memory: bool,
}

/// The engine does not know the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

impl Engine {
    /// Makes an engine with an empty stack for `capacity` items.
    pub fn new(capacity: usize) -> Engine {
        Engine { capacity, ..Engine::default() }
    }

    /// Applies a batch at `now`, in milliseconds.
    ///
    /// # Errors
    /// [`Expired`]: it is not for an edge that is known.
    pub fn apply(&mut self, now: u64, lease: u64, batch: &Asks) -> Result<Told, Expired> {
        if now - self.seen > QUIET {
            self.edges.values_mut().for_each(|end| *end = now + lease);
        }
        self.seen = now;
        let dead: Vec<u64> = self.edges.iter().filter(|(_, end)| **end <= now).map(|(edge, _)| *edge).collect();
        dead.into_iter().for_each(|edge| self.bury(edge));
        self.decide();
        let lives = self.edges.contains_key(&batch.edge);
        let applied = self.replies.get(&batch.edge).map(|(number, _)| *number);
        let fits = applied == Some(batch.number) || applied.map(|number| number + 1) == Some(batch.number);
        if batch.number > 0 && !(lives && fits) {
            return Err(Expired);
        }
        self.edges.insert(batch.edge, now + lease);
        if let Some((number, told)) = self.replies.get(&batch.edge).filter(|(number, _)| *number == batch.number) {
            debug_assert_eq!(*number, told.number);
            return Ok(told.clone());
        }
        for ask in &batch.asks {
            self.ask(batch.edge, ask);
            self.decide();
        }
        if batch.asks.contains(&Ask::Leave) {
            self.bury(batch.edge);
            self.decide();
            return Ok(self.told(batch, Vec::new(), false));
        }
        let mut answers = self.answers.remove(&batch.edge).unwrap_or_default();
        let rest = answers.split_off(answers.len().min(MOST_ANSWERS));
        let told = self.told(batch, answers, !rest.is_empty());
        if !rest.is_empty() {
            self.answers.insert(batch.edge, rest);
        }
        self.calls.remove(&batch.edge);
        self.replies.insert(batch.edge, (batch.number, told.clone()));
        Ok(told)
    }

    fn told(&self, batch: &Asks, answers: Vec<(u64, Option<Item>)>, more: bool) -> Told {
        let waiting = (self.pushes.len(), self.pops.len());
        Told { number: batch.number, items: self.items.len(), waiting, more, answers }
    }

    fn ask(&mut self, edge: u64, ask: &Ask) {
        match ask {
            Ask::Push(id, item) => self.pushes.push_back(((edge, *id), *item)),
            Ask::Pop(id) => self.pops.push_back((edge, *id)),
            Ask::Cancel(id) => self.cancel((edge, *id)),
            Ask::Delivered(id) => drop(self.flight.remove(&(edge, *id))),
            Ask::Undelivered(id) => self.put_back((edge, *id)),
            Ask::Leave => {}
        }
    }

    fn cancel(&mut self, name: Name) {
        self.pushes.retain(|(other, _)| *other != name);
        self.pops.retain(|other| *other != name);
        self.put_back(name);
    }

    fn put_back(&mut self, name: Name) {
        self.items.extend(self.flight.remove(&name).map(|(_, item)| item));
    }

    /// An edge has gone. Its items lie as they lay.
    fn bury(&mut self, edge: u64) {
        let mut back: Vec<(u64, Name)> =
            self.flight.iter().filter(|(name, _)| name.0 == edge).map(|(name, (seq, _))| (*seq, *name)).collect();
        back.sort_unstable_by(|one, other| other.cmp(one));
        back.into_iter().for_each(|(_, name)| self.put_back(name));
        self.pushes.retain(|(name, _)| name.0 != edge);
        self.pops.retain(|name| name.0 != edge);
        self.edges.remove(&edge);
        self.replies.remove(&edge);
        self.answers.remove(&edge);
        self.calls.remove(&edge);
    }

    fn decide(&mut self) {
        loop {
            let has_room = self.items.len() + self.flight.len() < self.capacity && !self.no_memory;
            if let Some((name, item)) = has_room.then(|| self.pushes.pop_front()).flatten() {
                self.items.push(item);
                self.answer(name, None);
            } else if let (false, Some(item)) = (self.pops.is_empty(), self.items.last().copied()) {
                self.items.pop();
                let Some(name) = self.pops.pop_front() else { return };
                self.seq += 1;
                self.flight.insert(name, (self.seq, item));
                self.answer(name, Some(item));
            } else {
                return;
            }
        }
    }

    fn answer(&mut self, (edge, id): Name, item: Option<Item>) {
        self.answers.entry(edge).or_default().push((id, item));
        self.calls.insert(edge);
    }

    /// Returns whether an edge has been called since the last time.
    pub fn take_call(&mut self, edge: u64) -> bool {
        self.calls.remove(&edge)
    }

    /// Ends the lease of an edge.
    pub fn end_lease(&mut self, edge: u64) {
        self.edges.entry(edge).and_modify(|end| *end = 0);
    }

    /// Sets whether there is no memory for another item.
    pub fn set_no_memory(&mut self, no_memory: bool) {
        self.no_memory = no_memory;
    }

    /// Returns the items, from the bottom to the top.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Returns how many items there are, those in flight too.
    pub fn held(&self) -> usize {
        self.items.len() + self.flight.len()
    }

    /// Returns the items that an edge has not told the end of.
    pub fn in_flight(&self, edge: u64) -> impl Iterator<Item = &Item> {
        self.flight.iter().filter(move |(name, _)| name.0 == edge).map(|(_, (_, item))| item)
    }

    /// Returns how many pushes wait, and how many pops.
    pub fn waiting(&self) -> (usize, usize) {
        (self.pushes.len(), self.pops.len())
    }
}
