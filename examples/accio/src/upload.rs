//! A file on its way in: counted, and, if that is wanted, saved and digested. Never held in memory.

use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The folder that files are saved in, by number: `1.file`, `2.file` and so on.
pub struct Folder {
    path: PathBuf,
    /// The number of the file saved last.
    last: u64,
}

impl Folder {
    /// A folder for files to come. Their numbers follow those of the files that are there.
    pub fn open(path: &Path) -> io::Result<Folder> {
        drop(temporary(path)?); // a folder that cannot be written is an error at the start
        Ok(Folder { path: path.to_owned(), last: highest(path)? })
    }

    fn next(&mut self) -> io::Result<Saved> {
        let path = self.next_path();
        Ok(Saved { file: temporary(&self.path)?, path })
    }

    fn next_path(&mut self) -> PathBuf {
        self.last += 1;
        self.path.join(format!("{}.file", self.last))
    }

    /// Returns the next path behind all files that are there: another server may save in the same folder.
    fn free_path(&mut self) -> io::Result<PathBuf> {
        self.last = self.last.max(highest(&self.path)?);
        Ok(self.next_path())
    }
}

/// The highest number that is taken for one of ours. There is always a next one.
const MAX_NUMBER: u64 = u64::MAX / 2;

/// Returns the highest number of a file in a folder.
fn highest(folder: &Path) -> io::Result<u64> {
    let mut highest = 0;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".file")?.parse().ok());
        highest = highest.max(number.filter(|number| *number <= MAX_NUMBER).unwrap_or(0));
    }
    Ok(highest)
}

/// How often a file is given another name because a file has taken the last one meanwhile.
const NAMES: usize = 100;

/// A file under a temporary name, which is removed unless it gets another. Only a
/// process that is killed leaves one behind.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".accio-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
}

/// A file under its temporary name, and its name to be.
struct Saved {
    file: NamedTempFile,
    path: PathBuf,
}

impl Saved {
    /// Gives it its name, or, if a file has taken that meanwhile, the next one that is free in `folder`.
    fn keep(mut self, folder: &mut Folder) -> io::Result<File> {
        for _ in 0..NAMES {
            match self.file.persist_noclobber(&self.path) {
                Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists => {
                    let path = folder.free_path()?;
                    log::warn!("{} is taken; the file is saved as {}", self.path.display(), path.display());
                    self = Saved { file: taken.file, path };
                }
                kept => return Ok(kept?),
            }
        }
        Err(io::Error::other("other programs take every number in the folder"))
    }

    /// Keeps the word `ERROR` in the place of what has come.
    fn keep_error(mut self, folder: &mut Folder) -> io::Result<File> {
        self.file.as_file().set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(b"ERROR")?;
        self.keep(folder)
    }
}

/// One file.
pub struct Upload {
    bytes: u64,
    digest: Option<Sha256>,
    saved: Option<Saved>,
}

impl Upload {
    /// Returns the next file, which is saved if there is a folder for it.
    pub fn new(folder: Option<&mut Folder>, digest: bool) -> io::Result<Upload> {
        let saved = folder.map(Folder::next).transpose()?;
        Ok(Upload { bytes: 0, digest: digest.then(Sha256::new), saved })
    }

    /// Takes what has come of the file.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(saved) = &mut self.saved {
            saved.file.write_all(bytes)?;
        }
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// The file is whole. It is kept in the folder that it was begun for.
    pub fn finish(self, folder: Option<&mut Folder>) -> io::Result<Received> {
        self.saved.zip(folder).map(|(saved, folder)| saved.keep(folder)).transpose()?;
        Ok(Received { bytes: self.bytes, digest: self.digest.map(|digest| digest.finalize().into()) })
    }

    /// The file will not be whole.
    pub fn fail(self, folder: Option<&mut Folder>) -> io::Result<()> {
        self.saved.zip(folder).map(|(saved, folder)| saved.keep_error(folder)).transpose().map(drop)
    }
}

/// A whole file: its length, and its SHA-256 digest if that was wanted.
pub struct Received {
    bytes: u64,
    digest: Option<[u8; 32]>,
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes)?;
        if let Some(digest) = &self.digest {
            f.write_str(" ")?;
            digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}
