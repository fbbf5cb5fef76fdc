//! The `pollstack` server: a bounded, blocking LIFO stack over TCP.

mod cli;
mod commands;
mod data;

use cli::Options;
use pollstack::activation::Activated;
use pollstack::durable::{DataFile, Durable, Kept};
use pollstack::engine::{self, Linked, Target};
use pollstack::http::{BUSY, Guard};
use pollstack::net::{Handle, OnMio};
use pollstack::operate::{Operated, Places};
use pollstack::stack::{StackService, wire};
use pollstack::{EventLoop, Limits, ListenerConfig, ListenerId, Overload, Service, descriptors, options, server};
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
    let stack =
        stack.map_or_else(|| server::listen_on("--listen", options.listen.iter().flat_map(|list| &list.0)), Ok)?;
    let overload = Overload::EvictOldest { after: options.evict_after, otherwise: wire::BUSY.into() };
    let stack = stack
        .file(options.unix_file.rights())
        .backlog(options.backlog)
        .max_conns(options.max_clients)
        .overload(overload);
    match (&options.engine, face, options.http.is_empty()) {
        (None, None, true) => serve_stack(options, stack),
        (None, face, _) => serve_both(options, stack, face),
        (Some(engine), face, _) => serve_edge(options, engine, stack, face),
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
    server::run(&mut event_loop, listener, Vec::new(), options.grace)?;
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
    let (face, limits) = (ListenerId::new(), reserve(options, 0)?);
    let http = face_config(options, face, handed)?;
    let mut event_loop = EventLoop::with_limits(operated(options, face, Some(&http)), limits)?;
    let listener = event_loop.listen(stack)?;
    event_loop.listen(http)?;
    let handle = event_loop.handle()?;
    event_loop.call(|service, _| data.keep(service.stack_mut(), handle));
    run(&mut event_loop, options, listener, Some(face))?;
    log::info!("stopped; {:?}, {} items", event_loop.stats(), event_loop.service().stack().items());
    event_loop.call(|service, _| close(options, service.stack_mut()))
}

/// Serves the stack of an engine, and HTTP if it is asked for.
fn serve_edge(
    options: &Options,
    engine: &Target,
    stack: ListenerConfig,
    handed: Option<ListenerConfig>,
) -> Result<(), Box<dyn Error>> {
    let named = |error: String| format!("--engine {engine}: {error}");
    let own = options.engine_cert.as_deref().zip(options.engine_key.as_deref());
    let engine = engine.clone().with_password(options.engine_password_file.as_deref())?;
    let engine = engine.with_tls(options.engine_ca.as_deref(), own)?;
    let addresses = engine.addresses().map_err(named)?;
    engine::check(&engine, &addresses, options.capacity).map_err(named)?;
    let net = engine.network()?;
    let links = Linked::<Operated>::CONNS;
    let (face, limits) = (ListenerId::new(), reserve(options, links)?);
    let has_face = handed.is_some() || !options.http.is_empty();
    let http = has_face.then(|| face_config(options, face, handed)).transpose()?;
    let operated = operated(options, face, http.as_ref());
    let edge = engine::edge(operated, engine, addresses, options.wait_replicas);
    let mut event_loop = EventLoop::with_net(net, edge, limits);
    let outgoing = event_loop.service().listener();
    event_loop.listen(ListenerConfig::unbound().id(outgoing).max_conns(links))?;
    let listener = event_loop.listen(stack)?;
    let face = http.map(|http| event_loop.listen(http)).transpose()?;
    event_loop.call(|edge, cx| edge.start(cx));
    run(&mut event_loop, options, listener, face)?;
    log::info!("stopped; {:?}", event_loop.stats());
    match event_loop.service().service().failure() {
        Some(error) => Err(error.to_owned().into()),
        None => Ok(()),
    }
}

/// Raises the limit of descriptors to what the server may need, `others` beside clients.
fn reserve(options: &Options, others: usize) -> Result<Limits, String> {
    let conns = options.max_clients.saturating_add(options.http_max_clients);
    descriptors::reserve(conns, (options.listen.len() + others).saturating_add(options.http.len())).map_err(|error| {
        format!("--max-clients {}, --http-max-clients {}: {error}", options.max_clients, options.http_max_clients)
    })
}

/// Returns an empty stack, with HTTP on the listener `face`, which has the configuration `http`.
fn operated(options: &Options, face: ListenerId, http: Option<&ListenerConfig>) -> Operated {
    let places = Places { stack: options.max_clients, face: options.http_max_clients };
    let guard = Guard::new(&[], &options.http_host, http.is_some_and(ListenerConfig::is_on_loopback));
    Operated::new(StackService::new(options.capacity), face, guard, places, Instant::now())
}

fn face_config(options: &Options, id: ListenerId, handed: Option<ListenerConfig>) -> Result<ListenerConfig, String> {
    let config =
        handed.map_or_else(|| server::listen_on("--http", options.http.iter().flat_map(|list| &list.0)), Ok)?;
    let config = config.id(id).file(options.unix_file.rights());
    Ok(config.max_conns(options.http_max_clients).overload(Overload::Reject(BUSY.into())))
}

/// Says where the server listens, the stack first, and runs it until a signal.
fn run<S: Service, N: OnMio>(
    event_loop: &mut EventLoop<S, N>,
    options: &Options,
    listener: ListenerId,
    face: Option<ListenerId>,
) -> Result<(), Box<dyn Error>> {
    let faces = face.map(|face| event_loop.addresses(face)).transpose()?.unwrap_or_default();
    let http = faces.iter().map(|address| format!("http on {address}"));
    Ok(server::run(event_loop, listener, http.collect(), options.grace)?)
}
