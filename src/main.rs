//! The `pollstack` server: a bounded, blocking LIFO stack over TCP.

mod cli;
mod commands;
mod data;

use cli::Options;
use pollstack::activation::Activated;
use pollstack::durable::{DataFile, Durable, Kept};
use pollstack::http::{BUSY, Guard};
use pollstack::net::{Address, Handle};
use pollstack::operate::{Operated, Places};
use pollstack::signals::{StopSignals, terminating};
use pollstack::stack::{StackService, wire};
use pollstack::{EventLoop, ListenerConfig, ListenerId, Overload, descriptors, options, server};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let options = options::parse::<Options>("pollstack");
    if let Some(command) = &options.command {
        return commands::run(command);
    }
    server::start_log();
    server::exit("pollstack", serve(&options))
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut sockets = Activated::from_env().map_err(|error| format!("LISTEN_FDS: {error}"))?;
    let face = sockets.listener(|name| name == "http");
    let stack = sockets.listener(|_| true);
    let stack = stack.map_or_else(|| server::listen_on(options.listen.iter().flat_map(|list| &list.0)), Ok)?;
    let overload = Overload::EvictOldest { after: options.evict_after, otherwise: wire::BUSY.into() };
    let stack = stack
        .file(options.unix_file.rights())
        .backlog(options.backlog)
        .max_conns(options.max_clients)
        .overload(overload);
    match (face, options.http.is_empty()) {
        (None, true) => serve_stack(options, stack),
        (face, _) => serve_both(options, stack, face),
    }
}

fn serve_stack(options: &Options, stack: ListenerConfig) -> Result<(), Box<dyn Error>> {
    let data = Data::open(options)?;
    let limits = descriptors::reserve(options.max_clients, options.listen.len())
        .map_err(|error| format!("--max-clients {}: {error}", options.max_clients))?;
    let mut event_loop = EventLoop::with_limits(StackService::new(options.capacity), limits)?;
    let listener = event_loop.listen(stack)?;
    let handle = event_loop.handle()?;
    event_loop.call(|service, _| data.keep(service, handle));
    server::run(&mut event_loop, listener, options.grace)?;
    log::info!("stopped; {:?}, {} items", event_loop.stats(), event_loop.service().items());
    event_loop.call(|service, _| close(options, service))
}

/// The file of the items, and what was in it.
struct Data(Option<(DataFile, Kept)>);

impl Data {
    fn open(options: &Options) -> Result<Data, String> {
        let open = |path: &PathBuf| {
            let opened = DataFile::open(path, options.sync, options.capacity);
            opened.map_err(|error| format!("--data {}: {error}", path.display()))
        };
        options.data.as_ref().map(open).transpose().map(Data)
    }

    /// Has the stack begin with the items, and keep the file as it is itself.
    fn keep(self, stack: &mut StackService, handle: Handle) {
        if let Some((file, items)) = self.0 {
            stack.keep(items, Box::new(Durable::start(file, handle)));
        }
    }
}

/// Brings what is left to the disk.
fn close(options: &Options, stack: &mut StackService) -> Result<(), Box<dyn Error>> {
    let path = options.data.as_deref().unwrap_or(Path::new("")).display();
    Ok(stack.close().map_err(|error| format!("--data {path}: {error}"))?)
}

/// Serves the stack, and HTTP for operators.
fn serve_both(options: &Options, stack: ListenerConfig, handed: Option<ListenerConfig>) -> Result<(), Box<dyn Error>> {
    let data = Data::open(options)?;
    let places = Places { stack: options.max_clients, face: options.http_max_clients };
    let conns = places.stack.saturating_add(places.face);
    let limits = descriptors::reserve(conns, options.listen.len().saturating_add(options.http.len()))
        .map_err(|error| format!("--max-clients {}, --http-max-clients {}: {error}", places.stack, places.face))?;
    let addresses: Vec<_> = options.http.iter().flat_map(|list| list.0.clone()).collect();
    let loopback = addresses.iter().any(|address| matches!(address, Address::Tcp(at) if at.ip().is_loopback()));
    let (face, guard) = (ListenerId::new(), Guard::new(&[], &options.http_host, loopback));
    let operated = Operated::new(StackService::new(options.capacity), face, guard, places, Instant::now());
    let mut event_loop = EventLoop::with_limits(operated, limits)?;
    let listener = event_loop.listen(stack)?;
    let http = handed.map_or_else(|| server::listen_on(&addresses), Ok)?;
    event_loop.listen(
        http.id(face).file(options.unix_file.rights()).max_conns(places.face).overload(Overload::Reject(BUSY.into())),
    )?;
    let handle = event_loop.handle()?;
    event_loop.call(|service, _| data.keep(service.stack_mut(), handle));
    let signals = StopSignals::new(&event_loop, &terminating())?;
    let addresses = event_loop.addresses(listener)?;
    server::print(event_loop.addresses(face)?.iter().map(|address| format!("http on {address}")));
    server::announce(&addresses);
    signals.run(&mut event_loop, options.grace)?;
    log::info!("stopped; {:?}, {} items", event_loop.stats(), event_loop.service().stack().items());
    event_loop.call(|service, _| close(options, service.stack_mut()))
}
