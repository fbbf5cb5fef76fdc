//! The protocols of clients with a connection a request: one request of the
//! stack, in the words of each server.

/// The protocol of a server that can do a stack's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Ours. The server closes.
    Stack,
    /// `LPUSH` and `BLPOP` of a list, as commands in arrays. The client closes.
    Redis,
    /// `put`, and `reserve` with the `delete` that has to follow. The client closes.
    Beanstalk,
}

/// A request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Push,
    Pop,
    /// To say nothing before it has been rejected, and then to push. (Ours only.)
    Late,
}

/// The response as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// It has to wait for more.
    Part,
    /// It has to say this now.
    Say(Vec<u8>),
    Done(Outcome),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Served,
    /// Rejected, in the way the protocol has for it.
    Busy,
    /// Closed without a word.
    Evicted,
    /// Anything else.
    Wrong,
}

const BUSY: &[u8] = &[0xFF];

impl Protocol {
    /// The bytes that a client sends first. All items consist of `x`.
    pub(crate) fn ask(self, request: Request, payload: usize) -> Vec<u8> {
        let item = "x".repeat(payload);
        match (self, request) {
            (_, Request::Late) => Vec::new(),
            (Protocol::Stack, Request::Push) => frame(payload),
            (Protocol::Stack, Request::Pop) => vec![0x80],
            (Protocol::Redis, Request::Push) => {
                format!("*3\r\n$5\r\nLPUSH\r\n$1\r\ns\r\n${payload}\r\n{item}\r\n").into()
            }
            (Protocol::Redis, Request::Pop) => b"*3\r\n$5\r\nBLPOP\r\n$1\r\ns\r\n$1\r\n0\r\n".into(),
            (Protocol::Beanstalk, Request::Push) => format!("put 0 0 60 {payload}\r\n{item}\r\n").into(),
            (Protocol::Beanstalk, Request::Pop) => b"reserve\r\n".into(),
        }
    }

    /// Reads `reply`, which is all that has come so far. `ended` is the end of the stream.
    pub(crate) fn hear(self, request: Request, payload: usize, reply: &[u8], ended: bool) -> Response {
        match self {
            Protocol::Stack => hear_stack(request, payload, reply, ended),
            _ if ended => Response::Done(Outcome::Wrong),
            Protocol::Redis => hear_redis(request, payload, reply),
            Protocol::Beanstalk => hear_beanstalk(request, payload, reply),
        }
    }
}

fn frame(payload: usize) -> Vec<u8> {
    let mut frame = vec![b'x'; payload + 1];
    frame[0] = payload as u8;
    frame
}

fn hear_stack(request: Request, payload: usize, reply: &[u8], ended: bool) -> Response {
    if request == Request::Late && reply == BUSY && !ended {
        return Response::Say(frame(payload));
    }
    if !ended {
        return Response::Part;
    }
    Response::Done(match request {
        _ if reply == BUSY => Outcome::Busy,
        _ if reply.is_empty() => Outcome::Evicted,
        Request::Push if reply == [0x00] => Outcome::Served,
        Request::Pop if reply == frame(payload) => Outcome::Served,
        _ => Outcome::Wrong,
    })
}

fn hear_redis(request: Request, payload: usize, reply: &[u8]) -> Response {
    let item = format!("*2\r\n$1\r\ns\r\n${payload}\r\n{}\r\n", "x".repeat(payload));
    match request {
        Request::Pop if reply == item.as_bytes() => Response::Done(Outcome::Served),
        Request::Pop if item.as_bytes().starts_with(reply) => Response::Part,
        Request::Push if reply.starts_with(b":") && reply.ends_with(b"\r\n") => Response::Done(Outcome::Served),
        Request::Push if reply.starts_with(b":") => Response::Part,
        _ => Response::Done(Outcome::Wrong),
    }
}

fn hear_beanstalk(request: Request, payload: usize, reply: &[u8]) -> Response {
    let text = String::from_utf8_lossy(reply);
    let mut lines = text.split_inclusive("\r\n").filter(|line| line.ends_with("\r\n"));
    match (request, lines.next(), lines.next(), lines.next()) {
        (_, None, ..) => Response::Part,
        (Request::Push, Some(first), None, _) if first.starts_with("INSERTED ") => Response::Done(Outcome::Served),
        (Request::Pop, Some(first), item, deleted) if first.starts_with("RESERVED ") => match (item, deleted) {
            (None, _) => Response::Part,
            (Some(item), None) if item.len() == payload + 2 => {
                Response::Say(format!("delete {}\r\n", first.split(' ').nth(1).unwrap_or_default()).into())
            }
            (Some(_), Some("DELETED\r\n")) => Response::Done(Outcome::Served),
            _ => Response::Done(Outcome::Wrong),
        },
        _ => Response::Done(Outcome::Wrong),
    }
}
