//! A root, and files beneath it.

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::File;
use std::io;
use std::path::Path;

/// How often an open is tried again that failed because something was moved meanwhile.
#[cfg(target_os = "linux")]
const TRIES: usize = 16;

/// A folder out of which nothing leads.
///
/// Files are opened beneath it in one step where the kernel can do that (Linux 5.6), so there is no
/// moment between a check and an open at which a link could be put in place. Links that stay
/// beneath the root are followed then. Elsewhere the path is walked name by name, and no link is.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
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
        rustix::fs::statat(&fd, ".", AtFlags::empty())?; // whether it may be searched
        let walks = !has_one_step(&fd);
        Ok(Folder { fd, walks })
    }

    /// Returns the same folder, as if the kernel could not do it in one step.
    pub fn walking(self) -> Folder {
        Folder { walks: true, ..self }
    }

    /// Opens what is at `path`, which has no empty names and none that leads upwards.
    ///
    /// # Errors
    /// The system's.
    pub fn file(&self, path: &[u8]) -> io::Result<File> {
        // A pipe would block without the first one, a terminal become ours without the second.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = if self.walks { walk(&self.fd, path, flags)? } else { one_step(&self.fd, path, flags)? };
        Ok(File::from(fd))
    }
}

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
