//! The output of a connection that the kernel has not taken yet.

use crate::net::Net;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::rc::Rc;

/// The most pieces that one vectored write takes.
const SLICES: usize = 16;

/// The most bytes of a file that one call sends: without a copy, that takes 0.1 ms.
const FILE_CHUNK: u64 = 1024 * 1024;

/// Bytes, shared buffers and files, in the order in which they were sent.
///
/// Nearly all output is bytes, so these are one buffer. Shared buffers and files are inserts into it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// How many of `bytes` the kernel has.
    taken: usize,
    inserts: VecDeque<Insert>,
    /// How many of `bytes` come after the last insert.
    tail: usize,
    /// The memory that waits, the queue's own included.
    held: usize,
}

#[derive(Debug)]
struct Insert {
    /// How many of `bytes` come before it, and after the insert before.
    after: usize,
    piece: Piece,
}

#[derive(Debug)]
enum Piece {
    Shared { buffer: Rc<[u8]>, taken: usize },
    File { file: Rc<File>, offset: u64, left: u64 },
}

/// The result of a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// How many bytes the kernel took.
    pub(crate) bytes: usize,
    /// It took all that it was offered.
    pub(crate) all: bool,
    /// It may keep them back until more comes, or the end of the stream.
    pub(crate) corked: bool,
}

/// The bytes that an insert takes beside its content, so that a thousand shared buffers of one byte do
/// not count as a thousand bytes.
pub(crate) const INSERT_BYTES: usize = size_of::<Insert>();

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.bytes.len() && self.inserts.is_empty()
    }

    /// Returns the memory that unsent output holds, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Returns the memory that it keeps when it is empty, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity() + self.inserts.capacity() * INSERT_BYTES
    }

    /// Returns how many bytes the kernel has not taken, those of files included.
    pub(crate) fn unsent(&self) -> u64 {
        let inserts: u64 = self.inserts.iter().map(|insert| insert.piece.len()).sum();
        (self.bytes.len() - self.taken) as u64 + inserts
    }

    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.tail += bytes.len();
        self.held += bytes.len();
    }

    pub(crate) fn push_shared(&mut self, buffer: &Rc<[u8]>) {
        if !buffer.is_empty() {
            self.held += buffer.len();
            self.push(Piece::Shared { buffer: Rc::clone(buffer), taken: 0 });
        }
    }

    pub(crate) fn push_file(&mut self, file: &Rc<File>, offset: u64, len: u64) {
        if len > 0 {
            self.push(Piece::File { file: Rc::clone(file), offset, left: len });
        }
    }

    fn push(&mut self, piece: Piece) {
        self.inserts.push_back(Insert { after: self.tail, piece });
        self.tail = 0;
        self.held += INSERT_BYTES;
    }

    /// Writes once. `ends` tells that the stream ends behind all of it.
    #[inline(always)]
    pub(crate) fn write_to<N: Net>(&mut self, net: &mut N, stream: &mut N::Stream, ends: bool) -> io::Result<Written> {
        let front = self.inserts.front();
        let more = match front {
            Some(Insert { piece: Piece::File { .. }, .. }) => true,
            Some(_) | None => ends,
        };
        let mut write = |slices: &[IoSlice<'_>]| match more {
            true => net.write_more(stream, slices),
            false => net.write(stream, slices),
        };
        let (bytes, offered, corked) = match front {
            None => {
                let bytes = &self.bytes[self.taken..];
                (write(&[IoSlice::new(bytes)])?, bytes.len(), more)
            }
            Some(Insert { after: 0, piece: Piece::File { file, offset, left } }) => {
                let len = (*left).min(FILE_CHUNK);
                let is_last = ends && len == *left && self.tail == 0 && self.inserts.len() == 1;
                let n = match is_last {
                    true => net.send_file_end(stream, file, *offset, len as usize)?,
                    false => net.send_file(stream, file, *offset, len as usize)?,
                };
                if n == 0 {
                    let text = "a file ended before what was promised of it";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                (n, n, is_last && n as u64 == len) // the kernel may stop anywhere; only WouldBlock says that it is full
            }
            Some(_) => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let (count, offered) = self.gather(&mut slices);
                (write(&slices[..count])?, offered, more)
            }
        };
        self.advance(bytes);
        // A kernel that has no room for all of it keeps none of it back.
        Ok(Written { bytes, all: bytes == offered, corked: corked && bytes == offered })
    }

    /// Gathers the pieces in front of the next file. Returns their number and length.
    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> (usize, usize) {
        let (mut count, mut offered, mut bytes) = (0, 0, &self.bytes[self.taken..]);
        let mut add = |piece: &'a [u8]| {
            if count < SLICES && !piece.is_empty() {
                slices[count] = IoSlice::new(piece);
                offered += piece.len();
                count += 1;
            }
        };
        for Insert { after, piece } in self.inserts.iter().take(SLICES) {
            let (before, rest) = bytes.split_at(*after);
            bytes = rest;
            add(before);
            match piece {
                Piece::Shared { buffer, taken } => add(&buffer[*taken..]),
                Piece::File { .. } => return (count, offered),
            }
        }
        if self.inserts.len() <= SLICES {
            add(bytes);
        }
        (count, offered)
    }

    /// Drops the first `n` bytes, which the kernel has taken.
    fn advance(&mut self, mut n: usize) {
        while let Some(Insert { after, piece }) = self.inserts.front_mut() {
            let bytes = n.min(*after);
            *after -= bytes;
            self.taken += bytes;
            self.held -= bytes;
            n -= bytes;
            n -= piece.advance(n);
            if piece.len() > 0 {
                return self.compact();
            }
            self.held -= INSERT_BYTES + piece.held();
            self.inserts.pop_front();
        }
        self.taken += n;
        self.tail -= n;
        self.held -= n;
        self.compact();
    }

    /// Reuses the memory of the bytes that were taken, once they are the larger part.
    fn compact(&mut self) {
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        } else if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

