//! Publish and subscribe over HTTP: an application for the HTTP layer of the loop.

mod channel;
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
pub use hub::{Counts, Limits as HubLimits};
pub use pollstack::http::{Guard, Host, Origin};
pub use service::{Config, Pubsub};
