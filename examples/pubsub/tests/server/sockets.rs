//! WebSockets: what RFC 6455 asks of a server, byte by byte, and a client that others have written.

use super::*;
use std::io::Read;
use std::net::TcpStream;
use tungstenite::{Message, WebSocket};

const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "WebSocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A client library's connection to the channel `c`.
pub(crate) fn connect(server: &Server, query: &str) -> WebSocket<TcpStream> {
    try_connect(server, query).expect("a handshake")
}

/// The same, to a server that may die meanwhile.
pub(crate) fn try_connect(server: &Server, query: &str) -> Option<WebSocket<TcpStream>> {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(test_support::TEST_TIMEOUT)).unwrap();
    let (socket, response) = tungstenite::client(format!("ws://localhost/channels/c/ws{query}"), stream).ok()?;
    assert_eq!(response.status(), 101);
    Some(socket)
}

/// The next text.
pub(crate) fn text(socket: &mut WebSocket<TcpStream>) -> String {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return text.as_str().to_owned(),
            Message::Ping(_) => {}
            other => panic!("a text: {other:?}"),
        }
    }
}

/// The bytes of a handshake with other fields.
fn handshake(but: &[(&str, Option<&str>)]) -> Vec<u8> {
    let fields = HANDSHAKE.iter().filter_map(|(name, value)| {
        let other = but.iter().find(|(other, _)| other == name).map_or(Some(*value), |(_, value)| *value);
        other.map(|value| format!("{name}: {value}\r\n"))
    });
    let fields: String = fields.collect();
    format!("GET /channels/c/ws HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes()
}

/// A connection behind its handshake.
pub(crate) fn raw(server: &Server) -> Client {
    let mut client = server.send(&handshake(&[]));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // The example of RFC 6455, section 1.3.
    assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    client
}

/// A frame as a client sends it: the first byte, a length and a mask, and the payload under it.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame's first byte and payload.
type Frame = (u8, Vec<u8>);

/// Bytes of a client, the texts that are published of them, and the frames that answer them besides.
type Good<'a> = (Vec<u8>, Vec<&'a [u8]>, Vec<Frame>);

/// The frames that a server has sent.
fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [first, len, rest @ ..] = bytes {
        let (len, rest) = match len {
            0..126 => (usize::from(*len), rest),
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (usize::try_from(u64::from_be_bytes(rest[..8].try_into().unwrap())).unwrap(), &rest[8..]),
            _ => panic!("a server does not mask"),
        };
        frames.push((*first, rest[..len].to_vec()));
        bytes = &rest[len..];
    }
    assert!(bytes.is_empty());
    frames
}

/// The payload of a close with a code and whatever reason.
fn closes_with(frame: &Frame, code: u16) -> bool {
    frame.0 == 0x88 && frame.1.get(..2) == Some(&code.to_be_bytes())
}

/// Lost otherwise: a handshake that is none, or one that no client understands.
#[test]
fn a_handshake_is_checked() {
    let server = start(&[]);
    drop(raw(&server));
    for (but, status) in [
        (("Upgrade", None), 426),
        (("Upgrade", Some("h2c")), 426),
        (("Connection", Some("keep-alive")), 426),
        (("Sec-WebSocket-Version", None), 426),
        (("Sec-WebSocket-Version", Some("8")), 426),
        (("Sec-WebSocket-Key", None), 400),
        (("Sec-WebSocket-Key", Some("")), 400),
        (("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZQ==")), 400),
        (("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZR==")), 400),
        (("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZ!==")), 400),
    ] {
        let mut client = server.send(&handshake(&[but]));
        client.fin();
        let reply = one(&client.answer(), "GET");
        assert_eq!(reply.status, status, "{but:?}");
        assert_eq!(reply.header("Sec-WebSocket-Version"), (status == 426).then_some("13"), "{but:?}");
    }
    wait_for_subscribers(&server, 0);
}

