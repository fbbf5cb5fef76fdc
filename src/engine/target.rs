//! Where an engine is, and who asks it.

use super::security::{self, Client, Network};
use crate::net::Address;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;

/// The port of Redis.
const PORT: u16 = 6379;

/// The longest name of a stack.
const LONGEST_NAME: usize = 64;

/// An engine, and the name of what it shares: `redis://[USER@]HOST[:PORT][,HOST[:PORT]…]/NAME`; with `rediss://` its
/// connections are encrypted, where `tls` is built in.
///
/// The hosts are those of one engine, of which one at a time takes writes.
#[derive(Clone)]
pub struct Target {
    text: String,
    is_encrypted: bool,
    /// Whom to trust, once that has been read.
    client: Option<Client>,
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
        let secure = text.strip_prefix("rediss://");
        if secure.is_some() && cfg!(not(feature = "tls")) {
            return Err("there is no TLS in this build; use redis:// and a tunnel");
        }
        let rest = secure.or_else(|| text.strip_prefix("redis://")).ok_or("write redis://HOST:PORT/NAME")?;
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
        let (text, user, name) = (text.to_owned(), user.map(str::to_owned), name.to_owned());
        Ok(Target { text, is_encrypted: secure.is_some(), client: None, hosts, user, password: None, name })
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

    /// Reads the certificates of the authorities of the engine, and a certificate with its key for an engine that asks
    /// for one: for `rediss://`, and for no other target.
    ///
    /// # Errors
    /// A text: a file is missing, or wrong.
    pub fn with_tls(mut self, authorities: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Target, String> {
        if !self.is_encrypted && (authorities.is_some() || own.is_some()) {
            return Err(format!("--engine {self}: --engine-ca and --engine-cert are for TLS; write rediss://"));
        }
        if let Some(authorities) = authorities {
            let client = security::load(authorities, own);
            self.client = Some(client.map_err(|error| format!("--engine-ca, --engine-cert, --engine-key: {error}"))?);
        }
        self.client().map_err(|error| format!("--engine {self}: {error}"))?;
        Ok(self)
    }

    /// Looks up the addresses, in order; the certificate at each has to hold for its host. This may take seconds.
    ///
    /// # Errors
    /// A text that names the host that is not known, or says that TLS lacks its [files](Self::with_tls).
    pub fn addresses(&self) -> Result<Vec<Address>, String> {
        let client = self.client()?;
        let mut found = Vec::new();
        for (host, port) in &self.hosts {
            let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
            found.extend(addresses.map(|address| (Address::Tcp(address), host.as_str())));
        }
        if let Some(client) = client {
            security::set_names(client, &found)?;
        }
        let found: Vec<Address> = found.into_iter().map(|(address, _)| address).collect();
        if found.is_empty() { Err("its host has no address".to_owned()) } else { Ok(found) }
    }

    /// Returns whether a host is a name, whose addresses may change.
    pub(super) fn has_names(&self) -> bool {
        self.hosts.iter().any(|(host, _)| host.parse::<IpAddr>().is_err())
    }

    /// Makes a network for the loop of a server with a link to this engine.
    ///
    /// # Errors
    /// The system's, if it has no descriptor to spare.
    pub fn network(&self) -> io::Result<Network> {
        security::network(self.client().map_err(io::Error::other)?)
    }

    /// Returns the configuration of TLS to the engine, if it is asked for.
    pub(super) fn client(&self) -> Result<Option<&Client>, String> {
        match &self.client {
            None if self.is_encrypted => {
                Err("it cannot be verified; name the certificate of its authority: --engine-ca FILE".to_owned())
            }
            client => Ok(client.as_ref()),
        }
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
            "redis://a,/x",
        ] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
        assert_eq!("rediss://a/x".parse::<Target>().is_ok(), cfg!(feature = "tls"));
    }

    /// Lost otherwise: a password, to an engine that is not verified, or over a link that an operator takes for encrypted.
    #[test]
    #[cfg(feature = "tls")]
    fn tls_is_used_as_it_is_asked_for_or_rejected() {
        let with_tls =
            |url: &str, file: Option<&str>| url.parse::<Target>().unwrap().with_tls(file.map(Path::new), None);
        assert!(with_tls("redis://a/x", None).is_ok_and(|target| target.client().is_ok_and(|client| client.is_none())));
        assert!(with_tls("redis://a/x", Some("ca.pem")).is_err_and(|error| error.contains("rediss://")));
        assert!(with_tls("rediss://a/x", None).is_err_and(|error| error.contains("--engine-ca FILE")));
        assert!(with_tls("rediss://a/x", Some("no-such.pem")).is_err_and(|error| error.contains("no-such.pem")));
        assert!("rediss://127.0.0.1/x".parse::<Target>().unwrap().addresses().is_err(), "its files are missing");
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/ca.pem");
        assert!(
            with_tls("rediss://a/x", Some(file))
                .is_ok_and(|target| target.client().is_ok_and(|client| client.is_some()))
        );
    }
}