impl Piece {
    /// Returns how many bytes are still to go out.
    fn len(&self) -> u64 {
        match self {
            Piece::Shared { buffer, taken } => (buffer.len() - taken) as u64,
            Piece::File { left, .. } => *left,
        }
    }

    /// Returns the memory it holds until it is out.
    fn held(&self) -> usize {
        match self {
            Piece::Shared { buffer, .. } => buffer.len(),
            Piece::File { .. } => 0,
        }
    }

    /// Drops up to `n` bytes from its front. Returns how many.
    fn advance(&mut self, n: usize) -> usize {
        let step = self.len().min(n as u64) as usize;
        match self {
            Piece::Shared { taken, .. } => *taken += step,
            Piece::File { offset, left, .. } => {
                *offset += step as u64;
                *left -= step as u64;
            }
        }
        step
    }
}

#[cfg(feature = "sim")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::World;
    use proptest::prelude::*;
    use std::io::Write;

    #[derive(Clone, Debug)]
    enum Op {
        Bytes(Vec<u8>),
        Shared(Vec<u8>),
        File(u8, u64),
        Write(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..20);
        prop_oneof![
            // More is sent than written, so that there are more pieces than go into one write.
            2 => bytes().prop_map(Op::Bytes),
            8 => bytes().prop_map(Op::Shared),
            1 => (any::<u8>(), 0..20u64).prop_map(|(offset, len)| Op::File(offset, len)),
            2 => prop_oneof![1..60usize, 1..2000usize].prop_map(Op::Write),
        ]
    }

    proptest! {
        /// Lost otherwise: whole answers in order, and the bound on unsent output.
        #[test]
        fn writes_every_piece_once_and_in_order(ops in prop::collection::vec(op(), 0..100)) {
            let content: Vec<u8> = (0..300u32).map(|at| at as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            let (file, world) = (Rc::new(file), World::new(0));
            let (mut net, (client, mut stream)) = (world.net(), world.stream());
            let (mut output, mut sent, mut taken) = (Output::default(), Vec::new(), 0);
            for op in ops.into_iter().chain(std::iter::repeat_n(Op::Write(60), 200)) {
                match op {
                    Op::Bytes(bytes) => {
                        output.push_bytes(&bytes);
                        sent.extend(bytes);
                    }
                    Op::Shared(bytes) => {
                        output.push_shared(&Rc::from(&bytes[..]));
                        sent.extend(bytes);
                    }
                    Op::File(offset, len) => {
                        output.push_file(&file, offset.into(), len);
                        sent.extend(&content[offset.into()..][..len as usize]);
                    }
                    Op::Write(window) if !output.is_empty() => {
                        client.set_room(window);
                        taken += output.write_to(&mut net, &mut stream, false).unwrap().bytes;
                    }
                    Op::Write(_) => {}
                }
                prop_assert_eq!(output.unsent(), (sent.len() - taken) as u64);
                prop_assert!(output.bytes.len() <= 2 * (output.bytes.len() - output.taken) + 1, "taken bytes are let go");
            }
            prop_assert!(output.is_empty());
            prop_assert_eq!(output.held(), 0);
            net.shutdown_write(&mut stream).unwrap();
            prop_assert_eq!(client.read(), sent);
        }
    }

    /// Lost otherwise: time, to a copy of all that waits after each short write.
    #[test]
    fn bytes_move_only_when_most_are_taken() {
        let world = World::new(0);
        let (mut net, (client, mut stream)) = (world.net(), world.stream());
        let mut output = Output::default();
        output.push_bytes(&[b'x'; 100]);
        for (room, held) in [(40, 100), (20, 40)] {
            client.set_room(room);
            output.write_to(&mut net, &mut stream, false).unwrap();
            assert_eq!(output.bytes.len(), held);
        }
    }
}
