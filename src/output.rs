//! What has been sent to a connection and not yet been taken by the kernel.

use crate::net::Net;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::rc::Rc;

/// How many pieces one vectored write takes at the most.
const SLICES: usize = 16;

/// What one call to send a part of a file may move.
const FILE_CHUNK: u64 = 256 * 1024;

/// Bytes, shared buffers and files, in the order in which they were sent.
///
/// Nearly all output is bytes, so these are one buffer; shared buffers and files are inserts into
/// it.
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
    /// How many of `bytes` are still to come before it, and after the insert before.
    after: usize,
    piece: Piece,
}

#[derive(Debug)]
enum Piece {
    Shared { buffer: Rc<[u8]>, taken: usize },
    File { file: Rc<File>, offset: u64, left: u64 },
}

/// What an insert costs beside its bytes: a thousand shared buffers of a byte must not pass for a
/// thousand bytes.
const INSERT_BYTES: usize = size_of::<Insert>();

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.bytes.len() && self.inserts.is_empty()
    }

    /// The memory that waits, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// The bytes the kernel has not taken, those of files included.
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

    /// Writes once. Returns how many bytes the kernel took, and whether it took all it was offered.
    pub(crate) fn write_to<N: Net>(&mut self, net: &mut N, stream: &mut N::Stream) -> io::Result<(usize, bool)> {
        let (n, offered) = match self.inserts.front() {
            None => {
                let bytes = &self.bytes[self.taken..];
                (net.write(stream, &[IoSlice::new(bytes)])?, bytes.len())
            }
            Some(Insert { after: 0, piece: Piece::File { file, offset, left } }) => {
                let n = net.send_file(stream, file, *offset, (*left).min(FILE_CHUNK) as usize)?;
                if n == 0 {
                    let text = "a file ended before what was promised of it";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                (n, n) // the kernel may stop where it likes; only WouldBlock says that it is full
            }
            Some(_) => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let (count, offered) = self.gather(&mut slices);
                (net.write(stream, &slices[..count])?, offered)
            }
        };
        self.advance(n);
        Ok((n, n == offered))
    }

    /// The pieces in front of the next file, and their length.
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

    /// Drops the first `n` bytes: the kernel has them.
    fn advance(&mut self, mut n: usize) {
        while let Some(Insert { after, piece }) = self.inserts.front_mut() {
            let bytes = n.min(*after);
            *after -= bytes;
            self.taken += bytes;
            self.held -= bytes;
            n -= bytes;
            if *after > 0 || n == 0 {
                return self.compact();
            }
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

    /// Gives the taken bytes' memory to those to come, once they are the larger part.
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
    /// What is still to go out.
    fn len(&self) -> u64 {
        match self {
            Piece::Shared { buffer, taken } => (buffer.len() - taken) as u64,
            Piece::File { left, .. } => *left,
        }
    }

    /// The memory it holds until it is out.
    fn held(&self) -> usize {
        match self {
            Piece::Shared { buffer, .. } => buffer.len(),
            Piece::File { .. } => 0,
        }
    }

    /// Drops up to `n` bytes from its front; returns how many.
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
