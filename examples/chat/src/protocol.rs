//! The chat protocol: lines, and what they are made of.
//!
//! | request | response |
//! | --- | --- |
//! | `HELLO-FROM <name>` | `HELLO <name>`, or `IN-USE`, or `BUSY` |
//! | `LIST` | `LIST-OK <name>,<name>,…` |
//! | `SEND <name> <message>` | `SEND-OK`, or `BAD-DEST-USER`; the other reads `DELIVERY <sender> <message>` |
//! | anything else | `BAD-RQST-HDR`, or `BAD-RQST-BODY` |
//!
//! A line ends in `\n`; one `\r` before it is dropped. All else passes through as it is.

/// The longest line, without its end.
pub const MAX_LINE: usize = 64 * 1024;

/// The longest name: with it, `DELIVERY` lines and lists have a bound.
pub const MAX_NAME: usize = 255;

/// The name is taken.
pub const IN_USE: &[u8] = b"IN-USE\n";
/// All places are taken.
pub const BUSY: &[u8] = b"BUSY\n";
/// The message is the kernel's.
pub const SEND_OK: &[u8] = b"SEND-OK\n";
/// No user of that name is logged in.
pub const BAD_DEST_USER: &[u8] = b"BAD-DEST-USER\n";
/// The line is no request.
pub const BAD_RQST_HDR: &[u8] = b"BAD-RQST-HDR\n";
/// The request is known, and what follows it is wrong.
pub const BAD_RQST_BODY: &[u8] = b"BAD-RQST-BODY\n";

/// The longest of the responses to a `SEND`.
pub const MAX_REPLY: usize = BAD_DEST_USER.len();

/// The most that a `DELIVERY` may come to: it names its header and its sender where the `SEND` that
/// it carries has named its own header and its recipient.
pub const MAX_DELIVERY: usize = b"DELIVERY ".len() + MAX_NAME + MAX_LINE;

/// The front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front<'a> {
    /// A line, without its end, and its length with it.
    Line(&'a [u8], usize),
    /// The beginning of one.
    Part,
    /// A line that is longer than [`MAX_LINE`], whole or not.
    TooLong,
}

/// Looks for the end of the first line, from where an earlier call has left off: `searched` is 0
/// for a new line. A line that comes byte by byte is searched once, not once a byte.
pub fn front<'a>(input: &'a [u8], searched: &mut usize) -> Front<'a> {
    match memchr::memchr(b'\n', &input[*searched..]) {
        Some(n) => {
            *searched += n;
            let line = &input[..*searched];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > MAX_LINE { Front::TooLong } else { Front::Line(line, *searched + 1) }
        }
        None => {
            *searched = input.len();
            if input.len() > MAX_LINE + 1 { Front::TooLong } else { Front::Part }
        }
    }
}

/// Cuts at the first space, which belongs to neither part. Without one, the second part is empty.
pub fn cut(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

/// Returns whether it is a valid name: without characters that separate names, and without those that a terminal
/// obeys rather than shows.
pub fn is_name(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && memchr::memchr2(b' ', b',', name).is_none() && !is_obeyed(name)
}

/// Returns whether there are control characters, or those that turn the direction of text around (Unicode
/// Standard Annex 9).
fn is_obeyed(name: &[u8]) -> bool {
    let turns =
        |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match std::str::from_utf8(name) {
        Ok(name) => name.chars().any(|c| c.is_control() || turns(c)),
        Err(_) => name.iter().any(|byte| matches!(byte, 0..0x20 | 0x7F..0xA0)),
    }
}
