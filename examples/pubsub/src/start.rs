//! Where a subscriber begins to read, and the gap that there may be before it.

/// Where a subscriber begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The id of the first message for it.
    pub(crate) next: u64,
    pub(crate) gap: Option<Gap>,
}

/// A gap before the first message: there may have been messages that are no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The last one that the subscriber has.
    pub(crate) after: u64,
    /// The first one that it can have.
    pub(crate) oldest: u64,
}

impl Gap {
    /// Returns the id to go on behind, so that a gap is told of once.
    pub(crate) fn id(&self) -> u64 {
        self.oldest.saturating_sub(1)
    }
}
