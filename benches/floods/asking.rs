//! A server is asked while it rests, so that its counts are the same in every run, however busy the machine is.

use std::io;
use test_support::{Server, wait_until};

/// When a client says something.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asking {
    /// Without waiting for anything but its own answer.
    AtOnce,
    /// When the server sleeps.
    Rested,
    /// While the server is stopped: it finds all that was said, however long that took.
    Stopped,
}

impl Asking {
    /// Has a client say something to the server.
    pub(crate) fn ask<R>(self, server: &Server, say: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Asking::AtOnce => say(),
            Asking::Rested => {
                settle(server);
                say()
            }
            Asking::Stopped => {
                settle(server);
                server.suspend();
                let said = say();
                server.signal("CONT");
                said
            }
        }
    }
}

/// Waits until a server sleeps.
pub(crate) fn settle(server: &Server) {
    wait_until("the server waits", || {
        let wchan = std::fs::read_to_string(format!("/proc/{}/wchan", server.pid())).ok()?;
        wchan.contains("poll").then_some(())
    });
}
