//! Files over HTTP: an application for the HTTP layer of the loop.

mod access;
mod cache;
mod coding;
mod conditions;
mod config;
mod folder;
mod hosts;
mod media;
mod path;
mod range;
mod resource;
mod service;
mod variant;

pub use access::TARGET as ACCESS_LOG;
pub use cache::FILES as OPEN_FILES;
pub use config::{Config, Source};
pub use folder::Folder;
pub use service::Web;
