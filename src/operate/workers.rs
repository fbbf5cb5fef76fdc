//! Loops that are one server, each on a thread of its own: whichever is asked for counts tells those of all.

use super::metrics::Text;
use crate::net::Handle;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The loops of one server. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Workers(Arc<Mutex<Vec<Worker>>>);

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// Another one wants its counts: its number.
    asked_by: Option<usize>,
    /// Its counts, since it was last asked.
    told: Option<String>,
}

impl Workers {
    /// Adds a loop, and returns its number.
    pub(super) fn join(&self, handle: Handle) -> usize {
        let mut all = self.lock();
        all.push(Worker { handle, asked_by: None, told: None });
        all.len() - 1
    }

    /// Wakes all others, so that they tell their counts to `number`.
    pub(super) fn ask(&self, number: usize) {
        for (_, other) in self.lock().iter_mut().enumerate().filter(|(n, _)| *n != number) {
            (other.asked_by, other.told) = (Some(number), None);
            if let Err(error) = other.handle.wake() {
                log::warn!("a worker cannot be asked for its counts: {error}");
            }
        }
    }

    /// Tells the counts of `number`, if it was asked, and wakes the one that wants them.
    pub(super) fn tell(&self, number: usize, counts: impl FnOnce() -> Text) {
        let mut all = self.lock();
        if let Some(by) = all[number].asked_by.take() {
            all[number].told = Some(counts().as_str().to_owned());
            // It cannot be woken if it has ended, and then nothing is wanted any more.
            let _ = all[by].handle.wake();
        }
    }

    /// Adds the counts of all others to those of `number`, if all have told theirs.
    pub(super) fn complete(&self, number: usize, counts: &mut Text) -> bool {
        let all = self.lock();
        let others = all.iter().enumerate().filter(|(n, _)| *n != number);
        let Some(told) = others.map(|(_, other)| other.told.as_ref()).collect::<Option<Vec<_>>>() else { return false };
        told.into_iter().for_each(|told| counts.add(told));
        true
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
