//! The chat protocol, and its service for the loop.

pub mod protocol;
mod service;

pub use service::Chat;
