//! The `pollstack` server: a bounded, blocking LIFO stack over TCP.

mod cli;

use clap::Parser;
use cli::Options;
use pollstack::net::Address;
use pollstack::stack::{StackService, wire};
use pollstack::{EventLoop, Limits, Listen, Overload};
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Descriptors beside the clients': the standard streams, the poll, the waker, the signals, and
/// some for whatever the process was started with.
const OTHER_DESCRIPTORS: u64 = 24;

/// Without at least so many descriptors for connections that linger, clients that are turned away
/// while still sending could lose their busy byte.
const MIN_LINGERING: u64 = 8;

fn main() -> ExitCode {
    let options = Options::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "pollstack: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let limits = Limits { lingering: descriptors_to_linger(&options)?, ..Limits::default() };
    let mut server = EventLoop::with_limits(StackService::new(options.capacity), limits)?;
    let listener = server.listen(listen(&options)?).map_err(|error| explain(&error))?;
    let addresses = server.addresses(listener)?;
    run(&mut server, &addresses, &options)?;
    log::info!("stopped; {:?}, {} items dropped", server.stats(), server.service().items());
    Ok(())
}

fn listen(options: &Options) -> Result<Listen, Box<dyn Error>> {
    let (first, rest) = options.listen.split_first().ok_or("--listen: no address is given")?;
    let overload = Overload::EvictOldest { after: options.evict_after, otherwise: wire::BUSY.into() };
    let listen = Listen::new(first.clone()).backlog(options.backlog).max_conns(options.max_clients).overload(overload);
    Ok(rest.iter().cloned().fold(listen, Listen::and))
}

/// Says where the server is ready, for people and for scripts that wait for it. Nobody may be
/// reading; the server is ready all the same.
fn announce(addresses: &[Address]) {
    let mut stdout = io::stdout().lock();
    for address in addresses {
        let _ = writeln!(stdout, "listening on {address}");
    }
    let _ = stdout.flush();
}

#[cfg(unix)]
fn run(server: &mut EventLoop<StackService>, addresses: &[Address], options: &Options) -> io::Result<()> {
    use pollstack::signals::{SIGINT, SIGTERM, StopSignals};
    let signals = StopSignals::new(server, &[SIGINT, SIGTERM])?;
    announce(addresses);
    signals.run(server, options.grace)
}

#[cfg(not(unix))]
fn run(server: &mut EventLoop<StackService>, addresses: &[Address], _options: &Options) -> io::Result<()> {
    announce(addresses);
    server.run()
}

/// Adds to an error of the system what can be done about it.
fn explain(error: &io::Error) -> String {
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => "; is another pollstack running? Stop it, or give another --listen",
        ErrorKind::AddrNotAvailable => "; --listen takes an address of this machine, 0.0.0.0 or [::] for all",
        ErrorKind::PermissionDenied => "; ports below 1024 and protected folders need privileges",
        _ => "",
    };
    format!("{error}{remedy}")
}

/// Raises the descriptor limit to what the clients need, as far as it goes. Returns how many
/// descriptors are left for connections that linger.
fn descriptors_to_linger(options: &Options) -> Result<usize, Box<dyn Error>> {
    let usual = Limits::default().lingering;
    let others = options.listen.len() as u64 + OTHER_DESCRIPTORS;
    let needed = others.saturating_add(options.max_clients as u64);
    let limit = rlimit::increase_nofile_limit(needed.saturating_add(usual as u64))?;
    match limit.checked_sub(needed) {
        Some(rest) if rest >= MIN_LINGERING => Ok(usual.min(rest.try_into().unwrap_or(usual))),
        _ => Err(format!(
            "--max-clients {} needs {} descriptors, but this process may open {limit}; \
             ask for at most {} clients or raise the limit (ulimit -n)",
            options.max_clients,
            needed.saturating_add(MIN_LINGERING),
            limit.saturating_sub(others + MIN_LINGERING),
        )
        .into()),
    }
}
