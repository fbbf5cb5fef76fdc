//! Publish and subscribe over HTTP, in every form that a browser knows, and a chat room on it.
//!
//! The loop's part in it: a message is written once and shared by all who get it,
//! whatever they are connected with; a subscriber that does not read is found out by the bound of its
//! output, and costs the others nothing; connections are answered long after they have asked, one
//! at a time or all at once; and what lies behind an upgrade, WebSockets here, is a protocol of the
//! service's own.
//!
//! ```text
//! cargo run --release -p pubsub
//! curl -N http://127.0.0.1:8000/channels/lobby/events           # in another terminal
//! curl -d message=hello http://127.0.0.1:8000/channels/lobby    # in a third
//! curl 'http://127.0.0.1:8000/channels/lobby/poll?after=0'
//! ```

use clap::Parser;
use pollstack::engine::{self, Link, Linked, Target};
use pollstack::http::{BUSY, Clock, Http};
use pollstack::net::{Address, Mio};
use pollstack::operate::Observed;
use pollstack::options::{self, duration};
use pollstack::server;
use pollstack::signals::{SIGHUP, SIGINT, SIGTERM, StopSignals};
use pollstack::tls::{Identity, Tls};
use pollstack::{EventLoop, ListenerConfig, ListenerId, Overload, Service, descriptors};
use pubsub::{Config, Guard, History, Host, HubLimits, Origin, Pubsub, limits};
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Publish and subscribe over HTTP: server-sent events, long polls and WebSockets.
#[derive(Parser)]
#[command(
    version,
    after_help = "Routes:
  GET  /                           the chat room
  GET  /channels/NAME/events       server-sent events; Last-Event-ID or ?after=N resumes
  GET  /channels/NAME/poll         long poll; ?after=N&timeout=SECONDS
  GET  /channels/NAME/ws           WebSocket; ?after=N
  GET  /channels/NAME              how many are subscribed, and the id of the last message
  POST /channels/NAME              publish: text/plain, the form field message, JSON {\"message\"}
  GET  /stats                      counts

Try it:
  curl -N http://127.0.0.1:8000/channels/lobby/events
  curl -d message=hello http://127.0.0.1:8000/channels/lobby"
)]
struct Options {
    /// Listen on IP:PORT, [IPV6]:PORT or unix:PATH; may be repeated
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    listen: Vec<Address>,

    /// Serve https with this certificate chain, PEM, instead of http; SIGHUP has it read again
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The key of --tls-cert, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Serve GET /metrics, for Prometheus, on IP:PORT, [IPV6]:PORT or unix:PATH; may be repeated
    #[arg(long, value_name = "ADDR")]
    metrics: Vec<Address>,

    /// Share the channels of a Redis 7 or Valkey with other servers: redis://[USER@]HOST[:PORT]/NAME
    ///
    /// More hosts may follow, with commas: those of one engine, of which one takes writes. The password is in a file,
    /// or in the variable POLLSTACK_ENGINE_PASSWORD. With rediss:// the connection is encrypted.
    #[arg(long, value_name = "URL")]
    engine: Option<Target>,

    /// Answer publishers when so many replicas of the engine have their message, too
    #[arg(long, value_name = "N", default_value_t = 0, requires = "engine")]
    wait_replicas: usize,

    /// Read the password of the engine from this file, its first line
    #[arg(long, value_name = "FILE", requires = "engine")]
    engine_password_file: Option<PathBuf>,

    /// Trust the engine by this certificate of its authority, PEM: for rediss://HOST/NAME
    ///
    /// The certificate of the engine has to hold for HOST. Files of TLS are read at the start.
    #[arg(long, value_name = "FILE", requires = "engine")]
    engine_ca: Option<PathBuf>,

    /// Show the engine this certificate chain, PEM, if it asks for one
    #[arg(long, value_name = "FILE", requires = "engine_key")]
    engine_cert: Option<PathBuf>,

