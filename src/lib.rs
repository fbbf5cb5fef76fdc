//! TODO
mod admission;
mod connection;
mod deadline;
mod event_loop;
pub mod limits;
pub mod net;
mod output;
pub mod queue;
mod service;
#[cfg(all(unix, feature = "signals"))]
pub mod signals;
pub mod stack;

pub use admission::{BACKLOG, Listen, MAX_CONNS, Overload};
pub use event_loop::{EventLoop, Stats};
pub use limits::Limits;
pub use service::{Cause, Closed, ConnId, Context, Eof, ListenerId, SendError, Service};
