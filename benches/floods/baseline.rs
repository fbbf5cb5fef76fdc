//! The baselines: the plainest loops that can do a server's work. They run in this program, as
//! children of it.

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

/// The arguments with which this program is a baseline.
pub(crate) const BLOCKING: &str = "--run-blocking-baseline";
pub(crate) const ONE_PACKET: &str = "--run-one-packet-baseline";
pub(crate) const EVENTS: &str = "--run-event-baseline";
pub(crate) const SINK: &str = "--run-sink";

/// The confirmations of an accio client, with the end of its header.
pub(crate) const CONFIRMATIONS: &[u8] = b"confirm-accio\r\nconfirm-accio-again\r\n\r\n";

pub(crate) fn command(which: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    command.arg(which);
    command
}

/// Runs the baseline that the arguments ask for, if they do; it ends with its parent.
pub(crate) fn run_if_asked() -> bool {
    match env::args().nth(1).as_deref() {
        Some(BLOCKING) => blocking(Baseline::new(answer)),
        Some(ONE_PACKET) => blocking(Baseline::new(answer_in_one_packet)),
        Some(EVENTS) => events().expect("an event loop"),
        Some(SINK) => sink(),
        _ => return false,
    }
    true
}

/// A baseline of the stack: read, write, close. It cannot park, evict or reject a
/// client, and takes the first read for the request.
struct Baseline {
    stack: Vec<[u8; 128]>,
    buffer: Vec<u8>,
    answer: fn(&TcpStream, &[u8]) -> io::Result<usize>,
}

fn answer(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    stream.write(bytes)
}

/// The FIN goes out with the answer, as ours does: without the shutdown, the close could destroy both.
#[cfg(target_os = "linux")]
fn answer_in_one_packet(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let n = socket2::SockRef::from(stream).send_with_flags(bytes, libc::MSG_MORE)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(n)
}

#[cfg(not(target_os = "linux"))]
use answer as answer_in_one_packet;

impl Baseline {
    fn new(answer: fn(&TcpStream, &[u8]) -> io::Result<usize>) -> Baseline {
        Baseline { stack: Vec::new(), buffer: vec![0; 64 * 1024], answer }
    }

    fn serve(&mut self, mut stream: TcpStream) {
        match stream.read(&mut self.buffer) {
            Ok(1..) if self.buffer[0] >= 0x80 => {
                let item = self.stack.pop().unwrap_or([0; 128]);
                let _ = (self.answer)(&stream, &item[..=usize::from(item[0])]);
            }
            Ok(n @ 1..=128) => {
                let mut item = [0; 128];
                item[..n].copy_from_slice(&self.buffer[..n]);
                self.stack.push(item);
                let _ = (self.answer)(&stream, &[0]);
            }
            _ => {}
        }
    }
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("listening on {}", listener.local_addr().expect("an address"));
    listener
}

/// It waits in accept, and can wait for nothing else.
fn blocking(mut baseline: Baseline) {
    let listener = listener();
    while let Ok((stream, _)) = listener.accept() {
        baseline.serve(stream);
    }
}

/// The baseline of loops that wait for events, as all do that have more than one thing to wait for.
fn events() -> io::Result<()> {
    let (listener, mut baseline) = (listener(), Baseline::new(answer));
    listener.set_nonblocking(true)?;
    let mut source = mio::net::TcpListener::from_std(listener.try_clone()?);
    let mut poll = mio::Poll::new()?;
    let mut events = mio::Events::with_capacity(16);
    poll.registry().register(&mut source, mio::Token(0), mio::Interest::READABLE)?;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue, // by an strace that leaves
            result => result?,
        }
        while let Ok((stream, _)) = listener.accept() {
            baseline.serve(stream); // which is a blocking one
        }
    }
}

/// The plainest receiver of files: one client after the other, with the handshake of accio, and
/// the buffer of the loop.
fn sink() {
    let listener = listener();
    let mut buffer = vec![0; pollstack::limits::READ_BYTES];
    while let Ok((mut stream, _)) = listener.accept() {
        let _ = stream.write_all(b"accio\r\naccio\r\n");
        let _ = stream.read_exact(&mut buffer[..CONFIRMATIONS.len()]);
        let mut bytes = 0;
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            bytes += n as u64;
        }
        println!("{bytes}");
    }
}
