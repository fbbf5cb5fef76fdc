//! Where the items are: in memory, in memory and a journal, or in an engine that other edges share.
//!
//! An [engine](super::shared) decides about requests itself. Without one,
//! memory decides, and the journal follows. A push that the stack has taken is put into a batch, and told to
//! its client when that batch is on the disk. A popped item leaves the journal when it has reached its
//! client, so a crash loses none that was on its way: it is there again. While one batch is committed
//! the next one fills; a batch that fails is joined with it. An item that comes and goes in one batch is
//! in neither, so a batch is never larger than what is on the stack and on the disk together.

use super::journal::{Batch, Finished, Journal, Trouble};
use super::lifo::{Decision, Lifo, Ticket};
use super::shared::Shared;
use super::wire::Item;
use slab::Slab;
use std::collections::{HashMap, VecDeque};

/// A stack of items for clients that are named by a number.
#[derive(Debug)]
pub(super) struct Store {
    /// The stack of item keys, and the lines of client keys.
    lifo: Lifo<usize, usize>,
    /// Items on the stack, waiting to be pushed, or on their way out. They never move.
    items: Slab<Item>,
    beyond: Beyond,
}

/// The places of items beyond the memory.
#[derive(Debug)]
enum Beyond {
    Nothing,
    Journal(Box<Journaled>),
    Engine(Box<Shared>),
}

/// A journal, and what it has not got yet.
#[derive(Debug)]
struct Journaled {
    journal: Box<dyn Journal>,
    /// The numbers of the items, by their keys.
    numbers: Vec<u64>,
    next_number: u64,
    filling: Batch,
    is_committing: bool,
    is_woken: bool,
    /// The clients whose pushes are on the stack and not on the disk, by the numbers of their items.
    storing: HashMap<u64, usize>,
    /// Clients that are to be told that their items are stored.
    stored: VecDeque<usize>,
    trouble: Option<Trouble>,
}

impl Store {
    pub(super) fn new(capacity: usize) -> Store {
        Store { lifo: Lifo::new(capacity), items: Slab::new(), beyond: Beyond::Nothing }
    }

    /// Begins with the items of a journal, from the bottom to the top, and writes down what changes.
    pub(super) fn keep(&mut self, items: Vec<(u64, Item)>, journal: Box<dyn Journal>) {
        let next_number = items.last().map_or(1, |(number, _)| number + 1);
        let mut numbers = Vec::with_capacity(items.len());
        for (number, item) in items {
            let key = self.items.insert(item);
            note(&mut numbers, key, number);
            self.lifo.put(key);
        }
        let (filling, storing, stored) = Default::default();
        let (is_committing, is_woken, trouble) = (false, false, None);
        self.beyond = Beyond::Journal(Box::new(Journaled {
            journal,
            numbers,
            next_number,
            filling,
            is_committing,
            is_woken,
            storing,
            stored,
            trouble,
        }));
    }

    /// Shares the stack of an engine. This one is to be empty.
    pub(super) fn share(&mut self, edge: u64) {
        self.beyond = Beyond::Engine(Box::new(Shared::new(edge)));
    }

    /// Lines up a push. The key is that of its item. One in the engine has no line here.
    #[inline(always)]
    pub(super) fn push(&mut self, client: usize, item: Item) -> Option<(usize, Ticket)> {
        if let Beyond::Engine(shared) = &mut self.beyond {
            shared.push(client, item);
            return None;
        }
        let key = self.items.insert(item);
        Some((key, self.lifo.push(client, key)))
    }

    #[inline(always)]
    pub(super) fn pop(&mut self, client: usize) -> Option<Ticket> {
        if let Beyond::Engine(shared) = &mut self.beyond {
            shared.pop(client);
            return None;
        }
        Some(self.lifo.pop(client))
    }

    /// Takes a push out of its line. One that is on the stack already stays there, and is told to no client.
    pub(super) fn cancel_push(&mut self, client: usize, place: Option<(usize, Ticket)>) {
        match (place, &mut self.beyond) {
            (Some((key, ticket)), _) if self.lifo.cancel(ticket) => drop(self.items.remove(key)),
            (_, Beyond::Journal(journaled)) => {
                journaled.storing.retain(|_, other| *other != client);
                journaled.stored.retain(|other| *other != client);
            }
            (_, Beyond::Engine(shared)) => shared.cancel(client),
            (_, Beyond::Nothing) => {}
        }
    }

