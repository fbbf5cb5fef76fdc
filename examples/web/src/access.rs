//! The access log, in the common format.

use pollstack::http::{ExchangeId, RejectedRequest, Request, Responder, Status, Version};
use pollstack::net::Peer;
use std::time::SystemTime;

/// The log target of the lines.
pub const TARGET: &str = "access";

/// The part of a log line that is known before the response; `None` if nothing is logged.
pub(crate) fn begin(http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) -> Option<String> {
    if !log::log_enabled!(target: TARGET, log::Level::Debug) {
        return None;
    }
    let version = if request.version() == Version::Http10 { "1.0" } else { "1.1" };
    let (method, target) = (request.method(), request.target().escape_debug());
    Some(format!("{} \"{method} {target} HTTP/{version}\"", origin(http, http.peer(id))))
}

/// Logs a request that the layer has rejected. A dash stands for what is not known of it.
pub(crate) fn rejected(http: &mut Responder<'_>, rejection: &RejectedRequest<'_>) {
    if !log::log_enabled!(target: TARGET, log::Level::Debug) {
        return;
    }
    let origin = origin(http, rejection.peer());
    let target = rejection.target().map(str::escape_debug);
    let line = match (rejection.method(), target) {
        (None, _) => format!("{origin} \"-\""),
        (Some(method), None) => format!("{origin} \"{method} -\""),
        (Some(method), Some(target)) => format!("{origin} \"{method} {target}\""),
    };
    let bytes = if rejection.method() == Some("HEAD") { 0 } else { rejection.bytes() };
    end(&line, rejection.status(), bytes as u64);
}

/// Returns the beginning of a line: who, and when.
fn origin(http: &mut Responder<'_>, peer: Option<Peer>) -> String {
    let peer = match peer {
        Some(Peer::Tcp(address)) => address.ip().to_string(),
        Some(Peer::Unix) => "unix".to_owned(),
        None => "-".to_owned(),
    };
    format!("{peer} - - [{}]", date(http.time()))
}

/// Logs it, now that the reply is known.
pub(crate) fn end(line: &str, status: Status, bytes: u64) {
    match bytes {
        0 => log::debug!(target: TARGET, "{line} {} -", status.code()),
        _ => log::debug!(target: TARGET, "{line} {} {bytes}", status.code()),
    }
}

/// `20/Nov/2026:20:47:28 +0000`, of `Fri, 20 Nov 2026 20:47:28 GMT`.
fn date(time: SystemTime) -> String {
    let text = httpdate::fmt_http_date(time);
    let mut words = text.split(' ').skip(1);
    let mut word = || words.next().unwrap_or_default();
    format!("{}/{}/{}:{} +0000", word(), word(), word(), word())
}
