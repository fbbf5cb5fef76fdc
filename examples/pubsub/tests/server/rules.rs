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
        ("HEAD", "/stats", 200),
        ("HEAD", "/channels/c/events", 200),
        ("HEAD", "/channels/c/poll", 204),
        ("GET", "/channels/c%2Fd/events", 400),
        ("GET", "/channels/c%0Ad/events", 400),
        ("GET", "/channels/%2563/events", 400),
        ("GET", "/channels/%ff/events", 400),
        ("GET", &format!("/channels/{long}/events"), 400),
        ("GET", "/channels/c/poll?after=x&timeout=0", 200),
        ("GET", "/channels/c/poll?after=-1&timeout=0", 200),
        ("GET", "/channels/c/poll?after=18446744073709551616&timeout=0", 200),
        ("GET", "/channels/c/poll?after=&timeout=0", 204),
        ("GET", "/channels/c/poll?timeout=soon", 400),
        ("GET", "/channels/c/poll?timeout=0", 204),
        ("GET", "/channels/%63/poll?timeout=0&after=0", 204),
        ("GET", "/channels/c/ws", 426),
    ] {
        let reply = ask(&server, method, target, &[], b"");
        assert_eq!(reply.status, status, "{method} {target}");
        assert_eq!(reply.header("Allow").is_some(), status == 405, "{method} {target}");
    }
    assert_eq!(ask(&server, "PUT", "/channels/c", &[], b"").header("Allow"), Some("GET, HEAD, POST, OPTIONS"));
    let about: Value = serde_json::from_slice(&get(&server, "/channels/c").body).unwrap();
    assert_eq!((&about["subscribers"], about["last"].is_u64()), (&json!(0), true), "{about}");
    for (id, status) in [("1\t2", 200), ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", 200), ("", 204)] {
        let reply = ask(&server, "GET", "/channels/c/poll?timeout=0", &[("Last-Event-ID", id)], b"");
        assert_eq!((reply.status, reply.text().contains("gap")), (status, status == 200), "{id:?}");
    }
    assert_eq!(get(&server, "/channels/c/poll?timeout=0&lastEventId=abc").status, 200, "a gap, as with the header");
    let upgrade = get(&server, "/channels/c/ws");
    assert_eq!(upgrade.header("Upgrade"), Some("websocket"), "as a 426 has to say");
    let huge = ask(&server, "GET", &format!("/{}", "a".repeat(9000)), &[], b"");
    assert_eq!(huge.status, 414);
    assert_eq!(stats(&server)["channels"], 0, "none was made by a request that was rejected, or that is over");
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
        (form, "message=caf%E9", 400),
        ("text/plain; charset=utf-16", "a", 415),
        ("text/plain; x=y; Charset=\"UTF-8\"", "q", 200),
        ("application/json; charset=latin1", r#"{"message":"a"}"#, 415),
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
    assert_eq!(ask(&server, "POST", "/channels/c", &[("Content-Type", form)], b"message=caf\xe9").status, 400);
    assert_eq!(ask(&server, "POST", "/channels/c", &[("Content-Encoding", "gzip")], b"\x1f\x8b").status, 415);
    assert_eq!(ask(&server, "POST", "/channels/c", &[("Content-Encoding", "identity")], b"").status, 400);
    assert_eq!(ask(&server, "POST", "/channels/c", &[], b"").status, 400);
    assert_eq!(ask(&server, "POST", "/channels/c", &[], b"\xff").status, 400);
    assert_eq!(ask(&server, "POST", "/channels/c", &[], &[b'a'; 5000]).status, 413);
    assert_eq!(ask(&server, "POST", "/channels/c%20", &[], b"a").status, 400);
    let deep = [b"{\"message\":".to_vec(), vec![b'['; 1000]].concat();
    assert_eq!(ask(&server, "POST", "/channels/c", &[("Content-Type", json)], &deep).status, 400);
    let texts = ["a\u{e4}", "b", "c\n +", "\u{e4}\n\u{1f600}", "0123456789", "0123456789", "q", "plain"];
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
    assert_eq!((ws("http://evil.example"), ws("https://friend.example")), (403, 426), "the other is no handshake");
}

