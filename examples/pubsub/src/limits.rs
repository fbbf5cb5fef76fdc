//! Every bound of the server, with its default and the reason for it.

use std::time::Duration;

/// Channels at a time. With full histories they take 256 MiB; fourteen times as much, if every
/// message is made of nothing but controls and has been sent in every form.
pub const CHANNELS: usize = 1000;

/// Subscribers at a time: as many as the usual limit of descriptors allows.
pub const SUBSCRIBERS: usize = 1000;

/// Connections beyond the subscribers': for pages, and for those who publish.
pub const OTHERS: usize = 256;

/// A message: far more than a person types. A body takes up to six times
/// that, and a little, for each connection that is sending one.
pub const MESSAGE_BYTES: usize = 64 * 1024;

/// Messages of a channel that are kept for those who come back: what is said in a busy room while
/// a reader is in a tunnel.
pub const HISTORY_MESSAGES: usize = 256;

/// Bytes of a channel's messages that are kept.
pub const HISTORY_BYTES: usize = 256 * 1024;

/// Unsent bytes of a subscriber before it is disconnected: the longest message, whatever it is
/// made of.
pub const UNSENT_BYTES: usize = MESSAGE_BYTES * SENT_PER_BYTE;

/// The most that a byte of a message comes to on its way, and a little: a line break is seven as a
/// field of its own, a control six in JSON.
pub const SENT_PER_BYTE: usize = 8;

/// The name of a channel.
pub const NAME_BYTES: usize = 64;

/// Between heartbeats: half of what the more impatient proxies wait.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Heartbeats are due at multiples of this, so that many share one turn of the loop.
pub const HEARTBEAT_STEP: Duration = Duration::from_millis(500);

/// Heartbeats that a WebSocket may leave unanswered.
pub const MISSED_PONGS: u8 = 2;

/// How many seconds a long poll waits if it does not say.
pub const POLL_TIME: u64 = 30;

/// How many seconds a long poll may wait: proxies give up after 60.
pub const LONGEST_POLL: u64 = 60;

/// How many messages are given to subscribers in one turn of the loop, for usual lengths: 2 ms of system calls. All
/// others wait as long at most while one publishes as fast as it can.
pub const TURN_COST: usize = 256;

/// A subscriber of whose output the kernel has taken nothing for so long does not read. Publishers do not wait for
/// it.
pub const STALLED: Duration = Duration::from_secs(1);

/// How soon publishers that wait for a subscriber look again, if nothing happens before.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How many publishers that wait are looked at in one turn.
pub const TRIES: usize = 64;

/// How long a message may wait to be published; then its request is answered 503.
pub const PUBLISH_TIME: Duration = Duration::from_secs(10);

/// When to come back, in milliseconds, after a connection has been lost.
pub const RETRY: u64 = 2000;

/// When to come back after the server has stopped: not all at once.
pub const RETRY_AFTER_STOP: std::ops::RangeInclusive<u64> = 1000..=4000;
