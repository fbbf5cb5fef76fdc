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

/// A queue of bytes, shared buffers and files, in the order in which they were sent.
#[derive(Debug, Default)]
pub(crate) struct Output {
    segments: VecDeque<Segment>,
    /// The bytes of all `Segment::Bytes`, one after the other.
    bytes: Vec<u8>,
    /// How many of `bytes` the kernel has.
    taken: usize,
    /// The memory that waits, the queue's own included.
    held: usize,
}

#[derive(Debug)]
enum Segment {
    Bytes(usize),
    Shared { buffer: Rc<[u8]>, taken: usize },
    File { file: Rc<File>, offset: u64, left: u64 },
}

/// What a segment costs beside its bytes: a thousand shared buffers of a byte must not pass for a
/// thousand bytes.
const SEGMENT_BYTES: usize = size_of::<Segment>();

impl Segment {
    fn len(&self) -> u64 {
        match self {
            Segment::Bytes(len) => *len as u64,
            Segment::Shared { buffer, taken } => (buffer.len() - taken) as u64,
            Segment::File { left, .. } => *left,
        }
    }
}

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The memory that waits, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// The bytes the kernel has not taken, those of files included.
    pub(crate) fn unsent(&self) -> u64 {
        self.segments.iter().map(Segment::len).sum()
    }

    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.held += bytes.len();
        match self.segments.back_mut() {
            Some(Segment::Bytes(len)) => *len += bytes.len(),
            _ if bytes.is_empty() => {}
            _ => self.push(Segment::Bytes(bytes.len())),
        }
    }

    pub(crate) fn push_shared(&mut self, buffer: &Rc<[u8]>) {
        if !buffer.is_empty() {
            self.held += buffer.len();
            self.push(Segment::Shared { buffer: Rc::clone(buffer), taken: 0 });
        }
    }

    pub(crate) fn push_file(&mut self, file: &Rc<File>, offset: u64, len: u64) {
        if len > 0 {
            self.push(Segment::File { file: Rc::clone(file), offset, left: len });
        }
    }

    /// Writes once. Returns how many bytes the kernel took, and whether it took all it was offered.
    pub(crate) fn write_to<N: Net>(&mut self, net: &mut N, stream: &mut N::Stream) -> io::Result<(usize, bool)> {
        if let Some(Segment::File { file, offset, left }) = self.segments.front() {
            let offered = (*left).min(FILE_CHUNK) as usize;
            let n = net.send_file(stream, file, *offset, offered)?;
            if n == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file ended before what was promised of it"));
            }
            self.advance(n);
            // The kernel may stop at a boundary of its own; only WouldBlock says that it is full.
            return Ok((n, true));
        }
        let (n, offered) = if self.segments.len() == 1 {
            let piece = self.first();
            (net.write(stream, &[IoSlice::new(piece)])?, piece.len())
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let (count, offered) = self.gather(&mut slices);
            (net.write(stream, &slices[..count])?, offered)
        };
        self.advance(n);
        Ok((n, n == offered))
    }

    /// The first piece, if it is in memory.
    fn first(&self) -> &[u8] {
        match self.segments.front() {
            Some(Segment::Bytes(len)) => &self.bytes[self.taken..self.taken + len],
            Some(Segment::Shared { buffer, taken }) => &buffer[*taken..],
            Some(Segment::File { .. }) | None => &[],
        }
    }

    /// The pieces in front of the next file, and their length.
    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> (usize, usize) {
        let (mut count, mut offered, mut bytes) = (0, 0, &self.bytes[self.taken..]);
        for (segment, slot) in self.segments.iter().zip(slices) {
            let piece = match segment {
                Segment::Bytes(len) => {
                    let (piece, rest) = bytes.split_at(*len);
                    bytes = rest;
                    piece
                }
                Segment::Shared { buffer, taken } => &buffer[*taken..],
                Segment::File { .. } => break,
            };
            *slot = IoSlice::new(piece);
            count += 1;
            offered += piece.len();
        }
        (count, offered)
    }

    /// Drops the first `n` bytes: the kernel has them.
    fn advance(&mut self, mut n: usize) {
        while let Some(segment) = self.segments.front_mut() {
            let step = segment.len().min(n as u64) as usize;
            n -= step;
            match segment {
                Segment::Bytes(len) => {
                    *len -= step;
                    self.taken += step;
                    self.held -= step;
                }
                Segment::Shared { taken, .. } => *taken += step,
                Segment::File { offset, left, .. } => {
                    *offset += step as u64;
                    *left -= step as u64;
                }
            }
            if segment.len() > 0 {
                break;
            }
            self.pop();
        }
        self.compact();
    }

    fn push(&mut self, segment: Segment) {
        self.held += SEGMENT_BYTES;
        self.segments.push_back(segment);
    }

    fn pop(&mut self) {
        self.held -= SEGMENT_BYTES;
        if let Some(Segment::Shared { buffer, .. }) = self.segments.pop_front() {
            self.held -= buffer.len();
        }
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
