//! The requests that a page of another site makes a browser send are refused.
//!
//! A browser says from which origin a page is that publishes or opens a WebSocket. That has to be
//! this server's own, as the browser knows it, or one that was allowed. And where the server listens
//! on loopback, the Host has to be one of loopback, or allowed: a page of a site whose name suddenly
//! leads to 127.0.0.1 is otherwise of the same origin as this server (DNS rebinding).

use pollstack::http::{Headers, Request};
use pollstack::net::Peer;
use std::net::{IpAddr, Ipv6Addr};

/// The origins and the host names that requests may name.
#[derive(Debug)]
pub struct Guard {
    origins: Vec<(String, Headers)>,
    hosts: Vec<String>,
    /// Whether the server listens on loopback.
    loopback: bool,
}

/// One of the allowed origins, whose pages may also read what is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin(usize);

impl Guard {
    /// A guard that knows these origins and names, of a server that listens on loopback or not.
    pub fn new(origins: &[String], hosts: &[String], loopback: bool) -> Guard {
        let origins = origins.iter().map(|origin| {
            let headers = Headers::new()
                .with("Access-Control-Allow-Origin", origin)
                .with("Access-Control-Expose-Headers", "Last-Event-ID")
                .with("Vary", "Origin");
            (origin.clone(), headers)
        });
        let hosts = hosts.iter().map(|host| without_port(host).to_owned());
        Guard { origins: origins.collect(), hosts: hosts.collect(), loopback }
    }

    /// Returns whether the Host is one that may be asked for. Where the server listens on loopback, only
    /// a page on this machine can have been led astray by another site.
    pub(crate) fn allows_host(&self, request: &Request<'_>, peer: Option<&Peer>) -> bool {
        let checked = self.loopback && peer.is_none_or(is_loopback);
        let host = without_port(request.host());
        !checked || is_loopback_name(host) || self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }

    /// Returns whether it may publish, or open a WebSocket: it does not come from a page of another origin.
    pub(crate) fn allows_origin(&self, request: &Request<'_>) -> bool {
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
    pub(crate) fn origin(&self, request: &Request<'_>) -> Option<Origin> {
        origins(request).next().and_then(|origin| self.find(origin))
    }

    /// The header fields with which a browser lets a page of that origin read the response.
    pub(crate) fn headers(&self, origin: Option<Origin>) -> Option<&Headers> {
        self.origins.get(origin?.0).map(|(_, headers)| headers)
    }

    fn find(&self, origin: &[u8]) -> Option<Origin> {
        let is_it = |(allowed, _): &(String, Headers)| allowed.as_bytes().eq_ignore_ascii_case(origin);
        self.origins.iter().position(is_it).map(Origin)
    }
}

fn origins<'a>(request: &Request<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Origin")).map(|(_, value)| value)
}

/// Returns whether an origin is the host that was asked, behind a proxy with or without encryption. The port
/// that a scheme has by default, a browser leaves out, and a proxy may not.
fn is_own(origin: &[u8], host: &str) -> bool {
    [("http://", ":80"), ("https://", ":443")].iter().any(|(scheme, port)| {
        let Some((front, named)) = origin.split_at_checked(scheme.len()) else { return false };
        let host = host.strip_suffix(port).unwrap_or(host);
        let is_host = !host.is_empty() && named.eq_ignore_ascii_case(host.as_bytes());
        is_host && front.eq_ignore_ascii_case(scheme.as_bytes())
    })
}

fn is_loopback(peer: &Peer) -> bool {
    matches!(peer, Peer::Tcp(address) if address.ip().to_canonical().is_loopback())
}

/// A host without its port, and an IPv6 address without its brackets.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback_name(host: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    match address {
        Some(IpAddr::V4(address)) => address.is_loopback(),
        Some(IpAddr::V6(address)) => address == Ipv6Addr::LOCALHOST,
        None => host.eq_ignore_ascii_case("localhost"),
    }
}
