//! An HTTP server that answers every request with its own body, whatever the method and the path.
//!
//! A handler is one function. Heads, lengths, chunks, pipelining, `HEAD`, `Expect`,
//! HTTP/1.0, slow clients and malformed requests are the layer's business.
//!
//! ```text
//! cargo run --release --features http --example http_echo
//! curl --data 'hello' http://127.0.0.1:8081/
//! ```

use pollstack::http::{BUSY, Body, Clock, ExchangeId, Handler, Http, Request, Responder, Status};
use pollstack::signals::{SIGINT, SIGTERM, StopSignals};
use pollstack::{EventLoop, ListenerConfig, Overload};
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

/// The longest body that comes back.
const MAX_BODY: usize = 1024 * 1024;

struct Echo;

impl Handler for Echo {
    fn body(&mut self, _: &Request<'_>) -> Body {
        Body::Collect(MAX_BODY)
    }

    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        let media = request.header("Content-Type").unwrap_or(b"application/octet-stream");
        http.respond(id, Status::OK).header("Content-Type", media).body(request.body());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().any(|argument| argument == "--help") {
        say(
            "usage: http_echo [ADDRESS]\nAnswers every request with its body. ADDRESS is IP:PORT, [IPV6]:PORT or unix:PATH; 127.0.0.1:8081 if there is none",
        );
        return Ok(());
    }
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8081".to_owned());
    let clock = Clock::system();
    let mut server = EventLoop::new(Http::new(Echo, clock).server("pollstack"))?;
    let listener = server.listen(ListenerConfig::new(address.parse()?).overload(Overload::Reject(BUSY.into())))?;
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
