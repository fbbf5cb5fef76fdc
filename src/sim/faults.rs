//! The faults of the network and the kernel.

/// A kind of fault. Faults of clients are made by the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A read brings a part of what there is; the rest arrives right behind it.
    ShortRead,
    /// A write takes a part of what there is room for; the rest of the room comes right behind it.
    ShortWrite,
    /// A call finds nothing to do. Its data or its room arrives right behind it.
    WouldBlock,
    /// A call is interrupted by a signal.
    Interrupted,
    /// A connection is lost in the backlog.
    LostAccept,
    /// An accept finds no descriptor to spare, nor do a few after it.
    NoDescriptors,
    /// An event that is not true, or about a connection that has gone.
    SpuriousEvent,
    /// Events come in another order than their causes.
    ReorderedEvents,
    /// A wait brings so few events at a time that it takes several to bring them all.
    TruncatedEvents,
    /// An accepted connection cannot be read or written yet. Its data or its room arrives right behind it.
    FreshWouldBlock,
    /// A stream cannot be watched, for lack of memory or by a limit of the system's.
    WatchFails,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 11] = [
        Fault::ShortRead,
        Fault::ShortWrite,
        Fault::WouldBlock,
        Fault::Interrupted,
        Fault::LostAccept,
        Fault::NoDescriptors,
        Fault::SpuriousEvent,
        Fault::ReorderedEvents,
        Fault::TruncatedEvents,
        Fault::FreshWouldBlock,
        Fault::WatchFails,
    ];
}

/// How often each kind of fault is made: once in so many occasions, or never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults([u32; Fault::ALL.len()]);

impl Faults {
    /// Returns some kinds of faults, now and then or all the time, but none that costs a client its
    /// connection. Which, `seed` decides: a world with a few kinds of faults shows more than one with
    /// all.
    pub fn random(seed: u64) -> Faults {
        Fault::ALL[..].iter().fold(Faults::with_accepts(seed), |faults, fault| match fault {
            Fault::LostAccept | Fault::NoDescriptors | Fault::WatchFails => faults.with(*fault, 0),
            _ => faults,
        })
    }

    /// Returns the same, and connections may be lost when they are accepted or watched.
    pub fn with_accepts(seed: u64) -> Faults {
        let mut random = fastrand::Rng::with_seed(seed);
        Faults(std::array::from_fn(|_| [0, 0, 0, 2, 5, 20, 100][random.usize(..7)]))
    }

    /// These, and `fault` once in `n` occasions; never if that is 0.
    pub fn with(mut self, fault: Fault, n: u32) -> Faults {
        self.0[fault as usize] = n;
        self
    }

    /// Once in how many occasions a fault is made; 0 is never.
    pub fn one_in(&self, fault: Fault) -> u32 {
        self.0[fault as usize]
    }
}
