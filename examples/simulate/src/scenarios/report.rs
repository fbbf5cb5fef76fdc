//! The counts of a run, and the description of a failure.

use pollstack::sim::{Entry, Event, Fault, World};
use std::error::Error;

/// Whether all is as it should be.
pub(crate) type Check = Result<(), Box<dyn Error>>;

/// Fails with `text` unless `holds`.
pub(crate) fn require(holds: bool, text: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(text().into()) }
}

/// The counts over all worlds so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many worlds have ended.
    pub worlds: u64,
    /// How many connections clients have opened.
    pub connections: u64,
    /// How many events the logs hold.
    pub events: u64,
    /// How often each kind of fault was made.
    pub fired: [u64; Fault::ALL.len()],
    /// How many clients have ended their half.
    pub ended: u64,
    /// How many clients have reset the connection.
    pub aborted: u64,
    /// The events in the current world.
    history: Vec<Entry>,
}

impl Report {
    /// Returns how much has been heard of the world of now.
    pub(crate) fn known(&self) -> usize {
        self.history.len()
    }

    /// The events since the last time.
    pub(crate) fn listen(&mut self, world: &World) -> &[Entry] {
        let known = self.history.len();
        self.history.extend(world.take_log());
        &self.history[known..]
    }

    /// Counts a world that is over.
    pub(crate) fn close(&mut self, world: &World) {
        self.worlds += 1;
        self.events += self.history.len() as u64;
        let count = |event| self.history.iter().filter(|entry| entry.event == event).count() as u64;
        self.connections += count(Event::Connected);
        self.ended += count(Event::Ended);
        self.aborted += count(Event::Aborted);
        self.fired.iter_mut().zip(world.faults_fired()).for_each(|(sum, (_, n))| *sum += n);
        self.history.clear();
    }

    /// The events in the current world, to be read.
    pub(crate) fn trace(&mut self, world: &World) -> String {
        self.listen(world);
        self.history.iter().map(|entry| format!("{entry}\n")).collect()
    }

    /// Adds what another thread has seen.
    pub fn add(&mut self, other: &Report) {
        self.worlds += other.worlds;
        self.events += other.events;
        self.connections += other.connections;
        self.ended += other.ended;
        self.aborted += other.aborted;
        self.fired.iter_mut().zip(other.fired).for_each(|(sum, n)| *sum += n);
    }
}
