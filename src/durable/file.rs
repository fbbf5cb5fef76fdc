//! The file: how it is opened and checked, and a commit to it.

use super::Sync;
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

/// The items of a file, from the bottom to the top, each with its number.
pub type Kept = Vec<(u64, Item)>;

/// A data file that is open, and locked against other processes.
#[derive(Debug)]
pub struct DataFile {
    path: PathBuf,
    sync: Sync,
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
    pub fn open(path: &Path, sync: Sync, capacity: usize) -> Result<(DataFile, Kept), String> {
        let is_new = std::fs::metadata(path).map_or(true, |file| file.is_file() && file.len() == 0);
        let items = if is_new { Vec::new() } else { read(path)? };
        if items.len() > capacity {
            return Err(format!("it holds {} items, more than --capacity {capacity}", items.len()));
        }
        let mut file =
            DataFile { path: path.to_owned(), sync, database: None, sync_has_failed: Arc::new(AtomicBool::new(false)) };
        file.connect().map_err(|trouble| trouble.reason)?;
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
        read(path)
    }

    /// Puts items on top of those that are there, all of them or none.
    ///
    /// # Errors
    /// The reason why they are not there.
    pub fn append(&mut self, kept: &Kept, items: impl IntoIterator<Item = Item>) -> Result<(), String> {
        let above = kept.last().map_or(1, |(number, _)| number + 1);
        let batch = (above..).zip(items).collect();
        self.commit(&batch).map_err(|trouble| trouble.reason)
    }

    /// Opens the database, unless it is open.
    fn connect(&mut self) -> Result<(), Trouble> {
        if self.database.is_some() {
            return Ok(());
        }
        let passing = |reason: String| Trouble { reason, is_final: false };
        let file = lock(OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path))
            .map_err(passing)?;
        let (syncs, sync_has_failed) = (self.sync != Sync::Never, self.sync_has_failed.clone());
        let backend = Backend { file, syncs, sync_has_failed };
        let database = open(backend).map_err(|error| Trouble { is_final: error.is_damage, reason: error.reason })?;
        let begin = || -> Result<(), Box<dyn Error>> {
            let transaction = database.begin_write()?;
            transaction.open_table(ITEMS)?;
            transaction.open_table(FACTS)?.insert(FORMAT, NEWEST)?;
            Ok(transaction.commit()?)
        };
        begin().map_err(|error| passing(error.to_string()))?;
        self.database = Some(database);
        Ok(())
    }

    /// Commits a batch: all of it, or nothing.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(), Trouble> {
        let result = self.connect().and_then(|()| self.write(batch));
        result.map_err(|trouble| {
            self.database = None;
            match self.sync_has_failed.load(Ordering::Relaxed) {
                true => Trouble { is_final: true, reason: format!("{}, on sync", trouble.reason) },
                false => trouble,
            }
        })
    }

    fn write(&self, batch: &Batch) -> Result<(), Trouble> {
        let Some(database) = &self.database else { return Ok(()) }; // it is open
        let write = || -> Result<(), Box<dyn Error>> {
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
        };
        write().map_err(|error| Trouble { reason: error.to_string(), is_final: false })
    }
}

/// A reason why a database cannot be opened.
struct CannotOpen {
    reason: String,
    is_damage: bool,
}

/// Opens a database. A damaged one can make redb panic; that is an error here.
fn open(backend: impl StorageBackend) -> Result<Database, CannotOpen> {
    let opened = quietly(|| Database::builder().set_cache_size(CACHE).create_with_backend(backend));
    let reason = match opened {
        Ok(Ok(database)) => return Ok(database),
        Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if error.kind() != ErrorKind::InvalidData => {
            return Err(CannotOpen { reason: error.to_string(), is_damage: false });
        }
        Ok(Err(error)) => error.to_string(),
        Err(()) => "its parts do not fit".to_owned(),
    };
    Err(CannotOpen { reason: damaged(&reason), is_damage: true })
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

/// Reads the items of a file, and changes nothing of it.
///
/// # Errors
/// As [`DataFile::open`].
fn read(path: &Path) -> Result<Kept, String> {
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
    let mut database = open(glass).map_err(|error| error.reason)?;
    match quietly(|| check(&mut database)) {
        Ok(result) => result,
        Err(()) => Err(damaged("its parts do not fit")),
    }
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
        let is_ours = transaction.list_tables()?.any(|table| table.name() == FACTS.name());
        if !is_ours {
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
