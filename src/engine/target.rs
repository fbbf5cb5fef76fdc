//! Where an engine is, and who asks it.

use crate::net::Address;
use std::fmt;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::str::FromStr;

/// The port of Redis.
const PORT: u16 = 6379;

/// The longest name of a stack.
const LONGEST_NAME: usize = 64;

/// An engine, and the name of what it shares: `redis://[USER@]HOST[:PORT][,HOST[:PORT]…]/NAME`.
///
/// The hosts are those of one engine, of which one at a time takes writes. They are looked up once, at the start.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    text: String,
    hosts: Vec<(String, u16)>,
    user: Option<String>,
    password: Option<String>,
    name: String,
}

/// The password is not shown.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.text).finish()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Target, Self::Err> {
        if text.starts_with("rediss://") {
            return Err("there is no TLS to the engine; use redis:// and a tunnel");
        }
        let rest = text.strip_prefix("redis://").ok_or("write redis://HOST:PORT/NAME")?;
        let (authority, name) = rest.split_once('/').ok_or("the name is missing: redis://HOST:PORT/NAME")?;
        let (user, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        if user.is_some_and(|user| user.contains(':')) {
            return Err("a password does not belong here: it is in a file, or a variable");
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
            return Err("a name has 1 to 64 letters, digits, dots, hyphens and underscores");
        }
        let hosts = hosts.split(',').map(host).collect::<Result<_, _>>()?;
        let user = user.map(str::to_owned);
        Ok(Target { text: text.to_owned(), hosts, user, password: None, name: name.to_owned() })
    }
}

/// Reads `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
fn host(text: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = match text.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) => (host, port.parse().map_err(|_| "the port is not one of 1 to 65535")?),
        None => (text, PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || port == 0 { Err("write redis://HOST:PORT/NAME") } else { Ok((host.to_owned(), port)) }
}

impl Target {
    /// Reads the password: the first line of a file, or the variable `POLLSTACK_ENGINE_PASSWORD` if there is none.
    ///
    /// # Errors
    /// A text: the file cannot be read.
    pub fn with_password(self, file: Option<&Path>) -> Result<Target, String> {
        let password = match file {
            None => std::env::var("POLLSTACK_ENGINE_PASSWORD").ok().filter(|password| !password.is_empty()),
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| format!("--engine-password-file {}: {error}", path.display()))?;
                text.lines().next().map(str::to_owned)
            }
        };
        Ok(Target { password, ..self })
    }

    /// Looks up the addresses, in order. This may take seconds.
    ///
    /// # Errors
    /// A text that names the host that is not known.
    pub fn addresses(&self) -> Result<Vec<Address>, String> {
        let mut found = Vec::new();
        for (host, port) in &self.hosts {
            let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
            found.extend(addresses.map(Address::Tcp));
        }
        if found.is_empty() { Err("its host has no address".to_owned()) } else { Ok(found) }
    }

    /// Returns the beginning of all keys and channels: they share a hash tag, and so a node of a cluster.
    pub fn prefix(&self) -> String {
        format!("{{pollstack:{}}}:", self.name)
    }

    /// Returns the arguments of HELLO.
    pub(super) fn hello(&self) -> Vec<&[u8]> {
        let mut words: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &self.password {
            words.extend([&b"AUTH"[..], self.user.as_deref().unwrap_or("default").as_bytes(), password.as_bytes()]);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost otherwise: an edge that shares another stack than its operator wrote, or a password in a list of processes.
    #[test]
    fn targets_are_read() {
        let target: Target = "redis://ann@a:1,[::1]:2,b/jobs.1".parse().unwrap();
        assert_eq!(target.hosts, [("a".to_owned(), 1), ("::1".to_owned(), 2), ("b".to_owned(), PORT)]);
        assert_eq!((target.user.as_deref(), target.prefix().as_str()), (Some("ann"), "{pollstack:jobs.1}:"));
        assert_eq!(target.to_string(), "redis://ann@a:1,[::1]:2,b/jobs.1");
        let secret = Target { password: Some("hush".to_owned()), ..target };
        assert!(!format!("{secret:?} {secret}").contains("hush"));
        for wrong in [
            "redis://a",
            "redis://a/",
            "a:1/x",
            "redis:///x",
            "redis://a:0/x",
            "redis://a:b/x",
            "redis://a/x{y",
            "redis://ann:hush@a/x",
            "rediss://a/x",
            "redis://a,/x",
        ] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