    pub(super) fn cancel_pop(&mut self, client: usize, place: Option<Ticket>) {
        match (place, &mut self.beyond) {
            (Some(ticket), _) => drop(self.lifo.cancel(ticket)),
            (None, Beyond::Engine(shared)) => shared.cancel(client),
            (None, _) => {}
        }
    }

    /// Returns the next client that can be told something. An item that it has popped is named by its key.
    #[inline(always)] // these are a request's
    pub(super) fn decide(&mut self) -> Option<Decision<usize, usize>> {
        match &self.beyond {
            Beyond::Nothing => self.lifo.decide(),
            _ => self.decide_beyond(),
        }
    }

    #[cold]
    fn decide_beyond(&mut self) -> Option<Decision<usize, usize>> {
        match &mut self.beyond {
            Beyond::Nothing => None,
            Beyond::Journal(_) => self.decide_and_write(),
            Beyond::Engine(shared) => shared.decide(&mut self.items),
        }
    }

    fn decide_and_write(&mut self) -> Option<Decision<usize, usize>> {
        let Beyond::Journal(journaled) = &mut self.beyond else { return None };
        loop {
            if let Some(client) = journaled.stored.pop_front() {
                return Some(Decision::Stored(client));
            }
            let decision = self.lifo.decide()?;
            let (Decision::Stored(client), Some(key)) = (&decision, self.lifo.top()) else { return Some(decision) };
            let number = journaled.insert(*key, &self.items[*key]);
            match journaled.journal.answers_wait() || journaled.trouble.is_some() {
                true => drop(journaled.storing.insert(number, *client)),
                false => return Some(decision),
            }
        }
    }

    /// Returns the bytes of an item on the wire.
    pub(super) fn item(&self, key: usize) -> &Item {
        &self.items[key]
    }

    /// A popped item has reached its client.
    #[inline(always)] // these are a request's
    pub(super) fn delivered(&mut self, key: usize) {
        self.lifo.delivered();
        self.items.remove(key);
        match &mut self.beyond {
            Beyond::Nothing => {}
            Beyond::Journal(journaled) => journaled.remove(key),
            Beyond::Engine(shared) => shared.settle(key, true),
        }
    }

    /// A popped item has not reached its client, and goes back on top: above items that have come meanwhile.
    pub(super) fn undelivered(&mut self, key: usize) {
        match &mut self.beyond {
            Beyond::Nothing => {}
            Beyond::Journal(journaled) => {
                if let Some(top) = self.lifo.top() {
                    journaled.put_above(key, *top, &self.items[key]);
                }
            }
            Beyond::Engine(shared) => {
                self.items.remove(key);
                return shared.settle(key, false);
            }
        }
        self.lifo.undelivered(key);
    }

    /// Returns what is said to the engine, and heard of it; `None` if there is none.
    pub(super) fn shared(&self) -> Option<&Shared> {
        match &self.beyond {
            Beyond::Engine(shared) => Some(shared),
            _ => None,
        }
    }

    pub(super) fn shared_mut(&mut self) -> Option<&mut Shared> {
        match &mut self.beyond {
            Beyond::Engine(shared) => Some(shared),
            _ => None,
        }
    }

    fn journaled(&self) -> Option<&Journaled> {
        match &self.beyond {
            Beyond::Journal(journaled) => Some(journaled),
            _ => None,
        }
    }

    /// Looks what has become of a batch, and begins the next one.
    pub(super) fn look(&mut self) {
        if let Beyond::Journal(journaled) = &mut self.beyond {
            journaled.is_woken = false;
            if let Some(finished) = journaled.journal.finished() {
                journaled.hear(finished);
            }
            journaled.begin();
        }
    }

    /// Commits what is left, when the loop is over.
    pub(super) fn close(&mut self) -> Result<(), String> {
        let Beyond::Journal(journaled) = &mut self.beyond else { return Ok(()) };
        // A batch that fails is joined with the rest, and tried once more.
        for _ in 0..3 {
            journaled.begin();
            match journaled.is_committing.then(|| journaled.journal.wait()).flatten() {
                Some(finished) => journaled.hear(finished),
                None => break,
            }
        }
        if !journaled.is_committing && journaled.filling.is_empty() && !journaled.is_over() {
            return Ok(()); // all is on the disk, be there room for more or not
        }
        let reason = journaled.trouble.as_ref().map_or("it does not answer", |trouble| &trouble.reason);
        Err(format!("{reason}; items that were popped last may be there again"))
    }

