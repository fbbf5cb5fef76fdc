//! The network as the loop sees it.

use super::{Backlog, Event, Fault, State, World};
use crate::net::{Address, Interest, Net, Peer, Socket, SocketOptions};
use std::cell::RefMut;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Seek, SeekFrom};
use std::time::Instant;

/// The simulated operating system of a [`World`].
#[derive(Debug)]
pub struct Sim(World);

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    index: usize,
    address: Address,
}

/// The server's end of a connection.
#[derive(Debug)]
pub struct Stream {
    number: usize,
}

impl Stream {
    pub(super) fn new(number: usize) -> Stream {
        Stream { number }
    }
}

impl Sim {
    pub(super) fn new(world: World) -> Sim {
        Sim(world)
    }

    fn state(&self) -> RefMut<'_, State> {
        self.0.0.borrow_mut()
    }

    /// Makes the call `name`. Clients may have acted since the last.
    fn called(&self, name: &'static str) -> RefMut<'_, State> {
        self.0.step();
        let mut state = self.state();
        if let Some(recorded) = &mut state.recorded {
            recorded.push(name);
        }
        state
    }

    /// Makes the faults of calls on a stream. A call that is told to wait has an edge to wait for.
    fn call(&self, name: &'static str, number: usize) -> io::Result<RefMut<'_, State>> {
        let mut state = self.called(name);
        if state.wires[number].is_interrupted() || state.fault(Fault::Interrupted) {
            state.log(number, Event::Interrupted);
            return Err(ErrorKind::Interrupted.into());
        }
        let fault = if state.wires[number].is_watched() { Fault::WouldBlock } else { Fault::FreshWouldBlock };
        if state.fault(fault) {
            state.log(number, Event::Waits);
            state.wire_edge(number);
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(state)
    }

    /// Makes the call `name`, which writes what there is room for of `bytes`.
    fn take(&self, name: &'static str, number: usize, bytes: &[u8], more: bool) -> io::Result<usize> {
        let mut state = match self.call(name, number) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.state().wires[number].wait_for_room();
                return Err(error);
            }
            result => result?,
        };
        let room =
            state.wires[number].writable().inspect_err(|error| state.log(number, Event::Failed(error.kind())))?;
        let mut n = room.min(bytes.len());
        let short = n > 1 && state.wires[number].is_watched() && state.fault(Fault::ShortWrite);
        if short {
            n = state.part(n);
        }
        state.wires[number].write(&bytes[..n], bytes.len(), more);
        if short {
            state.wire_edge(number);
        }
        if n == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.log(number, Event::Wrote(bytes[..n].to_vec()));
        Ok(n)
    }
}

impl Net for Sim {
    type Listener = Listener;
    type Stream = Stream;

    const SHORT_IO_EXHAUSTS: bool = true;

    fn listen(&mut self, address: &Address, _: &SocketOptions, index: usize) -> io::Result<Listener> {
        let mut state = self.state();
        let backlog = Backlog { open: true, ..Backlog::default() };
        if index < state.listeners.len() {
            state.listeners[index] = backlog;
        } else {
            state.listeners.push(backlog);
        }
        Ok(Listener { index, address: address.clone() })
    }

    fn listen_on(&mut self, _: Socket, options: &SocketOptions, index: usize) -> io::Result<Listener> {
        self.listen(&Address::Unix("ready-made".into()), options, index)
    }

    fn connect(&mut self, _: &Address, _: &SocketOptions) -> io::Result<Stream> {
        let mut state = self.called("connect");
        if let Some(error) = state.accept_error() {
            return Err(error);
        }
        let number = state.connect();
        Ok(Stream { number })
    }

    fn check_connecting(&mut self, stream: &mut Stream) -> io::Result<()> {
        let mut state = self.call("check_connecting", stream.number)?;
        state.wires[stream.number].check_connecting()
    }

    fn local_address(&self, listener: &Listener) -> io::Result<Address> {
        Ok(listener.address.clone())
    }

