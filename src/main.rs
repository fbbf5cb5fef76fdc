//! The `pollstack` server: a bounded, blocking LIFO stack over TCP.

mod cli;

use cli::Options;
use pollstack::stack::{StackService, wire};
use pollstack::{EventLoop, ListenerConfig, Overload, descriptors, server};
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = server::options::<Options>("pollstack");
    server::start_log();
    server::exit("pollstack", serve(&options))
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let limits = descriptors::reserve(options.max_clients, options.listen.len())
        .map_err(|error| format!("--max-clients {}: {error}", options.max_clients))?;
    let mut event_loop = EventLoop::with_limits(StackService::new(options.capacity), limits)?;
    let listener = event_loop.listen(listen(options)?)?;
    server::run(&mut event_loop, listener, options.grace)?;
    log::info!("stopped; {:?}, {} items dropped", event_loop.stats(), event_loop.service().items());
    Ok(())
}

fn listen(options: &Options) -> Result<ListenerConfig, String> {
    let overload = Overload::EvictOldest { after: options.evict_after, otherwise: wire::BUSY.into() };
    let listen = server::listen_on(options.listen.iter().flat_map(|list| &list.0))?;
    Ok(listen.backlog(options.backlog).max_conns(options.max_clients).overload(overload))
}
