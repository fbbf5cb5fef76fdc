//! The message in the body of a request: plain text, a form, or JSON.

use super::router::Failure;
use pollstack::http::{Request, Status};
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

/// Returns the message that a request is to publish.
pub(crate) fn message<'a>(request: &Request<'a>, limit: usize) -> Result<Cow<'a, str>, Failure> {
    let media = request.header("Content-Type").unwrap_or(b"text/plain");
    let media = media.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let message = match &media[..] {
        b"text/plain" => text(request.body())?,
        b"application/x-www-form-urlencoded" => form(request.body())?,
        b"application/json" => json(request.body())?,
        _ => {
            let why = "A message is text/plain, application/x-www-form-urlencoded or application/json.";
            return Err(Failure::refused(Status::UNSUPPORTED_MEDIA_TYPE, why));
        }
    };
    match message.len() {
        0 => Err(Failure::bad("The message is empty.")),
        len if len > limit => Err(Failure::refused(Status::CONTENT_TOO_LARGE, "The message is too long.")),
        _ => Ok(message),
    }
}

fn text(body: &[u8]) -> Result<Cow<'_, str>, Failure> {
    std::str::from_utf8(body).map(Cow::Borrowed).map_err(|_| Failure::bad("The message is not UTF-8."))
}

fn form(body: &[u8]) -> Result<Cow<'_, str>, Failure> {
    let field = form_urlencoded::parse(body).find(|(name, _)| name == "message");
    field.map(|(_, value)| value).ok_or_else(|| Failure::bad("The form has no field called message."))
}

fn json(body: &[u8]) -> Result<Cow<'_, str>, Failure> {
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|_| Failure::bad("The body is not JSON."))?;
    match value.get("message") {
        Some(serde_json::Value::String(message)) => Ok(Cow::Owned(message.clone())),
        _ => Err(Failure::bad("The JSON has no text called message.")),
    }
}
