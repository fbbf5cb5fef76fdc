//! Long polls: messages as a JSON array.
//!
//! The answer to `GET /channels/<name>/poll?after=N` is an array of `{"id":…,"data":"…"}`. If there
//! may have been messages that are not held any more, its first element has no `data` but says so:
//! `{"id":…,"gap":{"after":N,"oldest":…}}`. In any case the `id` of the last element is what to ask
//! for next; the header `Last-Event-ID` says the same, also in a `204`, for who has asked without
//! `after`. An answer is bounded: there may be more behind it.

use super::message::Message;
use super::router::Failure;
use super::start::Gap;
use pollstack::http::{ExchangeId, Headers, Responder, Response, Status};

/// The description of a gap.
pub(crate) fn gap(gap: Gap) -> String {
    let Gap { after, oldest } = gap;
    format!(r#"{{"id":{},"gap":{{"after":{after},"oldest":{oldest}}}}}"#, gap.id())
}

/// The text that tells a WebSocket why its message is not published.
pub(crate) fn error(why: &Failure) -> String {
    let why = match why {
        Failure::Rejected(_, why, _) => why,
        Failure::Broken(_) => "Something is wrong with the server.",
    };
    serde_json::json!({ "error": why }).to_string()
}

/// An array of what there is, in about so many bytes, and the id of the last in it; `None` if there
/// is nothing.
pub(crate) fn arrays<'a>(
    told: Option<Gap>,
    messages: impl Iterator<Item = &'a Message>,
    limit: usize,
) -> Option<(Vec<u8>, u64)> {
    let mut array = Vec::new();
    let mut last = None;
    if let Some(told) = told {
        array.extend_from_slice(gap(told).as_bytes());
        last = Some(told.id());
    }
    for message in messages {
        if last.is_some() {
            if array.len() + message.json().len() > limit {
                break;
            }
            array.push(b',');
        }
        array.extend_from_slice(message.json());
        last = Some(message.id);
    }
    array.insert(0, b'[');
    array.push(b']');
    last.map(|last| (array, last))
}

/// Begins an answer, behind which the client asks for what comes after `last`.
pub(crate) fn reply<'a>(
    http: &'a mut Responder<'_>,
    id: ExchangeId,
    status: Status,
    headers: Option<&Headers>,
    last: u64,
) -> Response<'a> {
    let reply = http.respond(id, status).header("Cache-Control", "no-store").header("Last-Event-ID", last.to_string());
    let reply = if status == Status::OK { reply.header("Content-Type", "application/json") } else { reply };
    match headers {
        Some(headers) => reply.headers(headers),
        None => reply,
    }
}
