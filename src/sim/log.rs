//! The events of a world, for models to follow and for people to read.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

/// An event with its time. Its fields are all there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The time since the world began.
    pub at: Duration,
    /// How often the loop had waited by then: what has happened before a wait, the loop knows of
    /// after it.
    pub waits: usize,
    /// Which client it is about, in the order in which they connected.
    pub client: usize,
    /// What.
    pub event: Event,
}

/// An event between a client and the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The client has connected.
    Connected,
    /// The server has begun to connect to it.
    Called,
    /// The client has answered the server that connects.
    Answered,
    /// The client has sent this.
    Sent(Vec<u8>),
    /// The client has sent an urgent byte, or passed a descriptor.
    Marked,
    /// The client has ended its half of the stream.
    Ended,
    /// The client has closed with a reset.
    Aborted,
    /// The server has accepted it.
    Accepted,
    /// It was lost in the backlog.
    Lost,
    /// The server has read this; nothing is the end.
    Read(Vec<u8>),
    /// The server has found nothing to read, or no room to write.
    Waits,
    /// A read or write of the server was interrupted.
    Interrupted,
    /// The server has written this.
    Wrote(Vec<u8>),
    /// A read or write of the server has failed for good.
    Failed(ErrorKind),
    /// The server has ended its half of the stream.
    Shut,
    /// The server has closed.
    Closed,
    /// The server has closed with a reset.
    Reset,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>16?}  client {}: {}", self.at, self.client, self.event)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| {
            let start = &bytes[..bytes.len().min(40)];
            format!("{} bytes, {}{}", bytes.len(), start.escape_ascii(), if start == bytes { "" } else { "…" })
        };
        match self {
            Event::Connected => f.write_str("connects"),
            Event::Called => f.write_str("the server connects"),
            Event::Answered => f.write_str("answers"),
            Event::Sent(bytes) => write!(f, "sends {}", text(bytes)),
            Event::Marked => f.write_str("sends an urgent byte"),
            Event::Ended => f.write_str("ends"),
            Event::Aborted => f.write_str("resets"),
            Event::Accepted => f.write_str("is accepted"),
            Event::Lost => f.write_str("is lost in the backlog"),
            Event::Read(bytes) if bytes.is_empty() => f.write_str("the server reads the end"),
            Event::Read(bytes) => write!(f, "the server reads {}", text(bytes)),
            Event::Waits => f.write_str("the server has to wait"),
            Event::Interrupted => f.write_str("the server is interrupted"),
            Event::Wrote(bytes) => write!(f, "the server writes {}", text(bytes)),
            Event::Failed(kind) => write!(f, "the server sees {kind:?}"),
            Event::Shut => f.write_str("the server ends"),
            Event::Closed => f.write_str("the server closes"),
            Event::Reset => f.write_str("the server resets"),
        }
    }
}
