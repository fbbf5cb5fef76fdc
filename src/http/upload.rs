//! The body of a request: collected, streamed or read past.

use super::body::Decoder;
use super::connection::{Collected, Reading, Sink};
use super::exchange::ExchangeId;
use super::framing::{Framing, Length};
use super::handler::Handler;
use super::head::Search;
use super::request::{Fields, Request};
use super::service::{CONTINUE, Http};
use super::status::{Rejection, Status};
use crate::context::Context;
use std::mem;

const TOO_LARGE: Rejection = Rejection::new(Status::CONTENT_TOO_LARGE, "The request's body is too long.");

/// The room that a collected body has before any of it has come.
const BODY_GUESS: usize = 64 * 1024;

impl<H: Handler> Http<H> {
    /// Hands a request over with its body if that is there already, and waits for it otherwise.
    #[expect(clippy::too_many_arguments, reason = "what is known of one request")]
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
                self.connection(key).reading = Reading::AwaitingResponse;
                self.hand_over(cx, key, &request.with_body(body));
                return Ok(length);
            }
            guess = guess.min(length);
        }
        let collected = Collected { head: head.to_vec(), body: Vec::with_capacity(guess), limit };
        let sink = Sink::Collect(Box::new(collected));
        self.connection(key).reading = Reading::Body(Decoder::new(framing.length), sink);
        self.go_ahead(cx, key, framing, rest);
        Ok(0)
    }

    /// Lets the client send its body, if it waits for that and has not begun to.
    pub(super) fn go_ahead(&mut self, cx: &mut Context<'_>, key: usize, framing: Framing, rest: &[u8]) {
        let connection = self.connection(key);
        if framing.expects_continue && rest.is_empty() {
            connection.drained &= cx.send(connection.id, CONTINUE).is_err();
        }
    }

    /// Reads past a body. A client that waits with it may or may not send it when it has its
    /// reply, so its connection cannot be kept; nor is that worth a long body.
    pub(super) fn skip(&mut self, key: usize, framing: Framing) {
        let limit = self.core.limits.skip;
        let connection = self.connection(key);
        let long = matches!(framing.length, Length::Known(length) if length > limit);
        if long || framing.expects_continue {
            connection.keep_alive = false;
            connection.reading = Reading::Discarding;
        } else {
            connection.reading = Reading::Body(Decoder::new(framing.length), Sink::Skip(limit));
        }
    }

    /// Bytes of a body. Returns how many were taken.
    pub(super) fn data(&mut self, cx: &mut Context<'_>, key: usize, data: &[u8]) -> usize {
        let id = self.core.current(key);
        let connection = self.connection(key);
        connection.since = cx.now();
        let Reading::Body(decoder, sink) = &mut connection.reading else { return 0 };
        match (sink, id) {
            (Sink::Collect(collected), _) => {
                if data.len() > collected.limit - collected.body.len() {
                    self.core.refuse(cx, key, TOO_LARGE);
                    return data.len();
                }
                collected.body.extend_from_slice(data);
                decoder.take(data.len());
                data.len()
            }
            (Sink::Stream, Some(id)) => self.stream(cx, key, id, data),
            (Sink::Stream | Sink::Skip(_), None) | (Sink::Skip(_), Some(_)) => {
                decoder.take(data.len());
                self.dropped(cx, key, data.len());
                data.len()
            }
        }
    }

    /// Counts what has been dropped of a body; too much of it ends the connection.
    fn dropped(&mut self, cx: &mut Context<'_>, key: usize, n: usize) {
        let connection = self.connection(key);
        let Reading::Body(_, Sink::Skip(left)) = &mut connection.reading else { return };
        match left.checked_sub(n as u64) {
            Some(rest) => *left = rest,
            None => {
                connection.keep_alive = false;
                connection.reading = Reading::Discarding;
                if connection.exchange == 0 {
                    cx.finish_lingering(connection.id);
                }
            }
        }
    }

    /// Bytes of a body for the handler.
    fn stream(&mut self, cx: &mut Context<'_>, key: usize, id: ExchangeId, data: &[u8]) -> usize {
        let taken = self.call_handler(cx, |handler, http| handler.on_data(http, id, data)).min(data.len());
        let connection = self.connection(key);
        match &mut connection.reading {
            Reading::Body(decoder, _) => decoder.take(taken),
            _ => return taken, // it has been refused meanwhile
        }
        if taken == 0 && connection.exchange == id.serial {
            connection.paused = true;
            cx.pause(connection.id);
            return 0;
        }
        self.settle(cx);
        taken
    }

    /// The whole body has come.
    pub(super) fn body_end(&mut self, cx: &mut Context<'_>, key: usize) {
        let id = self.core.current(key);
        let connection = self.connection(key);
        let next = if id.is_none() { Reading::Head(Search::default()) } else { Reading::AwaitingResponse };
        connection.since = cx.now();
        match (mem::replace(&mut connection.reading, next), id) {
            (Reading::Body(_, Sink::Collect(collected)), _) => {
                connection.reading = Reading::AwaitingResponse;
                self.hand_over_collected(cx, key, &collected);
            }
            (Reading::Body(_, Sink::Stream), Some(id)) => {
                self.call_handler(cx, |handler, http| handler.on_data_end(http, id));
                self.settle(cx);
            }
            _ => {}
        }
    }

    fn hand_over_collected(&mut self, cx: &mut Context<'_>, key: usize, collected: &Collected) {
        let mut fields = Fields::new();
        match Request::parse(&collected.head, &mut fields, &self.core.limits) {
            Ok((request, _)) => self.hand_over(cx, key, &request.with_body(&collected.body)),
            Err(rejection) => self.core.refuse(cx, key, rejection), // it has been parsed before
        }
    }
}
