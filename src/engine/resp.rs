//! Commands to an engine, and what it says, in
//! [RESP](https://redis.io/docs/latest/develop/reference/protocol-spec/).

use crate::net::Address;
use redis_protocol::resp3::decode::complete::decode;
use redis_protocol::resp3::types::OwnedFrame;
use std::fmt::Display;

/// How deep lists in an answer may nest. Those of our scripts nest once, those about the engine itself four times.
const DEPTH: usize = 8;

/// An answer of the engine, or a message. Kinds may be added.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Number(i64),
    /// A string, of any bytes.
    Text(Vec<u8>),
    /// Several answers.
    List(Vec<Reply>),
    /// An error: a word in capitals, and a text.
    Error(String),
    /// A message that answers nothing: its words.
    Push(Vec<Vec<u8>>),
    /// Anything else.
    Other,
}

/// Returns a command: an array of strings.
pub(super) fn command<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Returns the command that runs a script by the name that the engine has given it.
pub(super) fn evalsha<K: AsRef<[u8]>, A: AsRef<[u8]>>(digest: &[u8], keys: &[K], args: &[A]) -> Vec<u8> {
    let count = keys.len().to_string();
    let mut words = vec![&b"EVALSHA"[..], digest, count.as_bytes()];
    words.extend(keys.iter().map(AsRef::as_ref));
    words.extend(args.iter().map(AsRef::as_ref));
    command(&words)
}

/// Reads answers from input that comes in pieces.
///
/// It finds the end of an answer before it has that decoded. So it looks at each byte once, however many pieces there
/// are; and the decoder, which calls itself for each list in a list, is given none that nest deeper than [`DEPTH`].
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Where the next line begins: behind the input, while the text before it is not all there.
    at: usize,
    /// Up to where the end of that line was looked for.
    sought: usize,
    /// The lists that have begun, each with the number of values that it lacks. The outermost is the answer itself.
    open: Vec<usize>,
}

impl Reader {
    /// Reads an answer from the beginning of `input`, which begins as at the last call if that found none. Returns it
    /// with its length; `None` if it is not complete.
    ///
    /// # Errors
    /// A text, if it is none, or nests too deep.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<Option<(Reply, usize)>, String> {
        let Some(len) = self.find_end(input)? else { return Ok(None) };
        *self = Reader::default();
        match decode(&input[..len]) {
            Ok(Some((frame, decoded))) if decoded == len => Ok(Some((Reply::from(frame), len))),
            Ok(_) => Err(no_resp("a length is wrong")),
            Err(error) => Err(no_resp(error)),
        }
    }

    /// Returns where the answer ends; `None` if that is not there yet.
    fn find_end(&mut self, input: &[u8]) -> Result<Option<usize>, String> {
        if self.open.is_empty() {
            self.open.push(1);
        }
        while self.at <= input.len() {
            while self.open.last() == Some(&0) {
                self.open.pop();
            }
            if self.open.is_empty() {
                return Ok(Some(self.at));
            }
            let Some(end) = self.end_of_line(input) else { break };
            let line = &input[self.at..end];
            (self.at, self.sought) = (end + 2, end + 2);
            self.step(line)?;
        }
        Ok(None)
    }

    fn end_of_line(&mut self, input: &[u8]) -> Option<usize> {
        let rest = input.get(self.sought..)?;
        let found = rest.windows(2).position(|two| two == b"\r\n").map(|at| self.sought + at);
        self.sought = self.sought.max(input.len().saturating_sub(1)); // the last byte may be half of an end
        found
    }

    /// Takes a line: a value, or the head of a text or of a list.
    fn step(&mut self, line: &[u8]) -> Result<(), String> {
        let (kind, rest) = line.split_first().ok_or_else(|| no_resp("a line is empty"))?;
        let values = match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => None,
            b'$' | b'!' | b'=' => {
                let end = length(rest)?.checked_add(2).and_then(|len| self.at.checked_add(len));
                self.at = end.ok_or_else(|| no_resp("a text is too long"))?;
                self.sought = self.at;
                None
            }
            b'*' | b'~' | b'>' => Some(length(rest)?),
            b'%' | b'|' => Some(length(rest)?.saturating_mul(2)),
            _ => return Err(no_resp(format_args!("a line begins with {:?}", char::from(*kind)))),
        };
        if let (Some(lacking), true) = (self.open.last_mut(), *kind != b'|') {
            *lacking -= 1; // attributes are in front of a value, and are none
        }
        self.open.extend(values);
        // The first is no list of the engine's.
        if self.open.len() > 1 + DEPTH { Err(format!("it nests deeper than {DEPTH}")) } else { Ok(()) }
    }
}

/// Reads the length of a text or of a list.
fn length(text: &[u8]) -> Result<usize, String> {
    let length = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    length.ok_or_else(|| no_resp(format_args!("{:?} is no length", text.escape_ascii().to_string())))
}

fn no_resp(why: impl Display) -> String {
    format!("it does not speak RESP: {why}")
}

/// Returns the address in an error that says where the keys are: `MOVED SLOT ADDRESS`.
pub(super) fn moved(error: &str) -> Option<Address> {
    let address = error.strip_prefix("MOVED ")?.split(' ').nth(1)?;
    address.parse().ok().map(Address::Tcp)
}

impl From<OwnedFrame> for Reply {
    fn from(frame: OwnedFrame) -> Reply {
        let text = |frame| match Reply::from(frame) {
            Reply::Text(text) => text,
            _ => Vec::new(),
        };
        match frame {
            OwnedFrame::SimpleError { data, .. } => Reply::Error(data),
            OwnedFrame::BlobError { data, .. } => Reply::Error(String::from_utf8_lossy(&data).into_owned()),
            OwnedFrame::Push { data, .. } => Reply::Push(data.into_iter().map(text).collect()),
            OwnedFrame::BlobString { data, .. } | OwnedFrame::SimpleString { data, .. } => Reply::Text(data),
            OwnedFrame::Number { data, .. } => Reply::Number(data),
            OwnedFrame::Array { data, .. } => Reply::List(data.into_iter().map(Reply::from).collect()),
            OwnedFrame::Null => Reply::Nil,
            _ => Reply::Other,
        }
    }
}

