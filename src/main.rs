//! The `pollstack` server: a bounded, blocking LIFO stack over TCP.

mod cli;

use clap::Parser;
use cli::Options;
use pollstack::net::Address;
use pollstack::stack::{StackService, wire};
use pollstack::{EventLoop, Listen, Overload, descriptors};
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

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
    let limits = descriptors::reserve(options.max_clients, options.listen.len())
        .map_err(|error| format!("--max-clients {}: {error}", options.max_clients))?;
    let mut server = EventLoop::with_limits(StackService::new(options.capacity), limits)?;
    let listener = server.listen(listen(&options)?)?;
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
