//! The body of a request, as it comes.

use super::extension::Extension;
use super::framing::Length;
use super::limits::{CHUNK_LINE, EXTENSION_BYTES, TRAILER_BYTES};
use super::status::{Rejection, Status};
use super::syntax::is_token_byte;

const BAD_CHUNK: Rejection = Rejection::bad("The chunks of the body are not well-formed.");
const TOO_LONG: Rejection = Rejection::bad("The extensions of the body's chunks are too long.");
const LONG_TRAILER: Rejection = Rejection::new(Status::HEADERS_TOO_LARGE, "The body's trailer section is too long.");

/// The digits of a chunk's size.
const SIZE_DIGITS: usize = 16;

/// Tells the bytes of a body from what frames them. It keeps no bytes, and looks at each once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    state: State,
    /// How many bytes the current line of framing has had.
    line: usize,
    /// How many bytes all chunk extensions have had, then how many the trailer section has.
    excess: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are to come, and then nothing.
    Length(u64),
    /// The size of a chunk (RFC 9112, section 7.1): what of it has come.
    Size(u64),
    /// Behind the size of a chunk.
    Extension(u64, Extension),
    /// The LF that ends the line with a chunk's size.
    SizeEnd(u64),
    /// So many bytes of a chunk are to come.
    Data(u64),
    /// The CR behind a chunk, and then its LF.
    DataCr,
    DataLf,
    /// The start of a line of the trailer section (RFC 9112, section 7.1.2).
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// The LF of the empty line.
    LastLf,
    End,
}

/// The next part of a body's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Bytes of the body, at least one.
    Data(&'a [u8]),
    /// More has to come.
    More,
    /// The body's end.
    End,
}

impl Decoder {
    pub(super) fn new(length: Length) -> Decoder {
        let state = match length {
            Length::Known(n) => State::Length(n),
            Length::Chunked => State::Size(0),
        };
        Decoder { state, line: 0, excess: 0 }
    }

