//! The Accio protocol as a service for the loop, and what becomes of the files.

mod service;
pub mod upload;

pub use service::{Accio, Results};