    /// Returns why the journal does not take changes now; `None` if it does, or if there is none.
    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.journaled()?.trouble.as_ref()
    }

    /// Returns whether the push of this client is on the stack, and not on the disk.
    pub(super) fn is_storing(&self, client: usize) -> bool {
        self.journaled().is_some_and(|journaled| journaled.storing.values().any(|other| *other == client))
    }

    /// Returns how many pushes are on the stack, and not on the disk; or how many requests the engine has not
    /// told of yet.
    pub(super) fn storing(&self) -> usize {
        match &self.beyond {
            Beyond::Nothing => 0,
            Beyond::Journal(journaled) => journaled.storing.len() + journaled.stored.len(),
            Beyond::Engine(shared) => shared.unsure(),
        }
    }

    /// Returns how many items there may be.
    pub(super) fn capacity(&self) -> usize {
        self.lifo.capacity()
    }

    /// Returns how many items are on the stack.
    pub(super) fn len(&self) -> usize {
        self.shared().map_or(self.lifo.len(), |shared| shared.told().items)
    }

    /// Returns how many items are held: on the stack, waiting to be pushed, or on their way out.
    pub(super) fn held(&self) -> usize {
        self.items.len()
    }

    /// Returns how many pushes and how many pops wait.
    pub(super) fn waiting(&self) -> (usize, usize) {
        self.shared().map_or(self.lifo.waiting(), |shared| shared.told().waiting)
    }

    /// Returns how many popped items are neither delivered nor back.
    pub(super) fn in_flight(&self) -> usize {
        self.shared().map_or(self.lifo.in_flight(), Shared::in_flight)
    }
}

fn note(numbers: &mut Vec<u64>, key: usize, number: u64) {
    if numbers.len() <= key {
        numbers.resize(key + 1, 0);
    }
    numbers[key] = number;
}

impl Journaled {
    /// Puts an item into the batch, and returns its number.
    fn insert(&mut self, key: usize, item: &Item) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        note(&mut self.numbers, key, number);
        self.filling.insert(number, *item);
        self.wake();
        number
    }

    /// An item has gone for good. If it never was in the journal, its client has nothing to wait for.
    fn remove(&mut self, key: usize) {
        let number = self.numbers[key];
        if !self.filling.remove(number) {
            self.stored.extend(self.storing.remove(&number));
        }
        self.wake();
    }

    /// Gives an item a new number if that of the top is larger.
    fn put_above(&mut self, key: usize, top: usize, item: &Item) {
        let number = self.numbers[key];
        if self.numbers[top] < number {
            return;
        }
        let client = self.storing.remove(&number);
        self.filling.remove(number);
        let above = self.insert(key, item);
        self.storing.extend(client.map(|client| (above, client)));
    }

    fn wake(&mut self) {
        if !self.is_committing && !self.is_woken {
            self.is_woken = true;
            self.journal.wake();
        }
    }

    /// Returns whether no other commit can succeed.
    fn is_over(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.is_final)
    }

    fn begin(&mut self) {
        if !self.is_committing && !self.is_over() && !self.filling.is_empty() {
            self.is_committing = true;
            self.journal.commit(std::mem::take(&mut self.filling));
        }
    }

    fn hear(&mut self, Finished { mut batch, result }: Finished) {
        self.is_committing = false;
        match result {
            Ok(()) => {
                for (number, _) in batch.changes().filter(|(_, item)| item.is_some()) {
                    self.stored.extend(self.storing.remove(&number));
                }
                if self.trouble.take().is_some() {
                    log::info!("the data can be written again");
                }
            }
            Err(trouble) => {
                for gone in batch.append(std::mem::take(&mut self.filling)) {
                    self.stored.extend(self.storing.remove(&gone)); // it was popped
                }
                self.filling = batch;
                if self.trouble.as_ref() != Some(&trouble) {
                    log::error!("the data cannot be written: {}; pushes wait", trouble.reason);
                }
                self.trouble = Some(trouble);
            }
        }
    }
}
