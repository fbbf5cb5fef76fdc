//! A single-threaded connection loop on [mio](https://docs.rs/mio), and servers on it.
//!
//! One loop owns a slab of connections; a protocol is a [`Service`] that the loop calls. The
//! service never sees a socket, a clock or a token, and the loop never sees a protocol.
//!
//! ```
//! use pollstack::{ConnId, Context, EventLoop, Listen, ListenerId, Service};
//! use std::time::Duration;
//!
//! /// Says what time it is, in milliseconds since it was started, and closes.
//! struct Clock(std::time::Instant);
//!
//! impl Service for Clock {
//!     type Conn = ();
//!
//!     fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) {
//!         let age = cx.now() - self.0;
//!         let _ = cx.send(id, format!("{}\n", age.as_millis()).as_bytes());
//!         cx.finish_lingering(id); // whatever the client may be sending
//!     }
//!
//!     fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, _: &mut (), input: &[u8]) -> usize {
//!         input.len()
//!     }
//! }
//!
//! let mut server = EventLoop::new(Clock(std::time::Instant::now()))?;
//! let listener = server.listen(Listen::new("127.0.0.1:0".parse()?).max_conns(1000))?;
//! println!("listening on {}", server.addresses(listener)?[0]);
//! # let handle = server.handle()?;
//! # std::thread::spawn(move || handle.stop(Duration::ZERO));
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The rooms
//!
//! | module | what is in it |
//! | --- | --- |
//! | `service` | [`Service`], [`Context`], [`ConnId`], [`Closed`]: all that somebody who writes a protocol has to read |
//! | `event_loop` | [`EventLoop`]: the one loop, in three parts: serve, accept, shut down |
//! | `connection` | a connection as the loop sees it: buffers, readiness bits, what is to be done next |
//! | `connections` | all of them: the run queue, the deadlines, what has been recorded |
//! | `output` | what has been sent and not yet been taken: bytes, shared buffers, files |
//! | `admission` | [`Listen`], [`Overload`]: how many may come in, and who must go |
//! | `deadline` | one deadline per connection, the soonest first |
//! | [`queue`] | a FIFO that can lose an element from its middle: parked clients, admitted and lingering connections |
//! | [`limits`] | every bound, with its default and the reason for it |
//! | [`net`] | [`Net`](net::Net): the operating system as the loop sees it, and [`Mio`](net::Mio), the real one |
//! | [`stack`] | the flagship: a bounded blocking LIFO stack; its protocol, its waiting lines, its service |
//! | [`client`] | a blocking client of the stack server |
#![cfg_attr(feature = "http", doc = "| [`http`] | HTTP/1.1 for services: requests, replies, bodies |")]
#![cfg_attr(all(unix, feature = "signals"), doc = "| [`signals`] | running a loop until SIGTERM or SIGINT |")]
#![cfg_attr(feature = "server", doc = "| [`server`] | what the main function of every server does |")]
#![cfg_attr(
    feature = "descriptors",
    doc = "| [`descriptors`] | room for connections: the process's limit of open descriptors |"
)]
//!
//! Arrows point one way: `main` → `cli`, `signals`, `descriptors`, `stack`, `http` → `service` ← `event_loop` →
//! `connection`, `admission`, `deadline`, `net`. Only `net/mio.rs` names mio, and only it reads
//! the clock.
//!
//! # What holds
//!
//! - Every connection that opened closes exactly once, with its reason and the number of bytes
//!   that never left. A [`ConnId`] of a connection that has closed reaches nobody.
//! - Effects are recorded and carried out after the callback: no callback runs inside another.
//! - No listener exceeds its capacity. An eviction happens only for a newcomer that would
//!   otherwise be turned away, and takes only the oldest, only if older than the limit.
//! - What was complete before a newcomer connected is served before it.
//! - When the loop goes to sleep, nothing that could be done is left; an idle loop never wakes.
//! - Memory is bounded by [`Limits`] and the listeners' capacities, never by what a peer sends or
//!   fails to read.
//! - There is no `unsafe` code, and no panic that the network can reach.

mod admission;
pub mod client;
mod connection;
mod connections;
mod deadline;
#[cfg(feature = "descriptors")]
pub mod descriptors;
mod event_loop;
#[cfg(feature = "http")]
pub mod http;
pub mod limits;
pub mod net;
mod output;
pub mod queue;
#[cfg(feature = "server")]
pub mod server;
mod service;
#[cfg(all(unix, feature = "signals"))]
pub mod signals;
#[cfg(feature = "sim")]
pub mod sim;
pub mod stack;

/// The README's example compiles, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub use admission::{BACKLOG, KEEPALIVE, Listen, MAX_CONNS, Overload};
pub use event_loop::{EventLoop, Stats};
pub use limits::Limits;
pub use service::{Cause, Closed, ConnId, Context, Eof, ListenerId, SendError, Service};