impl Reply {
    /// Returns the number; `None` if it is none, or below zero.
    pub fn number(&self) -> Option<u64> {
        match self {
            Reply::Number(number) => u64::try_from(*number).ok(),
            Reply::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<Option<(Reply, usize)>, String> {
        Reader::default().read(input)
    }

    /// Lost otherwise: the answers that come in pieces, and those behind one that is misread.
    #[test]
    fn answers_are_read_however_they_are_cut() {
        let bytes =
            b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$3\r\na\r\n\r\n*3\r\n:7\r\n_\r\n+OK\r\n-EXPIRED it is\r\n_\r\n\
            |1\r\n+ttl\r\n:1\r\n:5\r\n%1\r\n+a\r\n*0\r\n~1\r\n=5\r\ntxt:a\r\n!1\r\nE\r\n";
        let words = [&b"smessage"[..], b"c", b"a\r\n"].map(<[u8]>::to_vec).to_vec();
        let expected = [
            Reply::Push(words),
            Reply::List(vec![Reply::Number(7), Reply::Nil, Reply::Text(b"OK".to_vec())]),
            Reply::Error("EXPIRED it is".to_owned()),
            Reply::Nil,
            Reply::Number(5),
            Reply::Other,
            Reply::Other,
            Reply::Error("E".to_owned()),
        ];
        let (mut rest, mut piecemeal) = (&bytes[..], Reader::default());
        for expected in expected {
            let (found, len) = read(rest).unwrap().unwrap();
            assert_eq!(found, expected);
            assert!((0..len).all(|cut| read(&rest[..cut]).unwrap().is_none()), "{expected:?}");
            assert!((0..len).all(|cut| piecemeal.read(&rest[..cut]).unwrap().is_none()), "{expected:?}");
            assert_eq!(piecemeal.read(rest), Ok(Some((expected, len))));
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
        assert_eq!(moved("MOVED 3999 127.0.0.1:6381"), Some(Address::Tcp(([127, 0, 0, 1], 6381).into())));
        assert_eq!(moved("READONLY 1 127.0.0.1:6381"), None);
        assert_eq!(command(&["A", "bc"]), b"*2\r\n$1\r\nA\r\n$2\r\nbc\r\n");
    }

    /// Lost otherwise: the process, whose stack ends before the lists do. No error can be caught there.
    #[test]
    fn lists_nest_only_so_deep() {
        for (list, end) in [("*1\r\n", ":1\r\n"), ("%1\r\n:1\r\n", ":1\r\n"), ("|1\r\n:1\r\n", ":1\r\n:1\r\n")] {
            let nested = |depth| list.repeat(depth) + &end.repeat(depth.max(1));
            assert!(matches!(read(nested(DEPTH).as_bytes()), Ok(Some(_))), "{list:?}");
            for depth in [DEPTH + 1, 4000, 100_000] {
                let error = Err("it nests deeper than 8".to_owned());
                assert_eq!(read(nested(depth).as_bytes()), error, "{list:?}");
                assert_eq!(read(list.repeat(depth).as_bytes()), error, "{list:?} without an end");
            }
        }
        // Lists beside each other do not nest, nor do empty ones.
        let flat = format!("*1000\r\n{}", "*1\r\n*0\r\n".repeat(1000));
        assert!(matches!(read(flat.as_bytes()), Ok(Some((Reply::List(_), len))) if len == flat.len()));
    }

    /// Lost otherwise: the time of an edge whose engine sends a long answer in small pieces. The test takes away
    /// what was read, to show that it is not looked at again.
    #[test]
    fn a_long_answer_is_looked_at_once() {
        let text = format!("*300\r\n{}+abc\r\n", "$3\r\nabc\r\n".repeat(299));
        for cut in 0..text.len() {
            let (mut reader, mut again) = (Reader::default(), text.clone().into_bytes());
            assert_eq!(reader.find_end(&again[..cut]), Ok(None));
            again[..reader.at.min(cut)].fill(b'?');
            assert_eq!(reader.find_end(&again), Ok(Some(text.len())), "{cut}");
        }
        let line = format!("+{}\r\n", "x".repeat(100));
        for cut in 2..line.len() {
            let (mut reader, mut again) = (Reader::default(), line.clone().into_bytes());
            assert_eq!(reader.find_end(&again[..cut]), Ok(None));
            (1..cut - 1).for_each(|at| again[at] = b"\r\n"[at % 2]);
            assert_eq!(reader.find_end(&again), Ok(Some(line.len())), "{cut}");
        }
    }

    /// Lost otherwise: the reason why a port that is not an engine's does not do, and a server that waits for an
    /// answer without an end.
    #[test]
    fn other_protocols_are_rejected_at_once() {
        let http = "HTTP/1.1 400 Bad Request\r\n";
        for text in ["hello\r\n", http, "\r\n", "$x\r\n", "*-2\r\n", "*\r\n", "$?\r\n", "=2\r\nab\r\n"] {
            assert!(
                read(text.as_bytes()).is_err_and(|error| error.starts_with("it does not speak RESP: ")),
                "{text:?}"
            );
        }
        assert!(read(format!("${}\r\n", usize::MAX).as_bytes()).is_err());
        assert_eq!(read(format!("*{}\r\n", usize::MAX).as_bytes()), Ok(None));
    }
}
