//! One loop a core: as many loops as there are processors, each on a thread of its own, on one port.
//!
//! The kernel spreads new connections over the sockets (`SO_REUSEPORT`, on Linux), and nothing is shared but
//! the port: a connection stays with the loop that has accepted it. Each says which worker it is, and
//! echoes. SIGTERM drains them all.
//!
//! ```text
//! cargo run --release --example workers
//! nc 127.0.0.1 7002
//! ```

use pollstack::net::{Address, Handle};
use pollstack::signals::{SIGINT, SIGTERM, StopSignals};
use pollstack::{ConnId, Context, EventLoop, ListenerConfig, ListenerId, Service};
use std::error::Error;
use std::io::{self, Write};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

/// An echo server that says which worker it is.
struct Worker(usize);

impl Service for Worker {
    type Conn = ();

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId, _: ListenerId) {
        let _ = cx.send(id, format!("worker {}\n", self.0).as_bytes());
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut (), input: &[u8]) -> usize {
        let fits = input.len().min(cx.send_capacity(id));
        cx.send(id, &input[..fits]).map_or(0, |()| fits)
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, _: &mut ()) {
        cx.resume(id);
    }
}

/// Makes a loop that shares its port with others.
fn listen(number: usize, address: &Address) -> io::Result<(EventLoop<Worker>, Vec<Address>)> {
    let mut event_loop = EventLoop::new(Worker(number))?;
    let listener = event_loop.listen(ListenerConfig::new(address.clone()).reuse_port(true))?;
    let addresses = event_loop.addresses(listener)?;
    Ok((event_loop, addresses))
}

/// Runs a loop on this thread until its handle, which is sent first, stops it. The loop is made here, as it
/// cannot go to another thread.
fn work(number: usize, address: &Address, handles: Sender<Handle>) -> io::Result<()> {
    let (mut event_loop, _) = listen(number, address)?;
    let _ = handles.send(event_loop.handle()?);
    drop(handles);
    event_loop.run()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7002".to_owned()).parse()?;
    let workers = match arguments.next() {
        Some(number) => number.parse()?,
        None => thread::available_parallelism()?.get(),
    };
    let (mut first, addresses) = listen(1, &address)?;
    let (sender, handles) = mpsc::channel();
    let threads: Vec<_> = (2..=workers)
        .map(|number| {
            let (sender, address) = (sender.clone(), addresses[0].clone());
            thread::spawn(move || work(number, &address, sender))
        })
        .collect();
    drop(sender);
    // Ends when every worker has sent its handle, or has failed.
    let handles: Vec<Handle> = handles.iter().collect();
    let signals = StopSignals::new(&first, &[SIGINT, SIGTERM])?.stopping(handles.clone());
    if handles.len() == threads.len() {
        let _ = writeln!(io::stdout(), "listening on {}", addresses[0]); // to a reader that may have gone
        signals.run(&mut first, Duration::from_secs(5))?;
    } else {
        handles.iter().try_for_each(|handle| handle.stop(Duration::ZERO))?;
    }
    for worker in threads {
        worker.join().map_err(|_| "a worker has panicked")??;
    }
    Ok(())
}
