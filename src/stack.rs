//! A bounded, blocking LIFO stack as a [`Service`](crate::Service).
//!
//! [`wire`] is the protocol to the byte, [`lifo`] the stack and its two waiting lines, without
//! any I/O; [`StackService`] puts both on the loop. The protocol is described in
//! `doc/protocol.md`.
//!
//! ```no_run
//! use pollstack::stack::{StackService, wire};
//! use pollstack::{EventLoop, Listen, Overload};
//! use std::time::Duration;
//!
//! let mut server = EventLoop::new(StackService::new(100))?;
//! let overload = Overload::EvictOldest { after: Duration::from_secs(10), otherwise: wire::BUSY.into() };
//! server.listen(Listen::new("127.0.0.1:8080".parse()?).max_conns(100).overload(overload))?;
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod lifo;
mod service;
pub mod wire;

pub use service::StackService;
