//! The interface that a protocol implements.
//!
//! The loop tells a [`Service`] what happens on its connections. The service answers through a
//! [`Context`]. It never sees a socket, a token or a clock.

use crate::context::Context;
use crate::id::{ConnId, ListenerId};
use crate::net::Peer;
use std::io;

/// A protocol: what to do when connections open, bring data, and close.
///
/// The loop calls [`on_open`](Service::on_open) first and [`on_close`](Service::on_close) last for
/// every connection, each exactly once.
///
/// ```
/// use pollstack::{ConnId, Context, ListenerId, Service};
///
/// struct Echo;
///
/// impl Service for Echo {
///     type Conn = ();
///     fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
///     fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut (), input: &[u8]) -> usize {
///         let fits = input.len().min(cx.send_capacity(id));
///         cx.send(id, &input[..fits]).map_or(0, |()| fits)
///     }
///     fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut ()) {
///         cx.resume(id); // there is room again for the input that was left
///     }
/// }
/// ```
pub trait Service {
    /// The protocol's state for one connection. The loop stores it, lends it to the callbacks of
    /// that connection and gives it back in [`on_close`](Service::on_close). No other callback sees it: what
    /// [`on_wake`](Service::on_wake), [`on_timer`](Service::on_timer), [`on_shutdown`](Service::on_shutdown) or
    /// another connection needs belongs in a [`ConnMap`](crate::ConnMap) of the service.
    type Conn;

    /// A connection has been admitted to `listener`, or has been asked for with [`Context::connect`]. Returns its state. If
    /// it cannot be made, [`on_close`](Service::on_close) follows at once, or later.
    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> Self::Conn;

    /// The peer of a connection that was asked for with [`Context::connect`] has answered.
    fn on_connect(&mut self, _cx: &mut Context<'_>, _id: ConnId, _conn: &mut Self::Conn) {}

    /// Input has arrived. `input` is all that has not been consumed yet, oldest byte first.
    ///
    /// Returns the number of bytes consumed from the front. The loop offers the rest again at once if
    /// some were consumed, and together with what follows as soon as more arrives. A service that
    /// waits for something else than more input calls [`Context::pause`], and later
    /// [`Context::resume`] to be offered the rest. A service that only waits for room in the
    /// output of this connection need not pause.
    ///
    /// `input` never grows beyond [`Limits::input`](crate::Limits::input). If the service waits
    /// for more than that, and has not paused, the loop closes the connection with
    /// [`CloseReason::InputFull`]. Reject such a message before, with an error of the protocol's own. Nothing is closed
    /// for input that waits for room in the output.
    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, conn: &mut Self::Conn, input: &[u8]) -> usize;

    /// The peer has ended its half of the stream. All that it sent has been offered. Input that the service
    /// has left will not be completed any more. The peer may still read. The loop calls this only after input that waits
    /// for room in the output has been taken. By default the connection [finishes](Context::finish).
    fn on_eof(&mut self, _cx: &mut Context<'_>, _id: ConnId, _conn: &mut Self::Conn) -> EofAction {
        EofAction::Finish
    }

