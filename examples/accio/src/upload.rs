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
        let mut last = 0;
        for entry in fs::read_dir(path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".file")?.parse::<u32>().ok());
            last = last.max(number.unwrap_or(0).into());
        }
        drop(temporary(path)?); // a folder that cannot be written is an error at the start
        Ok(Folder { path: path.to_owned(), last })
    }

    fn next(&mut self) -> io::Result<Saved> {
        self.last += 1;
        let path = self.path.join(format!("{}.file", self.last));
        Ok(Saved { file: temporary(&self.path)?, path })
    }
}

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
    /// Gives it its name. A file that has that name already stays.
    fn keep(self) -> io::Result<File> {
        Ok(self.file.persist_noclobber(self.path)?)
    }

    /// Keeps the word `ERROR` in the place of what has come.
    fn keep_error(mut self) -> io::Result<File> {
        self.file.as_file().set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(b"ERROR")?;
        self.keep()
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

    /// The file is whole.
    pub fn finish(self) -> io::Result<Received> {
        self.saved.map(Saved::keep).transpose()?;
        Ok(Received { bytes: self.bytes, digest: self.digest.map(|digest| digest.finalize().into()) })
    }

    /// The file will not be whole.
    pub fn fail(self) -> io::Result<()> {
        self.saved.map(Saved::keep_error).transpose().map(drop)
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
