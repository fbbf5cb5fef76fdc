//! How many may come in, and who must go.

use crate::net::{Address, SocketOptions};
use crate::queue::{Place, Queue};
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// The backlog asked of the kernel: how many connections may wait to be accepted. A flood of
/// short connections arrives in bursts. What overflows this queue costs its client a
/// retransmission, one second or more, or worse: with SYN cookies Linux may accept a connection
/// whose first bytes it has dropped, and what comes behind them is taken for the beginning. A server
/// cannot see that; a queue that does not overflow prevents it. The kernel caps the backlog (on
/// Linux, `net.core.somaxconn`, 4096 by default).
pub const BACKLOG: u32 = 4096;

/// After how much silence a TCP peer is asked whether it is still there: one whose machine has
/// vanished is closed within two minutes, and the questions cost others a packet a minute.
pub const KEEPALIVE: Duration = Duration::from_secs(60);

/// The connections a listener takes unless told otherwise: what fits the usual descriptor limit
/// of 1024 with as many again to spare for what a service opens itself.
pub const MAX_CONNS: usize = 512;

/// A listener: addresses that are admitted together and counted together, and what happens to
/// the one too many.
///
/// ```
/// use pollstack::{Listen, Overload};
/// use std::time::Duration;
///
/// let listen = Listen::new("127.0.0.1:0".parse()?)
///     .and("[::1]:0".parse()?)
///     .max_conns(100)
///     .overload(Overload::EvictOldest { after: Duration::from_secs(10), otherwise: vec![0xFF].into() });
/// # Ok::<(), pollstack::net::ParseAddressError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Listen {
    pub(crate) addresses: Vec<Address>,
    pub(crate) socket: SocketOptions,
    pub(crate) max_conns: usize,
    pub(crate) overload: Overload,
}

impl Listen {
    /// Listens on `address` with [`BACKLOG`], [`KEEPALIVE`], [`MAX_CONNS`] and [`Overload::Defer`].
    pub fn new(address: Address) -> Self {
        Listen::nowhere().and(address)
    }

    /// Listens on no address: for connections that come by
    /// [`EventLoop::adopt`](crate::EventLoop::adopt).
    pub fn nowhere() -> Self {
        let socket = SocketOptions { backlog: BACKLOG, keepalive: Some(KEEPALIVE) };
        Listen { addresses: Vec::new(), socket, max_conns: MAX_CONNS, overload: Overload::Defer }
    }

    /// Listens on one more address; its connections count with the others.
    pub fn and(mut self, address: Address) -> Self {
        self.addresses.push(address);
        self
    }

    /// How many connections may wait in the kernel, per address.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.socket.backlog = backlog;
        self
    }

    /// After how much silence TCP peers are asked whether they are still there, in whole seconds
    /// ([`KEEPALIVE`]); `None` never asks. A peer that has vanished is asked six times, and its
    /// connection fails with a timeout after less than twice this time. It costs no system call.
    pub fn keepalive(mut self, silence: Option<Duration>) -> Self {
        self.socket.keepalive = silence;
        self
    }

    /// How many connections may be open at the same time, over all addresses of this listener.
    pub fn max_conns(mut self, max_conns: usize) -> Self {
        self.max_conns = max_conns;
        self
    }

    /// What happens to the one too many.
    pub fn overload(mut self, overload: Overload) -> Self {
        self.overload = overload;
        self
    }
}

/// What a full listener does about a newcomer.
#[derive(Clone, Debug)]
pub enum Overload {
    /// The oldest connection goes if it is older than `after` (strictly, counted from its accept);
    /// otherwise the newcomer reads `otherwise` and the end of the stream.
    EvictOldest {
        /// The age up to which a connection is safe.
        after: Duration,
        /// What a newcomer reads that finds nobody old enough to evict.
        otherwise: Cow<'static, [u8]>,
    },
    /// The newcomer reads these bytes and the end of the stream.
    Reject(Cow<'static, [u8]>),
    /// Nobody is accepted until somebody leaves; newcomers wait in the backlog.
    Defer,
}

/// Who is in through one listener, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Admission {
    capacity: usize,
    overload: Overload,
    admitted: Queue<(usize, Instant)>,
    /// Accepted, but not judged yet.
    expected: usize,
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Admit,
    /// Admit it in the place of the connection with this key.
    Evict(usize),
    Reject,
}

