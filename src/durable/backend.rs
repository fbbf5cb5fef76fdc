//! The file as the database sees it.

use redb::StorageBackend;
use redb::backends::FileBackend;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A file that remembers whether a sync has failed: the system may have dropped what it could not write, so
/// no later sync can be believed.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) file: FileBackend,
    /// Whether there are syncs at all.
    pub(super) syncs: bool,
    pub(super) sync_has_failed: Arc<AtomicBool>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.file.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        if !self.syncs {
            return Ok(());
        }
        self.file.sync_data(eventual).inspect_err(|_| self.sync_has_failed.store(true, Ordering::Relaxed))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}

/// A file that is read and not written: what is written to it stays in memory. For a look at a file that may be
/// damaged, and that must be left alone then.
#[derive(Debug)]
pub(super) struct Glass {
    pub(super) file: FileBackend,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    len: u64,
    /// The bytes that were written, by offset, in pieces of [`PIECE`].
    pieces: BTreeMap<u64, Vec<u8>>,
}

const PIECE: usize = 4096;

impl Glass {
    pub(super) fn new(file: FileBackend) -> io::Result<Glass> {
        let len = file.len()?;
        Ok(Glass { file, changed: Mutex::new(Changed { len, pieces: BTreeMap::new() }) })
    }

    /// Reads a piece of the file itself; zeros behind its end.
    fn original(&self, piece: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; PIECE];
        let there = self.file.len()?.saturating_sub(piece).min(PIECE as u64);
        if there > 0 {
            let there = usize::try_from(there).unwrap_or(PIECE);
            bytes[..there].copy_from_slice(&self.file.read(piece, there)?);
        }
        Ok(bytes)
    }
}

/// Returns the pieces that a range touches: the offset of each, and the parts of piece and range that meet.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let size = PIECE as u64;
    let end = offset + len as u64;
    (offset / size..end.div_ceil(size)).map(move |n| {
        let (from, to) = (offset.max(n * size), end.min((n + 1) * size));
        let at = |place: u64, origin: u64| usize::try_from(place - origin).unwrap_or(0);
        (n * size, at(from, n * size)..at(to, n * size), at(from, offset)..at(to, offset))
    })
}

impl StorageBackend for Glass {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed.lock().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if offset.checked_add(len as u64).is_none_or(|end| end > changed.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; len];
        for (piece, inside, outside) in pieces(offset, len) {
            match changed.pieces.get(&piece) {
                Some(kept) => bytes[outside].copy_from_slice(&kept[inside]),
                None => bytes[outside].copy_from_slice(&self.original(piece)?[inside]),
            }
        }
        Ok(bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).len = len;
        Ok(())
    }

    fn sync_data(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        for (piece, inside, outside) in pieces(offset, data.len()) {
            let kept = match changed.pieces.entry(piece) {
                Entry::Occupied(kept) => kept.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(self.original(piece)?),
            };
            kept[inside].copy_from_slice(&data[outside]);
        }
        Ok(())
    }
}
