//! Servers that share what they have, in an engine: Redis 7 or Valkey.
//!
//! A server of such a group is an *edge*: its clients are its own, and the engine decides. For the stack, each batch of
//! requests is one atomic script in the engine, and clients are answered when the engine has said what became of
//! theirs. Answers for the clients of another edge wait in the engine for its next batch, which a message
//! on a channel has it send at once.
//!
//! [`Target`] says where the engine is, [`check`] asks it before the server starts, [`Link`] is the connection
//! to it, [`Linked`] a service with one, and [`edge`] makes that of the stack.

mod duplex;
mod edge;
mod link;
mod linked;
#[cfg(not(feature = "tls"))]
mod plain;
mod resp;
mod script;
#[cfg(feature = "tls")]
mod secure;
mod session;
mod target;

#[cfg(not(feature = "tls"))]
use self::plain as security;
#[cfg(feature = "tls")]
use self::secure as security;

pub use self::edge::edge;
pub use self::link::{Link, LinkEvent};
pub use self::linked::{Engaged, EngagedHandler, Linked, LinkedConn};
pub use self::resp::Reply;
pub use self::script::SCRIPT;
pub use self::security::Network;
pub use self::session::{Session, check, check_script};
pub use self::target::Target;
