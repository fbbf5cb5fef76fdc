//! The common parts of the servers' main functions: option values, the log, the lines on standard
//! output, and the run until a signal.

use crate::event_loop::EventLoop;
use crate::id::ListenerId;
use crate::net::{Address, OnMio};
use crate::service::Service;
use crate::writer::Writer;
use env_logger::WriteStyle;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

/// How long a process that ends waits for the readers of its output and its log.
const LAST_LINES: Duration = Duration::from_secs(1);

static STDOUT: LazyLock<Option<Writer>> = LazyLock::new(|| Writer::new("stdout", io::stdout()).ok());
static STDERR: LazyLock<Option<Writer>> = LazyLock::new(|| Writer::new("stderr", io::stderr()).ok());

/// Returns standard output as a [`Writer`], which never blocks the loop; `None` if the system had no room
/// for its thread.
pub fn stdout() -> Option<&'static Writer> {
    STDOUT.as_ref()
}

/// Starts the log: warnings and errors go to standard error, unless `RUST_LOG` says otherwise. A file size
/// limit ends no server from here on: the write that it concerns fails.
pub fn start_log() {
    start_log_with("warn", |_| {});
}

/// Starts the log as [`start_log`] does, with another default for `RUST_LOG` and what `adjust` sets.
pub fn start_log_with(level: &str, adjust: impl FnOnce(&mut env_logger::Builder)) {
    #[cfg(unix)]
    crate::signals::survive_file_size_limit();
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    if let Some(stderr) = &*STDERR {
        let colors = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder.write_style(if colors { WriteStyle::Always } else { WriteStyle::Never });
        builder.target(env_logger::Target::Pipe(Box::new(stderr.clone())));
    }
    adjust(&mut builder);
    builder.init();
}

/// Turns the result of a server into its exit code. An error goes to standard error, behind `name`. Waits
/// for the readers of its last lines, for a second at most.
pub fn exit(name: &str, result: Result<(), Box<dyn Error>>) -> ExitCode {
    if let Err(error) = &result {
        report([format!("{name}: {error}")]);
    }
    for writer in [STDOUT.as_ref(), STDERR.as_ref()].into_iter().flatten() {
        writer.flush(LAST_LINES);
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints `lines` to standard output, soon. A reader that is slow or has gone changes nothing.
pub fn print(lines: impl IntoIterator<Item = String>) {
    write(stdout(), lines);
}

/// Prints `lines` to standard error, soon.
pub fn report(lines: impl IntoIterator<Item = String>) {
    write(STDERR.as_ref(), lines);
}

fn write(writer: Option<&Writer>, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        writer.into_iter().for_each(|writer| writer.write_or_drop(format!("{line}\n").as_bytes()));
    }
}

/// Prints where a server listens, a line for each address: `listening on 127.0.0.1:8080`. Scripts
/// wait for these lines.
pub fn announce(addresses: &[Address]) {
    print(addresses.iter().map(listening));
}

/// Returns the line that says where a server listens.
pub fn listening(address: &Address) -> String {
    format!("listening on {address}")
}

/// Announces the addresses of `listener` and runs the loop until a signal that
/// [ends a server](crate::signals::StopSignals::terminating). Then it stops as
/// [`StopSignals::run`](crate::signals::StopSignals::run) does, within `grace`.
///
/// # Errors
/// The system's, if the signals cannot be taken over or the loop cannot wait.
#[cfg(unix)]
pub fn run<S: Service, N: OnMio>(
    server: &mut EventLoop<S, N>,
    listener: ListenerId,
    grace: Duration,
) -> io::Result<()> {
    let signals = crate::signals::StopSignals::terminating(server)?;
    announce(&server.addresses(listener)?);
    signals.run(server, grace)
}

/// Announces the addresses of `listener` and runs the loop until the process ends.
///
/// # Errors
/// The system's, if the loop cannot wait.
#[cfg(not(unix))]
pub fn run<S: Service, N: OnMio>(
    server: &mut EventLoop<S, N>,
    listener: ListenerId,
    _grace: Duration,
) -> io::Result<()> {
    announce(&server.addresses(listener)?);
    server.run()
}

/// Reads the value of an option that is a time: `10s`, `500ms`, `2m`.
///
/// # Errors
/// A text that says what is wrong with it, and how it is written.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 10s, 500ms or 2m"))
}

/// Reads the value of an option that is a time in which a client has to do something: above zero, or no client
/// ever could.
///
/// # Errors
/// A text that says what is wrong with it, and how it is written.
pub fn patience(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| match time {
        Duration::ZERO => Err("no client can be as quick as that; write 10s, 500ms or 2m".to_owned()),
        time => Ok(time),
    })
}

/// Reads the value of an option that is a number above zero.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn positive<T: FromStr<Err: ToString> + Default + PartialEq>(text: &str) -> Result<T, String> {
    let number = text.parse().map_err(|error: T::Err| error.to_string())?;
    if number == T::default() { Err("at least 1 is needed".to_owned()) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost otherwise: every client, to a time of zero.
    #[test]
    fn no_time_is_no_patience() {
        assert_eq!(patience("1ms"), Ok(Duration::from_millis(1)));
        for wrong in ["0s", "0", "-1s", "x"] {
            assert!(patience(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Lost otherwise: a server that is started with a limit of zero, and serves no client.
    #[test]
    fn zero_is_not_positive() {
        assert_eq!(positive::<usize>("1"), Ok(1));
        for wrong in ["0", "-1", "", "x"] {
            assert!(positive::<usize>(wrong).is_err(), "{wrong:?}");
        }
    }
}
