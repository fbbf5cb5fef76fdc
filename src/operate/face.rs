//! The HTTP half: requests are parsed and checked here, and carried out by the [service](super::Operated), which
//! has the stack.

use crate::http::{Body, ExchangeId, Guard, Handler, Outcome, Request, Responder, Status};
use crate::service::EofAction;
use crate::stack::wire::MAX_ITEM;
use std::collections::VecDeque;
use std::time::Duration;

/// The longest time that a request may ask to wait.
const LONGEST: u64 = 24 * 60 * 60;

/// The most clients that are told of at once: a page of the oldest takes less than a millisecond.
const MOST_CLIENTS: usize = 1000;

/// How many clients are told of if a request does not say how many.
pub(super) const CLIENTS: usize = 200;

/// A request that is well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Push(Vec<u8>, Option<Duration>),
    Pop(Option<Duration>),
    Stack,
    /// So many clients, the oldest.
    Clients(usize),
    /// Close the connection with this number.
    Disconnect(u64),
    Metrics,
    /// Whether the server answers.
    Health,
    /// The live page, and the events that it lives by.
    Page,
    Events,
}

/// Something that has happened, in its order.
#[derive(Debug)]
pub(super) enum News {
    Asked(ExchangeId, Ask),
    /// Its time is over.
    Late(ExchangeId),
    Ended(ExchangeId),
    Stopping,
}

/// The handler.
#[derive(Debug)]
pub(super) struct Face {
    guard: Guard,
    pub(super) news: VecDeque<News>,
}

/// The paths, and the methods of each.
const PATHS: [(&str, &str); 8] = [
    ("/", "GET, HEAD"),
    ("/clients", "GET, HEAD"),
    ("/events", "GET"),
    ("/healthz", "GET, HEAD"),
    ("/metrics", "GET, HEAD"),
    ("/pop", "POST"),
    ("/push", "POST"),
    ("/stack", "GET, HEAD"),
];

impl Face {
    pub(super) fn new(guard: Guard) -> Face {
        Face { guard, news: VecDeque::new() }
    }

    /// Returns what is asked for, or the status of the rejection, its reason, and the methods that there are.
    fn parse(&self, request: &Request<'_>) -> Result<Ask, (Status, &'static str, &'static str)> {
        let reject = |status, why| Err((status, why, ""));
        if !self.guard.allows_host(request) {
            return reject(Status::FORBIDDEN, "This server does not go by that name.");
        }
        let is_read = matches!(request.method(), "GET" | "HEAD");
        if !is_read && !self.guard.allows_origin(request) {
            return reject(Status::FORBIDDEN, "Pages of other origins may not do that.");
        }
        if let Some(number) = request.path().strip_prefix("/clients/") {
            return match (request.method(), number.strip_prefix('#').unwrap_or(number).parse()) {
                ("DELETE", Ok(number)) => Ok(Ask::Disconnect(number)),
                ("DELETE", Err(_)) => reject(Status::BAD_REQUEST, "The number of a client is a number."),
                _ => Err((Status::METHOD_NOT_ALLOWED, "A client can be deleted.", "DELETE")),
            };
        }
        let Some((path, methods)) = PATHS.iter().find(|(path, _)| *path == request.path()) else {
            return reject(Status::NOT_FOUND, "There is nothing here.");
        };
        if !methods.split(", ").any(|method| method == request.method()) {
            return Err((Status::METHOD_NOT_ALLOWED, "That cannot be done to it.", methods));
        }
        match *path {
            "/push" => match request.body() {
                [] => reject(Status::BAD_REQUEST, "An item has 1 to 127 bytes."),
                body => Ok(Ask::Push(body.to_vec(), timeout(request)?)),
            },
            "/pop" => Ok(Ask::Pop(timeout(request)?)),
            "/clients" => Ok(Ask::Clients(limit(request)?)),
            "/metrics" => Ok(Ask::Metrics),
            "/healthz" => Ok(Ask::Health),
            "/events" => Ok(Ask::Events),
            "/" => Ok(Ask::Page),
            _ => Ok(Ask::Stack),
        }
    }
}

/// Returns how long a request may wait; `None` for as long as it takes.
fn timeout(request: &Request<'_>) -> Result<Option<Duration>, (Status, &'static str, &'static str)> {
    const WRONG: &str = "A timeout is a number of seconds up to a day.";
    let Some(value) = parameter(request, "timeout=") else { return Ok(None) };
    let seconds = value.parse::<u64>().ok().filter(|seconds| *seconds <= LONGEST);
    seconds.map(|seconds| Some(Duration::from_secs(seconds))).ok_or((Status::BAD_REQUEST, WRONG, ""))
}

/// Returns how many clients a request asks for.
fn limit(request: &Request<'_>) -> Result<usize, (Status, &'static str, &'static str)> {
    const WRONG: &str = "A limit is a number of clients from 1 to 1000.";
    let Some(value) = parameter(request, "limit=") else { return Ok(CLIENTS) };
    let limit = value.parse().ok().filter(|limit| (1..=MOST_CLIENTS).contains(limit));
    limit.ok_or((Status::BAD_REQUEST, WRONG, ""))
}

/// Returns the value of a parameter of the query; `name` ends with the equals sign.
fn parameter<'a>(request: &Request<'a>, name: &str) -> Option<&'a str> {
    request.query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix(name))
}

impl Handler for Face {
    fn body(&mut self, request: &Request<'_>) -> Body {
        match (request.method(), request.path()) {
            ("POST", "/push") if self.guard.allows_host(request) && self.guard.allows_origin(request) => {
                Body::Collect(MAX_ITEM)
            }
            _ => Body::Skip,
        }
    }

    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        match self.parse(request) {
            Ok(ask) => self.news.push_back(News::Asked(id, ask)),
            Err((status, why, methods)) => {
                let reply = http.respond(id, status).header("Content-Type", "text/plain; charset=utf-8");
                let reply = if methods.is_empty() { reply } else { reply.header("Allow", methods) };
                reply.body(format!("{why}\n").as_bytes());
            }
        }
    }

    fn on_deadline(&mut self, _: &mut Responder<'_>, id: ExchangeId) {
        self.news.push_back(News::Late(id));
    }

    /// A client that waits and ends its half is taken for gone, as one of the other protocol is.
    fn on_eof(&mut self, _: &mut Responder<'_>, _: ExchangeId) -> EofAction {
        EofAction::Abort
    }

    fn on_close(&mut self, _: &mut Responder<'_>, id: ExchangeId, _: Outcome) {
        self.news.push_back(News::Ended(id));
    }

    fn on_shutdown(&mut self, _: &mut Responder<'_>) {
        self.news.push_back(News::Stopping);
    }
}
