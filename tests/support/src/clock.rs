//! A wall clock that a test can set.

use std::path::Path;
use std::process::Command;

/// The clock of a server: it stands in a file (libfaketime).
pub struct SettableClock(tempfile::NamedTempFile);

impl SettableClock {
    /// Has `command` run by a clock that begins with the system's. Returns `None` where libfaketime is missing: the
    /// test is left out.
    pub fn of(command: &mut Command) -> Option<SettableClock> {
        let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|folder| format!("/usr/lib/{folder}/faketime"));
        let library =
            folders.iter().map(|folder| format!("{folder}/libfaketime.so.1")).find(|at| Path::new(at).exists());
        if library.is_none() {
            crate::leave_out("libfaketime is not installed");
        }
        let clock = SettableClock(tempfile::NamedTempFile::new().unwrap());
        clock.set(0);
        command.env("LD_PRELOAD", library?).env("FAKETIME_TIMESTAMP_FILE", clock.0.path());
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        Some(clock)
    }

    /// Sets it so many seconds off the system's.
    pub fn set(&self, seconds: i64) {
        std::fs::write(self.0.path(), format!("{seconds:+}\n")).unwrap();
    }
}
