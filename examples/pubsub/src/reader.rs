//! The readers of a channel, and clients that wait for the engine: to be one, or to learn what has become of their message.

use super::name::Name;
use super::websocket::Socket;
use pollstack::http::{Allowed, ExchangeId};

/// A publisher whose message is on its way to the engine: a request, or a WebSocket, which goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author {
    pub(crate) id: ExchangeId,
    pub(crate) origin: Option<Allowed>,
    pub(crate) is_socket: bool,
}

/// A client that is to read a channel: it has the message `after`.
pub(crate) struct Reader {
    pub(crate) name: Name,
    pub(crate) after: Option<String>,
    pub(crate) how: How,
    /// It has more than this node, which has asked the engine again since.
    pub(crate) is_checked: bool,
}

pub(crate) enum How {
    /// To learn how many are there.
    Summary(Option<Allowed>),
    /// A stream that is open.
    Events,
    /// Once.
    Poll(Poll),
    /// A WebSocket that is open.
    Socket(Box<Socket>),
}

/// How far the answer to a reader is.
#[derive(Clone, Copy)]
pub(crate) enum Stage {
    /// It has none, which a page of that origin may read.
    Unanswered(Option<Allowed>),
    /// Its stream is open.
    Open,
}

impl Reader {
    pub(crate) fn new(name: Name, after: Option<String>, how: How) -> Reader {
        Reader { name, after, how, is_checked: false }
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.how {
            How::Summary(origin) | How::Poll(Poll { origin, .. }) => Stage::Unanswered(origin),
            How::Events | How::Socket(_) => Stage::Open,
        }
    }
}

/// A long poll.
#[derive(Clone, Copy)]
pub(crate) struct Poll {
    pub(crate) origin: Option<Allowed>,
    /// How long it waits.
    pub(crate) seconds: u64,
    /// It waits for nothing.
    pub(crate) is_head: bool,
}

/// A subscriber, as the hub knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscriber {
    pub(crate) id: ExchangeId,
    pub(crate) transport: Transport,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Events,
    /// One answer, which a page of that origin may read.
    Poll(Option<Allowed>),
    Socket,
}
