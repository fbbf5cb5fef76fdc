//! The file: how it is opened and checked, and a commit to it.

use super::SyncPolicy;
use super::backend::{Backend, Glass};
use crate::stack::wire::Item;
use crate::stack::{Batch, Trouble};
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, Durability, ReadableTable, ReadableTableMetadata, StorageBackend, StorageError,
    TableDefinition, TableHandle,
};
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The items, from the bottom to the top.
const ITEMS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("pollstack items");
/// Facts about the file.
const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("pollstack facts");
/// The version of the format, among the facts.
const FORMAT: &str = "format";
/// The newest version that this program reads, and the one that it writes.
const NEWEST: u64 = 1;
/// The first bytes of every redb file.
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
/// The memory in which the database keeps pages.
const CACHE: usize = 16 << 20;

/// The reason of a database that makes redb panic.
const UNFIT: &str = "its parts do not fit";

/// The items of a file, from the bottom to the top, each with its number.
pub type Kept = Vec<(u64, Item)>;

/// A data file that is open, and locked against other processes.
#[derive(Debug)]
pub struct DataFile {
    path: PathBuf,
    pub(super) sync: SyncPolicy,
    /// `None` after an error, which a redb database does not get over: it is opened again.
    database: Option<Database>,
    sync_has_failed: Arc<AtomicBool>,
}

impl DataFile {
    /// Opens the file at `path`, or makes it, and returns it with its items. A file that cannot be used is left as
    /// it is.
    ///
    /// # Errors
    /// A sentence that says why not: it is damaged, another program's, in use, holds more items than `capacity`,
    /// has a format that is newer than this program, or the system's reason.
    pub fn open(path: &Path, sync: SyncPolicy, capacity: usize) -> Result<(DataFile, Kept), String> {
        let is_new = std::fs::metadata(path).map_or(true, |file| file.is_file() && file.len() == 0);
        let items = if is_new { Vec::new() } else { Self::read(path)? };
        if items.len() > capacity {
            return Err(format!("it holds {} items, more than --capacity {capacity}", items.len()));
        }
        let mut file =
            DataFile { path: path.to_owned(), sync, database: None, sync_has_failed: Arc::new(AtomicBool::new(false)) };
        begin(file.connect().map_err(|trouble| trouble.reason)?).map_err(|error| error.to_string())?;
        if !file.is_as_read(&items).map_err(|error| error.to_string())? {
            return Err("another process has changed it meanwhile; try again".to_owned());
        }
        if is_new {
            // The file is there after a power cut, too.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| error.to_string())?;
        }
        Ok((file, items))
    }

    /// Reads the items of a file, and changes nothing of it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(path: &Path) -> Result<Kept, String> {
        if path.is_dir() {
            return Err("it is a directory; give the name of a file".to_owned());
        }
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        let mut start = Vec::new();
        file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut start).map_err(|error| error.to_string())?;
        if start != MAGIC {
            return Err("it is not a data file of pollstack; take another name".to_owned());
        }
        let glass = Glass::new(lock(Ok(file))?).map_err(|error| error.to_string())?;
        let mut database = open(glass).map_err(|trouble| trouble.reason)?;
        quietly(|| check(&mut database)).unwrap_or_else(|()| Err(damaged(UNFIT)))
    }

    /// Puts items on top of those that are there, all of them or none.
    ///
    /// # Errors
    /// The reason why they are not there.
    pub fn append(&mut self, kept: &Kept, items: impl IntoIterator<Item = Item>) -> Result<(), String> {
        let above = kept.last().map_or(1, |(number, _)| number + 1);
        let batch = (above..).zip(items.into_iter().map(Some)).collect();
        self.commit(&batch).map_err(|trouble| trouble.reason)
    }

    /// Returns the database, and opens it if it is not open.
    fn connect(&mut self) -> Result<&Database, Trouble> {
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path);
                let file = lock(opened).map_err(passing)?;
                let (syncs, sync_has_failed) = (self.sync != SyncPolicy::Never, self.sync_has_failed.clone());
                open(Backend { file, syncs, sync_has_failed })?
            }
        };
        Ok(self.database.insert(database))
    }

    /// Commits a batch: all of it, or nothing.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(), Trouble> {
        let write = || self.connect().and_then(|database| write(database, batch).map_err(passing));
        let unfit = |_| Err(Trouble { reason: damaged(UNFIT), is_final: true });
        panic::catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(unfit).map_err(|trouble| {
            self.database = None;
            match self.sync_has_failed.load(Ordering::Relaxed) {
                true => Trouble { is_final: true, reason: format!("{}, on sync", trouble.reason) },
                false => trouble,
            }
        })
    }

    /// Returns whether the database has what was read before it was locked.
    fn is_as_read(&self, items: &Kept) -> Result<bool, Box<dyn Error>> {
        let Some(database) = &self.database else { return Ok(false) };
        let table = database.begin_read()?.open_table(ITEMS)?;
        let top = table.last()?.map(|(number, _)| number.value());
        Ok(table.len()? == items.len() as u64 && top == items.last().map(|(number, _)| *number))
    }
}

