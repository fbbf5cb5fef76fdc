//! What a client says on a connection of its own, and how it takes the answer: one request of the
//! stack, in the words of each server.

/// The protocol of a server that can do a stack's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tongue {
    /// Ours. The server closes.
    Stack,
    /// `LPUSH` and `BLPOP` of a list, as commands in arrays. The client closes.
    Redis,
    /// `put`, and `reserve` with the `delete` that has to follow. The client closes.
    Beanstalk,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Push,
    Pop,
    /// To say nothing before it has been turned away, and then to push. (Ours only.)
    Late,
}

/// What a client has heard so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
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
    /// Turned away, in the way the protocol has for it.
    Busy,
    /// Closed without a word.
    Evicted,
    /// Anything else.
    Wrong,
}

const BUSY: &[u8] = &[0xFF];

impl Tongue {
    /// What is said at first. All items are of `x`.
    pub(crate) fn ask(self, wish: Wish, payload: usize) -> Vec<u8> {
        let item = "x".repeat(payload);
        match (self, wish) {
            (_, Wish::Late) => Vec::new(),
            (Tongue::Stack, Wish::Push) => frame(payload),
            (Tongue::Stack, Wish::Pop) => vec![0x80],
            (Tongue::Redis, Wish::Push) => format!("*3\r\n$5\r\nLPUSH\r\n$1\r\ns\r\n${payload}\r\n{item}\r\n").into(),
            (Tongue::Redis, Wish::Pop) => b"*3\r\n$5\r\nBLPOP\r\n$1\r\ns\r\n$1\r\n0\r\n".into(),
            (Tongue::Beanstalk, Wish::Push) => format!("put 0 0 60 {payload}\r\n{item}\r\n").into(),
            (Tongue::Beanstalk, Wish::Pop) => b"reserve\r\n".into(),
        }
    }

    /// What `reply`, all that has come so far, means. `ended` is the end of the stream.
    pub(crate) fn hear(self, wish: Wish, payload: usize, reply: &[u8], ended: bool) -> Heard {
        match self {
            Tongue::Stack => hear_stack(wish, payload, reply, ended),
            _ if ended => Heard::Done(Outcome::Wrong),
            Tongue::Redis => hear_redis(wish, payload, reply),
            Tongue::Beanstalk => hear_beanstalk(wish, payload, reply),
        }
    }
}

fn frame(payload: usize) -> Vec<u8> {
    let mut frame = vec![b'x'; payload + 1];
    frame[0] = payload as u8;
    frame
}

fn hear_stack(wish: Wish, payload: usize, reply: &[u8], ended: bool) -> Heard {
    if wish == Wish::Late && reply == BUSY && !ended {
        return Heard::Say(frame(payload));
    }
    if !ended {
        return Heard::Part;
    }
    Heard::Done(match wish {
        _ if reply == BUSY => Outcome::Busy,
        _ if reply.is_empty() => Outcome::Evicted,
        Wish::Push if reply == [0x00] => Outcome::Served,
        Wish::Pop if reply == frame(payload) => Outcome::Served,
        _ => Outcome::Wrong,
    })
}

fn hear_redis(wish: Wish, payload: usize, reply: &[u8]) -> Heard {
    let item = format!("*2\r\n$1\r\ns\r\n${payload}\r\n{}\r\n", "x".repeat(payload));
    match wish {
        Wish::Pop if reply == item.as_bytes() => Heard::Done(Outcome::Served),
        Wish::Pop if item.as_bytes().starts_with(reply) => Heard::Part,
        Wish::Push if reply.starts_with(b":") && reply.ends_with(b"\r\n") => Heard::Done(Outcome::Served),
        Wish::Push if reply.starts_with(b":") => Heard::Part,
        _ => Heard::Done(Outcome::Wrong),
    }
}

fn hear_beanstalk(wish: Wish, payload: usize, reply: &[u8]) -> Heard {
    let text = String::from_utf8_lossy(reply);
    let mut lines = text.split_inclusive("\r\n").filter(|line| line.ends_with("\r\n"));
    match (wish, lines.next(), lines.next(), lines.next()) {
        (_, None, ..) => Heard::Part,
        (Wish::Push, Some(first), None, _) if first.starts_with("INSERTED ") => Heard::Done(Outcome::Served),
        (Wish::Pop, Some(first), item, deleted) if first.starts_with("RESERVED ") => match (item, deleted) {
            (None, _) => Heard::Part,
            (Some(item), None) if item.len() == payload + 2 => {
                Heard::Say(format!("delete {}\r\n", first.split(' ').nth(1).unwrap_or_default()).into())
            }
            (Some(_), Some("DELETED\r\n")) => Heard::Done(Outcome::Served),
            _ => Heard::Done(Outcome::Wrong),
        },
        _ => Heard::Done(Outcome::Wrong),
    }
}
