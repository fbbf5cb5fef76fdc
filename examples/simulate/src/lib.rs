//! The servers in simulated worlds, and the oracles of the fuzz targets.

pub mod engine;
pub mod oracles;
mod scenarios;

pub use scenarios::{Report, SERVERS, Server, run};