    /// The key of --engine-cert, PEM
    #[arg(long, value_name = "FILE", requires = "engine_cert")]
    engine_key: Option<PathBuf>,

    /// Let pages of this origin publish and subscribe, https://example.org for example; may be repeated
    #[arg(long, value_name = "ORIGIN", value_parser = Origin::parse)]
    allow_origin: Vec<Origin>,

    /// Answer to this name; may be repeated. Names of loopback are, and without it, a server on other
    /// addresses answers to any
    #[arg(long, value_name = "HOST", value_parser = Host::parse)]
    allow_host: Vec<Host>,

    /// How many channels there may be
    #[arg(long, value_name = "N", default_value_t = count(limits::CHANNELS))]
    max_channels: NonZeroUsize,

    /// How many subscribers there may be; others are answered 503
    #[arg(long, value_name = "N", default_value_t = count(limits::SUBSCRIBERS))]
    max_subscribers: NonZeroUsize,

    /// How many connections there may be from one address; others are answered 503 [default: any number, as
    /// behind a proxy all clients have its address]
    #[arg(long, value_name = "N")]
    max_per_address: Option<NonZeroUsize>,

    /// How long a message may be
    #[arg(long, value_name = "BYTES", default_value_t = count(limits::MESSAGE_BYTES))]
    max_message: NonZeroUsize,

    /// How many messages of a channel are kept
    #[arg(long, value_name = "N", default_value_t = limits::HISTORY_MESSAGES)]
    history: usize,

    /// How many bytes of a channel's messages are kept
    #[arg(long, value_name = "BYTES", default_value_t = limits::HISTORY_BYTES)]
    history_bytes: usize,

    /// Unsent bytes of a subscriber before it is disconnected [default: 8 times --max-message]
    #[arg(long, value_name = "BYTES")]
    max_unsent: Option<usize>,

    /// How often silent connections are kept alive; 0s is never
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration)]
    heartbeat: Duration,

    /// How long clients may still take to read when the server stops
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    grace: Duration,
}

fn main() -> ExitCode {
    let options: Options = options::parse("pubsub");
    server::start_log();
    server::exit("pubsub", serve(&options))
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let config = configure(options)?;
    let conns = config.hub.subscribers.saturating_add(limits::OTHERS);
    let reserved = descriptors::reserve(conns, server::SCRAPERS + LINKS)
        .map_err(|error| format!("--max-subscribers {}: {error}", options.max_subscribers))?;
    let overload = Overload::Reject(busy(!options.allow_origin.is_empty()).into());
    let listen = server::activated_or("--listen", &options.listen)?.max_conns(conns).overload(overload);
    let guard = Guard::new(&options.allow_origin, &options.allow_host, listen.is_on_loopback());
    let (now, time) = (Instant::now(), SystemTime::now());
    let base = time.duration_since(UNIX_EPOCH).map_or(1, |age| u64::try_from(age.as_micros()).unwrap_or(1).max(1));
    let mut pubsub = Pubsub::new(config, guard, now, base)?;
    if options.engine.is_some() {
        pubsub.share();
    }
    let pubsub = Http::new(pubsub, Clock::system()).server("pollstack");
    let pubsub = match options.max_per_address {
        Some(most) => pubsub.max_per_address(most.get()),
        None => pubsub,
    };
    let pubsub = Observed::new("pubsub", pubsub, &options.metrics, now);
    let (counts, limits) = (pubsub.listener(), reserved.output(config.unsent));
    let Some(engine) = &options.engine else {
        return run(EventLoop::with_net(Tls::new(Mio::new()?), pubsub, limits), options, counts, listen);
    };
    let named = |error: String| format!("--engine {engine}: {error}");
    let own = options.engine_cert.as_deref().zip(options.engine_key.as_deref());
    let target = engine.clone().with_password(options.engine_password_file.as_deref())?;
    let target = target.with_tls(options.engine_ca.as_deref(), own)?;
    let addresses = target.addresses().map_err(named)?;
    engine::check_script(&target, &addresses, pubsub::SCRIPT).map_err(named)?;
    let net = target.network()?;
    let linked = Linked::new(pubsub, Link::new(target, addresses, pubsub::SCRIPT).replicas(options.wait_replicas));
    let outgoing = linked.listener();
    let input = limits.input.max(config.message.saturating_add(pubsub::AROUND));
    let mut event_loop = EventLoop::with_net(net, linked, limits.input(input));
    event_loop.listen(ListenerConfig::unbound().id(outgoing).max_conns(LINKS))?;
    event_loop.call(|linked, cx| linked.start(cx));
    run(event_loop, options, counts, listen)
}

