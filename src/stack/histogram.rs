//! Times, counted by their lengths.

use std::time::Duration;

/// Times, counted by their lengths. No allocation, and no clock of its own.
///
/// ```
/// use pollstack::stack::Histogram;
/// use std::time::Duration;
///
/// let mut waits = Histogram::default();
/// waits.add(Duration::ZERO);
/// waits.add(Duration::from_millis(20));
/// assert_eq!(waits.counts, [1, 0, 1, 0, 0, 0, 0]);
/// assert_eq!(waits.sum, Duration::from_millis(20));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// How many were at most as long as the [bound](Self::BOUNDS) with the same index, and longer than the one
    /// before; the last is for all longer ones.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// How long they were together.
    pub sum: Duration,
}

impl Histogram {
    /// The bounds.
    pub const BOUNDS: [Duration; 6] = [
        Duration::from_millis(1),
        Duration::from_millis(10),
        Duration::from_millis(100),
        Duration::from_secs(1),
        Duration::from_secs(10),
        Duration::from_secs(60),
    ];

    /// Counts a time.
    pub fn add(&mut self, time: Duration) {
        let at = Self::BOUNDS.iter().position(|bound| time <= *bound).unwrap_or(Self::BOUNDS.len());
        self.counts[at] += 1;
        self.sum += time;
    }
}
