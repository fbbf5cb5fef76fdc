//! A single-threaded connection loop on [mio](https://docs.rs/mio), and servers on it.
//!
//! One loop owns the connections; a protocol is a [`Service`] that the loop calls. The service never
//! sees a socket, a clock or a token, and the loop never sees a protocol.
//!
//! ```
//! use pollstack::{ConnId, Context, EventLoop, ListenerConfig, ListenerId, Service};
//! use std::time::Duration;
//!
//! /// Sends its age in milliseconds, and closes.
//! struct Clock(std::time::Instant);
//!
//! impl Service for Clock {
//!     type Conn = ();
//!
//!     fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) {
//!         let age = cx.now() - self.0;
//!         let _ = cx.send(id, format!("{}\n", age.as_millis()).as_bytes());
//!         cx.finish_lingering(id); // the client may be sending
//!     }
//!
//!     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize {
//!         input.len()
//!     }
//! }
//!
//! let mut server = EventLoop::new(Clock(std::time::Instant::now()))?;
//! let listener = server.listen(ListenerConfig::new("127.0.0.1:0".parse()?).max_conns(1000))?;
//! println!("listening on {}", server.addresses(listener)?[0]);
//! # let handle = server.handle()?;
//! # std::thread::spawn(move || handle.stop(Duration::ZERO));
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Contents
//!
//! | type or module | purpose |
//! | --- | --- |
//! | [`Service`] | the interface that a protocol implements |
//! | [`Context`] | the effects that a protocol may ask for |
//! | [`EventLoop`] | the loop, on a poll of its own ([`run`](EventLoop::run)) or [embedded](EventLoop::embedded) in yours |
//! | [`ListenerConfig`], [`Overload`] | where a loop listens, how many connections it admits, and what happens to the one too many |
//! | [`ConnId`], [`ListenerId`] | names of connections and listeners, each good for one alone |
//! | [`ConnMap`] | values by connection, for a service that needs to know about others |
//! | [`Closed`], [`CloseReason`], [`SendError`] | how a connection ended; why a message cannot be sent |
//! | [`Limits`], [`limits`] | the bounds of a loop, each with its default and the reason for it |
//! | [`Handle`](net::Handle) | wakes or stops a loop from another thread |
//! | [`Net`](net::Net), [`Mio`](net::Mio) | the operating system as the loop sees it, and the real one |
//! | [`arena`], [`queue`] | a slab with names that are good for one value; a FIFO that can lose an element from its middle |
//! | [`stack`], [`client`] | a bounded blocking LIFO stack: its protocol, its waiting lines, its service; and a blocking client |
#![cfg_attr(feature = "http", doc = "| [`http`] | HTTP/1.1 for services: requests, responses, bodies |")]
#![cfg_attr(feature = "sim", doc = "| [`sim`] | a simulated network, to test services with |")]
#![cfg_attr(all(unix, feature = "signals"), doc = "| [`signals`] | running a loop until a signal |")]
#![cfg_attr(feature = "tls", doc = "| [`tls`] | TLS around any network |")]
#![cfg_attr(feature = "descriptors", doc = "| [`descriptors`] | the limit of open descriptors of the process |")]
#![cfg_attr(feature = "server", doc = "| [`activation`] | sockets that a service manager keeps |")]
#![cfg_attr(feature = "durable", doc = "| [`durable`] | the stack in a file |")]
#![cfg_attr(feature = "engine", doc = "| [`engine`] | the stack in Redis or Valkey, shared with other edges |")]
#![cfg_attr(feature = "operate", doc = "| [`operate`] | the stack with an HTTP face for operators |")]
#![cfg_attr(feature = "server", doc = "| [`server`] | the common parts of the servers' main functions |")]
#![cfg_attr(feature = "server", doc = "| [`options`] | the command lines of the servers |")]
#![cfg_attr(feature = "server", doc = "| [`writer`] | lines for a stream whose reader may be slow, or gone |")]
//!
//! The source has a file for each noun, and `doc/architecture.md` in the repository says which file may know which.
//!
//! # Guarantees
//!
//! - Every connection that opened closes exactly once, with its reason and the number of bytes
//!   that never left. The [`ConnId`] of a closed connection is [`Gone`](SendError::Gone).
//! - Effects are recorded and carried out after the callback: no callback runs inside another.
//! - No listener exceeds its capacity. An eviction happens only for a new client that would
//!   otherwise be rejected. It takes the oldest connection, only if it is older than the limit, or the
//!   one that the service names in [`make_way`](Service::make_way).
//! - A request that was complete before a client connected to the same address is served before that
//!   client.
//! - When the loop goes to sleep, nothing that could be done is left. An idle loop never wakes.
//! - Memory is bounded by [`Limits`] and the listeners' capacities, never by what a peer sends or
//!   fails to read.
//! - There is no `unsafe` code, and no panic that the network can reach.
//!
//! # Stability
//!
//! Public enums and structs of values say in their documentation whether they may grow. [`Net`](net::Net)
//! may get functions with an implementation in a minor version. [`mio`] is re-exported, and with the feature `tls`
//! rustls is: a new major version of either is one of this crate. Use them from here, in the version that fits.

#[cfg(feature = "server")]
pub mod activation;
pub mod arena;
pub mod client;
mod conn_map;
mod connection;
mod connections;
mod context;
#[cfg(feature = "descriptors")]
pub mod descriptors;
#[cfg(feature = "durable")]
pub mod durable;
#[cfg(feature = "engine")]
pub mod engine;
mod event_loop;
#[cfg(feature = "http")]
pub mod http;
mod id;
pub mod limits;
mod listener;
pub mod net;
#[cfg(feature = "operate")]
pub mod operate;
#[cfg(feature = "server")]
pub mod options;
mod output;
pub mod queue;
mod run;
#[cfg(feature = "server")]
pub mod server;
mod service;
#[cfg(all(unix, feature = "signals"))]
pub mod signals;
#[cfg(feature = "sim")]
pub mod sim;
pub mod stack;
mod stats;
mod timers;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "server")]
pub mod writer;

#[cfg(all(feature = "server", not(unix)))]
compile_error!("the feature `server` needs a Unix system; the loop alone does not: `default-features = false`");

/// The README's example compiles, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub use conn_map::ConnMap;
pub use context::Context;
pub use event_loop::{EventLoop, ListenError};
pub use id::{ConnId, ListenerId, SendError};
pub use limits::{DEFAULT_BACKLOG, DEFAULT_KEEPALIVE, Limits};
pub use listener::{DEFAULT_MAX_CONNS, ListenerConfig, Overload};
/// The version of mio that the loop registers with.
pub use mio;
/// The version of rustls that [`tls`] speaks with.
#[cfg(feature = "tls")]
pub use rustls;
pub use service::{CloseReason, Closed, EofAction, Service};
pub use stats::Stats;
