//! One deadline per connection, the soonest first.
//!
//! Deadlines are moved far more often than they pass: a transfer moves its own with every read. So the
//! heap holds, for each connection, a time *no later* than its deadline. Moving a deadline later
//! writes one word; when the old time comes up, the entry is put back at the new one.
//! [`Deadlines::soonest`] does so before it answers, so a loop that sleeps until then never wakes for
//! a deadline that was moved or cleared.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Below this many entries the heap is not worth tidying.
const TIDY_ABOVE: usize = 64;

/// The deadlines of the connections of a loop, by key.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    timers: Vec<Timer>,
    set: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Timer {
    deadline: Option<Instant>,
    /// The soonest heap entry that stands for this timer, no later than its deadline if it has
    /// one; all its others are void.
    entry: Option<Instant>,
}

impl Deadlines {
    /// Sets, moves or clears the one deadline of `key`.
    pub(crate) fn set(&mut self, key: usize, deadline: Option<Instant>) {
        if key >= self.timers.len() {
            if deadline.is_none() {
                return;
            }
            self.timers.resize(key + 1, Timer::default());
        }
        let timer = &mut self.timers[key];
        self.set += usize::from(deadline.is_some());
        self.set -= usize::from(timer.deadline.is_some());
        timer.deadline = deadline;
        if let Some(at) = deadline {
            if timer.entry.is_none_or(|entry| at < entry) {
                timer.entry = Some(at);
                self.heap.push(Reverse((at, key)));
                self.tidy();
            }
        }
    }

    /// Returns the deadline of `key`.
    pub(crate) fn get(&self, key: usize) -> Option<Instant> {
        self.timers.get(key)?.deadline
    }

    /// Returns the soonest deadline of all.
    pub(crate) fn soonest(&mut self) -> Option<Instant> {
        while let Some(&Reverse((at, key))) = self.heap.peek() {
            let timer = self.timers[key];
            if timer.entry == Some(at) && timer.deadline == Some(at) {
                return Some(at);
            }
            self.heap.pop();
            if timer.entry == Some(at) {
                self.timers[key].entry = timer.deadline;
                self.heap.extend(timer.deadline.map(|deadline| Reverse((deadline, key))));
            }
        }
        None
    }

    /// Returns the connection whose deadline passed first, at or before `now`.
    pub(crate) fn first_passed(&mut self, now: Instant) -> Option<usize> {
        self.soonest().filter(|at| *at <= now)?;
        self.heap.peek().map(|&Reverse((_, key))| key)
    }

    /// Clears the deadline of `key` if it has passed, at or before `now`. Returns whether it has.
    pub(crate) fn take_passed(&mut self, key: usize, now: Instant) -> bool {
        let passed = self.timers.get(key).and_then(|timer| timer.deadline).is_some_and(|at| at <= now);
        if passed {
            self.set(key, None);
        }
        passed
    }

    /// Removes the void entries that deadlines leave behind when they are moved *earlier*, before they
    /// outnumber the live ones two to one.
    fn tidy(&mut self) {
        if self.heap.len() <= TIDY_ABOVE.max(2 * self.set) {
            return;
        }
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.sort_unstable();
        entries.dedup();
        entries.retain(|Reverse((at, key))| {
            let timer = &mut self.timers[*key];
            let stands = timer.entry == Some(*at);
            if stands && timer.deadline.is_none() {
                timer.entry = None;
            }
            stands && timer.deadline.is_some()
        });
        self.heap = entries.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    proptest! {
        /// Were this to fail, a deadline would be missed, fire twice, or wake an idle server.
        #[test]
        fn behaves_like_a_sorted_map(steps in prop::collection::vec((0..8usize, prop::option::of(0..50u64), 0..4u64), 1..300)) {
            let start = Instant::now();
            let (mut deadlines, mut model, mut now) = (Deadlines::default(), BTreeMap::new(), start);
            for (key, ahead, passes) in steps {
                let deadline = ahead.map(|n| now + Duration::from_nanos(n));
                deadlines.set(key, deadline);
                match deadline {
                    Some(at) => model.insert(key, at),
                    None => model.remove(&key),
                };
                now += Duration::from_nanos(passes);
                while let Some(key) = deadlines.first_passed(now) {
                    prop_assert!(deadlines.take_passed(key, now) && !deadlines.take_passed(key, now));
                    let at = model.remove(&key);
                    prop_assert!(at.is_some_and(|at| at <= now), "{} fired at {:?}, set to {:?}", key, now, at);
                }
                prop_assert_eq!(deadlines.soonest(), model.values().min().copied());
                prop_assert!(deadlines.soonest().is_none_or(|at| at > now));
                prop_assert_eq!(deadlines.set, model.len());
            }
        }
    }

    /// Were this to fail, thousands of connections that close before their deadline would make
    /// every later deadline cost as much as a sort of them all.
    #[test]
    fn cleared_deadlines_are_forgotten() {
        let (start, mut deadlines) = (Instant::now(), Deadlines::default());
        for key in 0..10_000 {
            deadlines.set(key, Some(start + Duration::from_secs(60)));
        }
        for key in 0..10_000 {
            deadlines.set(key, None);
            deadlines.set(10_000 + key % 10, Some(start + Duration::from_secs(5)));
            deadlines.set(10_000 + key % 10, None);
        }
        deadlines.set(0, Some(start + Duration::from_secs(1)));
        deadlines.set(1, Some(start));
        assert!(deadlines.heap.len() <= TIDY_ABOVE + 1, "{} entries", deadlines.heap.len());
        assert_eq!(deadlines.soonest(), Some(start));
    }

    /// Were this to fail, a service that keeps moving a deadline could exhaust memory.
    #[test]
    fn the_heap_stays_small_however_deadlines_move() {
        let (start, mut deadlines) = (Instant::now(), Deadlines::default());
        for n in (0..1_000_000).rev() {
            deadlines.set(0, Some(start + Duration::from_micros(n)));
            assert!(deadlines.heap.len() <= TIDY_ABOVE + 1);
        }
    }
}