impl Admission {
    pub(crate) fn new(listen: &Listen) -> Self {
        Admission { capacity: listen.max_conns, overload: listen.overload.clone(), admitted: Queue::new(), expected: 0 }
    }

    /// Counts a newcomer that has been accepted; [`judge`](Self::judge) is to follow.
    pub(crate) fn count_newcomer(&mut self) {
        self.expected += 1;
    }

    /// Judges a newcomer at `now`. The oldest is the head of a queue in order of accept, so this
    /// costs the same with ten connections and with a hundred thousand.
    pub(crate) fn judge(&mut self, now: Instant) -> Verdict {
        self.expected = self.expected.saturating_sub(1);
        if self.admitted.len() < self.capacity {
            return Verdict::Admit;
        }
        match (&self.overload, self.admitted.front()) {
            (Overload::EvictOldest { after, .. }, Some(&(oldest, accepted_at)))
                if now.saturating_duration_since(accepted_at) > *after =>
            {
                Verdict::Evict(oldest)
            }
            _ => Verdict::Reject,
        }
    }

    /// Whether a newcomer should be accepted from the backlog at all.
    pub(crate) fn may_accept(&self) -> bool {
        self.admitted.len() + self.expected < self.capacity || !matches!(self.overload, Overload::Defer)
    }

    /// What a rejected newcomer reads.
    pub(crate) fn reply(&self) -> &[u8] {
        match &self.overload {
            Overload::EvictOldest { otherwise: reply, .. } | Overload::Reject(reply) => reply,
            Overload::Defer => &[],
        }
    }

    pub(crate) fn enter(&mut self, key: usize, accepted_at: Instant) -> Place {
        self.admitted.push_back((key, accepted_at))
    }

    pub(crate) fn leave(&mut self, place: Place) {
        self.admitted.remove(place);
    }

    /// Whether nobody is in.
    pub(crate) fn is_empty(&self) -> bool {
        self.admitted.is_empty()
    }

    /// How many are in.
    pub(crate) fn len(&self) -> usize {
        self.admitted.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const TICK: Duration = Duration::from_nanos(1);

    fn stack(max_conns: usize) -> Admission {
        let evict = Overload::EvictOldest { after: LIMIT, otherwise: vec![0xFF].into() };
        Admission::new(&Listen::new("127.0.0.1:0".parse().unwrap()).max_conns(max_conns).overload(evict))
    }

    /// Were this to fail, a client would be thrown out a moment too early: at exactly the limit
    /// nobody is evicted.
    #[test]
    fn evicts_only_the_strictly_older() {
        let (start, mut door) = (Instant::now(), stack(1));
        door.enter(7, start);
        assert_eq!(door.judge(start + LIMIT - TICK), Verdict::Reject);
        assert_eq!(door.judge(start + LIMIT), Verdict::Reject);
        assert_eq!(door.judge(start + LIMIT + TICK), Verdict::Evict(7));
    }

    /// Were this to fail, somebody would be evicted without need, or somebody younger.
    #[test]
    fn evicts_only_the_oldest_and_only_when_full() {
        let (start, mut door) = (Instant::now(), stack(3));
        let first = door.enter(1, start);
        door.enter(2, start + TICK);
        let later = start + LIMIT * 3;
        assert_eq!(door.judge(later), Verdict::Admit, "room is left, whatever the age");
        door.enter(3, later);
        assert_eq!(door.judge(later), Verdict::Evict(1));
        door.leave(first);
        assert_eq!(door.judge(later), Verdict::Admit, "who left counts no longer");
        door.enter(4, later);
        assert_eq!(door.judge(later), Verdict::Evict(2));
    }

    /// Were this to fail, a deferring listener would accept a client it cannot serve.
    #[test]
    fn defers_at_capacity_and_not_below() {
        let mut door = Admission::new(&Listen::new("127.0.0.1:0".parse().unwrap()).max_conns(1));
        assert!(door.may_accept());
        door.count_newcomer();
        assert!(!door.may_accept(), "the one on its way takes the place");
        assert_eq!(door.judge(Instant::now()), Verdict::Admit);
        let place = door.enter(0, Instant::now());
        assert!(!door.may_accept());
        door.leave(place);
        assert!(door.may_accept());
        assert!(stack(0).may_accept(), "the others accept, to say no");
    }
}
