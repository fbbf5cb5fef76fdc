//! A network in memory on which nothing costs anything: what is measured on it is the loop.

use pollstack::net::{Address, Interest, Net, Peer, SocketOptions};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::time::Instant;

/// Clients that send a request each, and read whatever comes.
pub(crate) struct Memory {
    /// How many are still to come.
    pub(crate) waiting: Rc<Cell<usize>>,
    /// The requests, in turn.
    requests: [&'static [u8]; 2],
    now: Instant,
}

/// The bytes that a client still has to send.
pub(crate) struct Stream(&'static [u8]);

impl Memory {
    pub(crate) fn new(requests: [&'static [u8]; 2]) -> Memory {
        Memory { waiting: Rc::default(), requests, now: Instant::now() }
    }
}

impl Net for Memory {
    type Listener = ();
    type Stream = Stream;

    const SHORT_IO_EXHAUSTS: bool = true;

    fn listen(&mut self, _: &Address, _: &SocketOptions, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn local_address(&self, (): &()) -> io::Result<Address> {
        Err(ErrorKind::Unsupported.into())
    }

    fn accept(&mut self, (): &mut ()) -> io::Result<(Stream, Peer)> {
        let left = self.waiting.get().checked_sub(1).ok_or(ErrorKind::WouldBlock)?;
        self.waiting.set(left);
        Ok((Stream(self.requests[left % 2]), Peer::Unix))
    }

    fn read(&mut self, stream: &mut Stream, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = std::mem::take(&mut stream.0);
        if bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write(&mut self, _: &mut Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn send_file(&mut self, _: &mut Stream, _: &File, _: u64, len: usize) -> io::Result<usize> {
        Ok(len)
    }

    fn shutdown_write(&mut self, _: &mut Stream) -> io::Result<()> {
        Ok(())
    }

    fn watch(&mut self, _: &mut Stream, _: usize, _: Option<Interest>, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn take_error(&mut self, _: &mut Stream) -> Option<io::Error> {
        None
    }

    fn now(&self) -> Instant {
        self.now
    }
}
