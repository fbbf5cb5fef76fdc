//! A listening Unix domain socket, and the file that goes with it.

use super::{FileRights, SocketOptions};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The file of a listening Unix domain socket. It is removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// The device and inode of the file, so that no other file in its place is removed.
    identity: (u64, u64),
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`. A socket that a dead server left there is replaced. One that a server has bound is in
/// use, even if that does not listen yet.
pub(super) fn listen(path: &Path, options: &SocketOptions) -> io::Result<(UnixListener, SocketFile)> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != ErrorKind::AddrInUse {
            return Err(error);
        }
        let _lock = lock(path)?;
        replace(path, &address, &socket, error)?;
    }
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    set_rights(path, options.file)?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok((OwnedFd::from(socket).into(), file))
}

/// The owners come first: the mode may take away the right to change them.
fn set_rights(path: &Path, rights: FileRights) -> io::Result<()> {
    let cannot = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| io::Error::new(error.kind(), format!("cannot set {what} of the socket: {error}"))
    };
    if rights.user.is_some() || rights.group.is_some() {
        chown(path, rights.user, rights.group).map_err(cannot("the owner"))?;
    }
    match rights.mode {
        Some(mode) => fs::set_permissions(path, Permissions::from_mode(mode)).map_err(cannot("the mode")),
        None => Ok(()),
    }
}

/// Binds `socket` in the place of a dead one. `in_use` is the error if that is not dead.
fn replace(path: &Path, address: &SockAddr, socket: &Socket, in_use: io::Error) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is not a socket"));
        }
        Ok(_) if is_bound(address)? => return Err(in_use),
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {} // it has gone meanwhile
        Err(error) => return Err(error),
    }
    socket.bind(address)
}

/// How often the lock is tried, and how long each try waits: a server that is just starting holds it for
/// far less than a second.
const LOCK_TRIES: u32 = 100;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// Makes sure that no other server replaces a socket in the same folder at the same time: both could find
/// the dead one, and the second would remove the first one's. The lock is a name in Linux's abstract namespace,
/// which goes with its process and leaves no file behind. Elsewhere there is no lock.
fn lock(path: &Path) -> io::Result<Option<Socket>> {
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = fs::metadata(folder)?;
    let name = SockAddr::unix(format!("\0pollstack-{:x}-{:x}", folder.dev(), folder.ino()))?;
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    for _ in 0..LOCK_TRIES {
        match socket.bind(&name) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => thread::sleep(LOCK_WAIT),
            result => return result.map(|()| Some(socket)),
        }
    }
    Err(io::Error::new(ErrorKind::AddrInUse, "another server is being started in this folder, and does not go on"))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Returns whether a process has bound the socket at an address. It is asked with a socket of another kind,
/// which the system does not let in: a server sees no client come and go.
fn is_bound(address: &SockAddr) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    probe.set_nonblocking(true)?;
    Ok(!probe.connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
}
