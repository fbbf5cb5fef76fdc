//! Virtual hosts: whose files a request is about.

use super::folder::Folder;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The longest name that a host can have (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 255;

/// How long a root is taken to be what is at its path. A release that is put in its place is seen after that.
const ROOT_FRESH: Duration = Duration::from_secs(1);

/// The hosts, each with its root.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    roots: Vec<Root>,
    /// By the name as [`normal`] writes it.
    names: HashMap<Box<str>, usize>,
    default: Option<usize>,
}

/// The root of a host: the folder at a path, whatever that is at the time.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    /// The line of the configuration that names it.
    pub(crate) line: usize,
    /// Absent if there was none when it was looked for.
    folder: Option<Folder>,
    /// When it was looked for.
    checked: Option<Instant>,
}

impl Root {
    pub(crate) fn new(path: PathBuf, line: usize) -> Root {
        Root { path, line, folder: None, checked: None }
    }

    /// Opens the folder.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(&mut self) -> io::Result<()> {
        self.folder = Some(Folder::open(&self.path)?);
        Ok(())
    }

    /// Looks whether there is another folder at the path, if it is time to. Returns whether there is, or no
    /// folder any more.
    pub(crate) fn refresh(&mut self, now: Instant) -> bool {
        if self.checked.is_some_and(|checked| now < checked + ROOT_FRESH) {
            return false;
        }
        self.checked = Some(now);
        match Folder::open(&self.path) {
            Ok(folder) => {
                let is_other = self.folder.as_ref().is_none_or(|known| !known.is_same(&folder));
                if is_other {
                    self.folder = Some(folder);
                }
                is_other
            }
            Err(error) => {
                let was_there = self.folder.take().is_some();
                if was_there {
                    log::error!("the root {}: {error}; it is looked for at every request", self.path.display());
                }
                was_there
            }
        }
    }

    /// Returns the folder that was there when it was looked for.
    ///
    /// # Errors
    /// `NotFound` if there was none.
    pub(crate) fn folder(&self) -> io::Result<&Folder> {
        self.folder.as_ref().ok_or(ErrorKind::NotFound.into())
    }
}

impl Hosts {
    pub(crate) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.roots.len()
    }

    pub(crate) fn roots(&mut self) -> &mut [Root] {
        &mut self.roots
    }

    /// Adds a host; `default` stands for all that have not been named.
    pub(crate) fn add(&mut self, name: &str, root: Root) -> Result<(), String> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        let is_name = name.bytes().all(fits) && without_port(name) == name && name.len() <= MAX_NAME;
        if !is_name {
            return Err(format!("`{name}` is no host; write a name or an address, without a port"));
        }
        let index = self.roots.len();
        let mut room = [0; MAX_NAME];
        let earlier = match normal(name, &mut room) {
            Some("default") => self.default.replace(index),
            Some(name) => self.names.insert(name.into(), index),
            None => return Err(format!("`{name}` is no host; write a name or an address")),
        };
        self.roots.push(root);
        earlier.map_or(Ok(()), |_| Err(format!("there is a host {name} already")))
    }

    /// Returns the host that the client wants to speak to: its number, and its root.
    pub(crate) fn find(&mut self, authority: &str) -> Option<(usize, &mut Root)> {
        let mut room = [0; MAX_NAME];
        let name = normal(without_port(authority), &mut room);
        let index = name.and_then(|name| self.names.get(name)).copied().or(self.default)?;
        self.roots.get_mut(index).map(|root| (index, root))
    }
}

/// Returns the one way to write a name: in lower case, without the dot of the DNS root, and an IPv6 address
/// in its shortest form. `None` if that is longer than a name can be.
fn normal<'a>(name: &str, room: &'a mut [u8; MAX_NAME]) -> Option<&'a str> {
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok());
    let shortest = address.map(|address| format!("[{address}]"));
    let name = shortest.as_deref().unwrap_or(name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let room = room.get_mut(..name.len())?;
    room.copy_from_slice(name.as_bytes());
    room.make_ascii_lowercase();
    std::str::from_utf8(room).ok()
}

/// A host without the port behind it. An IPv6 address is in brackets, and has colons of its own.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}
