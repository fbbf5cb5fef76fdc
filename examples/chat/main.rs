//! A chat server: users log in with a name and send each other messages.
//!
//! What it shows about the loop: any connection can be sent to from any other's callback;
//! `on_drain` and `on_close` tell when a message has become the kernel's, or never will; and
//! backpressure from one connection to another is a line that is not taken. The sender's input
//! stays where it is until the recipient has room, so a recipient that does not read holds back
//! those who write to it, and nobody else, in bounded memory.
//!
//! ```text
//! cargo run --release --example chat
//! nc 127.0.0.1 5378          # in two terminals: HELLO-FROM ann, HELLO-FROM bob,
//!                            # LIST, SEND bob how are you?
//! ```

mod protocol;
mod service;

use clap::Parser;
use pollstack::net::Address;
use pollstack::signals::{SIGINT, SIGTERM, StopSignals};
use pollstack::{EventLoop, Listen, Overload, descriptors};
use service::Chat;
use std::error::Error;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

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

    /// How many users may be logged in
    #[arg(long, value_name = "USERS", default_value_t = 16, value_parser = positive)]
    max_users: usize,

    /// How long a client may take to log in, and how long it may leave its messages unread
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// How long users may still take to read when the server stops
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    grace: Duration,
}

fn main() -> ExitCode {
    let options = Options::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "chat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let conns = options.max_users.saturating_add(STRANGERS);
    let limits =
        descriptors::reserve(conns, 0).map_err(|error| format!("--max-users {}: {error}", options.max_users))?;
    let chat = Chat::new(options.max_users, options.timeout);
    let limits = chat.limits(limits);
    let mut server = EventLoop::with_limits(chat, limits)?;
    let address = match &options.address {
        Address::Tcp(address) => SocketAddr::new(address.ip(), options.port).into(),
        Address::Unix(_) => options.address.clone(),
    };
    let listen = Listen::new(address).max_conns(conns).overload(Overload::Reject(protocol::BUSY.into()));
    let listener = server.listen(listen)?;
    let signals = StopSignals::new(&server, &[SIGINT, SIGTERM])?;
    announce(&server.addresses(listener)?);
    Ok(signals.run(&mut server, options.grace)?)
}

/// An address whose port is still to come.
fn address(text: &str) -> Result<Address, String> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, 0).into()),
        Err(_) if text.starts_with("unix:") => text.parse().map_err(|error| format!("{error}")),
        Err(_) => Err("write an IP address or unix:PATH".to_owned()),
    }
}

/// Says that the server is ready, and where. Nobody may be reading; it is ready all the same.
fn announce(addresses: &[Address]) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "Server is on");
    for address in addresses {
        let _ = writeln!(stdout, "listening on {address}");
    }
    let _ = stdout.flush();
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(error.to_string()),
    }
}
