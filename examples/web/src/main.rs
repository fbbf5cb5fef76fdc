//! A web server for files, with virtual hosts.
//!
//! The loop's part in it: files of any size go out with the kernel's own copy, a piece a
//! turn, so that a slow reader delays no other client and costs no memory; a small file that is asked for
//! often costs one read and one write, as it is a shared buffer; sources of the tool's own, signals
//! here, live in the same poll, and call into the service between two turns, to have it serve
//! something else without closing a connection.
//!
//! ```text
//! mkdir -p www && cp README.md www/index.html
//! cargo run --release -p web -- -p 8080
//! curl -i http://127.0.0.1:8080/
//! ```

use clap::Parser;
use pollstack::activation::Activated;
use pollstack::http::{BUSY, Clock, Http};
use pollstack::net::{Address, Handle, Mio};
use pollstack::operate::{Observed, Workers};
use pollstack::options::{self, duration};
use pollstack::server;
use pollstack::signals::{SIGHUP, SIGINT, SIGTERM, StopSignals};
use pollstack::tls::{Identity, Tls};
use pollstack::{EventLoop, Limits, ListenerConfig, Overload, descriptors};
use std::error::Error;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};
use web::{ACCESS_LOG, Config, OPEN_FILES, Source, Web};

type Server = EventLoop<Observed<Http<Web>>, Tls<Mio>>;

/// How many files a worker holds open at least.
const MIN_OPEN_FILES: usize = 8;

/// The default port.
const PORT: u16 = 8080;

/// Serves files over HTTP.
#[derive(Parser)]
#[command(
    version,
    after_help = "The configuration file, a directive a line:
  host default www              # a root; relative ones begin at the file's folder
  host example.org /srv/example
  media html text/html          # wins over the usual type
  parameter timeout 60          # seconds without a byte
  parameter dotfiles on         # serve names that begin with a dot; /.well-known/ is, in any case

SIGHUP has it read again. Try it:
  curl -i http://127.0.0.1:8080/"
)]
struct Options {
    /// Listen on this port of all IPv4 interfaces; 0 takes a free one [default: 8080, unless there is --listen]
    #[arg(short, long)]
    port: Option<u16>,

    /// Listen on IP:PORT, [IPV6]:PORT or unix:PATH; may be repeated
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Address>,

    /// Serve https on IP:PORT, [IPV6]:PORT or unix:PATH, too; may be repeated
    #[arg(long, value_name = "ADDR", requires = "tls_cert", requires = "tls_key")]
    tls_listen: Vec<Address>,

    /// The certificate chain for --tls-listen, PEM; SIGHUP has it read again
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_cert: Option<PathBuf>,

    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_key: Option<PathBuf>,

    /// Answer plain requests with a redirection to https, on the port of the first --tls-listen
    #[arg(long, requires = "tls_listen")]
    redirect: bool,

    /// Serve GET /metrics, for Prometheus, on IP:PORT, [IPV6]:PORT or unix:PATH; may be repeated
    #[arg(long, value_name = "ADDR")]
    metrics: Vec<Address>,

    /// Read this configuration [default: web.conf, if there is one, else `host default www`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Only check the configuration
    #[arg(long)]
    check: bool,

    /// Log what happens, and each request in the common log format
    #[arg(short, long)]
    debug: bool,

    /// How many connections there may be; others are answered 503
    #[arg(long, value_name = "CLIENTS", default_value = "1024")]
    max_clients: NonZeroUsize,

    /// How many connections there may be from one address; others are answered 503 [default: any number, as
    /// behind a proxy all clients have its address]
    #[arg(long, value_name = "N")]
    max_per_address: Option<NonZeroUsize>,

    /// Serve on so many threads, which share the ports; `auto` is one a core. Each admits --max-clients
    #[arg(long, value_name = "N", default_value = "1", value_parser = workers)]
    workers: usize,

    /// How long clients may still take to read when the server stops
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    grace: Duration,
}

fn main() -> ExitCode {
    let options: Options = options::parse("web");
    start_logging(options.debug);
    server::exit("web", serve(&options))
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let source = Source::new(options.config.clone());
    let loaded = load(options, &source)?;
    if options.check {
        return Ok(());
    }
    let asked = handed(options)?
        .map_or_else(|| Addresses { plain: plain(options), secure: options.tls_listen.clone() }.listeners(), Ok)?;
    let certificate = Certificate::load(options)?;
    let shared = Shared { options, source, certificate, workers: Workers::default() };
    let (mut first, addresses) = worker(&shared, loaded, asked)?;
    let ports = addresses.shared();
    let (sender, handles) = mpsc::channel();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..options.workers)
            .map(|_| scope.spawn(|| work(&shared, &ports, &sender).map_err(|error| error.to_string())))
            .collect();
        // Every worker sends one, before it serves, or none if it has failed.
        let ready: Vec<Handle> = threads.iter().filter_map(|_| handles.recv().ok().flatten()).collect();
        let result = if ready.len() == threads.len() {
            lead(&shared, &mut first, &addresses, ready.clone())
        } else {
            ready.iter().try_for_each(|handle| handle.stop(Duration::ZERO)).map_err(Into::into)
        };
        for thread in threads {
            thread.join().map_err(|_| "a worker has panicked")??;
        }
        result
    })
}

