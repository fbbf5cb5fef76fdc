//! A subscriber of pubsub, in any form: it parses what comes, and knows the last message that it has.

use pollstack::sim::Client;
use serde_json::Value;
use std::error::Error;
use test_support::replies;

type Parsed<T> = Result<T, Box<dyn Error>>;

/// How it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Events,
    Poll,
    Socket,
}

/// The parsed part of what has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It goes on behind this id.
    Begin(u64),
    Message(u64, String),
    Gap {
        after: u64,
        oldest: u64,
        id: u64,
    },
    /// It is rejected, for this reason.
    Rejected(String),
    /// Its message is.
    Unpublished,
}

pub(super) struct Reader {
    pub(super) client: Client,
    pub(super) form: Form,
    pub(super) channel: usize,
    /// The life of the node that it has come to.
    pub(super) life: u64,
    /// The last id that it knows.
    pub(super) last: Option<u64>,
    /// The message of that id, if it has come on this connection.
    pub(super) text: Option<String>,
    /// The connection has ended; it may come back.
    pub(super) is_over: bool,
    bytes: Vec<u8>,
    has_begun: bool,
    /// The lines of an event that is not complete.
    event: Vec<String>,
    lines: Vec<u8>,
}

impl Reader {
    pub(super) fn new(client: Client, form: Form, channel: usize, life: u64, last: Option<u64>) -> Reader {
        let (text, bytes, event, lines) = Default::default();
        let (is_over, has_begun) = (false, false);
        let reader = Reader { client, form, channel, life, last, text, is_over, bytes, has_begun, event, lines };
        reader.ask();
        reader
    }

