//! The common parts of the tests and the benchmarks: the real servers as child processes, clients for them,
//! strict readers of replies, a browser.
#![allow(missing_docs, clippy::new_without_default)]

#[cfg(unix)]
pub mod browser;
mod clock;
pub mod engine;
pub mod history;
#[cfg(target_os = "linux")]
pub mod machine;
pub mod replies;
mod server;
mod tls;
mod tools;

pub use clock::SettableClock;
pub use server::*;
pub use tls::{curl, tls_file};
pub use tools::leave_out;
