//! The rules for clients, over real sockets.

use super::*;
use std::io::Read;

/// Reads until the replies to these methods are whole.
fn read(client: &mut Client, methods: &[&str]) -> Vec<Response> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some((replies, len)) = replies(&bytes, methods) {
            assert_eq!(len, bytes.len(), "nothing more: {}", bytes.escape_ascii());
            return replies;
        }
        let n = client.read(&mut buffer).expect("a reply");
        assert!(n > 0, "the end, after {}", bytes.escape_ascii());
        bytes.extend(&buffer[..n]);
    }
}

/// The one reply to `request`, behind which the connection is closed.
fn last(server: &Server, request: &[u8]) -> Response {
    let method = std::str::from_utf8(request).unwrap_or("").split(' ').next().unwrap();
    one(&server.send(request).answer(), method)
}

/// Lost otherwise: a server that does what it says.
#[test]
fn the_body_comes_back_whatever_the_method() {
    let server = start();
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let mut client = server.connect();
        client.send(
            format!("{method} /any?thing HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello")
                .as_bytes(),
        );
        let reply = read(&mut client, &[method]).remove(0);
        assert_eq!((reply.status, reply.text()), (200, "hello"));
        assert_eq!(reply.header("Content-Type"), Some("a/b"));
        assert_eq!(reply.header("Server"), Some("pollstack"));
        assert!(httpdate_like(reply.header("Date").unwrap()), "{reply:?}");
        assert_eq!(reply.header("Connection"), None);
    }
}

fn httpdate_like(date: &str) -> bool {
    date.len() == DATE.len() && date.ends_with(" GMT") && date.as_bytes()[3] == b','
}

/// Lost otherwise: a connection for each request.
#[test]
fn a_connection_is_kept_unless_it_is_to_be_closed() {
    let server = start();
    let mut client = server.connect();
    for _ in 0..3 {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(!read(&mut client, &["GET"])[0].closes());
    }
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(one(&client.answer(), "GET").closes());
}

/// Lost otherwise: old clients, which wait for the end, and benchmarks, which ask to be kept.
#[test]
fn http_1_0_is_closed_unless_it_asks_to_be_kept() {
    let server = start();
    assert!(last(&server, b"GET / HTTP/1.0\r\n\r\n").closes());
    let mut client = server.send(b"POST / HTTP/1.0\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(read(&mut client, &["POST"])[0].header("Connection"), Some("keep-alive"));
    client.send(b"GET / HTTP/1.0\r\nExpect: anything\r\n\r\n");
    assert_eq!(one(&client.answer(), "GET").status, 200);
    assert_eq!(last(&server, b"GET / HTTP/1.2\r\nHost: a\r\nConnection: close\r\n\r\n").status, 200);
}

/// Lost otherwise: replies that clients take for those to other requests.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = start();
    let mut client = server.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none\
        HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ntwo\r\n\
        POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nthr\r\n2;x\r\nee\r\n0\r\nT: x\r\n\r\n\
        GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let replies = read(&mut client, &["POST", "HEAD", "POST", "GET"]);
    let bodies: Vec<&str> = replies.iter().map(Response::text).collect();
    assert_eq!(bodies, ["one", "", "three", ""]);
    assert_eq!(replies[1].header("Content-Length"), Some("3"), "that of a GET");
}

/// Lost otherwise: uploads of clients that ask first (curl does, above a mebibyte).
#[test]
fn who_waits_for_a_continue_gets_it() {
    let server = start();
    let mut client = server.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n");
    let mut interim = [0; 25];
    client.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"abc");
    assert_eq!(read(&mut client, &["POST"])[0].text(), "abc");
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(read(&mut client, &["POST"]).len(), 1, "a client that has begun needs no invitation");
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n");
    assert_eq!(one(&client.answer(), "POST").status, 413, "and not invited first");
    assert_eq!(last(&server, b"GET / HTTP/1.1\r\nHost: a\r\nExpect: money\r\n\r\n").status, 417);
}

/// Lost otherwise: what the client is to read, in a reset, because it was still sending.
#[test]
fn rejections_are_readable_by_clients_that_keep_sending() {
    let server = start();
    let filler = |n: usize| "x".repeat(n);
    let fields = |n: usize| (0..n).map(|n| format!("h{n}: v\r\n")).collect::<String>();
    let more = filler(700_000);
    for (status, request) in [
        (413, format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n{more}")),
        (
            413,
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}",
                1 << 24,
                filler(1_500_000)
            ),
        ),
        (414, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", filler(1 << 20))),
        (414, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", filler(8192))),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\nb: {more}\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(100_000))),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(100))),
        (400, format!("GET / HTTP/1.1\r\n\r\n{more}")),
        (505, format!("GET / HTTP/2.0\r\nHost: a\r\n\r\n{more}")),
    ] {
        let reply = last(&server, request.as_bytes());
        assert_eq!(reply.status, status, "{}", &request[..60]);
        assert!(reply.closes() && reply.text().contains(&status.to_string()), "{reply:?}");
    }
}

/// Lost otherwise: requests at the limit, which the documentation allows.
#[test]
fn what_is_just_within_a_limit_is_served() {
    let server = start();
    let fields: String = (0..98).map(|n| format!("h{n}: v\r\n")).collect();
    let line = "x".repeat(8192 - "GET / HTTP/1.1".len());
    let head = "x".repeat(32 * 1024 - "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nb: \r\n\r\n".len());
    let body = "x".repeat(1024 * 1024);
    for request in [
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n"),
        format!("GET /{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nb: {head}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1048576\r\n\r\n{body}"),
    ] {
        assert_eq!(last(&server, request.as_bytes()).status, 200, "{}", &request[..60]);
    }
}

/// Lost otherwise: clients behind proxies, which send the whole of an address.
#[test]
fn targets_may_be_absolute() {
    let server = start();
    for target in ["http://example.org/a?b", "HTTPS://example.org:8080", "*"] {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(last(&server, request.as_bytes()).status, 200, "{target}");
    }
    assert_eq!(last(&server, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").status, 501);
}

/// Lost otherwise: `printf | nc -N`, and any other client that says that it has asked for all.
#[test]
fn who_ends_its_half_is_answered() {
    let server = start();
    let mut client =
        server.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    client.fin();
    let bytes = client.answer();
    let (answers, len) = replies(&bytes, &["GET", "POST"]).expect("two replies");
    assert_eq!((answers[1].text(), len), ("ab", bytes.len()));
    for part in [&b"GET / HTT"[..], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na"] {
        let mut client = server.send(part);
        client.fin();
        assert_eq!(one(&client.answer(), "").status, 400, "{}", part.escape_ascii());
    }
    let mut client = server.connect();
    client.fin();
    assert_eq!(client.answer(), b"", "it has asked for nothing");
}

/// Lost otherwise: a server that can be stopped. A silent client must not hold
/// it up.
#[test]
fn sigterm_ends_it() {
    let mut server = start();
    let mut idle = server.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    read(&mut idle, &["GET"]);
    let _silent = server.connect();
    server.signal("TERM");
    assert_eq!(idle.answer(), b"");
    assert!(server.wait().success());
}
