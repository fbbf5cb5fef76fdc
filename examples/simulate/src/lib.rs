//! The servers in simulated worlds, and the oracles of the fuzz targets.

pub mod channels;
pub mod engine;
pub mod oracles;
pub mod redis;
mod scenarios;

pub use scenarios::{Report, SERVERS, Server, run};
