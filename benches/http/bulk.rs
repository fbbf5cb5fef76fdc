//! Bytes through a proxy of TCP, both ways at once: what they cost.

use crate::contender::{Contender, Site, content, order};
use instrument::{Cell, Row, Table, quartiles};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use test_support::TEST_TIMEOUT;
use test_support::machine::{Placement, place_clients};

/// How many bytes go each way in a turn.
const BYTES: u64 = 256 << 20;
const FEW_BYTES: u64 = 32 << 20;

/// One of the contents that both sides send again and again.
const PIECE: u64 = 251 << 10;

pub(crate) fn measure(site: &Site, pairs: usize, quick: bool) -> Result<Table, String> {
    place_clients(Placement::Apart);
    let bytes = if quick { FEW_BYTES } else { BYTES };
    let what = format!(
        "{} MiB to a server behind the proxy and as many back, at once; every byte is checked. The processor time is the \
         proxy's, for a GiB each way. A ratio above 1 is ahead of us.",
        bytes >> 20
    );
    let mut table = Table::new("proxy, both ways", what, &["CPU ms", "times ours"]);
    let upstream = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = upstream.local_addr().map_err(|error| error.to_string())?;
    let all = [
        Contender::proxy(address),
        Contender::haproxy(site, address, "haproxy", ""),
        Contender::haproxy(site, address, "haproxy with splice", "option splice-auto"),
    ];
    let mut proxies: Vec<(Contender, Vec<f64>)> = all.into_iter().flatten().map(|proxy| (proxy, Vec::new())).collect();
    proxies.iter().for_each(|(proxy, _)| proxy.place());
    for pair in 0..=2 * pairs {
        for one in order(proxies.len(), pair) {
            let (proxy, cpu) = &mut proxies[one];
            let before = proxy.cpu();
            exchange(proxy.address, &upstream, bytes).map_err(|error| format!("{}: {error}", proxy.name))?;
            let took = proxy.cpu().saturating_sub(before).as_secs_f64() * 1e3;
            if pair > 0 {
                cpu.push(took * (1_u64 << 30) as f64 / bytes as f64); // the first is to warm up
            }
        }
    }
    let ours = proxies.first().map(|(_, cpu)| cpu.clone()).unwrap_or_default();
    for (proxy, cpu) in proxies {
        let ratios = cpu.iter().zip(&ours).map(|(cpu, ours)| cpu / ours).collect();
        let cells = vec![Cell::Quartiles(quartiles(cpu), 0), Cell::Quartiles(quartiles(ratios), 2)];
        table.rows.push(Row::new(proxy.name, cells));
    }
    eprintln!("proxies, both ways: measured");
    Ok(table)
}

/// Connects a client to the server behind a proxy. Both send so many bytes, and read as many of the other's.
fn exchange(proxy: SocketAddr, upstream: &TcpListener, bytes: u64) -> io::Result<()> {
    let (client_sends, server_sends) = (content(2 * PIECE), content(2 * PIECE + 1)[1..].to_vec());
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut stream = upstream.accept()?.0;
            while stream.peek(&mut [0])? == 0 {
                stream = upstream.accept()?.0; // a look whether the proxy listens
            }
            converse(&stream, bytes, &server_sends, &client_sends)
        });
        converse(&TcpStream::connect(proxy)?, bytes, &client_sends, &server_sends)?;
        server.join().map_err(|_| io::Error::other("the server has failed"))?
    })
}

/// Sends so many bytes and the end, and reads as many, and the end, at the same time.
fn converse(stream: &TcpStream, bytes: u64, sends: &[u8], receives: &[u8]) -> io::Result<()> {
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    stream.set_write_timeout(Some(TEST_TIMEOUT))?;
    thread::scope(|scope| {
        let sent = scope.spawn(|| send(stream, bytes, sends));
        receive(stream, bytes, receives)?;
        sent.join().map_err(|_| io::Error::other("a sender has failed"))?
    })
}

fn send(mut stream: &TcpStream, bytes: u64, content: &[u8]) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let at = (bytes - left) % PIECE;
        let piece = &content[at as usize..];
        left -= stream.write(&piece[..piece.len().min(left as usize)])? as u64;
    }
    stream.shutdown(Shutdown::Write)
}

fn receive(mut stream: &TcpStream, bytes: u64, content: &[u8]) -> io::Result<()> {
    let (mut buffer, mut came) = (vec![0; PIECE as usize], 0);
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        let expected = &content[(came % PIECE) as usize..];
        if expected.get(..n) != Some(&buffer[..n]) {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("another byte behind {came}")));
        }
        came += n as u64;
    }
    let whole = came == bytes;
    if whole { Ok(()) } else { Err(io::Error::new(ErrorKind::UnexpectedEof, format!("{came} of {bytes} bytes"))) }
}
