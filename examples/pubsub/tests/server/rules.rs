//! Requests and their responses.

use super::*;

/// Lost otherwise: a client's way to know what it did wrong.
#[test]
fn every_route_has_its_errors() {
    let server = start(&[]);
    let long = "a".repeat(65);
    for (method, target, status) in [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/stats", 200),
        ("GET", "/nothing", 404),
        ("GET", "/channels/", 404),
        ("GET", "/channels/c/events/more", 404),
        ("DELETE", "/channels/c", 405),
        ("POST", "/channels/c/events", 405),
        ("HEAD", "/channels/c/events", 405),
        ("GET", "/channels/c%2Fd/events", 400),
        ("GET", "/channels/c%0Ad/events", 400),
        ("GET", "/channels/%2563/events", 400),
        ("GET", "/channels/%ff/events", 400),
        ("GET", &format!("/channels/{long}/events"), 400),
        ("GET", "/channels/c/events?after=x", 400),
        ("GET", "/channels/c/events?after=-1", 400),
        ("GET", "/channels/c/poll?after=18446744073709551616", 400),
        ("GET", "/channels/c/poll?timeout=soon", 400),
        ("GET", "/channels/c/poll?timeout=0", 204),
        ("GET", "/channels/%63/poll?timeout=0&after=0", 204),
        ("GET", "/channels/c/ws", 400),
    ] {
        let reply = ask(&server, method, target, &[], b"");
        assert_eq!(reply.status, status, "{method} {target}");
        assert_eq!(reply.header("Allow").is_some(), status == 405, "{method} {target}");
    }
    assert_eq!(ask(&server, "PUT", "/channels/c", &[], b"").header("Allow"), Some("POST, OPTIONS"));
    assert_eq!(ask(&server, "GET", "/channels/c/events", &[("Last-Event-ID", "1\t2")], b"").status, 400);
    let huge = ask(&server, "GET", &format!("/{}", "a".repeat(9000)), &[], b"");
    assert_eq!(huge.status, 414);
    assert_eq!(stats(&server)["channels"], 0, "none was made by a request that was refused, or that is over");
}

