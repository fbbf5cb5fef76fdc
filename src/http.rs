//! HTTP/1.1 for services (RFC 9110 and 9112), without any I/O.
//!
//! A [`Handler`] is given whole requests and answers them, at once or whenever it likes, by the
//! [id](ExchangeId) of their exchange. [`Http`] makes a [`Service`](crate::Service) of it:
//!
//! ```
//! use pollstack::http::{Clock, ExchangeId, Responder, Handler, Http, Request, Status};
//! use pollstack::{EventLoop, ListenerConfig};
//!
//! struct Hello;
//!
//! impl Handler for Hello {
//!     fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
//!         match request.path() {
//!             "/" => http.respond(id, Status::OK).header("Content-Type", "text/plain").body(b"hello, world\n"),
//!             _ => http.respond(id, Status::NOT_FOUND).error_page(),
//!         }
//!     }
//! }
//!
//! let clock = Clock::system();
//! let mut server = EventLoop::new(Http::new(Hello, clock))?;
//! let listener = server.listen(ListenerConfig::new("127.0.0.1:0".parse()?))?;
//! println!("listening on {}", server.addresses(listener)?[0]);
//! # let handle = server.handle()?;
//! # std::thread::spawn(move || handle.stop(std::time::Duration::ZERO));
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Requests
//!
//! One request of a connection is handed over at a time; the next, which may have come already,
//! when the response to it is complete. So responses are in the order of requests, and a handler that
//! takes its time holds back only that client. It decides about a [`Body`] when it
//! has seen the head: have it collected up to a length, streamed, read past, or reject it.
//!
//! A request that is malformed, or could be read in two ways, is answered with a page, and the connection is
//! closed: there is no telling where the next request would begin.
//!
//! | status | for |
//! | --- | --- |
//! | 400 | a request line, target or field that is not one; a bare CR or LF; a folded line; space before a colon; no Host, more than one, or one that cannot be; a Content-Length that is not a number, more than one, or one beside a Transfer-Encoding; a Transfer-Encoding that does not end in `chunked`, or in HTTP/1.0; chunks, chunk extensions or trailer fields that are none; the end of the stream in a request |
//! | 408 | a head that is not complete in time, a request that brings nothing for too long |
//! | 413, 414, 431 | a body, a request line, a head or a number of fields beyond its limit |
//! | 417 | an expectation other than `100-continue` |
//! | 500 | a response of the handler's that cannot be sent |
//! | 501 | `CONNECT`, a method longer than any, or another transfer coding beside `chunked` |
//! | 503 | a request whose handler has let its own deadline pass |
//! | 505 | a version other than 1.x |
//!
//! # Responses
//!
//! [`Responder::respond`] begins one, and the content sends it: [in one piece](Response::body),
//! [shared](Response::shared), [a file's](Response::file), [as it comes](Response::stream) under
//! backpressure, or [another protocol](Response::upgrade). No line break can get into a header field.

mod body;
mod clock;
mod connection;
mod exchange;
mod extension;
mod framing;
mod guard;
mod handler;
mod head;
mod headers;
mod id;
mod limits;
mod rejected_request;
mod request;
mod responder;
mod response;
mod response_head;
mod service;
mod status;
mod syntax;
mod upload;
mod version;

pub use self::clock::Clock;
pub use self::guard::{Allowed, Guard, Host, Origin};
pub use self::handler::{Body, Handler};
pub use self::headers::Headers;
pub use self::id::{ExchangeId, Outcome};
pub use self::limits::{
    BODY_BYTES, BODY_TIME, HEAD_BYTES, HEAD_TIME, HEADERS, IDLE_TIME, LINE_BYTES, Limits, READ_TIME, SKIP_BYTES,
    STALL_TIME,
};
pub use self::rejected_request::RejectedRequest;
pub use self::request::Request;
pub use self::responder::Responder;
pub use self::response::{BUSY, Response};
pub use self::service::{Conn, Http};
pub use self::status::Status;
pub use self::version::Version;
