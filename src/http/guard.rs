//! The requests that a page of another site makes a browser send are rejected.
//!
//! A browser says from which origin a page is that publishes or opens a WebSocket. That has to be
//! this server's own, as the browser knows it, or one that was allowed. And where the server listens
//! on loopback, the Host has to be one of loopback, or allowed: a page of a site whose name suddenly
//! leads to 127.0.0.1 is otherwise of the same origin as this server (DNS rebinding).

use super::headers::Headers;
use super::request::Request;
use crate::net::Peer;
use std::net::{IpAddr, Ipv6Addr};

/// The origins and the host names that requests may name.
#[derive(Debug)]
pub struct Guard {
    origins: Vec<(Origin, Headers)>,
    hosts: Vec<Host>,
    /// Whether the server listens on loopback.
    loopback: bool,
}

/// The origin of a page: a scheme and a host, in lower case and without the scheme's own port (RFC 6454).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

/// The name of a host, without a port: in lower case, without the dot of the DNS root, and an IPv6 address
/// without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

/// One of the allowed origins, whose pages may also read what is answered.
#[derive(Clone, Copy, Debug)]
pub struct Allowed(usize);

/// The schemes of pages, and the ports that they have if none is named.
const SCHEMES: [(&str, &str); 2] = [("http://", ":80"), ("https://", ":443")];

impl Origin {
    /// Parses an origin as browsers write it: no path, not even a slash, and no user.
    ///
    /// # Errors
    /// A text that says how it is written.
    pub fn parse(text: &str) -> Result<Origin, &'static str> {
        Origin::of(text).ok_or("an origin is http://HOST or https://HOST, perhaps with a port; there are no patterns")
    }

    fn of(text: &str) -> Option<Origin> {
        let text = text.to_ascii_lowercase();
        let (scheme, port) = SCHEMES.iter().find(|(scheme, _)| text.starts_with(scheme))?;
        let authority = text.strip_prefix(scheme)?;
        let authority = authority.strip_suffix(port).unwrap_or(authority);
        is_authority(authority).then(|| Origin(format!("{scheme}{authority}")))
    }
}

impl Host {
    /// Parses the name of a host, or its address. A port behind it is left out.
    ///
    /// # Errors
    /// A text that says how it is written.
    pub fn parse(text: &str) -> Result<Host, &'static str> {
        let fits = is_authority(text).then(|| Host::of(text)).filter(|host| !host.0.is_empty());
        fits.ok_or("a host is a name or an address, without a scheme; there are no patterns")
    }

    fn of(text: &str) -> Host {
        let name = match text.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => text.split(':').next().unwrap_or_default(),
        };
        Host(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase())
    }

    fn is_loopback(&self) -> bool {
        match self.0.parse() {
            Ok(IpAddr::V4(address)) => address.is_loopback(),
            Ok(IpAddr::V6(address)) => address == Ipv6Addr::LOCALHOST,
            Err(_) => self.0 == "localhost",
        }
    }
}

/// Returns whether it is a name or an address, perhaps with a port: nothing that would need another one, and no
/// pattern.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

impl Guard {
    /// A guard that knows these origins and names, of a server that listens on loopback or not. If there are
    /// names, requests for others are rejected on all addresses.
    pub fn new(origins: &[Origin], hosts: &[Host], loopback: bool) -> Guard {
        let origins = origins.iter().map(|origin| {
            let headers = Headers::new()
                .with("Access-Control-Allow-Origin", &origin.0)
                .with("Access-Control-Expose-Headers", "Last-Event-ID")
                .with("Vary", "Origin");
            (origin.clone(), headers)
        });
        Guard { origins: origins.collect(), hosts: hosts.to_vec(), loopback }
    }

    /// Returns whether the Host is one that may be asked for. Where the server listens on loopback, only
    /// a page on this machine can have been led astray by another site.
    pub fn allows_host(&self, request: &Request<'_>) -> bool {
        let from_here = self.loopback && request.peer().as_ref().is_none_or(is_loopback);
        if self.hosts.is_empty() && !from_here {
            return true;
        }
        let host = Host::of(request.host());
        host.is_loopback() || self.hosts.contains(&host)
    }

    /// Returns whether it may publish, or open a WebSocket: it does not come from a page of another origin.
    pub fn allows_origin(&self, request: &Request<'_>) -> bool {
        let mut named = false;
        for origin in origins(request) {
            named = true;
            if !is_own(origin, request.host()) && self.find(origin).is_none() {
                return false;
            }
        }
        let foreign = matches!(request.header("Sec-Fetch-Site"), Some(b"cross-site" | b"same-site"));
        named || !foreign
    }

    /// Returns the allowed origin that it comes from, if it comes from one.
    pub fn origin(&self, request: &Request<'_>) -> Option<Allowed> {
        origins(request).next().and_then(|origin| self.find(origin))
    }

    /// The header fields with which a browser lets a page of that origin read the response.
    pub fn headers(&self, origin: Option<Allowed>) -> Option<&Headers> {
        self.origins.get(origin?.0).map(|(_, headers)| headers)
    }

    /// Returns the allowed origin with this name.
    pub fn find(&self, origin: &[u8]) -> Option<Allowed> {
        let origin = Origin::of(std::str::from_utf8(origin).ok()?)?;
        self.origins.iter().position(|(allowed, _)| *allowed == origin).map(Allowed)
    }
}

fn origins<'a>(request: &Request<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Origin")).map(|(_, value)| value)
}

/// Returns whether an origin is the host that was asked, behind a proxy with or without encryption. The port
/// that a scheme has by default, a browser leaves out, and a proxy may not.
fn is_own(origin: &[u8], host: &str) -> bool {
    SCHEMES.iter().any(|(scheme, port)| {
        let Some((front, named)) = origin.split_at_checked(scheme.len()) else { return false };
        let host = host.strip_suffix(port).unwrap_or(host);
        let is_host = !host.is_empty() && named.eq_ignore_ascii_case(host.as_bytes());
        is_host && front.eq_ignore_ascii_case(scheme.as_bytes())
    })
}

fn is_loopback(peer: &Peer) -> bool {
    matches!(peer, Peer::Tcp(address) if address.ip().to_canonical().is_loopback())
}
