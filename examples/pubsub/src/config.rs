//! How the application is set up.

use super::channel::History;
use super::{hub, limits};
use std::time::Duration;

/// How the application is set up.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of a message.
    pub message: usize,
    /// Bytes that may wait for a subscriber.
    pub unsent: usize,
    /// How often silent connections are kept alive; never if it is zero.
    pub heartbeat: Duration,
    /// The bounds of the hub.
    pub hub: hub::Limits,
}

impl Default for Config {
    fn default() -> Self {
        let history = History { messages: limits::HISTORY_MESSAGES, bytes: limits::HISTORY_BYTES };
        let hub = hub::Limits { channels: limits::CHANNELS, subscribers: limits::SUBSCRIBERS, history };
        Config { message: limits::MESSAGE_BYTES, unsent: limits::UNSENT_BYTES, heartbeat: limits::HEARTBEAT, hub }
    }
}
