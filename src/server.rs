//! The common parts of the servers' main functions: the log, the lines on standard output, the listeners,
//! and the run until a signal.

use crate::activation::{self, Activated};
use crate::event_loop::EventLoop;
#[cfg(feature = "operate")]
use crate::http::BUSY;
use crate::id::ListenerId;
use crate::listener::ListenerConfig;
#[cfg(feature = "operate")]
use crate::listener::Overload;
use crate::net::{Address, OnMio};
use crate::service::Service;
use crate::writer::Writer;
use env_logger::WriteStyle;
use std::error::Error;
#[cfg(target_os = "linux")]
use std::io::Write;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

/// Returns a listener of all these addresses, which `option` has given.
///
/// # Errors
/// A text that names the option, and an address that is there twice.
pub fn listen_on<'a>(option: &str, addresses: impl IntoIterator<Item = &'a Address>) -> Result<ListenerConfig, String> {
    let mut config = ListenerConfig::unbound();
    let mut seen: Vec<&Address> = Vec::new();
    for address in addresses {
        let takes_any_port = matches!(address, Address::Tcp(at) if at.port() == 0);
        if seen.contains(&address) && !takes_any_port {
            return Err(format!("{option} {address}: this address is given twice; leave one out"));
        }
        seen.push(address);
        config = config.address(address.clone());
    }
    if seen.is_empty() { Err(format!("{option}: no address is given; write IP:PORT or unix:PATH")) } else { Ok(config) }
}

/// Returns a listener of the sockets that a service manager has handed over, or of all these addresses of `option` if
/// there are none.
///
/// # Errors
/// A text: a socket that is none to listen on, or an address that is there twice.
pub fn activated_or<'a>(
    option: &str,
    addresses: impl IntoIterator<Item = &'a Address>,
) -> Result<ListenerConfig, String> {
    let mut sockets = Activated::from_env().map_err(|error| format!("LISTEN_FDS: {error}"))?;
    sockets.listener(|_| true).map_or_else(|| listen_on(option, addresses), Ok)
}

/// Listens for `GET /metrics` on `addresses`, if there are any, with the id of [`Observed::listener`](crate::operate::Observed::listener), and returns the
/// lines that say where.
///
/// # Errors
/// The system's, if it cannot listen there, or that an address is given twice.
#[cfg(feature = "operate")]
pub fn listen_for_metrics<S: Service, N: OnMio>(
    event_loop: &mut EventLoop<S, N>,
    id: ListenerId,
    addresses: &[Address],
) -> Result<Vec<String>, Box<dyn Error>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let config = listen_on("--metrics", addresses)?.id(id).max_conns(SCRAPERS).overload(Overload::Reject(BUSY.into()));
    let listener = event_loop.listen(config)?;
    Ok(event_loop.addresses(listener)?.iter().map(|address| format!("metrics on {address}")).collect())
}

/// How many connections may ask for metrics.
#[cfg(feature = "operate")]
pub const SCRAPERS: usize = 16;

/// How long a process that ends waits for the readers of its output and its log.
const LAST_LINES: Duration = Duration::from_secs(1);

static STDOUT: LazyLock<Writer> =
    LazyLock::new(|| standard("stdout", 1).unwrap_or_else(|| Writer::blocking("stdout", io::stdout())));
static STDERR: LazyLock<Writer> =
    LazyLock::new(|| standard("stderr", 2).unwrap_or_else(|| Writer::blocking("stderr", io::stderr())));

/// Returns standard output as a [`Writer`], which never blocks the loop.
pub fn stdout() -> &'static Writer {
    &STDOUT
}

/// Opens a standard stream once more, so that it says `WouldBlock` here and still blocks elsewhere: pipes and
/// terminals, on systems that name open files. A file blocks for no reader.
#[cfg(target_os = "linux")]
fn standard(name: &str, descriptor: u32) -> Option<Writer> {
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    let path = format!("/proc/self/fd/{descriptor}");
    let kind = std::fs::metadata(&path).ok()?.file_type();
    if kind.is_file() {
        return Some(Writer::nonblocking(name, FileStream(descriptor)));
    }
    let again = kind.is_fifo() || kind.is_char_device();
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = again.then(|| std::fs::OpenOptions::new().write(true).custom_flags(flags).open(path).ok())?;
    opened.map(|stream| Writer::nonblocking(name, stream))
}