/// Lost otherwise: a body of megabytes, sent to be rejected for what its head says; or the reason, to a page that may
/// read it only with the fields of its origin.
#[test]
fn a_head_that_decides_is_answered_before_its_body() {
    let server = start(&["--allow-origin", "https://friend.example"]);
    let expect = |line: &str, fields: &str| {
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://friend.example\r\nContent-Length: 5\r\n\
             Expect: 100-continue\r\nConnection: close\r\n{fields}\r\n"
        );
        let mut client = server.send(head.as_bytes());
        let mut status = [0; 12];
        std::io::Read::read_exact(&mut client, &mut status).unwrap();
        let rest = if status == *b"HTTP/1.1 100" { String::new() } else { String::from_utf8(client.answer()).unwrap() };
        (String::from_utf8_lossy(&status[9..]).parse::<u16>().unwrap(), rest.contains("Access-Control-Allow-Origin: "))
    };
    assert_eq!(expect("POST /channels/c", "").0, 100, "it depends on the body");
    for (line, fields, status) in [
        ("POST /nothing", "", 404),
        ("POST /channels/c%20d", "", 400),
        ("POST /channels/c/events", "", 405),
        ("POST /channels/c", "Content-Type: text/html\r\n", 415),
        ("POST /channels/c", "Content-Encoding: gzip\r\n", 415),
        ("POST /channels/c", "Sec-Fetch-Site: cross-site\r\nOrigin: https://evil.example\r\n", 403),
    ] {
        assert_eq!(expect(line, fields), (status, true), "{line} {fields}");
    }
    let large = "POST /channels/c HTTP/1.1\r\nHost: localhost\r\nOrigin: https://friend.example\r\nContent-Length: 9999999\r\n\r\n";
    let malformed = "GET / HTTP/1.1\r\nOrigin: https://friend.example\r\n\r\n";
    for (bytes, status) in [(large, 413), (malformed, 400)] {
        let reply = one(&server.send(bytes.as_bytes()).answer(), "POST");
        assert_eq!(
            (reply.status, reply.header("Access-Control-Allow-Origin")),
            (status, Some("https://friend.example"))
        );
    }
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
    // An option that names hosts means them, wherever the server listens.
    let named = ["--listen", "0.0.0.0:0", "--allow-host", "Room.Example.:80", "--allow-origin", "HTTPS://H:443"];
    let named = Server::spawn(command(env!("CARGO_BIN_EXE_pubsub"), &named), 1);
    let port = named.address().port();
    for (host, status) in [("room.example", 200), ("ROOM.example.:8000", 200), ("127.0.0.1", 200), ("any.example", 403)]
    {
        let mut client = Client::new(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
        client.send(&request("GET", "/stats", &[("Host", host), ("Origin", "https://h")], b""));
        let reply = one(&client.answer(), "GET");
        assert_eq!(reply.status, status, "{host}");
    }
    let everywhere = command(env!("CARGO_BIN_EXE_pubsub"), &["--listen", "0.0.0.0:0"]);
    let socket = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let handed = test_support::handed(&command(env!("CARGO_BIN_EXE_pubsub"), &[]), &socket);
    for server in [everywhere, handed].map(|command| Server::spawn(command, 1)) {
        let reply = ask(&server, "GET", "/", &[("Host", "any.example")], b"");
        assert_eq!(reply.status, 200, "{}", server.address());
    }
}

/// Lost otherwise: an error that cannot be understood; IPv6, and several addresses.
#[test]
fn the_command_line_is_checked() {
    for args in [
        &["--max-unsent", "1000"][..],
        &["--max-subscribers", "0"],
        &["--allow-origin", "friend.example"],
        &["--allow-origin", "https://friend.example/"],
        &["--allow-origin", "https://*.example.org"],
        &["--allow-origin", "https://u@h"],
        &["--allow-origin", "https://h:0"],
        &["--allow-origin", "https://h:x"],
        &["--allow-origin", "https://"],
        &["--allow-host", "https://x"],
        &["--allow-host", "*"],
        &["--allow-host", ""],
        &["--allow-host", "a b"],
        &["--allow-host", "[::1"],
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

/// Lost otherwise: a way to see what a server would do, and its man page.
#[test]
fn the_command_line_explains_itself() {
    test_support::check_command_line(
        env!("CARGO_BIN_EXE_pubsub"),
        "pubsub",
        &["--grace", "1s"],
        "--grace=1s  # command line",
    );
}

/// Lost otherwise: the operator's view of it.
#[test]
fn it_tells_its_metrics() {
    let args = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let server = Server::spawn(command(env!("CARGO_BIN_EXE_pubsub"), &args), 2);
    assert!(server.ready[0].starts_with("listening on "), "the first line is that: {:?}", server.ready);
    test_support::check_metrics(&server, "pubsub", "pubsub_published_total 0");
    let args = ["--listen", "127.0.0.1:0", "--metrics", "0.0.0.0:0"];
    test_support::check_metrics_elsewhere(&Server::spawn(command(env!("CARGO_BIN_EXE_pubsub"), &args), 2));
}
