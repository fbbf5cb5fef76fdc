//! A tool with a poll of its own, which serves the stack from it beside a UDP socket and a timer.
//!
//! The loop takes nothing over. The tool waits, sees every event, and keeps its own
//! sources; the loop gets the events of its tokens, a turn after each wait, and a say in how long
//! the wait may be. Any datagram to the UDP socket is answered with what the loop holds; the timer
//! logs it.
//!
//! ```text
//! cargo run --release --example embed
//! printf '\005hello' | nc 127.0.0.1 8080 | xxd
//! echo | nc -u -w1 127.0.0.1 8081
//! ```

use pollstack::mio::net::UdpSocket;
use pollstack::mio::{Events, Interest, Poll, Token};
use pollstack::net::Address;
use pollstack::stack::{StackService, wire};
use pollstack::{EventLoop, Limits, ListenerConfig, Overload};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

/// The tool's own tokens; the loop's are those from 1000 on.
const STATUS: Token = Token(0);
const SIGNALS: Token = Token(1);

/// How long clients may still take when the tool stops.
const GRACE: Duration = Duration::from_secs(5);

/// How many events one wait may bring.
const EVENTS: usize = 256;

const REPORT_EVERY: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let stack: Address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned()).parse()?;
    let status = arguments.next().unwrap_or_else(|| "127.0.0.1:8081".to_owned()).parse()?;

    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS);
    let mut socket = UdpSocket::bind(status)?;
    poll.registry().register(&mut socket, STATUS, Interest::READABLE)?;

    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;

    let mut server = EventLoop::embedded(StackService::new(100), Limits::default(), poll.registry(), 1000..10_000)?;
    let overload = Overload::EvictOldest { after: Duration::from_secs(10), otherwise: wire::BUSY.into() };
    let listener = server.listen(ListenerConfig::new(stack).max_conns(100).overload(overload))?;
    say(format_args!("listening on {}, status on udp {}", server.addresses(listener)?[0], socket.local_addr()?));

    let mut report_at = Instant::now() + REPORT_EVERY;
    while !server.is_stopped() {
        let until_report = report_at.saturating_duration_since(Instant::now());
        let mut timeout = server.timeout().map_or(until_report, |timeout| timeout.min(until_report));
        for _ in 0..server.batches(EVENTS) {
            match poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    _ if server.handle_event(event) => {}
                    STATUS => answer_status(&socket, &server)?,
                    _ => signals.pending().for_each(|_| server.stop(GRACE)),
                }
            }
            if events.iter().count() < EVENTS {
                break;
            }
            timeout = Duration::ZERO; // there may be more
        }
        server.turn();
        if report_at <= Instant::now() {
            report_at += REPORT_EVERY;
            say(format_args!("{}", status_line(&server)));
        }
    }
    Ok(())
}

/// Answers all datagrams that have come: the socket's readiness is edge-triggered, too.
fn answer_status(socket: &UdpSocket, server: &EventLoop<StackService>) -> io::Result<()> {
    loop {
        match socket.recv_from(&mut [0; 512]) {
            Ok((_, peer)) => drop(socket.send_to(format!("{}\n", status_line(server)).as_bytes(), peer)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn status_line(server: &EventLoop<StackService>) -> String {
    let (pushes, pops) = server.service().parked();
    let stats = server.stats();
    format!(
        "{} items, {pushes} pushes and {pops} pops parked, {} clients, {} served, {} rejected",
        server.service().items(),
        stats.open,
        stats.opened,
        stats.rejected
    )
}

/// Prints a line. A reader that has gone is no reason to stop.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