    /// Passes over what frames the body, and returns how many bytes that took from the front of
    /// `input` and what follows. Bytes of the body are offered until they have been
    /// [taken](Self::take).
    pub(super) fn next<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Part<'a>), Rejection> {
        let mut passed = 0;
        loop {
            match self.state {
                State::Length(0) => self.state = State::End,
                State::End => return Ok((passed, Part::End)),
                State::Length(left) | State::Data(left) if left > 0 => {
                    let data = input.get(passed..).unwrap_or_default();
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
                    let data = data.get(..n).unwrap_or_default();
                    return Ok((passed, if n > 0 { Part::Data(data) } else { Part::More }));
                }
                _ => {
                    let Some(&byte) = input.get(passed) else { return Ok((passed, Part::More)) };
                    self.advance(byte)?;
                    passed += 1;
                }
            }
        }
    }

    /// Counts `n` bytes of the body that was offered as taken.
    pub(super) fn take(&mut self, n: usize) {
        match &mut self.state {
            State::Length(left) => *left = left.saturating_sub(n as u64),
            State::Data(left) => {
                *left = left.saturating_sub(n as u64);
                if *left == 0 {
                    self.state = State::DataCr;
                }
            }
            _ => {}
        }
    }

    /// One byte of framing.
    fn advance(&mut self, byte: u8) -> Result<(), Rejection> {
        self.line += 1;
        self.state = match (self.state, byte) {
            (State::Size(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.extend_size(size, byte)?,
            (State::Size(_), _) if self.line == 1 => return Err(BAD_CHUNK),
            (State::Size(size), b'\r') => State::SizeEnd(size),
            (State::Extension(size, extension), b'\r') if extension.is_complete() => State::SizeEnd(size),
            (State::Size(size), byte) => self.extend(size, Extension::begin(byte))?,
            (State::Extension(size, extension), byte) => self.extend(size, extension.next(byte))?,
            (State::SizeEnd(0), b'\n') => {
                self.excess = 0;
                self.begin(State::Trailer)
            }
            (State::SizeEnd(size), b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => self.begin(State::Size(0)),
            (State::Trailer, b'\r') => State::LastLf,
            (State::Trailer | State::TrailerName | State::TrailerValue, byte) => self.trail(byte)?,
            (State::TrailerLf, b'\n') => self.begin(State::Trailer),
            (State::LastLf, b'\n') => State::End,
            _ => return Err(BAD_CHUNK),
        };
        Ok(())
    }

    fn begin(&mut self, state: State) -> State {
        self.line = 0;
        state
    }

    /// One digit more: no more of them than 64 bits have.
    fn extend_size(&mut self, size: u64, digit: u8) -> Result<State, Rejection> {
        match char::from(digit).to_digit(16) {
            Some(digit) if self.line <= SIZE_DIGITS => Ok(State::Size(size << 4 | u64::from(digit))),
            _ => Err(BAD_CHUNK),
        }
    }

    fn extend(&mut self, size: u64, extension: Option<Extension>) -> Result<State, Rejection> {
        self.excess += 1;
        match extension {
            _ if self.line > CHUNK_LINE || self.excess > EXTENSION_BYTES => Err(TOO_LONG),
            Some(extension) => Ok(State::Extension(size, extension)),
            None => Err(BAD_CHUNK),
        }
    }

    /// Passes a byte of a trailer field. No code reads it, but it is checked as the fields of a head are.
    fn trail(&mut self, byte: u8) -> Result<State, Rejection> {
        self.excess += 1;
        match (self.state, byte) {
            _ if self.excess > TRAILER_BYTES => Err(LONG_TRAILER),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::Trailer | State::TrailerName, _) if is_token_byte(byte) => Ok(State::TrailerName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            _ => Err(BAD_CHUNK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes what arrives in pieces of `cut` bytes; the body and what is left behind it.
    fn decode(input: &[u8], length: Length, cut: usize) -> Result<Option<(Vec<u8>, usize)>, Rejection> {
        let (mut decoder, mut body, mut at, mut come) = (Decoder::new(length), Vec::new(), 0, 0);
        loop {
            let (passed, part) = decoder.next(&input[at..come])?;
            at += passed;
            match part {
                Part::Data(data) => {
                    let n = data.len().div_ceil(2); // as a handler that takes a part
                    body.extend_from_slice(&data[..n]);
                    decoder.take(n);
                    at += n;
                }
                Part::More if come == input.len() => return Ok(None),
                Part::More => come = input.len().min(come + cut),
                Part::End => return Ok(Some((body, input.len() - at))),
            }
        }
    }

    proptest! {
        /// Were this to fail, an upload would change because of how the network cut it.
        #[test]
        fn chunks_are_the_body_however_they_arrive(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            behind in prop::collection::vec(any::<u8>(), 0..10),
            cut in 1..50usize,
        ) {
            let mut wire = Vec::new();
            for (n, chunk) in chunks.iter().enumerate() {
                let extension = if n % 2 == 0 { "" } else { ";a=\"b c\"" };
                wire.extend(format!("{:0>3X}{extension}\r\n", chunk.len()).bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0\r\nTrailer: a\r\n\r\n");
            for short in 0..wire.len() {
                prop_assert_eq!(decode(&wire[..short], Length::Chunked, cut), Ok(None));
            }
            wire.extend(&behind);
            prop_assert_eq!(decode(&wire, Length::Chunked, cut), Ok(Some((chunks.concat(), behind.len()))));
        }

        /// Were this to fail, some bytes would crash the server, or be read in two ways.
        #[test]
        fn any_bytes_are_the_same_however_they_arrive(
            input in prop::collection::vec(prop::sample::select(b"\r\n0012fF; x:\"\x00\xff".to_vec()), 0..40),
            cut in 1..5usize,
        ) {
            prop_assert_eq!(decode(&input, Length::Chunked, cut), decode(&input, Length::Chunked, 100));
        }
    }

    /// Were this to fail, a body would end where a proxy in front sees none.
    #[test]
    fn framing_has_one_reading() {
        for bad in [
            "\r\n",
            "g\r\n",
            " 1\r\n",
            "1 \r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1\n",
            "1\r\r\n",
            ";a\r\n",
            "1;a\n",
            "1;\x00\r\n",
            "1;a\rb\r\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "11111111111111111\r\n",
            "0\r\n\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\na\n",
            "0\r\na\x00",
            "0\r\n\r\r",
            "0\r\na\r\n\r\n",
            "0\r\na b: c\r\n\r\n",
            "0\r\na : b\r\n\r\n",
            "0\r\na: b\r\n c\r\n\r\n",
            "0\r\na: \x01\r\n\r\n",
            "0\r\n\u{e9}: b\r\n\r\n",
            "5;\r\n",
            "5;a=[x\r\n",
            "5;a=\"b\r\n",
            "5;\u{e9}\r\n",
        ] {
            assert_eq!(decode(bad.as_bytes(), Length::Chunked, 100), Err(BAD_CHUNK), "{bad:?}");
        }
        assert_eq!(decode(b"FFFFFFFFFFFFFFFF\r\na", Length::Chunked, 100), Ok(None));
        assert_eq!(decode(b"abcd", Length::Known(3), 1), Ok(Some((b"abc".to_vec(), 1))));
    }

    /// Were this to fail, framing without end would be read at no cost to who sends it.
    #[test]
    fn framing_is_bounded() {
        let line = |n| format!("1;{}\r\na\r\n", "x".repeat(n));
        let extended = |lines: usize| format!("{}0\r\n\r\n", line(200).repeat(lines));
        assert_eq!(decode(line(CHUNK_LINE).as_bytes(), Length::Chunked, 100), Err(TOO_LONG));
        assert!(matches!(decode(extended(20).as_bytes(), Length::Chunked, 100), Ok(Some(_))));
        assert_eq!(decode(extended(21).as_bytes(), Length::Chunked, 100), Err(TOO_LONG));
        let trailer = |n| format!("0\r\n{}\r\n", "a: b\r\n".repeat(n));
        assert!(matches!(decode(trailer(1000).as_bytes(), Length::Chunked, 100), Ok(Some(_))));
        assert_eq!(decode(trailer(2000).as_bytes(), Length::Chunked, 100), Err(LONG_TRAILER));
        let zeros = "0".repeat(CHUNK_LINE + 10);
        assert_eq!(decode(zeros.as_bytes(), Length::Chunked, 100), Err(BAD_CHUNK));
    }
}
