//! An echo server that speaks TLS: the service is that of a plain one.
//!
//! ```text
//! openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=localhost
//! cargo run --release --features tls --example tls_echo -- 127.0.0.1:7003 cert.pem key.pem
//! openssl s_client -connect 127.0.0.1:7003 -quiet
//! ```

use pollstack::net::Mio;
use pollstack::signals::{SIGHUP, SIGINT, SIGTERM, StopSignals};
use pollstack::tls::{Identity, Tls};
use pollstack::{ConnId, Context, EventLoop, Limits, ListenerConfig, ListenerId, Service};
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// How long a client may take for its handshake and its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(10);

struct Echo;

impl Service for Echo {
    type Conn = ();

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) {
        cx.set_deadline(id, cx.now().checked_add(FIRST_BYTE));
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut (), input: &[u8]) -> usize {
        cx.set_deadline(id, None);
        let fits = input.len().min(cx.send_capacity(id));
        cx.send(id, &input[..fits]).map_or(0, |()| fits)
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut ()) {
        cx.resume(id);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificates, key] = &arguments[..] else {
        return Err(
            "usage: tls_echo ADDRESS CERTIFICATES KEY, for example: tls_echo 127.0.0.1:7003 cert.pem key.pem".into()
        );
    };
    let (certificates, key) = (Path::new(certificates), Path::new(key));
    let identity = Identity::load(certificates, key)?;
    let mut server = EventLoop::with_net(Tls::new(Mio::new()?), Echo, Limits::default());
    server.net_mut().set_identity(Some(identity.clone()));
    let listener = server.listen(ListenerConfig::new(address.parse()?))?;
    let signals = StopSignals::new(&server, &[SIGINT, SIGTERM])?.others(&[SIGHUP])?;
    for address in server.addresses(listener)? {
        say(format_args!("listening on {address}"));
    }
    let reload = |_: &mut _, _| match identity.reload(certificates, key) {
        Ok(()) => say(format_args!("the certificate has been read again")),
        Err(error) => say(format_args!("{error}; the old certificate stays")),
    };
    Ok(signals.run_with(&mut server, Duration::from_secs(5), reload, |_, _| {})?)
}

/// Prints a line. A reader that has gone is no reason to stop.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
