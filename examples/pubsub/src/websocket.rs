//! WebSockets (RFC 6455): tungstenite's engine, on bytes that have come and bytes that are to go.
//!
//! A text frame from the client is a message for the channel. Text frames to it are
//! `{"id":…,"data":"…"}`, or, if there may have been messages that are not held any more,
//! `{"id":…,"gap":{"after":N,"oldest":…}}`, or, if its message is not published, `{"error":"…"}`.

use super::router::Failure;
use pollstack::http::{Request, Status};
use std::io::{self, Read, Write};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message, Utf8Bytes};

/// The engine's own input buffer. It also reads so much at a time, so that less would cost time in
/// a long message; most frames that clients send are shorter.
const READ_BYTES: usize = 512;

/// The one version that there is.
const VERSION: &[u8] = b"13";

/// The server's end of one WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    engine: WebSocketContext,
    /// Pings since the client was heard last.
    unanswered: u8,
}

/// The result of some input.
#[derive(Debug)]
pub(crate) struct Heard {
    /// The bytes to be sent, before what is next.
    pub(crate) reply: Vec<u8>,
    pub(crate) next: Next,
}

#[derive(Debug)]
pub(crate) enum Next {
    /// A message. There may be more.
    Text(Utf8Bytes),
    /// More has to come.
    More,
    /// Nothing more will come, or is to be sent.
    Over,
}

impl Socket {
    /// One that takes messages of up to `limit` bytes.
    pub(crate) fn new(limit: usize) -> Socket {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(limit))
            .max_frame_size(Some(limit));
        Socket { engine: WebSocketContext::new(Role::Server, Some(config)), unanswered: 0 }
    }

    /// Takes input up to the next message, and answers pings and closes.
    pub(crate) fn hear(&mut self, input: &mut &[u8]) -> Heard {
        self.unanswered = 0;
        let mut reply = Vec::new();
        let mut pipe = Pipe { input, output: &mut reply };
        let next = loop {
            match self.engine.read(&mut pipe) {
                Ok(Message::Text(text)) => break Next::Text(text),
                Ok(Message::Binary(_)) => break self.close(&mut pipe, CloseCode::Unsupported, "text only"),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break Next::More,
                Err(Error::Capacity(_)) => break self.close(&mut pipe, CloseCode::Size, "too long"),
                Err(Error::Utf8(_)) => break self.close(&mut pipe, CloseCode::Invalid, "not UTF-8"),
                Err(Error::Protocol(_)) => break self.close(&mut pipe, CloseCode::Protocol, "not RFC 6455"),
                Err(_) => break Next::Over,
            }
        };
        Heard { reply, next }
    }

    /// A ping; `None` if the client has left too many without an answer.
    pub(crate) fn ping(&mut self, most: u8) -> Option<Vec<u8>> {
        self.unanswered = self.unanswered.saturating_add(1);
        (self.unanswered <= most).then(|| bytes(Frame::ping(Vec::new())))
    }

    fn close(&mut self, pipe: &mut Pipe<'_, '_>, code: CloseCode, why: &'static str) -> Next {
        // The pipe takes everything, and nothing is sent behind a close.
        let _ = self.engine.close(pipe, Some(CloseFrame { code, reason: Utf8Bytes::from_static(why) }));
        Next::Over
    }
}

/// Returns the value of `Sec-WebSocket-Accept`, if it is a handshake (RFC 6455, section 4.2.1).
pub(crate) fn accept(request: &Request<'_>) -> Result<String, Failure> {
    if !request.has_token("Upgrade", "websocket") || !request.has_token("Connection", "upgrade") {
        let why = "There is a WebSocket here: Upgrade and Connection do not ask for one.";
        return Err(upgrade_required(why));
    }
    if request.header("Sec-WebSocket-Version") != Some(VERSION) {
        return Err(upgrade_required("There is only version 13."));
    }
    let mut keys = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Key"));
    match (keys.next(), keys.next()) {
        (Some((_, key)), None) if is_key(key) => Ok(derive_accept_key(key)),
        _ => Err(Failure::bad("Sec-WebSocket-Key is not sixteen bytes in base64.")),
    }
}

fn upgrade_required(why: &'static str) -> Failure {
    let version = ("Sec-WebSocket-Version", "13".to_owned());
    Failure::Rejected(Status::UPGRADE_REQUIRED, why.into(), Some(version))
}

/// Sixteen bytes are 22 digits in base64, the last of which has four bits to spare, and padding.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    match key.strip_suffix(b"==") {
        Some(digits) => digits.len() == 22 && digits.iter().all(is_digit) && b"AQgw".contains(&digits[21]),
        None => false,
    }
}

/// A whole text message, as all subscribers get it.
pub(crate) fn text_frame(text: &[u8]) -> Vec<u8> {
    bytes(Frame::message(text.to_vec(), OpCode::Data(Data::Text), true))
}

/// Returns the last frame.
pub(crate) fn close_frame(code: CloseCode, why: &'static str) -> Vec<u8> {
    bytes(Frame::close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(why) })))
}

fn bytes(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    let _ = frame.format(&mut bytes); // a vector takes everything
    bytes
}

/// The stream that the engine reads and writes.
struct Pipe<'a, 'i> {
    input: &'a mut &'i [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Pipe<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input {
            [] => Err(io::ErrorKind::WouldBlock.into()),
            _ => self.input.read(buffer),
        }
    }
}

impl Write for Pipe<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
