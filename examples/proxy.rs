//! A TCP proxy: each client is given a connection of its own to one upstream server.
//!
//! Backpressure: input that the other side has no room for stays where it is, and the peer is
//! held back. Half-close: the end of one side is passed on, and the other may still answer. A reset is passed
//! on as a reset. An upstream that does not answer within five seconds, or refuses, is told to the client.
//!
//! ```text
//! cargo run --release --example proxy -- 127.0.0.1:7001 127.0.0.1:8080
//! curl http://127.0.0.1:7001/
//! ```

use pollstack::net::Address;
use pollstack::signals::{SIGINT, SIGTERM, StopSignals};
use pollstack::{
    CloseReason, Closed, ConnId, ConnMap, Context, EofAction, EventLoop, ListenerConfig, ListenerId, Service,
    descriptors,
};
use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

/// How long the upstream may take to answer.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How many clients there may be; each has two connections.
const CLIENTS: usize = 2000;

struct Proxy {
    upstream: Address,
    /// The listener that the connections to the upstream count with.
    outgoing: ListenerId,
    /// The clients whose upstream connection is being made, by the id of that.
    called: ConnMap<ConnId>,
}

/// The other side of a connection.
struct Other(ConnId);

impl Service for Proxy {
    type Conn = Other;

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, listener: ListenerId) -> Other {
        if listener == self.outgoing {
            return Other(self.called.remove(id).unwrap_or(id));
        }
        let upstream = cx.connect(self.outgoing, self.upstream.clone());
        cx.set_deadline(upstream, cx.now().checked_add(CONNECT_TIME));
        self.called.insert(upstream, id);
        Other(upstream)
    }

    fn on_connect(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut Other) {
        cx.set_deadline(id, None);
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, other: &mut Other, input: &[u8]) -> usize {
        let fits = input.len().min(cx.send_capacity(other.0));
        if fits < input.len() {
            cx.pause(id);
        }
        cx.send(other.0, &input[..fits]).map_or(0, |()| fits)
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, _: ConnId, other: &mut Other) {
        cx.resume(other.0);
    }

    fn on_eof(&mut self, cx: &mut Context<'_>, _: ConnId, other: &mut Other) -> EofAction {
        cx.shutdown_write(other.0);
        EofAction::Keep
    }

    fn on_close(&mut self, cx: &mut Context<'_>, _: ConnId, other: Other, closed: Closed) {
        self.called.remove(other.0);
        match closed.reason {
            CloseReason::Finished => cx.finish(other.0),
            _ => cx.reset(other.0), // a part must not be taken for the whole
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err("usage: proxy LISTEN UPSTREAM, for example: proxy 127.0.0.1:7001 127.0.0.1:8080".into());
    };
    let outgoing = ListenerId::new();
    let proxy = Proxy { upstream: upstream.parse()?, outgoing, called: ConnMap::new() };
    let mut event_loop = EventLoop::with_limits(proxy, descriptors::reserve(2 * CLIENTS, 0)?)?;
    event_loop.listen(ListenerConfig::unbound().id(outgoing).max_conns(CLIENTS))?;
    let listener = event_loop.listen(ListenerConfig::new(listen.parse()?).max_conns(CLIENTS))?;
    let signals = StopSignals::new(&event_loop, &[SIGINT, SIGTERM])?;
    for address in event_loop.addresses(listener)? {
        let _ = writeln!(io::stdout(), "listening on {address}"); // a reader that has gone is no reason to stop
    }
    Ok(signals.run(&mut event_loop, Duration::from_secs(5))?)
}
