//! The common parts of the servers' main functions: option values, the log, the lines on standard
//! output, and the run until a signal.

use crate::event_loop::EventLoop;
use crate::id::ListenerId;
use crate::net::{Address, OnMio};
use crate::service::Service;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// Starts the log: warnings and errors go to standard error, unless `RUST_LOG` says otherwise.
pub fn start_log() {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
}

/// Turns the result of a server into its exit code. An error goes to standard error, behind `name`.
pub fn exit(name: &str, result: Result<(), Box<dyn Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let _ = writeln!(io::stderr(), "{name}: {error}");
    ExitCode::FAILURE
}

/// Prints `lines` to standard output at once. A reader that has gone changes nothing.
pub fn print(lines: impl IntoIterator<Item = String>) {
    let mut stdout = io::stdout().lock();
    for line in lines {
        let _ = writeln!(stdout, "{line}");
    }
    let _ = stdout.flush();
}

/// Prints where a server listens, a line for each address: `listening on 127.0.0.1:8080`. Scripts
/// wait for these lines.
pub fn announce(addresses: &[Address]) {
    print(addresses.iter().map(|address| format!("listening on {address}")));
}

/// Announces the addresses of `listener` and runs the loop until SIGTERM or SIGINT. Then it stops as
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
    use crate::signals::{SIGINT, SIGTERM, StopSignals};
    let signals = StopSignals::new(server, &[SIGINT, SIGTERM])?;
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
