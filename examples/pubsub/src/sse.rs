//! Server-sent events (HTML, section 9.2): the text of a stream.
//!
//! A stream begins with `retry:`, how long to wait before coming back, and with the id of the last
//! message before it, so that who is disconnected before the first one does not miss any. A gap is
//! an event of its own, with an id to go on from:
//!
//! ```text
//! event: gap
//! id: 1790000000000041
//! data: {"after":1790000000000007,"oldest":1790000000000042}
//! ```

use super::start::{Gap, Start};
use std::fmt::Write;

/// A comment, which keeps proxies from closing a silent stream. No empty line follows it: some clients would
/// deliver an empty message.
pub(crate) const HEARTBEAT: &[u8] = b":\n";

/// A message: a field for each of its lines, whose end may be LF, CR or both. So nothing in it can
/// become another field, or another event.
pub(crate) fn event(id: u64, text: &str) -> Vec<u8> {
    let mut event = format!("id: {id}\n");
    event.reserve(text.len() + 16);
    let mut rest = text;
    loop {
        let end = rest.find(['\r', '\n']);
        event.extend(["data: ", &rest[..end.unwrap_or(rest.len())], "\n"]);
        let Some(end) = end else { break };
        let len = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + len..];
    }
    event.push('\n');
    event.into_bytes()
}

/// Returns how a stream begins.
pub(crate) fn opening(start: Start, retry: u64) -> String {
    let mut text = format!("retry: {retry}\n: hello\n");
    match start.gap {
        Some(gap) => text.push_str(&gap_event(gap)),
        None => {
            let _ = write!(text, "id: {}\n\n", start.next.saturating_sub(1)); // a string takes everything
        }
    }
    text
}

fn gap_event(gap: Gap) -> String {
    let Gap { after, oldest } = gap;
    format!("event: gap\nid: {}\ndata: {{\"after\":{after},\"oldest\":{oldest}}}\n\n", gap.id())
}

/// Returns how a stream ends when the server does.
pub(crate) fn farewell(retry: u64) -> String {
    format!("retry: {retry}\n\n")
}