    fn ask(&self) {
        let (form, fields) = match self.form {
            Form::Events => ("events", ""),
            Form::Poll => ("poll", ""),
            Form::Socket => (
                "ws",
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            ),
        };
        let after = self.last.map(|last| format!("?after={last}")).unwrap_or_default();
        let channel = self.channel;
        let request = format!("GET /channels/{channel}/{form}{after} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        self.client.send(request.as_bytes());
    }

    /// Publishes, as a WebSocket that is open.
    pub(super) fn say(&self, text: &str) -> bool {
        let speaks = self.form == Form::Socket && self.has_begun && !self.is_over;
        if speaks {
            let mut frame = vec![0x81, 0x80 | 126];
            frame.extend((text.len() as u16).to_be_bytes());
            frame.extend([0; 4]); // a mask that changes nothing
            frame.extend(text.bytes());
            self.client.send(&frame);
        }
        speaks
    }

    /// Reads at most `n` bytes. Returns what they say.
    pub(super) fn read(&mut self, n: usize) -> Parsed<Vec<Seen>> {
        let bytes = self.client.read_at_most(n);
        let is_all = bytes.len() < n;
        self.bytes.extend(bytes);
        let mut seen = Vec::new();
        if !self.has_begun && self.form != Form::Poll {
            self.begin(&mut seen)?;
        }
        match self.form {
            Form::Poll => self.answers(&mut seen)?,
            Form::Events if self.has_begun => self.events(&mut seen)?,
            Form::Socket if self.has_begun => self.frames(&mut seen)?,
            _ => {}
        }
        self.is_over |= self.client.has_ended() || (self.client.was_reset() && is_all);
        Ok(seen)
    }

    fn begin(&mut self, seen: &mut Vec<Seen>) -> Parsed<()> {
        let Some(end) = memchr::memmem::find(&self.bytes, b"\r\n\r\n") else { return Ok(()) };
        let good = if self.form == Form::Socket { "HTTP/1.1 101 " } else { "HTTP/1.1 200 " };
        if self.bytes.starts_with(good.as_bytes()) {
            self.bytes.drain(..end + 4);
            self.has_begun = true;
        } else if let Some((found, len)) = replies::replies(&self.bytes, &["GET"]) {
            let rejection = found.last().filter(|reply| reply.status == 503).ok_or("an answer that is none")?;
            seen.push(Seen::Rejected(rejection.text().to_owned()));
            self.bytes.drain(..len);
            self.is_over = true;
        }
        Ok(())
    }

    /// Long polls. Each answer is followed by the next one.
    fn answers(&mut self, seen: &mut Vec<Seen>) -> Parsed<()> {
        let Some((found, len)) = replies::replies(&self.bytes, &["GET"]) else { return Ok(()) };
        self.bytes.drain(..len);
        let reply = found.last().ok_or("no reply")?;
        match reply.status {
            200 => {
                let array: Vec<Value> = serde_json::from_slice(&reply.body)?;
                for value in array {
                    seen.push(message(&value)?);
                }
            }
            204 => seen.push(Seen::Begin(reply.header("Last-Event-ID").ok_or("no id")?.parse()?)),
            503 => seen.push(Seen::Rejected(reply.text().to_owned())),
            other => return Err(format!("a long poll is answered {other}").into()),
        }
        self.is_over |= reply.closes() || reply.status == 503;
        Ok(())
    }

    /// Asks for what is behind the last message, if it polls, and has been answered.
    pub(super) fn go_on(&self) {
        if self.form == Form::Poll && !self.is_over {
            self.ask();
        }
    }

    fn events(&mut self, seen: &mut Vec<Seen>) -> Parsed<()> {
        while let Some(line) = memchr::memmem::find(&self.bytes, b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&self.bytes[..line])?, 16)?;
            let Some(chunk) = self.bytes.get(line + 2..line + 4 + size) else { break };
            self.lines.extend(&chunk[..size]);
            self.bytes.drain(..line + 4 + size);
            self.is_over |= size == 0;
        }
        while let Some(end) = memchr::memchr(b'\n', &self.lines) {
            let line: Vec<u8> = self.lines.drain(..=end).collect();
            let line = std::str::from_utf8(&line[..end])?;
            if !line.is_empty() {
                self.event.push(line.to_owned());
                continue;
            }
            let event = std::mem::take(&mut self.event);
            let field = |name: &str| event.iter().find_map(|line| line.strip_prefix(name));
            let id = field("id: ").map(str::parse).transpose()?;
            match (field("data: "), id) {
                (None, None) => {}
                (None, Some(id)) => seen.push(Seen::Begin(id)),
                (Some(data), Some(id)) if field("event: ") == Some("gap") => seen.push(gap(&data.parse()?, id)?),
                (Some(data), Some(id)) => seen.push(Seen::Message(id, data.to_owned())),
                (Some(_), None) => return Err("an event has no id".into()),
            }
        }
        Ok(())
    }

    fn frames(&mut self, seen: &mut Vec<Seen>) -> Parsed<()> {
        while let [kind, len, rest @ ..] = &self.bytes[..] {
            let (len, head) = match (len, rest) {
                (126, [high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 4),
                (126, _) => return Ok(()),
                (len, _) => (usize::from(*len), 2),
            };
            let Some(payload) = self.bytes.get(head..head + len) else { return Ok(()) };
            match kind {
                0x81 => seen.push(message(&serde_json::from_slice(payload)?)?),
                0x88 => self.is_over = true,
                0x89 => self.client.send(&[0x8a, 0x80, 0, 0, 0, 0]),
                other => return Err(format!("a frame of kind {other:x}").into()),
            }
            self.bytes.drain(..head + len);
        }
        Ok(())
    }
}

fn message(value: &Value) -> Parsed<Seen> {
    if value["error"].is_string() {
        return Ok(Seen::Unpublished);
    }
    let id = value["id"].as_u64().ok_or("a message has no id")?;
    match value["data"].as_str() {
        Some(text) => Ok(Seen::Message(id, text.to_owned())),
        None => gap(&value["gap"], id),
    }
}

fn gap(value: &Value, id: u64) -> Parsed<Seen> {
    let number = |name: &str| value[name].as_u64().ok_or("a gap without ids");
    Ok(Seen::Gap { after: number("after")?, oldest: number("oldest")?, id })
}
