//! Slow readers of a large file: the memory that they take, and what others feel of them.

use crate::contender::{Contender, LARGE, SIZES, Site};
use hdrhistogram::Histogram;
use instrument::{Cell, Row, Table, quartiles};
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use test_support::TEST_TIMEOUT;
use test_support::machine::{Placement, place_clients};

/// How many slow readers there are where memory is measured, and beside a quick client.
const CROWD: usize = 1000;
const BESIDE: usize = 100;
/// How often one of them reads, and how much.
const INTERVAL: Duration = Duration::from_millis(50);
const SIP: usize = 16 << 10;
/// Requests of the quick client in a round.
const ROUND: usize = 500;

pub(crate) fn measure(site: &Site, quick: bool) -> Result<Table, String> {
    let what = format!(
        "{SIP} bytes of 1 GiB every {INTERVAL:?} each: the memory at the peak with {CROWD} of them. Beside {BESIDE} of \
         them a quick client asks for {}, {ROUND} times a round, in rounds with and without them in turn.",
        SIZES[0].0
    );
    let columns = ["MiB", "p50 us, quiet", "beside them", "times", "p99 us, quiet", "beside them", "times"];
    let mut table = Table::new("readers", what, &columns);
    let rounds = if quick { 2 } else { 10 };
    for start in [Contender::web, Contender::nginx] {
        // A fresh one, for the sake of its peak memory.
        let Some(contender) = start(site) else { continue };
        contender.place();
        place_clients(Placement::Apart);
        let latency = beside(&contender, rounds).map_err(|error| format!("{}: {error}", contender.name))?;
        let peak =
            crowd(&contender, if quick { 1 } else { 5 }).map_err(|error| format!("{}: {error}", contender.name))?;
        let memory = vec![Cell::Number(peak as f64 / 1048576.0, 1)];
        table.rows.push(Row::new(contender.name, [memory, latency].concat()));
    }
    Ok(table)
}

/// Peak memory with many slow readers, after so many seconds.
fn crowd(contender: &Contender, seconds: u64) -> io::Result<u64> {
    let mut readers = readers(contender.address, CROWD)?;
    let over = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < over {
        sip(&mut readers)?;
    }
    Ok(contender.peak_memory())
}

/// The latency of a quick client: percentiles without and beside slow readers.
fn beside(contender: &Contender, rounds: usize) -> io::Result<Vec<Cell>> {
    let mut quick = connect(contender.address, None)?;
    let mut slow = readers(contender.address, BESIDE)?;
    let [mut quiet, mut loud] = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        quiet.push(probe(&mut quick)?);
        let over = AtomicBool::new(false);
        let latency = thread::scope(|scope| {
            let sipping = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    sip(&mut slow)?;
                }
                io::Result::Ok(())
            });
            let latency = probe(&mut quick);
            over.store(true, Ordering::Relaxed);
            sipping.join().expect("the readers do not panic").and(latency)
        })?;
        loud.push(latency);
    }
    let cells = [50.0, 99.0].map(|percentile| {
        let at = |round: &Histogram<u64>| round.value_at_percentile(percentile) as f64 / 1e3;
        let median = |rounds: &[Histogram<u64>]| quartiles(rounds.iter().map(at).collect())[1];
        let times = quiet.iter().zip(&loud).map(|(quiet, loud)| at(loud) / at(quiet)).collect();
        [Cell::Number(median(&quiet), 0), Cell::Number(median(&loud), 0), Cell::Quartiles(quartiles(times), 2)]
    });
    Ok(cells.concat())
}

fn readers(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let request = format!("GET /{} HTTP/1.1\r\nHost: bench\r\n\r\n", LARGE.0);
    let reader = |_| {
        let mut stream = connect(address, Some(SIP))?;
        stream.write_all(request.as_bytes())?;
        stream.read_exact(&mut [0; 64])?; // it is being served
        Ok(stream)
    };
    (0..count).map(reader).collect()
}

/// A connection that has room for so much of what it does not read.
fn connect(address: SocketAddr, room: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(room) = room {
        socket.set_recv_buffer_size(room)?;
    }
    socket.connect(&address.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(TEST_TIMEOUT))?;
    Ok(socket.into())
}

/// Each reads a little, spread over an interval.
fn sip(readers: &mut [TcpStream]) -> io::Result<()> {
    let pause = INTERVAL / readers.len() as u32 * 10;
    let mut buffer = [0; SIP];
    for some in readers.chunks_mut(10) {
        for reader in some {
            if reader.read(&mut buffer)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a slow reader was cut off"));
            }
        }
        thread::sleep(pause);
    }
    Ok(())
}

/// A round of requests on one connection.
fn probe(quick: &mut TcpStream) -> io::Result<Histogram<u64>> {
    let mut latency = Histogram::new(3).expect("three digits can be had");
    let (name, len) = SIZES[0];
    let request = format!("GET /{name} HTTP/1.1\r\nHost: bench\r\n\r\n");
    let mut reply = vec![0; 4096];
    for _ in 0..ROUND {
        let start = Instant::now();
        quick.write_all(request.as_bytes())?;
        let mut got = 0;
        loop {
            got += quick.read(&mut reply[got..])?;
            let head = reply[..got].windows(4).position(|end| end == b"\r\n\r\n");
            if head.is_some_and(|head| got >= head + 4 + len as usize) {
                break;
            }
        }
        latency.record(start.elapsed().as_nanos() as u64).expect("it grows");
        thread::sleep(Duration::from_micros(500));
    }
    Ok(latency)
}