/// Connections to an engine.
const LINKS: usize = Linked::<Observed<Http<Pubsub>>>::CONNS;

/// Listens, and runs the loop until a signal.
fn run<S: Service>(
    mut event_loop: EventLoop<S, Tls<Mio>>,
    options: &Options,
    counts: ListenerId,
    listen: ListenerConfig,
) -> Result<(), Box<dyn Error>> {
    let metrics = server::listen_for_metrics(&mut event_loop, counts, &options.metrics)?;
    let files = options.tls_cert.as_ref().zip(options.tls_key.as_ref());
    let identity = files.map(|(cert, key)| Identity::load(cert, key)).transpose()?;
    event_loop.net_mut().set_identity(identity.clone());
    let listener = event_loop.listen(listen)?;
    let Some((identity, (cert, key))) = identity.zip(files) else {
        return Ok(server::run(&mut event_loop, listener, metrics, options.grace)?);
    };
    let signals = StopSignals::new(&event_loop, &[SIGINT, SIGTERM])?.others(&[SIGHUP])?;
    server::announce(event_loop.addresses(listener)?.iter().map(server::listening).chain(metrics));
    let reload = |_: &mut _, _| match identity.reload(cert, key) {
        Ok(()) => log::info!("the certificate has been read again"),
        Err(error) => log::error!("{error}; the old certificate stays"),
    };
    Ok(signals.run_with(&mut event_loop, options.grace, reload, |_, _| {})?)
}

/// Returns the response to a client that finds no place. It goes out before the request is read, and with it the origin;
/// that the server is full is no secret, so pages of all origins may read it if those of some are allowed.
fn busy(has_origins: bool) -> Vec<u8> {
    let (fields, end) = BUSY.split_at(BUSY.len() - b"\r\n".len());
    let cross_origin: &[u8] = if has_origins { b"Access-Control-Allow-Origin: *\r\n" } else { b"" };
    [fields, cross_origin, end].concat()
}

fn configure(options: &Options) -> Result<Config, String> {
    let message = options.max_message.get();
    let least = message.saturating_mul(limits::SENT_PER_BYTE).max(MIN_UNSENT);
    let unsent = options.max_unsent.unwrap_or(least);
    if unsent < least {
        return Err(format!("--max-unsent {unsent}: the longest message may take {least} bytes on its way"));
    }
    let history = History { messages: options.history, bytes: options.history_bytes };
    let subscribers = options.max_subscribers.get();
    let hub = HubLimits { channels: options.max_channels.get(), subscribers, history };
    Ok(Config { message, unsent, heartbeat: options.heartbeat, hub })
}

/// Bytes for the head of a response and for the framing of a short message.
const MIN_UNSENT: usize = 16 * 1024;

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost otherwise: a page of another site that is told of a network error when the server is full.
    #[test]
    fn a_page_of_another_site_may_read_that_there_is_no_place() {
        let text = String::from_utf8(busy(true)).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 ") && text.ends_with("close\r\nAccess-Control-Allow-Origin: *\r\n\r\n"));
        assert_eq!(busy(false), BUSY);
    }
}
