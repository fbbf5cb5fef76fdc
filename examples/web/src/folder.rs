//! A root, and files beneath it.

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How often an open is tried again that failed because something was moved meanwhile.
#[cfg(target_os = "linux")]
const TRIES: usize = 16;

/// A folder out of which nothing leads.
///
/// Files are opened beneath it in one step where the kernel can do that (Linux 5.6), so there is no
/// moment between a check and an open at which a link could be put in place. Links that stay
/// beneath the root are followed then, also by absolute paths. Elsewhere the path is walked name by name,
/// and no link is.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    /// The device and inode.
    identity: (u64, u64),
    /// There is no way but to walk.
    walks: bool,
}

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    /// The system's; `PermissionDenied` for one that may not be searched.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let fd = rustix::fs::open(path, folder_flags(), Mode::empty())?;
        let status = rustix::fs::statat(&fd, ".", AtFlags::empty())?; // fails if it may not be searched
        let walks = !has_one_step(&fd);
        Ok(Folder { fd, path: path.to_owned(), identity: (status.st_dev, status.st_ino), walks })
    }

    /// Returns whether it is the same folder, under whatever name.
    pub(crate) fn is_same(&self, other: &Folder) -> bool {
        self.identity == other.identity
    }

    /// Returns the same folder, as if the kernel could not do it in one step.
    pub fn walking(self) -> Folder {
        Folder { walks: true, ..self }
    }

    /// Looks at what is at `path`, which has no empty names and none that leads upwards. Nothing is opened:
    /// a folder need not be readable, and the writer of a pipe sees no reader come and go.
    ///
    /// # Errors
    /// The system's.
    pub fn look(&self, path: &[u8]) -> io::Result<Metadata> {
        self.open_beneath(path, LOOK | OFlags::CLOEXEC)?.metadata()
    }

    /// Opens the file at `path`.
    ///
    /// # Errors
    /// The system's.
    pub fn file(&self, path: &[u8]) -> io::Result<File> {
        // If something else has taken its place: a pipe would block without the first one, a terminal
        // become ours without the second.
        self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC)
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> io::Result<File> {
        if self.walks {
            return Ok(walk(&self.fd, path, flags)?.into());
        }
        let opened = one_step(&self.fd, path, flags);
        match opened {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::XDEV.raw_os_error()) => {
                let path = self.resolve(path).ok_or(error)?;
                Ok(one_step(&self.fd, &path, flags)?.into())
            }
            opened => Ok(opened?.into()),
        }
    }

    /// Follows all links of a path on which a link leaves the root, or is absolute. Returns the path to what
    /// they lead to, if each of them leads to something beneath the root. It is opened beneath the root as
    /// any other path is, so nothing is lost if the links change meanwhile.
    fn resolve(&self, path: &[u8]) -> Option<Vec<u8>> {
        let root = self.path.canonicalize().ok()?;
        let mut at = root.clone();
        for name in path.split(|byte| *byte == b'/') {
            at = at.join(OsStr::from_bytes(name)).canonicalize().ok().filter(|at| at.starts_with(&root))?;
        }
        Some(at.strip_prefix(root).ok()?.as_os_str().as_bytes().to_vec())
    }
}

/// The flag for a descriptor that only names a file, where there is one.
#[cfg(target_os = "linux")]
const LOOK: OFlags = OFlags::PATH;

#[cfg(not(target_os = "linux"))]
const LOOK: OFlags = OFlags::NONBLOCK;

#[cfg(target_os = "linux")]
fn folder_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

#[cfg(not(target_os = "linux"))]
fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// Returns whether the kernel has `openat2`, and nothing forbids it.
fn has_one_step(root: &OwnedFd) -> bool {
    one_step(root, b".", folder_flags()).is_ok()
}

#[cfg(target_os = "linux")]
fn one_step(root: &OwnedFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    use rustix::fs::{ResolveFlags, openat2};
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(root, path, flags, Mode::empty(), resolve);
    let mut tries = (0..TRIES).map(|_| open());
    // It cannot be sure if something was moved meanwhile, and says so.
    let moved =
        |result: &Result<OwnedFd, rustix::io::Errno>| result.as_ref().is_err_and(|e| *e == rustix::io::Errno::AGAIN);
    let opened = tries.find(|result| !moved(result)).unwrap_or(Err(rustix::io::Errno::AGAIN))?;
    Ok(opened)
}

#[cfg(not(target_os = "linux"))]
fn one_step(_: &OwnedFd, _: &[u8], _: OFlags) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Opens name by name, none of which may be a link.
fn walk(root: &OwnedFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let mut names = path.split(|byte| *byte == b'/').peekable();
    let mut folder: Option<OwnedFd> = None;
    while let Some(name) = names.next() {
        if name == b".." {
            break;
        }
        let flags = if names.peek().is_some() { folder_flags() } else { flags };
        let from = folder.as_ref().unwrap_or(root);
        let next = rustix::fs::openat(from, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        if names.peek().is_none() {
            return Ok(next);
        }
        folder = Some(next);
    }
    Err(rustix::io::Errno::XDEV.into())
}
