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

use pollstack::{ConnId, Context, EventLoop, ListenerConfig, ListenerId, Service};
use std::error::Error;

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
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let mut server = EventLoop::new(Echo)?;
    let listener = server.listen(ListenerConfig::new(address.parse()?))?;
    for address in server.addresses(listener)? {
        println!("listening on {address}");
    }
    Ok(server.run()?)
}