    /// The peer of a [paused](Context::pause) connection has ended its half, behind input that is held
    /// back: a client that waits for something has perhaps left. Once that input has been offered,
    /// [`on_eof`](Service::on_eof) follows. If none is held back, `on_eof` comes at once.
    fn on_early_eof(&mut self, _cx: &mut Context<'_>, _id: ConnId, _conn: &mut Self::Conn) {}

    /// The kernel has taken everything sent to this connection. The loop calls this each time that the output has become
    /// empty, even if it was never full. It does not after [`Context::finish`]: [`on_close`](Service::on_close) says the
    /// same then. After [`Context::shutdown_write`] the FIN has left, too.
    fn on_drain(&mut self, _cx: &mut Context<'_>, _id: ConnId, _conn: &mut Self::Conn) {}

    /// The deadline set with [`Context::set_deadline`] has passed, and is cleared.
    ///
    /// The loop has just tried once more to read and to write. If a callback moved or cleared the
    /// deadline then, this one is not called. By default the connection is [aborted](Context::abort).
    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId, _conn: &mut Self::Conn) {
        cx.abort(id);
    }

    /// The connection has closed, for the reason in `closed`. From here on `id` is
    /// [`Gone`](crate::SendError::Gone).
    fn on_close(&mut self, _cx: &mut Context<'_>, _id: ConnId, _conn: Self::Conn, _closed: Closed) {}

    /// Returns whether `input` is a complete request. The loop asks about a client that the listener
    /// rejects.
    ///
    /// A client with a complete request can be closed as soon as it has its rejection. Otherwise, and
    /// unless a service knows better, the close [lingers](Context::finish_lingering) until the rest
    /// has come, which costs about four system calls more.
    fn is_request_complete(&self, _listener: ListenerId, _input: &[u8]) -> bool {
        false
    }

    /// Returns whether a client may come in, if there is a place: a service may bound how many come from one
    /// address. A client that may not is [rejected](crate::Overload). The loop asks before it opens the
    /// connection.
    ///
    /// ```
    /// # use pollstack::{ConnId, Context, ListenerId, Service, net::Peer};
    /// # use std::collections::{BTreeMap, HashMap};
    /// # use std::net::IpAddr;
    /// /// At most ten clients an address; of a full house, the one that has been silent longest gives way.
    /// struct House {
    ///     clients: HashMap<IpAddr, usize>,
    ///     silent: BTreeMap<u64, ConnId>,
    /// }
    ///
    /// impl Service for House {
    /// #   type Conn = ();
    /// #   fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}
    /// #   fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize { input.len() }
    ///     fn is_welcome(&self, _: ListenerId, peer: &Peer) -> bool {
    ///         let Peer::Tcp(address) = peer else { return true };
    ///         self.clients.get(&address.ip()).is_none_or(|count| *count < 10)
    ///     }
    ///
    ///     fn make_way(&mut self, _: ListenerId) -> Option<ConnId> {
    ///         self.silent.first_key_value().map(|(_, id)| *id)
    ///     }
    /// }
    /// ```
    fn is_welcome(&self, _listener: ListenerId, _peer: &Peer) -> bool {
        true
    }

    /// A listener would reject a client, as it is full. Returns one of its connections that gives way:
    /// one that waits for nothing, for example. The loop evicts it, and admits the client.
    fn make_way(&mut self, _listener: ListenerId) -> Option<ConnId> {
        None
    }

    /// The time set with [`Context::set_timer`] has come. The timer is cleared.
    fn on_timer(&mut self, _cx: &mut Context<'_>) {}

    /// Another thread has called [`Handle::wake`](crate::net::Handle::wake), at least once since the last
    /// time, or the tool around the loop [`EventLoop::wake`](crate::EventLoop::wake). The message itself is in
    /// a channel of yours.
    fn on_wake(&mut self, _cx: &mut Context<'_>) {}

    /// The loop has been asked to stop. It admits the clients that wait already, then no more, and closes those
    /// that are left when the grace period ends: the time to say goodbye, or to hurry.
    fn on_shutdown(&mut self, _cx: &mut Context<'_>) {}
}

/// The action when the peer has ended its half of the stream. There are no other choices, so a
/// `match` may be exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EofAction {
    /// Go on sending. The connection stays until it is finished, aborted or
    /// [shut down](Context::shutdown_write). The end is not told again: a service that keeps a connection for answers to
    /// come remembers it, and finishes the connection with the last of them.
    Keep,
    /// Close as [`Context::finish`] does.
    Finish,
    /// Close as [`Context::abort`] does.
    Abort,
}

/// The end of a connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Closed {
    /// Why it closed.
    pub reason: CloseReason,
    /// The number of bytes sent to it that were lost in this machine: the kernel never took them, or
    /// held them back to leave with the FIN, which failed.
    ///
    /// With 0, everything has left for the peer, or is the kernel's while the close lingers. It may
    /// still be lost on the way.
    pub unsent: u64,
}

impl Closed {
    pub(crate) fn new(reason: CloseReason, unsent: u64) -> Self {
        Closed { reason, unsent }
    }
}

/// The reason why a connection ended. Reasons may be added.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The service finished it, or both halves have ended; all its output went out.
    Finished,
    /// The service aborted it.
    Aborted,
    /// A new client took its place ([`Overload::EvictOldest`](crate::Overload::EvictOldest),
    /// [`Service::make_way`]).
    Evicted,
    /// The service consumed nothing of a full input buffer, and the peer went on sending.
    InputFull,
    /// The loop stopped, and its grace period was over.
    Shutdown,
    /// The network or the kernel gave it up: a reset, for example.
    Failed(io::Error),
}
