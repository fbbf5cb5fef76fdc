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
use pollstack::http::{BUSY, Clock, Http};
use pollstack::net::Address;
use pollstack::server::{self, announce, duration};
use pollstack::signals::{SIGHUP, SIGINT, SIGTERM, StopSignals};
use pollstack::{EventLoop, ListenerConfig, Overload, descriptors};
use std::error::Error;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use web::{ACCESS_LOG, Config, OPEN_FILES, Web};

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
    max_clients: std::num::NonZeroUsize,

    /// How long clients may still take to read when the server stops
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    grace: Duration,
}

fn main() -> ExitCode {
    let options = Options::parse();
    start_logging(options.debug);
    server::exit("web", serve(&options))
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let config = Config::load(options.config.as_deref())?;
    if options.check {
        return Ok(());
    }
    let clients = options.max_clients.get();
    // A file that is being sent stays open when it has left the cache.
    let files = OPEN_FILES.saturating_add(clients).saturating_add(2 * config.roots());
    let limits = descriptors::reserve(clients, files).map_err(|error| format!("--max-clients {clients}: {error}"))?;
    let limits_of_http = Web::limits(&config);
    let clock = Clock::new(Instant::now(), SystemTime::now());
    let web = Http::new(Web::new(config), clock).limits(limits_of_http).server("pollstack");
    let mut event_loop = EventLoop::with_limits(web, limits)?;
    let listener = event_loop.listen(listen(options).max_conns(clients).overload(Overload::Reject(BUSY.into())))?;
    let signals = StopSignals::new(&event_loop, &[SIGINT, SIGTERM])?.others(&[SIGHUP])?;
    announce(&event_loop.addresses(listener)?);
    let on_signal = |event_loop: &mut _, _| reload(event_loop, options.config.as_deref());
    Ok(signals.run_with(&mut event_loop, options.grace, on_signal, |_, _| {})?)
}

/// Returns where it listens: on a port of all interfaces, on the addresses it was given, or on both.
fn listen(options: &Options) -> ListenerConfig {
    let all_interfaces = |port| Address::Tcp((Ipv4Addr::UNSPECIFIED, port).into());
    match (options.port, options.listen.split_first()) {
        (None, Some((first, rest))) => {
            rest.iter().cloned().fold(ListenerConfig::new(first.clone()), ListenerConfig::address)
        }
        (port, _) => {
            let first = ListenerConfig::new(all_interfaces(port.unwrap_or(PORT)));
            options.listen.iter().cloned().fold(first, ListenerConfig::address)
        }
    }
}

/// Serves what the configuration says now, and sets the clock. One that is wrong changes nothing.
fn reload(event_loop: &mut EventLoop<Http<Web>>, file: Option<&Path>) {
    match Config::load(file) {
        Err(error) => log::error!("{error}; the old configuration stays"),
        Ok(config) => {
            event_loop.call(|http, cx| {
                http.set_limits(Web::limits(&config));
                http.set_clock(Clock::new(cx.now(), SystemTime::now()));
                http.call(cx, |web, _| web.configure(config));
            });
            log::info!("the configuration has been read again");
        }
    }
}

/// Lines of the access log are as they are; the others say where they come from.
fn start_logging(debug: bool) {
    let level = if debug { "debug" } else { "warn" };
    let mut logger = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    logger.format(|out, record| match record.target() {
        ACCESS_LOG => writeln!(out, "{}", record.args()),
        target => writeln!(out, "[{} {} {target}] {}", out.timestamp(), record.level(), record.args()),
    });
    logger.init();
}
