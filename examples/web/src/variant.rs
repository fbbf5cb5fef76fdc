//! One stored form of a file, open, with all that its replies say of it written already.

use super::coding::Coding;
use super::folder::Folder;
use pollstack::http::Headers;
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Files up to this long are kept in memory: with their head they fit the output of a connection,
/// and go out in the same write.
pub(crate) const SMALL: u64 = 32 * 1024;

/// How old a change has to be when a file is read, or another one could follow that its metadata does not
/// tell: the times of some file systems count in seconds, or even in pairs of them.
const SETTLED: Duration = Duration::from_secs(2);

/// The beginning of a text that tells its encoding.
const SAMPLE: usize = 64 * 1024;

/// The last second that a date can be written for: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// A file as it was when it was opened.
#[derive(Debug)]
pub(crate) struct Variant {
    stamp: Stamp,
    /// It may be trusted for as long as its metadata is the same.
    settled: bool,
    content: Content,
    pub(crate) media: Rc<str>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Opens the file at `path`, or keeps what is `known` of it, if that is still true. Its type is what
    /// `media` makes of it.
    pub(crate) fn open(
        folder: &Folder,
        path: &[u8],
        media: impl FnOnce(&File) -> Rc<str>,
        coding: Coding,
        now: SystemTime,
        known: Option<&Rc<Variant>>,
    ) -> io::Result<Found> {
        let metadata = folder.look(path)?;
        if !metadata.is_file() {
            return Ok(if metadata.is_dir() { Found::Folder } else { Found::Other });
        }
        if let Some(known) = known.filter(|known| known.settled && known.stamp == Stamp::of(&metadata)) {
            return Ok(Found::File(Rc::clone(known)));
        }
        let file = folder.file(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(Found::Other);
        }
        let (stamp, media) = (Stamp::of(&metadata), media(&file));
        Ok(Found::File(Rc::new(Variant::new(file, stamp, media, coding, now))))
    }

    fn new(file: File, stamp: Stamp, media: Rc<str>, coding: Coding, now: SystemTime) -> Variant {
        let settled = stamp.is_settled(now);
        let content = match small(&file, stamp) {
            Some(bytes) => Content::Memory(bytes),
            None => Content::File(Rc::new(file)),
        };
        let etag = etag(stamp, &content, coding, settled);
        let date = httpdate::fmt_http_date(stamp.shown(now));
        let unchanged = Headers::new().with("Last-Modified", &date).with("ETag", &etag);
        let headers = Headers::new().with("Content-Type", &*media).with("Last-Modified", &date).with("ETag", &etag);
        let headers = headers.with("Accept-Ranges", "bytes");
        let headers = match coding.name() {
            Some(coding) => headers.with("Content-Encoding", coding),
            None => headers,
        };
        let (len, modified) = (stamp.size, stamp.modified());
        Variant { stamp, settled, content, media, len, etag, modified, headers, unchanged }
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

    /// Returns whether it is as old as `other`, or newer, as far as its time tells: some tools, and some
    /// file systems, cut the time of a copy to whole seconds, or to parts of them.
    pub(crate) fn is_current(&self, other: &Variant) -> bool {
        let ((seconds, nanos), (others, other_nanos)) = (self.stamp.modified, other.stamp.modified);
        let unit = [1_000_000_000, 1_000_000, 1000, 100].into_iter().find(|unit| nanos % unit == 0).unwrap_or(1);
        (seconds, nanos) >= (others, other_nanos - other_nanos % unit)
    }
}

/// Returns whether a file begins with text in UTF-8.
pub(crate) fn is_utf8(file: &File) -> bool {
    let mut sample = vec![0; SAMPLE];
    let mut len = 0;
    while let Some(room) = sample.get_mut(len..).filter(|room| !room.is_empty()) {
        match file.read_at(room, len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(_) => return false,
        }
    }
    let error = std::str::from_utf8(&sample[..len]).err();
    error.is_none_or(|error| len == SAMPLE && error.error_len().is_none()) // a character may be cut off
}

/// Another one for every content, and every coding of it, that tells nothing of the file. It is a weak one as
/// long as another content could have the same: the file is not `settled`, and too large for its content to
/// count (RFC 9110, section 8.8.1).
fn etag(stamp: Stamp, content: &Content, coding: Coding, settled: bool) -> String {
    let mut hash = DefaultHasher::new();
    let weak = match content {
        Content::Memory(bytes) => {
            (stamp, bytes).hash(&mut hash);
            ""
        }
        Content::File(_) => {
            stamp.hash(&mut hash);
            if settled { "" } else { "W/" }
        }
    };
    format!("{weak}\"{:016x}{}\"", hash.finish(), coding.suffix())
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

    /// Returns whether no change can follow within the same tick of the file system's clock. The time of the
    /// last change of the metadata counts, which no tool can set.
    fn is_settled(&self, now: SystemTime) -> bool {
        let changed = seconds(self.changed.0);
        now.duration_since(UNIX_EPOCH + changed).is_ok_and(|age| age >= SETTLED)
    }

    /// Returns when the file was changed, to the second.
    fn modified(&self) -> SystemTime {
        UNIX_EPOCH + seconds(self.modified.0)
    }

    /// Returns that time as it is written: not one that is to come (RFC 9110, section 8.8.2.1).
    fn shown(&self, now: SystemTime) -> SystemTime {
        self.modified().min(now)
    }
}

/// Seconds from 1970 on, as far as a date can be written for them.
fn seconds(since_epoch: i64) -> Duration {
    Duration::from_secs(u64::try_from(since_epoch).unwrap_or(0).min(LAST_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost otherwise: a file that was written again within a tick of its file system's clock: its old bytes would
    /// go out for good, or its old tag with its new bytes.
    #[test]
    fn a_file_that_has_just_changed_is_not_trusted() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("small"), "a").unwrap();
        std::fs::write(root.path().join("large"), vec![b'a'; 100_000]).unwrap();
        let folder = Folder::open(root.path()).unwrap();
        let changed = std::fs::metadata(root.path().join("large")).unwrap().ctime();
        let at = |seconds| UNIX_EPOCH + super::seconds(changed) + Duration::from_secs(seconds);
        for (name, tag) in [("small", "\""), ("large", "W/\"")] {
            let open = |now, known: Option<&Rc<Variant>>| match Variant::open(
                &folder,
                name.as_bytes(),
                |_| "text/plain".into(),
                Coding::Plain,
                now,
                known,
            ) {
                Ok(Found::File(variant)) => variant,
                _ => panic!("{name} is a file"),
            };
            let first = open(at(1), None);
            assert!(first.etag.starts_with(tag), "{}", first.etag);
            let second = open(at(4), Some(&first));
            assert!(!Rc::ptr_eq(&first, &second) && second.etag.starts_with('"'), "it is read again");
            assert_eq!(second.etag, first.etag.trim_start_matches("W/"));
            assert!(Rc::ptr_eq(&second, &open(at(5), Some(&second))), "and then it is known");
        }
    }
}
