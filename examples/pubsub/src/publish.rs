//! The message in the body of a request: plain text, a form, or JSON.

use super::hub::Published;
use super::router::Failure;
use pollstack::http::{ExchangeId, Headers, Request, Responder, Status};
use std::borrow::Cow;

/// How much longer than its message a body may be: in a form and in JSON, a byte can be written
/// with up to six.
const ENCODED: usize = 6;

/// Bytes around a message in a form or in JSON.
const AROUND: usize = 1024;

/// Returns how long the body of a message of `limit` bytes can be.
pub(crate) fn body_limit(limit: usize) -> usize {
    limit.saturating_mul(ENCODED).saturating_add(AROUND)
}

/// How the body of a request holds its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Text,
    Form,
    Json,
}

/// Returns what kind of body the head of a request promises. One that would be read as something else than its
/// sender has meant is rejected: another encoding of characters, or a compressed one.
pub(crate) fn media(request: &Request<'_>) -> Result<Media, Failure> {
    let unsupported = |why| Err(Failure::rejected(Status::UNSUPPORTED_MEDIA_TYPE, why));
    let is_plain = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity");
    if !request.header("Content-Encoding").is_none_or(is_plain) {
        return unsupported("A message is not compressed.");
    }
    let value = request.header("Content-Type").unwrap_or(b"text/plain");
    let mut parts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let media = match parts.next().unwrap_or_default().to_ascii_lowercase().as_slice() {
        b"text/plain" => Media::Text,
        b"application/x-www-form-urlencoded" => Media::Form,
        b"application/json" => Media::Json,
        _ => {
            return unsupported("A message is text/plain, application/x-www-form-urlencoded or application/json.");
        }
    };
    match parts.find_map(charset) {
        Some(charset) if !UTF_8.iter().any(|known| charset.eq_ignore_ascii_case(known)) => {
            unsupported("A message is in UTF-8.")
        }
        _ => Ok(media),
    }
}

/// Names of encodings that are UTF-8.
const UTF_8: [&[u8]; 4] = [b"utf-8", b"utf8", b"us-ascii", b"ascii"];

/// Returns the value of a parameter `charset`.
fn charset(parameter: &[u8]) -> Option<&[u8]> {
    let at = parameter.iter().position(|byte| *byte == b'=')?;
    let (name, value) = parameter.split_at(at);
    let value = value.get(1..)?.trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    name.trim_ascii().eq_ignore_ascii_case(b"charset").then_some(value)
}

/// Returns the message that a request is to publish.
pub(crate) fn message<'a>(request: &Request<'a>, limit: usize) -> Result<Cow<'a, str>, Failure> {
    let message = match media(request)? {
        Media::Text => text(request.body())?,
        Media::Form => form(request.body())?,
        Media::Json => json(request.body())?,
    };
    match message.len() {
        len if len > limit => Err(Failure::rejected(Status::CONTENT_TOO_LARGE, "The message is too long.")),
        _ => check(&message).map(|()| message),
    }
}

/// Checks what is said, in whatever form.
pub(crate) fn check(message: &str) -> Result<(), Failure> {
    if message.is_empty() { Err(Failure::bad("The message is empty.")) } else { Ok(()) }
}

/// Answers a request whose message is published.
pub(crate) fn reply(http: &mut Responder<'_>, id: ExchangeId, published: Published, headers: Option<&Headers>) {
    let text = format!(r#"{{"id":{},"subscribers":{}}}"#, published.id, published.subscribers);
    let mut reply = http.respond(id, Status::OK).header("Content-Type", "application/json");
    if let Some(headers) = headers {
        reply = reply.headers(headers);
    }
    reply.body(text.as_bytes());
}

fn text(body: &[u8]) -> Result<Cow<'_, str>, Failure> {
    std::str::from_utf8(body).map(Cow::Borrowed).map_err(|_| Failure::bad("The message is not UTF-8."))
}

/// Returns the field `message` of a form (URL Standard, section 5.1). Bytes that are not UTF-8 are an error, not
/// replaced.
fn form(body: &[u8]) -> Result<Cow<'_, str>, Failure> {
    let pairs = body.split(|byte| *byte == b'&').map(|pair| match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (decoded(&pair[..at]), decoded(&pair[at + 1..])),
        None => (decoded(pair), Vec::new()),
    });
    let message = pairs.into_iter().find(|(name, _)| name == b"message").map(|(_, value)| value);
    let message = message.ok_or_else(|| Failure::bad("The form has no field called message."))?;
    String::from_utf8(message).map(Cow::Owned).map_err(|_| Failure::bad("The message is not UTF-8."))
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_encoding::percent_decode(&spaced).collect()
}

fn json(body: &[u8]) -> Result<Cow<'_, str>, Failure> {
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|_| Failure::bad("The body is not JSON."))?;
    match value.get("message") {
        Some(serde_json::Value::String(message)) => Ok(Cow::Owned(message.clone())),
        _ => Err(Failure::bad("The JSON has no text called message.")),
    }
}
