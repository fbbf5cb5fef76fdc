//! Publish and subscribe over HTTP: an application for the HTTP layer of the loop.

mod channel;
mod guard;
mod hub;
pub mod limits;
mod message;
mod name;
mod page;
mod poll;
mod publish;
mod router;
mod routes;
mod service;
mod sse;
mod start;
mod websocket;

pub use channel::History;
pub use guard::{Guard, Host, Origin};
pub use hub::{Counts, Limits as HubLimits};
pub use service::{Config, Pubsub};
