//! Every bound of the HTTP layer, with its default and the reason for it.

use std::time::Duration;

/// The request line: RFC 9112, section 3, asks for at least 8000 bytes. Longer ones are answered
/// 414.
pub const LINE_BYTES: usize = 8 * 1024;

/// The method of a request: the longest that is registered (UPDATEREDIRECTREF) has 17 bytes. Longer ones are
/// answered 501.
pub(crate) const METHOD_BYTES: usize = 32;

/// The whole head of a request: line, header fields, and the empty line. A browser with a
/// full set of cookies sends, twice; and half of what the loop holds of a connection's input, so
/// that the rejection comes from here. Longer ones are answered 431.
pub const HEAD_BYTES: usize = 32 * 1024;

/// Header fields of a request: browsers send about twenty, a chain of proxies adds as many. Apache
/// stops at 100, too. More are answered 431.
pub const HEADERS: usize = 100;

/// The body of a request that a handler collects without saying how much it wants: a form, a
/// message, a small document. Longer ones are answered 413.
pub const BODY_BYTES: usize = 64 * 1024;

/// The body that is read past so that its connection can be kept: a mebibyte takes less time than
/// a new connection on most paths. A longer one ends its connection with the response.
pub const SKIP_BYTES: u64 = 1024 * 1024;

/// From the first byte of a head to its last, however busily it trickles. A head is a packet or
/// two: thirty seconds are a dozen of TCP's first retransmissions. Slower ones are answered 408.
pub const HEAD_TIME: Duration = Duration::from_secs(30);

/// Between two reads of a request that has begun, in its head or its body. A slower one is answered
/// 408.
pub const READ_TIME: Duration = Duration::from_secs(30);

/// How long a body may take that is collected, or read past: [`BODY_BYTES`] at 220 bytes a second.
pub const BODY_TIME: Duration = Duration::from_secs(300);

/// How long a connection without a request is kept: about as long as a reader stays on a page.
/// nginx keeps it 75 s.
pub const IDLE_TIME: Duration = Duration::from_secs(60);

/// How long a client may take nothing of a response that waits for it; nginx gives as much.
pub const STALL_TIME: Duration = Duration::from_secs(60);

/// The most that the name of a chunk's size and its extensions come to, in one line and, for
/// extensions, in a body. Clients do not use them.
pub(crate) const CHUNK_LINE: usize = 256;

/// The extensions of all chunks of a body: with a long one behind every byte, a body would cost a
/// hundred times what it counts.
pub(crate) const EXTENSION_BYTES: usize = 4 * 1024;

/// The trailer section of a chunked body. It is read past.
pub(crate) const TRAILER_BYTES: usize = 8 * 1024;

/// The room in the output in which the head of a response has to fit: a request waits until there is
/// as much, or until nothing is left there. nginx's responses have 4 or 8 KiB.
pub(crate) const RESPONSE_HEAD: usize = 8 * 1024;

/// The bounds of [`Http`](super::Http).
///
/// The loop's [`Limits::input`](crate::Limits::input) has to be larger than `head`. Otherwise a head that
/// is too long ends its connection without a response.
///
/// Bounds may be added: begin with the default.
///
/// ```
/// use pollstack::http::Limits;
/// use std::time::Duration;
///
/// let limits = Limits::default().headers(20).idle_time(Duration::from_secs(5));
/// assert_eq!((limits.headers, limits.head), (20, 32 * 1024));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a request line ([`LINE_BYTES`]; 414).
    pub line: usize,
    /// Bytes of a request's head, its line included ([`HEAD_BYTES`]; 431).
    pub head: usize,
    /// Header fields of a request ([`HEADERS`]; 431).
    pub headers: usize,
    /// Bytes of a body that are read past to keep a connection ([`SKIP_BYTES`]).
    pub skip: u64,
    /// How long a head may take from its first byte on ([`HEAD_TIME`]; 408).
    pub head_time: Duration,
    /// How long a request that has begun may bring nothing ([`READ_TIME`]; 408).
    pub read_time: Duration,
    /// How long a body may take that is [collected](super::Body::Collect) or
    /// [read past](super::Body::Skip), from the end of its head on ([`BODY_TIME`]; 408). For one that
    /// is [streamed](super::Body::Stream), the handler has a
    /// [deadline](super::Responder::set_deadline).
    pub body_time: Duration,
    /// How long a connection may have no request ([`IDLE_TIME`]; closed).
    pub idle_time: Duration,
    /// How long a client may take nothing of what waits for it ([`STALL_TIME`]; closed).
    pub stall_time: Duration,
}

impl Limits {
    /// Sets the bytes of a request line.
    pub fn line(self, line: usize) -> Self {
        Limits { line, ..self }
    }

    /// Sets the bytes of a request's head, its line included.
    pub fn head(self, head: usize) -> Self {
        Limits { head, ..self }
    }

    /// Sets the header fields of a request.
    pub fn headers(self, headers: usize) -> Self {
        Limits { headers, ..self }
    }

    /// Sets the bytes of a body that are read past to keep a connection.
    pub fn skip(self, skip: u64) -> Self {
        Limits { skip, ..self }
    }

    /// Sets how long a head may take.
    pub fn head_time(self, head_time: Duration) -> Self {
        Limits { head_time, ..self }
    }

    /// Sets how long a request that has begun may bring nothing.
    pub fn read_time(self, read_time: Duration) -> Self {
        Limits { read_time, ..self }
    }

    /// Sets how long a body may take that is collected or read past.
    pub fn body_time(self, body_time: Duration) -> Self {
        Limits { body_time, ..self }
    }

    /// Sets how long a connection may have no request.
    pub fn idle_time(self, idle_time: Duration) -> Self {
        Limits { idle_time, ..self }
    }

    /// Sets how long a client may take nothing of what waits for it.
    pub fn stall_time(self, stall_time: Duration) -> Self {
        Limits { stall_time, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            line: LINE_BYTES,
            head: HEAD_BYTES,
            headers: HEADERS,
            skip: SKIP_BYTES,
            head_time: HEAD_TIME,
            read_time: READ_TIME,
            body_time: BODY_TIME,
            idle_time: IDLE_TIME,
            stall_time: STALL_TIME,
        }
    }
}
