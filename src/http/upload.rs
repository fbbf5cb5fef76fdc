//! The body of a request: collected, streamed or read past.

use super::connection::{Collected, Connection, Sink};
use super::framing::{Framing, Length};
use super::handler::Handler;
use super::id::ExchangeId;
use super::request::{Fields, Request};
use super::service::{CONTINUE, Http};
use super::status::{Rejection, Status};
use crate::context::Context;

const TOO_LARGE: Rejection = Rejection::new(Status::CONTENT_TOO_LARGE, "The request's body is too long.");

/// The room that a collected body has before any of it has come.
const BODY_GUESS: usize = 64 * 1024;

impl<H: Handler> Http<H> {
    /// Hands a request over with its body if that is there already, and waits for it otherwise.
    #[expect(clippy::too_many_arguments, reason = "all are parts of one request")]
    pub(super) fn collect(
        &mut self,
        cx: &mut Context<'_>,
        key: usize,
        request: &Request<'_>,
        framing: Framing,
        head: &[u8],
        rest: &[u8],
        limit: usize,
    ) -> Result<usize, Rejection> {
        let mut guess = BODY_GUESS.min(limit);
        if let Length::Known(length) = framing.length {
            let length = usize::try_from(length).ok().filter(|length| *length <= limit).ok_or(TOO_LARGE)?;
            if let Some(body) = rest.get(..length) {
                self.core.connection(key).into_iter().for_each(Connection::await_response);
                self.hand_over(cx, key, &request.with_body(body));
                return Ok(length);
            }
            guess = guess.min(length);
        }
        let collected = Collected { head: head.to_vec(), body: Vec::with_capacity(guess), limit };
        self.read_body(cx, key, framing, Sink::Collect(Box::new(collected)), rest);
        Ok(0)
    }

    /// Reads a body, of which `rest` has come. A client that waits before it sends one is told to go
    /// ahead.
    pub(super) fn read_body(&mut self, cx: &mut Context<'_>, key: usize, framing: Framing, sink: Sink, rest: &[u8]) {
        let Some(connection) = self.core.connection(key) else { return };
        connection.read_body(framing.length, sink);
        if framing.expects_continue && rest.is_empty() && cx.send(connection.id(), CONTINUE).is_ok() {
            connection.sent();
        }
    }

    /// Reads past a body. A client that waits with it may or may not send it when it has its
    /// response, so its connection cannot be kept; nor is that worth a long body.
    pub(super) fn skip(&mut self, key: usize, framing: Framing) {
        let limit = self.core.limits.skip;
        let Some(connection) = self.core.connection(key) else { return };
        let long = matches!(framing.length, Length::Known(length) if length > limit);
        match long || framing.expects_continue {
            true => connection.discard(),
            false => connection.read_body(framing.length, Sink::Skip(limit)),
        }
    }

    /// Takes bytes of a body. Returns how many.
    pub(super) fn data(&mut self, cx: &mut Context<'_>, key: usize, data: &[u8]) -> usize {
        let id = self.core.current(key);
        let Some(connection) = self.core.connection(key) else { return 0 };
        connection.progress(cx.now());
        let Some((decoder, sink)) = connection.body() else { return 0 };
        match (sink, id) {
            (Sink::Collect(collected), _) => {
                if data.len() > collected.limit - collected.body.len() {
                    self.reject(cx, key, TOO_LARGE, b"");
                    return data.len();
                }
                collected.body.extend_from_slice(data);
                decoder.take(data.len());
            }
            (Sink::Stream, Some(id)) => return self.stream(cx, key, id, data),
            (Sink::Stream, None) => decoder.take(data.len()),
            (Sink::Skip(left), _) => {
                decoder.take(data.len());
                match left.checked_sub(data.len() as u64) {
                    Some(rest) => *left = rest,
                    None => self.give_up_skipping(cx, key),
                }
            }
        }
        data.len()
    }

    /// Ends a connection whose body is too long to be read past, now or with its response.
    fn give_up_skipping(&mut self, cx: &mut Context<'_>, key: usize) {
        let Some(connection) = self.core.connection(key) else { return };
        connection.discard();
        if connection.exchange().is_none() {
            cx.finish_lingering(connection.id());
        }
    }

    /// Offers bytes of a body to the handler. Returns how many it took.
    fn stream(&mut self, cx: &mut Context<'_>, key: usize, id: ExchangeId, data: &[u8]) -> usize {
        let taken = self.call_handler(cx, |handler, http| handler.on_data(http, id, data)).min(data.len());
        let Some(connection) = self.core.connection(key) else { return taken };
        match connection.body() {
            Some((decoder, _)) => decoder.take(taken),
            None => return taken, // it has been rejected meanwhile
        }
        if taken == 0 && connection.exchange() == Some(id) {
            connection.pause(true);
            cx.pause(connection.id());
            return 0;
        }
        self.tell_ended(cx);
        taken
    }

    /// Goes on behind a body, all of which has come.
    pub(super) fn body_end(&mut self, cx: &mut Context<'_>, key: usize) {
        let id = self.core.current(key);
        let Some(connection) = self.core.connection(key) else { return };
        match (connection.body_end(cx.now()), id) {
            (Some(Sink::Collect(collected)), _) => self.hand_over_collected(cx, key, &collected),
            (Some(Sink::Stream), Some(id)) => {
                self.call_handler(cx, |handler, http| handler.on_data_end(http, id));
                self.tell_ended(cx);
            }
            _ => {}
        }
    }

    fn hand_over_collected(&mut self, cx: &mut Context<'_>, key: usize, collected: &Collected) {
        let mut fields = Fields::new();
        match Request::parse(&collected.head, &mut fields, &self.core.limits) {
            Ok((request, _)) => {
                let peer = self.core.connection(key).and_then(|connection| cx.peer(connection.id()));
                self.hand_over(cx, key, &request.with_peer(peer).with_body(&collected.body));
            }
            Err(rejection) => self.reject(cx, key, rejection, &collected.head), // it has been parsed before
        }
    }
}