/// Lost otherwise: messages, by the way in which they are sent.
#[test]
fn a_message_is_text_or_a_form_or_json() {
    let server = start(&["--max-message", "10"]);
    let (form, json) = ("application/x-www-form-urlencoded", "application/json; charset=utf-8");
    let mut stream = subscribe(&server, "");
    for (media, body, status) in [
        ("text/plain", "a\u{e4}", 200),
        ("Text/Plain;charset=UTF-8", "b", 200),
        (form, "x=1&message=c%0A+%2B&message=no", 200),
        (json, r#"{"message":"\u00e4\n\ud83d\ude00","x":1}"#, 200),
        ("text/plain", "0123456789", 200),
        (form, "message=%30%31%32%33%34%35%36%37%38%39", 200),
        ("text/plain", "0123456789a", 413),
        (json, r#"{"message":"0123456789a"}"#, 413),
        (form, "text=c", 400),
        (form, "message=", 400),
        (json, r#"{"message":1}"#, 400),
        (json, r#"["message"]"#, 400),
        (json, r#"{"message":"\ud800"}"#, 400),
        (json, "{", 400),
        ("application/octet-stream", "a", 415),
        ("text/html", "a", 415),
        ("", "a", 415),
    ] {
        let reply = ask(&server, "POST", "/channels/c", &[("Content-Type", media)], body.as_bytes());
        assert_eq!(reply.status, status, "{media}: {body}: {}", reply.text());
    }
    assert_eq!(ask(&server, "POST", "/channels/c", &[], b"plain").status, 200);
    assert_eq!(ask(&server, "POST", "/channels/c", &[], b"").status, 400);
    assert_eq!(ask(&server, "POST", "/channels/c", &[], b"\xff").status, 400);
    assert_eq!(ask(&server, "POST", "/channels/c", &[], &[b'a'; 5000]).status, 413);
    assert_eq!(ask(&server, "POST", "/channels/c%20", &[], b"a").status, 400);
    let deep = [b"{\"message\":".to_vec(), vec![b'['; 1000]].concat();
    assert_eq!(ask(&server, "POST", "/channels/c", &[("Content-Type", json)], &deep).status, 400);
    let texts = ["a\u{e4}", "b", "c\n +", "\u{e4}\n\u{1f600}", "0123456789", "0123456789", "plain"];
    assert_eq!(stream.texts(texts.len()), texts);
}

/// Lost otherwise: the room, to any page that its visitors have open elsewhere.
#[test]
fn pages_of_other_origins_do_not_publish() {
    let server = start(&["--allow-origin", "https://friend.example"]);
    let post = |headers: &[(&str, &str)]| ask(&server, "POST", "/channels/c", headers, b"a");
    for origin in
        ["http://evil.example", "null", "http://localhost.evil.example", "http://localhost:1", "localhost", ""]
    {
        assert_eq!(post(&[("Origin", origin)]).status, 403, "{origin:?}");
    }
    let both = [("Origin", "https://friend.example"), ("Origin", "https://evil.example")];
    assert_eq!(post(&both).status, 403);
    assert_eq!(post(&[("Sec-Fetch-Site", "cross-site")]).status, 403);
    assert_eq!(post(&[("Sec-Fetch-Site", "same-site")]).status, 403);
    assert_eq!(post(&[("Host", "localhost:80"), ("Origin", "http://localhost")]).status, 200);
    assert_eq!(post(&[("Host", "localhost:443"), ("Origin", "http://localhost")]).status, 403);
    assert_eq!(post(&[("Sec-Fetch-Site", "same-origin")]).status, 200);
    for origin in ["http://localhost", "https://LOCALHOST"] {
        let reply = post(&[("Origin", origin)]);
        assert_eq!((reply.status, reply.header("Access-Control-Allow-Origin")), (200, None), "{origin}");
    }
    let friend = [("Origin", "https://friend.example")];
    let reply = post(&friend);
    assert_eq!(
        (reply.status, reply.header("Access-Control-Allow-Origin"), reply.header("Vary")),
        (200, Some("https://friend.example"), Some("Origin"))
    );
    let poll = ask(&server, "GET", "/channels/c/poll?timeout=0", &friend, b"");
    assert_eq!((poll.status, poll.header("Access-Control-Allow-Origin")), (204, Some("https://friend.example")));
    let may = ask(&server, "OPTIONS", "/channels/c", &friend, b"");
    assert_eq!((may.status, may.header("Access-Control-Allow-Methods")), (204, Some("GET, POST")));
    assert_eq!(ask(&server, "OPTIONS", "/channels/c", &[("Origin", "null")], b"").status, 403);
    let ws = |origin| ask(&server, "GET", "/channels/c/ws", &[("Origin", origin)], b"").status;
    assert_eq!((ws("http://evil.example"), ws("https://friend.example")), (403, 400), "the other is no handshake");
}

/// Lost otherwise: a server on loopback, to a site whose name leads there.
#[test]
fn a_server_on_loopback_goes_by_its_names() {
    let server = start(&["--allow-host", "room.example"]);
    for (host, status) in [
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:80", 200),
        ("127.8.8.8", 200),
        ("[::1]:80", 200),
        ("room.example:8000", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("192.168.0.1", 403),
        ("[::2]", 403),
    ] {
        assert_eq!(ask(&server, "GET", "/", &[("Host", host)], b"").status, status, "{host}");
    }
    let everywhere = Server::spawn(command(env!("CARGO_BIN_EXE_pubsub"), &["--listen", "0.0.0.0:0"]), 1);
    let port = everywhere.address().port();
    let mut client = Client::new(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    client.send(&request("GET", "/", &[("Host", "any.example")], b""));
    assert_eq!(one(&client.answer(), "GET").status, 200);
}

/// Lost otherwise: an error that cannot be understood; IPv6, and several addresses.
#[test]
fn the_command_line_is_checked() {
    for args in [
        &["--backlog", "1000"][..],
        &["--max-subscribers", "0"],
        &["--allow-origin", "friend.example"],
        &["--allow-origin", "https://friend.example/"],
        &["--listen", "nowhere"],
        &["--heartbeat", "often"],
    ] {
        let output = test_support::run(command(env!("CARGO_BIN_EXE_pubsub"), args));
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    let server =
        Server::spawn(command(env!("CARGO_BIN_EXE_pubsub"), &["--listen", "[::1]:0", "--listen", "127.0.0.1:0"]), 2);
    assert!(server.ready.iter().all(|line| line.starts_with("listening on ")), "{:?}", server.ready);
    assert!(server.address().is_ipv6());
    assert_eq!(get(&server, "/").status, 200);
    let taken = test_support::run(command(env!("CARGO_BIN_EXE_pubsub"), &["--listen", &server.address().to_string()]));
    assert_eq!(taken.status.code(), Some(1));
}