/// Lost otherwise: what a WebSocket says, or how it ends, in each case of the standard. A client's
/// bytes, what is published of them, and what is sent back besides.
#[test]
fn frames_are_as_the_standard_says() {
    let server = start(&["--max-message", "1000"]);
    let long = vec![b'x'; 1000];
    let (close, ok) = (frame(0x88, &1000u16.to_be_bytes()), (0x88, 1000u16.to_be_bytes().to_vec()));
    let pong = |payload: &[u8]| (0x8a, payload.to_vec());
    let good: Vec<Good<'_>> = vec![
        (frame(0x81, b"hello"), vec![b"hello"], vec![]),
        (frame(0x81, b""), vec![], vec![]),
        (frame(0x81, &long), vec![&long], vec![]),
        (frame(0x81, &long[..125]), vec![&long[..125]], vec![]),
        (frame(0x81, &long[..126]), vec![&long[..126]], vec![]),
        ([frame(0x01, b"he"), frame(0x80, b"llo")].concat(), vec![b"hello"], vec![]),
        ([frame(0x01, b""), frame(0x00, b""), frame(0x80, b"x")].concat(), vec![b"x"], vec![]),
        // A character that is cut in two.
        ([frame(0x01, b"\xc3"), frame(0x80, b"\xa4")].concat(), vec!["\u{e4}".as_bytes()], vec![]),
        ([frame(0x01, b"a"), frame(0x89, b"ping"), frame(0x80, b"b")].concat(), vec![b"ab"], vec![pong(b"ping")]),
        (frame(0x89, b""), vec![], vec![pong(b"")]),
        (frame(0x89, &long[..125]), vec![], vec![pong(&long[..125])]),
        ([frame(0x89, b"1"), frame(0x89, b"2")].concat(), vec![], vec![pong(b"1"), pong(b"2")]),
        (frame(0x8a, b"unasked"), vec![], vec![]),
    ];
    for (bytes, texts, replies) in &good {
        let mut client = raw(&server);
        client.send(bytes);
        client.send(&close);
        let answer = frames(&client.answer());
        let (data, rest): (Vec<_>, Vec<_>) = answer.into_iter().partition(|(first, _)| *first == 0x81);
        let data: Vec<Value> = data.iter().map(|(_, payload)| serde_json::from_slice(payload).unwrap()).collect();
        let data: Vec<&[u8]> = data.iter().filter_map(|message| Some(message["data"].as_str()?.as_bytes())).collect();
        assert_eq!(&data, texts, "{}", bytes.escape_ascii());
        assert_eq!(rest, [&replies[..], std::slice::from_ref(&ok)].concat(), "{}", bytes.escape_ascii());
    }
    let mut empty = raw(&server);
    empty.send(&[frame(0x81, b""), close.clone()].concat());
    assert_eq!(frames(&empty.answer())[0], (0x81, br#"{"error":"The message is empty."}"#.to_vec()));
    let mut bare = raw(&server);
    bare.send(&frame(0x88, b""));
    assert_eq!(frames(&bare.answer()), [(0x88, vec![])]);
    let mut reason = raw(&server);
    reason.send(&frame(0x88, b"\x0f\xa0bye"));
    assert_eq!(frames(&reason.answer()), [(0x88, b"\x0f\xa0bye".to_vec())]);
}

/// Lost otherwise: a server that goes on with who does not keep to the standard.
#[test]
fn what_breaks_the_standard_is_closed_with_its_code() {
    let server = start(&["--max-message", "1000"]);
    let long = vec![b'x'; 1001];
    let mut unmasked = vec![0x81, 0x05];
    unmasked.extend(b"hello");
    let endless = [0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    let fragments = [frame(0x01, &long[..600]), frame(0x80, &long[..600])].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("unmasked", unmasked, 1002),
        ("binary", frame(0x82, b"x"), 1003),
        ("binary fragments", [frame(0x02, b"x"), frame(0x80, b"y")].concat(), 1003),
        ("too long", frame(0x81, &long), 1009),
        ("far too long", endless.to_vec(), 1009),
        ("too long in fragments", fragments, 1009),
        ("invalid UTF-8", frame(0x81, b"\xff"), 1007),
        ("overlong UTF-8", frame(0x81, b"\xc0\xaf"), 1007),
        ("a surrogate", frame(0x81, b"\xed\xa0\x80"), 1007),
        ("half a character", frame(0x81, b"\xc3"), 1007),
        ("invalid UTF-8 in fragments", [frame(0x01, b"a\xc3"), frame(0x80, b"b")].concat(), 1007),
        ("reserved bit 1", frame(0xc1, b"x"), 1002),
        ("reserved bit 2", frame(0xa1, b"x"), 1002),
        ("reserved bit 3", frame(0x91, b"x"), 1002),
        ("opcode 3", frame(0x83, b"x"), 1002),
        ("opcode 7", frame(0x87, b""), 1002),
        ("opcode 11", frame(0x8b, b"x"), 1002),
        ("opcode 15", frame(0x8f, b""), 1002),
        ("a fragmented ping", frame(0x09, b"x"), 1002),
        ("a long ping", frame(0x89, &long[..126]), 1002),
        ("a long close", frame(0x88, &long[..126]), 1002),
        ("a continuation of nothing", frame(0x80, b"x"), 1002),
        ("a text in a text", [frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        ("a close of one byte", frame(0x88, b"\x03"), 1002),
        ("a close with code 999", frame(0x88, &999u16.to_be_bytes()), 1002),
        ("a close with code 1005", frame(0x88, &1005u16.to_be_bytes()), 1002),
        ("a close with code 1006", frame(0x88, &1006u16.to_be_bytes()), 1002),
        ("a close with invalid UTF-8", frame(0x88, b"\x03\xe8\xff"), 1007),
    ];
    for (what, bytes, code) in cases {
        let mut client = raw(&server);
        client.send(&bytes);
        let answer = frames(&client.answer());
        assert!(answer.len() == 1 && closes_with(&answer[0], code), "{what}: {answer:?}");
    }
    assert_eq!(stats(&server)["published"], 0);
}

/// Lost otherwise: real clients.
#[test]
fn a_client_library_talks_both_ways() {
    let server = start(&[]);
    let mut ann = connect(&server, "");
    let mut bob = connect(&server, "?after=0");
    ann.send(Message::text("h\u{e4}llo\n")).unwrap();
    let one: Value = serde_json::from_str(&text(&mut ann)).unwrap();
    assert_eq!(one["data"], "h\u{e4}llo\n");
    assert_eq!(serde_json::from_str::<Value>(&text(&mut bob)).unwrap(), one);
    let long = "\"".repeat(65536);
    bob.send(Message::text(long.clone())).unwrap();
    for socket in [&mut ann, &mut bob] {
        let two: Value = serde_json::from_str(&text(socket)).unwrap();
        assert!(two["data"] == *long && two["id"].as_u64().unwrap() == one["id"].as_u64().unwrap() + 1);
    }
    ann.close(None).unwrap();
    let closed = std::iter::repeat_with(|| ann.read()).find_map(Result::err).unwrap();
    assert!(matches!(closed, tungstenite::Error::ConnectionClosed), "{closed:?}");
    wait_for_subscribers(&server, 1);
    let mut late = connect(&server, "?after=7");
    let gap: Value = serde_json::from_str(&text(&mut late)).unwrap();
    let id = one["id"].as_u64().unwrap();
    assert_eq!(gap, json!({"id": id - 1, "gap": {"after": 7, "oldest": id}}));
    assert_eq!(serde_json::from_str::<Value>(&text(&mut late)).unwrap(), one);
}

/// Lost otherwise: messages that mean something else because of how the network cut them.
#[test]
fn frames_come_in_any_pieces() {
    let server = start(&[]);
    let bytes = [frame(0x01, b"he"), frame(0x89, b"p"), frame(0x80, b"llo"), frame(0x88, b"")].concat();
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut client = raw(&server);
        pieces.for_each(|piece| client.send(piece));
        let answer = frames(&client.answer());
        let (text, rest): (Vec<_>, Vec<_>) = answer.into_iter().partition(|(first, _)| *first == 0x81);
        assert_eq!(text.len(), 1);
        assert_eq!(rest, [(0x8a, b"p".to_vec()), (0x88, vec![])]);
    };
    read(&mut bytes.chunks(1));
    for cut in 0..bytes.len() {
        read(&mut [&bytes[..cut], &bytes[cut..]].into_iter());
    }
}
