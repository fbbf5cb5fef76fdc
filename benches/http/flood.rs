//! One client that publishes as fast as it can, by WebSocket, to a room of many: how long other clients wait
//! meanwhile, and how long the room takes.

use crate::contender::Contender;
use crate::subscribers::Subscribers;
use hdrhistogram::Histogram;
use instrument::{Cell, Row, Table};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use test_support::TEST_TIMEOUT;
use test_support::machine::{Placement, place_clients};

/// How many messages of one byte: 64 KiB of frames.
const MESSAGES: usize = 9362;

/// A frame of one byte, masked with zeros. The byte is the one that [`Subscribers`] count.
const FRAME: &[u8] = &[0x81, 0x81, 0, 0, 0, 0, b'$'];

/// Between two requests of the client that is not of the room.
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) fn measure(quick: bool) -> Result<Table, String> {
    place_clients(Placement::Apart);
    let what = format!(
        "{MESSAGES} messages of a byte, sent at once over a WebSocket to a room: how long a client waits for `GET /stats` \
         meanwhile, and after how long the room has them all."
    );
    let mut table = Table::new("flood", what, &["p50 ms", "p99 ms", "longest ms", "all are there after s"]);
    table.case = "subscribers".to_owned();
    for count in if quick { &[100][..] } else { &[100, 900] } {
        let Some(contender) = Contender::pubsub() else { return Ok(table) };
        contender.place();
        let (waits, took) = flood(&contender, *count).map_err(|error| format!("{count} subscribers: {error}"))?;
        let at = |percentile| waits.value_at_percentile(percentile) as f64 / 1e6;
        let figures = [at(50.0), at(99.0), waits.max() as f64 / 1e6, took.as_secs_f64()];
        let cells = figures.map(|figure| Cell::Number(figure, 2)).to_vec();
        table.rows.push(Row::new(contender.name, cells).case(count.to_string()));
        eprintln!("a flood beside {count}: measured");
    }
    Ok(table)
}

fn flood(contender: &Contender, count: usize) -> io::Result<(Histogram<u64>, Duration)> {
    let mut subscribers = Subscribers::connect(contender, count)?;
    let publisher = socket(contender.address)?;
    let mut back = publisher.try_clone()?;
    let (over, start) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        let over = &over;
        let probing = scope.spawn(move || probe(contender.address, over));
        // It reads all that it has said.
        scope
            .spawn(move || while !over.load(Ordering::Relaxed) && back.read(&mut [0; 1 << 16]).is_ok_and(|n| n > 0) {});
        let sent = (&publisher).write_all(&FRAME.repeat(MESSAGES));
        let read = sent.and_then(|()| subscribers.read_until((MESSAGES * count) as u64));
        let took = start.elapsed();
        over.store(true, Ordering::Relaxed);
        let _ = publisher.shutdown(std::net::Shutdown::Both);
        let waits = probing.join().map_err(|_| io::Error::other("the probe has failed"))??;
        read.map(|()| (waits, took))
    })
}

/// Opens a WebSocket to the channel.
fn socket(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    write!(stream, "GET /channels/bench/ws HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    if status == *b"HTTP/1.1 101" { Ok(stream) } else { Err(ErrorKind::ConnectionRefused.into()) }
}

/// Asks again and again, until it is over. Returns how long the answers took.
fn probe(address: SocketAddr, over: &AtomicBool) -> io::Result<Histogram<u64>> {
    let mut waits = Histogram::new(3).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        stream.write_all(b"GET /stats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")?;
        if stream.read(&mut [0; 4096])? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        waits.record(start.elapsed().as_nanos() as u64).map_err(io::Error::other)?;
        thread::sleep(PAUSE);
    }
    Ok(waits)
}
