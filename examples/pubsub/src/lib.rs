//! Publish and subscribe over HTTP: an application for the HTTP layer of the loop.

mod channel;
mod config;
mod hub;
pub mod limits;
mod message;
mod name;
mod node;
mod page;
mod poll;
mod publish;
mod reader;
mod remote;
mod router;
mod routes;
mod service;
mod sse;
mod start;
mod websocket;

pub use channel::History;
pub use config::Config;
pub use hub::{Counts, Limits as HubLimits};
pub use pollstack::http::{Guard, Host, Origin};
pub use remote::{AROUND, SCRIPT};
pub use service::Pubsub;
