//! Server-sent events as a browser reads them (HTML, section 9.2.6).

use std::io::Read;
use test_support::Client;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: u64,
    pub(crate) data: String,
}

/// The parsed part of a stream.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    rest: String,
    pub(crate) retry: u64,
    pub(crate) comments: usize,
    pub(crate) last_id: u64,
    name: String,
    data: Option<String>,
    pub(crate) events: Vec<Event>,
}

impl Parser {
    pub(crate) fn feed(&mut self, text: &str) {
        self.rest.push_str(text);
        assert!(!self.rest.contains('\r'), "this server ends its lines with LF");
        while let Some((line, rest)) = self.rest.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            self.line(&line);
            self.rest = rest;
        }
    }

    fn line(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                let name = std::mem::take(&mut self.name);
                if let Some(data) = self.data.take() {
                    self.events.push(Event { name, id: self.last_id, data });
                }
            }
            "" => self.comments += 1,
            "event" => self.name = value.to_owned(),
            "id" => self.last_id = value.parse().unwrap(),
            "retry" => self.retry = value.parse().unwrap(),
            "data" => match &mut self.data {
                Some(data) => data.extend(["\n", value]),
                data => *data = Some(value.to_owned()),
            },
            other => panic!("a field {other:?}"),
        }
    }
}

/// The chunks that have come whole, and what is left; whether the last one was among them.
pub(crate) fn chunks(bytes: &mut Vec<u8>) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    while let Some(line) = memchr::memmem::find(bytes, b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        let Some(chunk) = bytes.get(line + 2..line + 2 + size) else { break };
        let Some(end) = bytes.get(line + 2 + size..line + 4 + size) else { break };
        assert_eq!(end, b"\r\n");
        content.extend(chunk);
        bytes.drain(..line + 4 + size);
        if size == 0 {
            return (content, true);
        }
    }
    (content, false)
}

/// A subscriber over a real socket.
pub(crate) struct Stream {
    pub(crate) client: Client,
    bytes: Vec<u8>,
    pub(crate) head: String,
    pub(crate) parser: Parser,
    given: usize,
    pub(crate) ended: bool,
}

impl Stream {
    pub(crate) fn new(client: Client) -> Stream {
        let (bytes, head, parser) = Default::default();
        Stream { client, bytes, head, parser, given: 0, ended: false }
    }

    /// Reads the head, and the beginning that every stream has.
    pub(crate) fn open(&mut self) {
        assert!(self.opens(), "the stream goes on");
    }

    /// The same; returns whether it goes on.
    pub(crate) fn opens(&mut self) -> bool {
        let end = loop {
            if let Some(end) = memchr::memmem::find(&self.bytes, b"\r\n\r\n") {
                break end;
            }
            if !self.more() {
                return false;
            }
        };
        self.head = String::from_utf8(self.bytes.drain(..end + 4).collect()).unwrap();
        assert!(self.head.starts_with("HTTP/1.1 200 "), "{}", self.head);
        self.parse();
        while self.parser.last_id == 0 && self.more() {
            self.parse();
        }
        self.parser.last_id > 0
    }

    /// Reads more, if there is more.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 65536];
        let n = self.client.read(&mut buffer).unwrap_or(0);
        self.bytes.extend(&buffer[..n]);
        n > 0
    }

    fn parse(&mut self) {
        let (content, ended) = chunks(&mut self.bytes);
        self.parser.feed(std::str::from_utf8(&content).unwrap());
        self.ended = ended;
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let event = self.next_or_cut();
        assert!(event.is_some() || self.ended, "the stream goes on");
        event
    }

    /// The next event; `None` at the end of the stream, or if its server has died.
    pub(crate) fn next_or_cut(&mut self) -> Option<Event> {
        while self.parser.events.len() == self.given {
            if self.ended || !self.more() {
                return None;
            }
            self.parse();
        }
        self.given += 1;
        Some(self.parser.events[self.given - 1].clone())
    }

    /// The id of the event that [`next`](Self::next) gave last.
    pub(crate) fn last_given(&self) -> u64 {
        self.parser.events[self.given - 1].id
    }

    /// The texts of the next `n` messages, whose ids have no holes.
    pub(crate) fn texts(&mut self, n: usize) -> Vec<String> {
        let mut last = None;
        let mut next = || {
            let event = self.next().expect("a message");
            assert_eq!(event.name, "", "{event:?}");
            assert!(last.is_none_or(|last| event.id == last + 1), "{last:?}, then {event:?}");
            last = Some(event.id);
            event.data
        };
        (0..n).map(|_| next()).collect()
    }
}
