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

/// How many files are held: as many as a process may open on most systems, with a thousand
/// connections beside them.
pub const FILES: usize = 1024;

/// The memory that small files take, in bytes.
const BYTES: usize = 32 * 1024 * 1024;

/// The files, by host and path.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: LruCache<Box<[u8]>, Entry>,
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
    pub(crate) fn new() -> Cache {
        Cache { entries: LruCache::unbounded(), files: 0, bytes: 0, key: Vec::new() }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Cache::new();
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
        while self.files > FILES || self.bytes > BYTES {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            self.forget(&entry);
        }
    }

    fn forget(&mut self, entry: &Entry) {
        self.files -= entry.resource.files();
        self.bytes -= entry.resource.weight();
    }
}
