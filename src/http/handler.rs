//! The trait that an HTTP application implements.

use super::headers::Headers;
use super::id::{ExchangeId, Outcome};
use super::limits::BODY_BYTES;
use super::rejected_request::RejectedRequest;
use super::request::Request;
use super::responder::Responder;
use super::status::Status;
use crate::service::EofAction;

/// An HTTP application: it answers requests.
///
/// The handler sees requests, one at a time for each connection, and answers them through
/// [`Responder`]: at once, or later, by the id that it was given. It never sees how a request was
/// cut up, whether its connection is kept, or what it costs to send something.
pub trait Handler {
    /// A request has come; its body with it, if it has one that was [collected](Body::Collect).
    ///
    /// A handler may [respond](Responder::respond) now, or later from any callback. Until then the
    /// connection waits, and the client's further requests with it.
    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>);

    /// Decides about the body that follows `request`, which is all there is of it so far. Not
    /// called for requests without one.
    fn body(&mut self, _request: &Request<'_>) -> Body {
        Body::Collect(BODY_BYTES)
    }

    /// Bytes of a [streamed](Body::Stream) body have come, or, behind an
    /// [upgrade](super::Response::upgrade), of whatever is spoken then. Returns how many were taken
    /// from the front, at least if that is all of them; a handler that cannot take all calls
    /// [`Responder::resume`] when it can go on, and until then the client is held back. After an
    /// upgrade, what is left is also offered again with what follows it; if that comes to more than
    /// [`Limits::input`](crate::Limits::input), the connection is closed, unless it is [paused](Responder::pause).
    fn on_data(&mut self, _http: &mut Responder<'_>, _id: ExchangeId, data: &[u8]) -> usize {
        data.len()
    }

    /// All of a [streamed](Body::Stream) body has been taken.
    fn on_data_end(&mut self, _http: &mut Responder<'_>, _id: ExchangeId) {}

    /// All of a streamed response that has been sent so far is the kernel's: there is as much
    /// [room](Responder::send_capacity) as there ever will be.
    fn on_room(&mut self, _http: &mut Responder<'_>, _id: ExchangeId) {}

    /// The deadline set with [`Responder::set_deadline`] has passed. By default the
    /// request is answered with 503 or, if a response has begun, the connection is aborted.
    fn on_deadline(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        http.give_up(id);
    }

    /// The client has ended its half of the connection while its request waits for its response, or
    /// for the end of it. It may only have nothing more to ask, and still read; or it may be gone,
    /// which would show as soon as something is sent to it.
    fn on_eof(&mut self, _http: &mut Responder<'_>, _id: ExchangeId) -> EofAction {
        EofAction::Keep
    }

    /// The exchange is over, and `id` is stale from here on. Called once for every
    /// [`on_request`](Self::on_request).
    fn on_close(&mut self, _http: &mut Responder<'_>, _id: ExchangeId, _outcome: Outcome) {}

    /// The layer rejects a request with a page of its own, see [`RejectedRequest`]: for a log of all responses.
    /// Returns header fields for the response, those for example that let a page of another origin read
    /// it.
    fn on_rejection(&mut self, _http: &mut Responder<'_>, _rejection: &RejectedRequest<'_>) -> Headers {
        Headers::new()
    }

    /// The timer set with [`Responder::set_timer`] has expired.
    fn on_timer(&mut self, _http: &mut Responder<'_>) {}

    /// Another thread has woken the loop, see [`Service::on_wake`](crate::Service::on_wake).
    fn on_wake(&mut self, _http: &mut Responder<'_>) {}

    /// The loop has been asked to stop. Connections without a request have been closed, the others
    /// will be with their response: the time to answer requests that are held open.
    fn on_shutdown(&mut self, _http: &mut Responder<'_>) {}
}

/// The way to treat the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// Hand the request over when all of its body is there, if that is at most so many bytes, and
    /// answer 413 otherwise.
    Collect(usize),
    /// Hand the request over at once, and drop the body. The connection goes with the response if
    /// that is longer than [`Limits::skip`](super::Limits::skip).
    Skip,
    /// Hand the request over at once, and the body [as it comes](Handler::on_data).
    Stream,
    /// Do not hand the request over: answer with this status, and close.
    Reject(Status),
}
