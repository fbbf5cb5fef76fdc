//! One stored form of a file, open, with all that its replies say of it written already.

use super::coding::Coding;
use super::folder::Folder;
use pollstack::http::Headers;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Files up to this long are kept in memory: with their head they fit the output of a connection,
/// and go out in the same write.
pub(crate) const SMALL: u64 = 32 * 1024;

/// The last second that a date can be written for: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// A file as it was when it was opened.
#[derive(Debug)]
pub(crate) struct Variant {
    stamp: Stamp,
    content: Content,
    pub(crate) len: u64,
    pub(crate) etag: String,
    /// When it was changed last, to the second.
    pub(crate) modified: SystemTime,
    /// The fields of a reply with its content.
    pub(crate) headers: Headers,
    /// The fields of a reply that says that nothing has changed.
    pub(crate) unchanged: Headers,
}

/// Where its bytes are.
#[derive(Debug)]
pub(crate) enum Content {
    Memory(Rc<[u8]>),
    File(Rc<File>),
}

/// The metadata that changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The file or folder at a path.
pub(crate) enum Found {
    File(Rc<Variant>),
    Folder,
    /// Neither: a pipe, for example.
    Other,
}

impl Variant {
    /// Opens the file at `path`, or keeps what is `known` of it, if that is still true.
    pub(crate) fn open(
        folder: &Folder,
        path: &[u8],
        media: &str,
        coding: Coding,
        now: SystemTime,
        known: Option<&Rc<Variant>>,
    ) -> io::Result<Found> {
        let file = folder.file(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(if metadata.is_dir() { Found::Folder } else { Found::Other });
        }
        let stamp = Stamp::of(&metadata);
        if let Some(known) = known.filter(|known| known.stamp == stamp) {
            return Ok(Found::File(Rc::clone(known)));
        }
        Ok(Found::File(Rc::new(Variant::new(file, stamp, media, coding, now))))
    }

    fn new(file: File, stamp: Stamp, media: &str, coding: Coding, now: SystemTime) -> Variant {
        let modified = stamp.modified(now);
        let (date, etag) = (httpdate::fmt_http_date(modified), stamp.etag(coding));
        let unchanged = Headers::new().with("Last-Modified", &date).with("ETag", &etag);
        let headers = Headers::new().with("Content-Type", media).with("Last-Modified", &date).with("ETag", &etag);
        let headers = headers.with("Accept-Ranges", "bytes");
        let headers = match coding.name() {
            Some(coding) => headers.with("Content-Encoding", coding),
            None => headers,
        };
        let content = match small(&file, stamp) {
            Some(bytes) => Content::Memory(bytes),
            None => Content::File(Rc::new(file)),
        };
        Variant { stamp, content, len: stamp.size, etag, modified, headers, unchanged }
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// Returns the memory that its content takes.
    pub(crate) fn weight(&self) -> usize {
        match &self.content {
            Content::Memory(bytes) => bytes.len(),
            Content::File(_) => 0,
        }
    }

    /// Returns whether it is as old as `other`, or newer.
    pub(crate) fn is_current(&self, other: &Variant) -> bool {
        self.stamp.modified >= other.stamp.modified
    }
}

/// Returns the content of a small file. If it is being changed just now, it is left where it is.
fn small(file: &File, stamp: Stamp) -> Option<Rc<[u8]>> {
    let len = usize::try_from(stamp.size).ok().filter(|_| stamp.size <= SMALL)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let unchanged = file.metadata().is_ok_and(|metadata| Stamp::of(&metadata) == stamp);
    unchanged.then(|| bytes.into())
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// A date that can be written, and is not to come (RFC 9110, section 8.8.2.1).
    fn modified(&self, now: SystemTime) -> SystemTime {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let seconds = u64::try_from(self.modified.0).unwrap_or(0).min(now).min(LAST_SECOND);
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Another one for every content, and every coding of it.
    fn etag(&self, coding: Coding) -> String {
        let Stamp { inode, size, modified: (seconds, nanos), .. } = self;
        format!("\"{inode:x}-{size:x}-{seconds:x}.{nanos:x}{}\"", coding.suffix())
    }
}
