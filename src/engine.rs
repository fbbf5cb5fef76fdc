//! The stack in an engine, Redis 7 or Valkey, that many edges share.
//!
//! An edge is a server with clients of its own. It decides nothing about the stack: each batch of requests is one
//! atomic script in the engine, and clients are answered when the engine has said what became of theirs. What
//! the engine decides for the clients of another edge waits there for its next batch, which a message
//! on a channel has it send at once.
//!
//! [`Target`] says where the engine is, [`check`] asks it before the server starts, [`Link`] is the connection
//! to it, and [`Edge`] the service: an [`Operated`](crate::operate::Operated) stack and its link.

mod edge;
mod link;
mod script;
mod target;

pub use self::edge::{Edge, EdgeConn};
pub use self::link::{Link, LinkEvent};
pub use self::script::{SCRIPT, Said, Session, check};
pub use self::target::Target;