/// The things that the workers have in common.
struct Shared<'a> {
    options: &'a Options,
    source: Source,
    certificate: Option<Certificate<'a>>,
    workers: Workers,
}

/// The identity of https, and the files that it comes from.
struct Certificate<'a> {
    identity: Identity,
    files: (&'a Path, &'a Path),
}

impl<'a> Certificate<'a> {
    fn load(options: &'a Options) -> io::Result<Option<Self>> {
        let Some(files) = options.tls_cert.as_deref().zip(options.tls_key.as_deref()) else { return Ok(None) };
        Ok(Some(Certificate { identity: Identity::load(files.0, files.1)?, files }))
    }

    fn reload(&self) {
        if let Err(error) = self.identity.reload(self.files.0, self.files.1) {
            log::error!("{error}; the old certificate stays");
        }
    }
}

/// A configuration whose roots are open, and what the descriptor limit leaves.
struct Loaded {
    config: Config,
    limits: Limits,
    /// How many files a worker may hold open.
    files: usize,
}

/// Reads the configuration, and makes sure of the descriptors that it takes before they are opened.
fn load(options: &Options, source: &Source) -> Result<Loaded, Box<dyn Error>> {
    let config = source.load()?;
    let (clients, workers) = (options.max_clients.get(), options.workers);
    let listeners = if options.tls_listen.is_empty() { 1 } else { 2 };
    let conns = clients.saturating_mul(workers).saturating_mul(listeners);
    // A file that is being sent stays open when it has left the cache. While a configuration is read again,
    // its roots are open beside the old ones, and once more to try it.
    let roots = config.roots().saturating_mul(2 * workers + 1);
    let open = conns.saturating_add(roots).saturating_add(server::SCRAPERS);
    let files = descriptors::spare(conns, open, OPEN_FILES.saturating_mul(workers)).max(MIN_OPEN_FILES * workers);
    let limits = descriptors::reserve(conns, open.saturating_add(files))
        .map_err(|error| format!("--max-clients {clients}, {} roots: {error}", config.roots()))?;
    let limits = limits.lingering(limits.lingering.div_ceil(workers));
    Ok(Loaded { config: config.open()?, limits, files: files / workers })
}

/// Where a worker listens.
struct Addresses {
    plain: Vec<Address>,
    /// For https.
    secure: Vec<Address>,
}

impl Addresses {
    /// Returns those that other workers can share.
    fn shared(&self) -> Addresses {
        let tcp = |all: &[Address]| all.iter().filter(|at| matches!(at, Address::Tcp(_))).cloned().collect();
        Addresses { plain: tcp(&self.plain), secure: tcp(&self.secure) }
    }

    fn listeners(&self) -> Result<Listeners, String> {
        let config = |option, addresses: &[Address]| match addresses {
            [] => Ok(ListenerConfig::unbound()),
            addresses => server::listen_on(option, addresses),
        };
        let (plain, secure) = (config("--listen", &self.plain)?, config("--tls-listen", &self.secure)?);
        Ok(Listeners { plain, secure })
    }

    /// Returns the port of https.
    fn port(&self) -> Option<u16> {
        self.secure.iter().find_map(|at| if let Address::Tcp(at) = at { Some(at.port()) } else { None })
    }
}

/// The listeners of a worker.
struct Listeners {
    plain: ListenerConfig,
    secure: ListenerConfig,
}

/// Returns listeners of the sockets that a service manager has handed over, if it has: those called `https` are for
/// that.
fn handed(options: &Options) -> Result<Option<Listeners>, String> {
    let mut sockets = Activated::from_env().map_err(|error| format!("LISTEN_FDS: {error}"))?;
    let (secure, plain) = (sockets.listener(|name| name == "https"), sockets.listener(|_| true));
    if secure.is_none() && plain.is_none() {
        return Ok(None);
    }
    if options.workers > 1 {
        return Err(format!("--workers {}: sockets that are handed over are for one worker", options.workers));
    }
    if secure.is_some() && options.tls_cert.is_none() {
        return Err("LISTEN_FDS: a socket is for https, and there is no --tls-cert".to_owned());
    }
    let or_none = |config: Option<ListenerConfig>| config.unwrap_or_else(ListenerConfig::unbound);
    Ok(Some(Listeners { plain: or_none(plain), secure: or_none(secure) }))
}