/// Returns a reason that may pass.
fn passing(reason: impl ToString) -> Trouble {
    Trouble { reason: reason.to_string(), is_final: false }
}

/// Makes the tables, unless they are there, and notes the format.
fn begin(database: &Database) -> Result<(), Box<dyn Error>> {
    let transaction = database.begin_write()?;
    transaction.open_table(ITEMS)?;
    transaction.open_table(FACTS)?.insert(FORMAT, NEWEST)?;
    Ok(transaction.commit()?)
}

fn write(database: &Database, batch: &Batch) -> Result<(), Box<dyn Error>> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate);
    {
        let mut items = transaction.open_table(ITEMS)?;
        for (number, item) in batch.changes() {
            match item {
                Some(item) => drop(items.insert(number, item.payload())?),
                None => drop(items.remove(number)?),
            }
        }
    }
    Ok(transaction.commit()?)
}

/// Opens a database. A damaged one can make redb panic; that is an error here.
fn open(backend: impl StorageBackend) -> Result<Database, Trouble> {
    let opened = quietly(|| Database::builder().set_cache_size(CACHE).create_with_backend(backend));
    let reason = match opened {
        Ok(Ok(database)) => return Ok(database),
        Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if error.kind() != ErrorKind::InvalidData => {
            return Err(passing(error));
        }
        Ok(Err(error)) => error.to_string(),
        Err(()) => UNFIT.to_owned(),
    };
    Err(Trouble { reason: damaged(&reason), is_final: true })
}

fn damaged(reason: &str) -> String {
    format!("it is damaged ({reason}); take a copy, or another name")
}

/// Calls `f`, and turns a panic into an error, with no word on standard error.
fn quietly<R>(f: impl FnOnce() -> R) -> Result<R, ()> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(AssertUnwindSafe(f)).map_err(drop);
    panic::set_hook(hook);
    result
}

/// Checks that a database is one of pollstack's, and returns its items.
fn check(database: &mut Database) -> Result<Kept, String> {
    match database.check_integrity() {
        Ok(true) => {}
        Ok(false) => return Err(damaged("its last commit does not fit its checksums")), // an older one would do
        Err(error) => return Err(damaged(&error.to_string())),
    }
    let items = || -> Result<Result<Kept, String>, Box<dyn Error>> {
        let transaction = database.begin_read()?;
        let mut tables = transaction.list_tables()?.peekable();
        if tables.peek().is_none() {
            return Ok(Ok(Vec::new())); // a server was killed while it made the file
        }
        if !tables.any(|table| table.name() == FACTS.name()) {
            return Ok(Err("it belongs to another program; take another name".to_owned()));
        }
        let format = transaction.open_table(FACTS)?.get(FORMAT)?.map_or(0, |format| format.value());
        if format > NEWEST {
            return Ok(Err(format!("it has format {format}, of a newer pollstack; this one reads up to {NEWEST}")));
        }
        let table = transaction.open_table(ITEMS)?;
        let mut items = Vec::with_capacity(usize::try_from(table.len()?).unwrap_or(0));
        for entry in table.iter()? {
            let (number, payload) = entry?;
            match Item::new(payload.value()) {
                Some(item) => items.push((number.value(), item)),
                None => return Ok(Err(damaged("an item has no bytes, or too many"))),
            }
        }
        Ok(Ok(items))
    };
    items().unwrap_or_else(|error| Err(damaged(&error.to_string())))
}

