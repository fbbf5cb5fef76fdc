//! A message, and how it looks on each transport: made once, when the first subscriber needs it, and
//! shared by all of them.

use super::{sse, websocket};
use serde_json::Value;
use std::cell::OnceCell;
use std::rc::Rc;

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: u64,
    pub(crate) text: Box<str>,
    event: OnceCell<Rc<[u8]>>,
    array: OnceCell<Rc<[u8]>>,
    frame: OnceCell<Rc<[u8]>>,
}

impl Message {
    pub(crate) fn new(id: u64, text: &str) -> Message {
        let (event, array, frame) = Default::default();
        Message { id, text: text.into(), event, array, frame }
    }

    /// As a server-sent event.
    pub(crate) fn event(&self) -> &Rc<[u8]> {
        self.event.get_or_init(|| sse::event(self.id, &self.text).into())
    }

    /// As the only one in the answer to a long poll.
    pub(crate) fn array(&self) -> &Rc<[u8]> {
        self.array.get_or_init(|| array(self.id, &self.text).into())
    }

    /// As one of several in such an answer.
    pub(crate) fn json(&self) -> &[u8] {
        let array = self.array();
        array.get(1..array.len().saturating_sub(1)).unwrap_or_default()
    }

    /// As a frame of a WebSocket.
    pub(crate) fn frame(&self) -> &Rc<[u8]> {
        self.frame.get_or_init(|| websocket::text_frame(self.json()).into())
    }
}

/// Returns a JSON array of one message.
fn array(id: u64, text: &str) -> Vec<u8> {
    format!(r#"[{{"id":{id},"data":{}}}]"#, Value::from(text)).into_bytes()
}
