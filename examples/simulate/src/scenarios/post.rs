//! A request that publishes a message.

use pollstack::sim::{Client, World};
use std::error::Error;
use test_support::replies;

pub(super) struct Post {
    pub(super) client: Client,
    /// The life of the node that it has come to.
    pub(super) life: u64,
    pub(super) channel: usize,
    pub(super) text: String,
    pub(super) outcome: Option<Outcome>,
    got: Vec<u8>,
}

pub(super) enum Outcome {
    /// By this id.
    Published(u64),
    /// For this reason.
    Rejected(String),
}

impl Post {
    pub(super) fn new(world: &World, life: u64, channel: usize, text: String) -> Post {
        let (client, len) = (world.connect(), text.len());
        let request = format!("POST /channels/{channel} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{text}");
        client.send(request.as_bytes());
        Post { client, life, channel, text, outcome: None, got: Vec::new() }
    }

    /// Reads the answer, as far as it has come.
    pub(super) fn read(&mut self) -> Result<(), Box<dyn Error>> {
        if self.outcome.is_some() {
            return Ok(());
        }
        self.got.extend(self.client.read());
        let Some((found, _)) = replies::replies(&self.got, &["POST"]) else { return Ok(()) };
        let reply = found.last().ok_or("no reply")?;
        let text = reply.text();
        let id = || text.strip_prefix(r#"{"id":"#)?.split(',').next()?.parse().ok();
        self.outcome = Some(match reply.status {
            200 => Outcome::Published(id().ok_or("no id")?),
            503 => Outcome::Rejected(text.to_owned()),
            other => return Err(format!("a message is answered {other}: {text}").into()),
        });
        Ok(())
    }

    /// Returns whether it is still to be answered.
    pub(super) fn waits(&self) -> bool {
        self.outcome.is_none() && !self.client.was_reset() && !self.client.has_ended()
    }

    /// Returns whether its message may be there, though it was rejected.
    pub(super) fn may_be_published(&self) -> bool {
        match &self.outcome {
            Some(Outcome::Rejected(why)) => why.contains("may be published") || why.contains("does not answer"),
            _ => true,
        }
    }
}