    fn accept(&mut self, listener: &mut Listener) -> io::Result<(Stream, Peer)> {
        let mut state = self.called("accept");
        if state.listeners[listener.index].waiting.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        if state.fault(Fault::Interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        if let Some(error) = state.accept_error() {
            return Err(error);
        }
        let Some(number) = state.listeners[listener.index].waiting.pop_front() else {
            return Err(ErrorKind::WouldBlock.into());
        };
        if state.fault(Fault::LostAccept) {
            state.wires[number].lose();
            state.log(number, Event::Lost);
            return Err(ErrorKind::ConnectionAborted.into());
        }
        state.wires[number].accept();
        state.log(number, Event::Accepted);
        Ok((Stream { number }, Peer::Unix))
    }

    fn reads_stop_short(&self, stream: &Stream) -> bool {
        self.state().wires[stream.number].reads_stop_short()
    }

    fn read(&mut self, stream: &mut Stream, buffer: &mut [u8]) -> io::Result<usize> {
        let number = stream.number;
        let mut state = self.call("read", number)?;
        let readable = state.wires[number].readable();
        let mut n = match readable {
            Err(error) => {
                let waits = error.kind() == ErrorKind::WouldBlock;
                state.log(number, if waits { Event::Waits } else { Event::Failed(error.kind()) });
                return Err(error);
            }
            Ok(n) => n.min(buffer.len()),
        };
        let short = n > 1 && state.fault(Fault::ShortRead);
        if short {
            n = state.part(n);
        }
        let (bytes, more) = state.wires[number].read(n);
        buffer[..n].copy_from_slice(&bytes);
        if short || more {
            state.wire_edge(number);
        }
        state.log(number, Event::Read(bytes));
        Ok(n)
    }

    fn write(&mut self, stream: &mut Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.take("write", stream.number, &bytes, false)
    }

    fn write_more(&mut self, stream: &mut Stream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.take("write_more", stream.number, &bytes, true)
    }

    fn send_file(&mut self, stream: &mut Stream, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        let bytes = read_file(file, offset, len)?;
        if bytes.is_empty() { Ok(0) } else { self.take("send_file", stream.number, &bytes, false) }
    }

    fn send_file_end(&mut self, stream: &mut Stream, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        let bytes = read_file(file, offset, len)?;
        if bytes.is_empty() { Ok(0) } else { self.take("send_file_end", stream.number, &bytes, true) }
    }

    fn shutdown_write(&mut self, stream: &mut Stream) -> io::Result<()> {
        let mut state = self.called("shutdown_write");
        let result = state.wires[stream.number].shutdown_write();
        let event = result.as_ref().map_or_else(|error| Event::Failed(error.kind()), |()| Event::Shut);
        state.log(stream.number, event);
        result
    }

    fn watch(
        &mut self,
        stream: &mut Stream,
        key: usize,
        before: Option<Interest>,
        interest: Interest,
    ) -> io::Result<()> {
        let mut state = self.called("watch");
        if state.fault(Fault::WatchFails) {
            state.log(stream.number, Event::Failed(ErrorKind::OutOfMemory));
            return Err(ErrorKind::OutOfMemory.into());
        }
        assert_eq!(state.wires[stream.number].interest(), before, "the loop knows what it watches");
        if state.wires[stream.number].watch(key, interest) {
            state.wire_edge(stream.number);
        }
        Ok(())
    }

    fn take_error(&mut self, stream: &mut Stream) -> Option<io::Error> {
        let mut state = self.called("take_error");
        let error = state.wires[stream.number].take_error()?;
        state.log(stream.number, Event::Failed(error.kind()));
        Some(error)
    }

    fn close(&mut self, stream: Stream) {
        let mut state = self.called("close");
        state.log(stream.number, Event::Closed);
        state.wires[stream.number].close(false);
    }

    fn reset(&mut self, stream: Stream) {
        let mut state = self.called("reset");
        state.log(stream.number, Event::Reset);
        state.wires[stream.number].close(true);
    }

    fn close_listener(&mut self, listener: Listener) {
        let mut state = self.state();
        let backlog = std::mem::take(&mut state.listeners[listener.index]);
        backlog.waiting.iter().for_each(|number| state.wires[*number].refuse());
    }

    fn now(&self) -> Instant {
        self.state().now
    }
}

/// The files of the world are real ones.
fn read_file(mut file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
