//! Virtual hosts: whose files a request is about.

use super::folder::Folder;
use std::collections::HashMap;

/// The longest name that a host can have (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 255;

/// The hosts, each with its root.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    folders: Vec<Folder>,
    /// By the name in lower case.
    names: HashMap<Box<[u8]>, usize>,
    default: Option<usize>,
}

impl Hosts {
    pub(crate) fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.folders.len()
    }

    /// Adds a host; `default` stands for all that have not been named.
    pub(crate) fn add(&mut self, name: &str, folder: Folder) -> Result<(), String> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        let is_name = name.bytes().all(fits) && without_port(name) == name && name.len() <= MAX_NAME;
        if !is_name {
            return Err(format!("`{name}` is no host; write a name or an address, without a port"));
        }
        let index = self.folders.len();
        let earlier = match name {
            "default" => self.default.replace(index),
            _ => self.names.insert(name.to_ascii_lowercase().into_bytes().into(), index),
        };
        self.folders.push(folder);
        earlier.map_or(Ok(()), |_| Err(format!("there is a host {name} already")))
    }

    /// Returns the host that the client wants to speak to: its number, and its root.
    pub(crate) fn find(&self, authority: &str) -> Option<(usize, &Folder)> {
        let name = without_port(authority);
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let mut lower = [0; MAX_NAME];
        let lower = lower.get_mut(..name.len()).map(|lower| {
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            &*lower
        });
        let index = lower.and_then(|lower| self.names.get(lower)).copied().or(self.default)?;
        self.folders.get(index).map(|folder| (index, folder))
    }
}

/// A host without the port behind it. An IPv6 address is in brackets, and has colons of its own.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}
