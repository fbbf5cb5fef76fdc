//! Files that were asked for lately: open, or in memory.

use super::resource::{Place, Resource};
use lru::LruCache;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a file is taken to be what it was. A change is seen after that, whatever it is. A large
/// file that is written to, rather than replaced, goes out under its old name tag until then, and if
/// it has become shorter its replies end in resets, as with every server that keeps files open.
pub(crate) const FRESH: Duration = Duration::from_secs(1);

/// How long a file is held that is not asked for. The space of a file that is deleted is free when nothing
/// holds it any more, and its file system can be unmounted.
pub(crate) const IDLE: Duration = Duration::from_secs(3);

/// How many files are held if the process may open as many.
pub const FILES: usize = 1024;

/// The memory that small files take, in bytes.
const BYTES: usize = 32 * 1024 * 1024;

/// The files, by host and path.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: LruCache<Box<[u8]>, Entry>,
    most_files: usize,
    files: usize,
    bytes: usize,
    /// The key that is being looked up.
    key: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    resource: Rc<Resource>,
    /// When it was compared with what is there.
    checked: Instant,
}

impl Cache {
    /// A cache that holds so many files.
    pub(crate) fn new(most_files: usize) -> Cache {
        Cache { entries: LruCache::unbounded(), most_files, files: 0, bytes: 0, key: Vec::new() }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Cache::new(self.most_files);
    }

    /// Forgets what has not been asked for lately. Returns when that is to be done again, if something is
    /// left.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let expires = self.entries.peek_lru()?.1.checked + IDLE;
            if now < expires {
                return Some(expires);
            }
            if let Some((_, entry)) = self.entries.pop_lru() {
                self.forget(&entry);
            }
        }
    }

    /// Returns what is at a path of a host. `open` is asked if that is not known, or was found out too long
    /// ago; then it is told what was known.
    pub(crate) fn find(
        &mut self,
        host: usize,
        path: &str,
        now: Instant,
        open: impl FnOnce(Option<&Resource>) -> io::Result<Place>,
    ) -> io::Result<Place> {
        self.key.clear();
        self.key.extend_from_slice(&host.to_ne_bytes());
        self.key.extend_from_slice(path.as_bytes());
        let known = self.entries.get(self.key.as_slice());
        if let Some(entry) = known.filter(|entry| now < entry.checked + FRESH) {
            return Ok(Place::File(Rc::clone(&entry.resource)));
        }
        let place = open(known.map(|entry| &*entry.resource));
        self.drop_current();
        if let Ok(Place::File(resource)) = &place {
            self.keep(Entry { resource: Rc::clone(resource), checked: now });
        }
        place
    }

    /// Drops what is there under the current key.
    fn drop_current(&mut self) {
        if let Some(entry) = self.entries.pop(self.key.as_slice()) {
            self.forget(&entry);
        }
    }

    /// Keeps a file under the current key, in the place of the least recently used ones.
    fn keep(&mut self, entry: Entry) {
        self.files += entry.resource.files();
        self.bytes += entry.resource.weight();
        self.entries.put(self.key.as_slice().into(), entry);
        while self.files > self.most_files || self.bytes > BYTES {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            self.forget(&entry);
        }
    }

    fn forget(&mut self, entry: &Entry) {
        self.files -= entry.resource.files();
        self.bytes -= entry.resource.weight();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;
    use crate::media::Media;
    use std::path::Path;
    use std::time::SystemTime;

    /// How many of the files of a folder had to be opened, when they were asked for in this order.
    fn opened(cache: &mut Cache, folder: &Path, names: &[&str], now: Instant) -> usize {
        let folder = Folder::open(folder).unwrap();
        let mut opened = 0;
        for name in names {
            let place = cache.find(0, name, now, |known| {
                opened += 1;
                Resource::open(&folder, name.as_bytes(), &Media::default(), SystemTime::now(), known)
            });
            assert!(matches!(place, Ok(Place::File(_))), "{name}");
        }
        opened
    }

    /// Lost otherwise: the files that are asked for most, whenever others are asked for once; or descriptors.
    #[test]
    fn those_asked_for_last_are_held() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c", "d"] {
            std::fs::write(folder.path().join(name), vec![b'x'; 40_000]).unwrap();
        }
        let (mut cache, now) = (Cache::new(3), Instant::now());
        assert_eq!(opened(&mut cache, folder.path(), &["a", "b", "c", "a"], now), 3);
        assert_eq!(opened(&mut cache, folder.path(), &["d", "c", "a", "d"], now), 1, "b has made room");
        assert_eq!(cache.files, 3);
        assert_eq!(opened(&mut cache, folder.path(), &["b"], now), 1);
        assert_eq!(cache.expire(now), Some(now + IDLE));
        assert_eq!(cache.expire(now + IDLE), None);
        assert_eq!((cache.files, cache.bytes), (0, 0));
    }
}
