//! The chat room: one page.

use pollstack::http::{ExchangeId, Exchanges, Request, Status};

pub(crate) struct Page;

impl Page {
    pub(crate) fn new() -> Page {
        Page
    }

    pub(crate) fn reply(&self, http: &mut Exchanges<'_>, id: ExchangeId, _request: &Request<'_>) {
        http.reply(id, Status::OK)
            .header("Content-Type", "text/html; charset=utf-8")
            .body(b"<!DOCTYPE html>\n<title>pubsub</title>\n<p>The chat room is not furnished yet.</p>\n");
    }
}