/// Makes a loop of the server. It stays on the thread that has made it.
fn worker(
    shared: &Shared<'_>,
    Loaded { config, limits, files }: Loaded,
    asked: Listeners,
) -> Result<(Server, Addresses), Box<dyn Error>> {
    let (limits_of_http, options, source) = (Web::limits(&config), shared.options, shared.source.clone());
    let mut seen = source.changes();
    let web = Web::new(config, files).reloading(move || {
        let changes = source.changes();
        if std::mem::replace(&mut seen, changes) == changes {
            return None; // it was woken for something else
        }
        source.load().and_then(Config::open).ok() // the first worker has reserved descriptors, and tells errors
    });
    let http = Http::new(web, Clock::system()).limits(limits_of_http).server("pollstack");
    let http = match options.max_per_address {
        Some(most) => http.max_per_address(most.get()),
        None => http,
    };
    let http = Observed::new("web", http, &options.metrics, Instant::now());
    let mut event_loop = EventLoop::with_net(Tls::new(Mio::new()?), http, limits);
    if options.workers > 1 {
        let handle = event_loop.handle()?;
        event_loop.call(|http, _| http.join(&shared.workers, handle));
    }
    let mut listen = |config: ListenerConfig, identity| {
        let config = config.max_conns(options.max_clients.get()).overload(Overload::Reject(BUSY.into()));
        event_loop.net_mut().set_identity(identity);
        let listener = event_loop.listen(config.reuse_port(options.workers > 1))?;
        Ok::<_, Box<dyn Error>>((listener, event_loop.addresses(listener)?))
    };
    let (listener, plain) = listen(asked.plain, None)?;
    let mut addresses = Addresses { plain, secure: Vec::new() };
    if let Some(certificate) = &shared.certificate {
        addresses.secure = listen(asked.secure, Some(certificate.identity.clone()))?.1;
    }
    if let Some(port) = addresses.port().filter(|_| options.redirect) {
        event_loop.call(|http, cx| http.service_mut().call(cx, |web, _| web.redirect(listener, port)));
    }
    Ok((event_loop, addresses))
}

/// Runs one more worker on the ports of the first, until its handle stops it.
fn work(shared: &Shared<'_>, ports: &Addresses, handles: &Sender<Option<Handle>>) -> Result<(), Box<dyn Error>> {
    let made = load(shared.options, &shared.source).and_then(|loaded| worker(shared, loaded, ports.listeners()?));
    let handle = made.as_ref().ok().and_then(|(event_loop, _)| event_loop.handle().ok());
    let _ = handles.send(handle);
    Ok(made?.0.run()?)
}

/// Runs the first worker. The signals are its own, and it passes them on.
fn lead(
    shared: &Shared<'_>,
    first: &mut Server,
    addresses: &Addresses,
    others: Vec<Handle>,
) -> Result<(), Box<dyn Error>> {
    let options = shared.options;
    let signals = StopSignals::new(first, &[SIGINT, SIGTERM])?.others(&[SIGHUP])?.stopping(others.clone());
    first.net_mut().set_identity(None);
    let counts = first.service().listener();
    let metrics = server::listen_for_metrics(first, counts, &options.metrics)?;
    let listening = addresses.plain.iter().chain(&addresses.secure).map(server::listening);
    server::announce(listening.chain(metrics));
    let on_signal = |event_loop: &mut Server, _| {
        if let Some(certificate) = &shared.certificate {
            certificate.reload();
        }
        reload(shared, event_loop, &others);
    };
    Ok(signals.run_with(first, options.grace, on_signal, |_, _| {})?)
}

/// Has all workers read the configuration again, if it can be read.
fn reload(shared: &Shared<'_>, first: &mut Server, others: &[Handle]) {
    match load(shared.options, &shared.source) {
        Err(error) => log::error!("{error}; the old configuration stays"),
        Ok(tried) => {
            drop(tried);
            shared.source.change();
            first.wake();
            others.iter().for_each(|handle| drop(handle.wake()));
            log::info!("the configuration has been read again");
        }
    }
}

/// Reads the value of `--workers`.
fn workers(text: &str) -> Result<usize, String> {
    match text {
        "auto" => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        number => options::positive(number).map_err(|error| format!("{error}; write a number, or auto")),
    }
}

/// Returns where it listens without TLS: on a port of all interfaces, on the addresses it was given, or on both;
/// on none if it was given addresses for https only.
fn plain(options: &Options) -> Vec<Address> {
    let all_interfaces = |port| Address::Tcp((Ipv4Addr::UNSPECIFIED, port).into());
    let given = !(options.listen.is_empty() && options.tls_listen.is_empty());
    let port = options.port.or((!given).then_some(PORT));
    port.map(all_interfaces).into_iter().chain(options.listen.iter().cloned()).collect()
}

/// Lines of the access log are as they are; the others say where they come from.
fn start_logging(debug: bool) {
    server::start_log_with(if debug { "debug" } else { "warn" }, |logger| {
        logger.format(|out, record| match record.target() {
            ACCESS_LOG => writeln!(out, "{}", record.args()),
            target => writeln!(out, "[{} {} {target}] {}", out.timestamp(), record.level(), record.args()),
        });
    });
}
