//! An echo server: the smallest whole server on the loop.
//!
//! The protocol is `on_data` and `on_drain`, and backpressure comes with them. Input that
//! does not fit the output stays in the input, the input fills, the loop stops reading, and the
//! peer has to wait.
//!
//! ```text
//! cargo run --release --example echo
//! nc 127.0.0.1 7000
//! ```

use pollstack::signals::{SIGINT, SIGTERM, StopSignals};
use pollstack::{ConnId, Context, EventLoop, ListenerConfig, ListenerId, Service};
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

struct Echo;

impl Service for Echo {
    type Conn = ();

    fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut (), input: &[u8]) -> usize {
        let fits = input.len().min(cx.send_capacity(id));
        cx.send(id, &input[..fits]).map_or(0, |()| fits)
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut ()) {
        cx.resume(id);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().any(|argument| argument == "--help") {
        say(
            "usage: echo [ADDRESS]\nSends back what it is sent. ADDRESS is IP:PORT, [IPV6]:PORT or unix:PATH; 127.0.0.1:7000 if there is none",
        );
        return Ok(());
    }
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let mut server = EventLoop::new(Echo)?;
    let listener = server.listen(ListenerConfig::new(address.parse()?))?;
    let signals = StopSignals::new(&server, &[SIGINT, SIGTERM])?;
    for address in server.addresses(listener)? {
        say(format_args!("listening on {address}"));
    }
    Ok(signals.run(&mut server, Duration::from_secs(5))?)
}

/// Prints a line. A reader that has gone is no reason to stop.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