#[cfg(not(target_os = "linux"))]
fn standard(_: &str, _: u32) -> Option<Writer> {
    None
}

/// A standard stream that is a file: written as others write it, at the place where they left off.
#[cfg(target_os = "linux")]
struct FileStream(u32);

#[cfg(target_os = "linux")]
impl Write for FileStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 2 {
            return io::stderr().write(bytes);
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the log: warnings and errors go to standard error, unless `RUST_LOG` says otherwise. A file size
/// limit ends no server from here on: the write that it concerns fails.
pub fn start_log() {
    start_log_with("warn", |_| {});
}

/// Starts the log as [`start_log`] does, with another default for `RUST_LOG` and what `adjust` sets.
pub fn start_log_with(level: &str, adjust: impl FnOnce(&mut env_logger::Builder)) {
    crate::signals::survive_file_size_limit();
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    let colors = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    builder.write_style(if colors { WriteStyle::Always } else { WriteStyle::Never });
    builder.target(env_logger::Target::Pipe(Box::new(STDERR.clone())));
    adjust(&mut builder);
    builder.init();
}

/// Turns the result of a server into its exit code. An error goes to standard error, behind `name`. Waits
/// for the readers of its last lines, for a second at most.
pub fn exit(name: &str, result: Result<(), Box<dyn Error>>) -> ExitCode {
    if let Err(error) = &result {
        report([format!("{name}: {error}")]);
    }
    for writer in [&STDOUT, &STDERR] {
        writer.flush(LAST_LINES);
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints `lines` to standard output, soon and in one piece. A reader that is slow or has gone changes nothing.
pub fn print(lines: impl IntoIterator<Item = String>) {
    write(&STDOUT, lines);
}

/// Prints `lines` to standard error, soon and in one piece.
pub fn report(lines: impl IntoIterator<Item = String>) {
    write(&STDERR, lines);
}

fn write(writer: &Writer, lines: impl IntoIterator<Item = String>) {
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    writer.write_or_drop(text.as_bytes());
}

/// Prints where a server listens, and tells a service manager, once all its addresses are bound. Scripts wait for the
/// lines [`listening`]; others, as that of [metrics](listen_for_metrics), come behind them.
pub fn announce(lines: impl IntoIterator<Item = String>) {
    print(lines);
    activation::tell_ready();
}

/// Returns the line that says where a server listens: `listening on 127.0.0.1:8080`.
pub fn listening(address: &Address) -> String {
    format!("listening on {address}")
}

/// Announces the addresses of `listener`, and `more` lines, and runs the loop until a signal that
/// [ends a server](crate::signals::terminating). Then it stops as
/// [`StopSignals::run`](crate::signals::StopSignals::run) does, within `grace`.
///
/// # Errors
/// The system's, if the signals cannot be taken over or the loop cannot wait.
pub fn run<S: Service, N: OnMio>(
    server: &mut EventLoop<S, N>,
    listener: ListenerId,
    more: Vec<String>,
    grace: Duration,
) -> io::Result<()> {
    let signals = crate::signals::StopSignals::new(server, &crate::signals::terminating())?;
    announce(server.addresses(listener)?.iter().map(listening).chain(more));
    signals.run(server, grace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::AddressList;

    /// Lost otherwise: an hour, to a second server that is not there.
    #[test]
    fn an_address_is_given_once() {
        let config = |text: &str| listen_on("--http", &text.parse::<AddressList>().unwrap().0).map(drop);
        assert!(config("127.0.0.1:0,127.0.0.1:0,[::1]:1,127.0.0.1:1").is_ok());
        assert!(
            config("127.0.0.1:1,unix:/a,127.0.0.1:1").is_err_and(|error| error.starts_with("--http 127.0.0.1:1: "))
        );
        assert!(listen_on("--metrics", &[]).is_err_and(|error| error.starts_with("--metrics: ")));
    }
}
