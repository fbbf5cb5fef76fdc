//! A chat server: users log in with a name and send each other messages.
//!
//! The loop's part in it: any connection can be sent to from any other's callback;
//! `on_drain` and `on_close` tell when a message has become the kernel's, or never will; and
//! backpressure from one connection to another is a line that is not taken. The sender's input
//! stays where it is until the recipient has room, so a recipient that does not read holds back
//! its senders only, in bounded memory.
//!
//! ```text
//! cargo run --release -p chat
//! nc 127.0.0.1 5378          # in two terminals: HELLO-FROM ann, HELLO-FROM bob,
//!                            # LIST, SEND bob how are you?
//! ```

use chat::{Chat, protocol};
use clap::Parser;
use pollstack::net::Address;
use pollstack::operate::Observed;
use pollstack::options::{self, duration, positive, timeout};
use pollstack::server;
use pollstack::signals::{StopSignals, terminating};
use pollstack::{EventLoop, Overload, descriptors};
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Connections beside those of the users: clients that have not logged in yet.
const STRANGERS: usize = 64;

/// A chat server.
#[derive(Parser)]
#[command(version, after_help = "Try it:\n  nc 127.0.0.1 5378    HELLO-FROM ann, LIST, SEND ann hello")]
struct Options {
    /// Listen on this IP address, or on unix:PATH
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1", value_parser = address)]
    address: Address,

    /// Listen on this port; 0 takes a free one
    #[arg(long, default_value_t = 5378)]
    port: u16,

    /// Serve GET /metrics, for Prometheus, on IP:PORT, [IPV6]:PORT or unix:PATH; may be repeated
    #[arg(long, value_name = "ADDR")]
    metrics: Vec<Address>,

    /// How many users may be logged in
    #[arg(long, value_name = "USERS", default_value_t = 16, value_parser = positive::<usize>)]
    max_users: usize,

    /// How long a client may take to log in, and how long it may leave its messages unread
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    timeout: Duration,

    /// How long users may still take to read when the server stops
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    grace: Duration,
}

fn main() -> ExitCode {
    let options: Options = options::parse("chat");
    server::start_log();
    server::exit("chat", serve(&options))
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let chat = Chat::new(options.max_users, STRANGERS, options.timeout);
    let conns = chat.conns();
    let limits = descriptors::reserve(conns, server::SCRAPERS)
        .map_err(|error| format!("--max-users {}: {error}", options.max_users))?;
    let limits = chat.limits(limits);
    let chat = Observed::new("chat", chat, &options.metrics, Instant::now());
    let mut event_loop = EventLoop::with_limits(chat, limits)?;
    let address = match &options.address {
        Address::Tcp(address) => SocketAddr::new(address.ip(), options.port).into(),
        Address::Unix(_) => options.address.clone(),
    };
    let listen = server::activated_or("--address", [&address])?
        .max_conns(conns)
        .overload(Overload::Reject(protocol::BUSY.into()));
    let listener = event_loop.listen(listen)?;
    let signals = StopSignals::new(&event_loop, &terminating())?;
    let counts = event_loop.service().listener();
    let metrics = server::listen_for_metrics(&mut event_loop, counts, &options.metrics)?;
    let addresses = event_loop.addresses(listener)?;
    let listening = addresses.iter().map(server::listening);
    server::announce(["Server is on".to_owned()].into_iter().chain(listening).chain(metrics));
    Ok(signals.run(&mut event_loop, options.grace)?)
}

/// An address whose port is still to come.
fn address(text: &str) -> Result<Address, String> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, 0).into()),
        Err(_) if text.starts_with("unix:") => text.parse().map_err(|error| format!("{error}")),
        Err(_) => Err("write an IP address or unix:PATH".to_owned()),
    }
}
