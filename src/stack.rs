//! A bounded, blocking LIFO stack as a [`Service`](crate::Service).
//!
//! [`wire`] has the bytes of the protocol, [`lifo`] the stack and its two waiting lines, without
//! any I/O. [`StackService`] puts both on the loop. `doc/protocol.md` describes the protocol.
//!
//! ```no_run
//! use pollstack::stack::{StackService, wire};
//! use pollstack::{EventLoop, ListenerConfig, Overload};
//! use std::time::Duration;
//!
//! let mut server = EventLoop::new(StackService::new(100))?;
//! let overload = Overload::EvictOldest { after: Duration::from_secs(10), otherwise: wire::BUSY.into() };
//! server.listen(ListenerConfig::new("127.0.0.1:8080".parse()?).max_conns(100).overload(overload))?;
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod counts;
mod histogram;
mod journal;
pub mod lifo;
mod service;
mod shared;
mod store;
pub mod wire;

pub use counts::Counts;
pub use histogram::Histogram;
pub use journal::{Batch, Finished, Journal, Trouble};
pub use service::{Answer, ClientId, ClientState, Guest, StackService};
pub use shared::{Ask, Asks, HEARTBEAT, LEASE, Shares, Told};