/// Locks a file against other processes.
fn lock(file: io::Result<File>) -> Result<FileBackend, String> {
    FileBackend::new(file.map_err(|error| error.to_string())?).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => "another process uses it".to_owned(),
        error => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    fn rejection(make: impl FnOnce(&Database)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        make(&Database::create(&path).unwrap());
        let before = std::fs::read(&path).unwrap();
        let error = DataFile::open(&path, SyncPolicy::Always, 10).unwrap_err();
        assert!(std::fs::read(&path).unwrap() == before, "the file is as it was");
        error
    }

    /// Lost otherwise: a database of another program, or the data of a newer version.
    #[test]
    fn foreign_and_newer_databases_are_rejected() {
        let foreign = rejection(|database| {
            let transaction = database.begin_write().unwrap();
            transaction.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap().insert(1, 2).unwrap();
            transaction.commit().unwrap();
        });
        assert!(foreign.contains("another program"), "{foreign}");
        let newer = rejection(|database| {
            begin(database).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(FACTS).unwrap().insert(FORMAT, 7).unwrap();
            transaction.commit().unwrap();
        });
        assert!(newer.contains("format 7") && newer.contains("up to 1"), "{newer}");
    }

    /// Lost otherwise: a start, behind a server that was killed while it made the file.
    #[test]
    fn a_database_without_tables_is_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        drop(Database::create(&path).unwrap());
        let (mut file, kept) = DataFile::open(&path, SyncPolicy::Always, 10).unwrap();
        file.append(&kept, Item::new(b"first")).unwrap();
        drop(file);
        assert_eq!(DataFile::read(&path).unwrap(), [(1, Item::new(b"first").unwrap())]);
    }

    /// A disk in memory that notes what is done to it.
    #[derive(Debug, Default)]
    struct Disk(Mutex<(Vec<u8>, Vec<Done>)>);

    #[derive(Clone, Debug)]
    enum Done {
        Len(u64),
        Write(u64, Vec<u8>),
        Sync,
        /// So many batches are committed.
        Committed(usize),
    }

    impl Done {
        fn apply(&self, bytes: &mut Vec<u8>) {
            match self {
                Done::Len(len) => bytes.resize(*len as usize, 0),
                Done::Write(offset, data) => {
                    let (from, to) = (*offset as usize, *offset as usize + data.len());
                    bytes.resize(bytes.len().max(to), 0);
                    bytes[from..to].copy_from_slice(data);
                }
                Done::Sync | Done::Committed(_) => {}
            }
        }
    }

    impl Disk {
        fn does(&self, done: Done) {
            let (bytes, all) = &mut *self.0.lock().unwrap();
            done.apply(bytes);
            all.push(done);
        }
    }

    #[derive(Debug)]
    struct Handle(Arc<Disk>);

    impl StorageBackend for Handle {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.0.lock().unwrap().0.len() as u64)
        }

        fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
            Ok(self.0.0.lock().unwrap().0[offset as usize..][..len].to_vec())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.does(Done::Len(len));
            Ok(())
        }

        fn sync_data(&self, _: bool) -> io::Result<()> {
            self.0.does(Done::Sync);
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.does(Done::Write(offset, data.to_vec()));
            Ok(())
        }
    }

    type Items = BTreeMap<u64, Vec<u8>>;

    /// Commits batches of items that come and go, and returns the disk and what there is after each.
    fn commit(batches: &[Vec<u8>]) -> (Vec<Done>, Vec<Items>) {
        let disk = Arc::new(Disk::default());
        let database = Database::builder().create_with_backend(Handle(disk.clone())).unwrap();
        begin(&database).unwrap();
        disk.does(Done::Committed(0));
        let (mut number, mut items, mut after) = (0, Items::new(), vec![Items::new()]);
        for (n, batch) in batches.iter().enumerate() {
            let mut changes = BTreeMap::new();
            for byte in batch {
                number += 1;
                changes.insert(number, Some(Item::new(&[*byte; 40]).unwrap()));
                if byte % 3 == 0 {
                    let top = *changes.keys().chain(items.keys()).max().unwrap();
                    changes.insert(top.saturating_sub(1).max(1), None);
                }
            }
            let changes: Batch = changes.into_iter().collect();
            for (number, item) in changes.changes() {
                match item {
                    Some(item) => drop(items.insert(number, item.payload().to_vec())),
                    None => drop(items.remove(&number)),
                }
            }
            write(&database, &changes).unwrap();
            disk.does(Done::Committed(n + 1));
            after.push(items.clone());
        }
        let done = disk.0.lock().unwrap().1.clone();
        (done, after)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Lost otherwise: an acknowledged item, to a power cut that drops what was not synced, or any part of it.
        #[test]
        fn a_power_cut_leaves_the_last_commit(
            batches in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..6),
            cut in any::<prop::sample::Index>(),
            kept in prop::collection::vec(any::<bool>(), 64),
        ) {
            let (done, after) = commit(&batches);
            let begun = done.iter().position(|done| matches!(done, Done::Committed(_))).unwrap();
            let cut = begun + cut.index(done.len() - begun);
            let synced = done[..cut].iter().rposition(|done| matches!(done, Done::Sync)).unwrap_or(0);
            let mut bytes = Vec::new();
            done[..synced].iter().for_each(|done| done.apply(&mut bytes));
            let some = done[synced..cut].iter().zip(kept.iter().cycle()).filter(|(done, kept)| {
                **kept || matches!(done, Done::Len(_)) // the file system keeps a length before what is behind it
            });
            some.for_each(|(done, _)| done.apply(&mut bytes));
            let mut committed = done[..cut].iter().filter_map(|done| match done {
                Done::Committed(n) => Some(*n),
                _ => None,
            });
            let committed = committed.next_back().unwrap_or(0);
            let disk = Arc::new(Disk(Mutex::new((bytes, Vec::new()))));
            let mut database = open(Handle(disk)).map_err(|error| TestCaseError::fail(error.reason))?;
            let found: Items = check(&mut database).unwrap().into_iter().map(|(n, item)| (n, item.payload().to_vec())).collect();
            let next = after.get(committed + 1);
            prop_assert!(found == after[committed] || Some(&found) == next, "{} batches: {:?}", committed, found);
        }
    }
}
