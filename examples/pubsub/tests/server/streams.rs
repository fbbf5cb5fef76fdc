//! The streams that subscribers read, and where they go on.

use super::*;

/// Lost otherwise: what a browser or a proxy goes by.
#[test]
fn a_stream_begins_as_browsers_and_proxies_want_it() {
    let server = start(&[]);
    let stream = subscribe(&server, "");
    for field in ["Content-Type: text/event-stream", "Cache-Control: no-store", "X-Accel-Buffering: no"] {
        assert!(stream.head.contains(&format!("\r\n{field}\r\n")), "{}", stream.head);
    }
    assert_eq!((stream.parser.retry, stream.parser.comments, stream.parser.events.len()), (2000, 1, 0));
    assert!(stream.parser.last_id < 1 << 53, "as far as JavaScript counts");
}

/// Lost otherwise: forged events.
#[test]
fn hostile_messages_stay_data() {
    let server = start(&[]);
    let mut stream = subscribe(&server, "");
    let texts = [
        ("a\nb\rc\r\nd", "a\nb\nc\nd"),
        ("\n", "\n"),
        ("x\n\nevent: gap\nid: 1\ndata: y\n\n", "x\n\nevent: gap\nid: 1\ndata: y\n\n"),
        ("\r\n\r\nretry: 0", "\n\nretry: 0"),
        (" : leading", " : leading"),
        (":", ":"),
        ("\u{feff}\0\u{85}\u{2028}", "\u{feff}\0\u{85}\u{2028}"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("\"],[{\\", "\"],[{\\"),
    ];
    let (first, _) = publish(&server, texts[0].0);
    for (text, _) in &texts[1..] {
        publish(&server, text);
    }
    assert_eq!(stream.texts(texts.len()), texts.map(|(_, read)| read));
    let array: Value = serde_json::from_slice(&get(&server, "/channels/c/poll?after=0").body).unwrap();
    let expected: Vec<Value> = (first..).zip(texts).map(|(id, (text, _))| json!({"id": id, "data": text})).collect();
    assert_eq!(array, Value::from(expected), "and in JSON to the byte");
}

/// Lost otherwise: messages between two connections; or twice the same.
#[test]
fn who_comes_back_goes_on_where_it_was() {
    let server = start(&["--history", "3"]);
    let position = subscribe(&server, "").parser.last_id;
    let ids: Vec<u64> = ["a", "b", "c"].map(|text| publish(&server, text).0).to_vec();
    assert_eq!(ids, [position + 1, position + 2, position + 3], "no holes, from the position that was told first");
    assert_eq!(subscribe(&server, "?after=0").texts(3), ["a", "b", "c"]);
    assert_eq!(subscribe(&server, &format!("?after={position}")).texts(3), ["a", "b", "c"]);
    assert_eq!(subscribe(&server, &format!("?after={}", ids[1])).texts(1), ["c"]);
    let head =
        format!("GET /channels/c/events?after=0 HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {}\r\n\r\n", ids[0]);
    let mut again = Stream::new(server.send(head.as_bytes()));
    again.open();
    assert_eq!(again.texts(2), ["b", "c"], "the header is what came later");
    let mut new = subscribe(&server, "");
    publish(&server, "d");
    assert_eq!(new.texts(1), ["d"], "only what comes from now on");

    // "a" is gone.
    for (after, told) in [(0, 0), (position, position), (5, 5), (ids[2] + 100, ids[2] + 100)] {
        let mut stream = subscribe(&server, &format!("?after={after}"));
        let gap = stream.next().unwrap();
        assert_eq!((&*gap.name, gap.id), ("gap", ids[0]), "behind which there is no gap");
        let data: Value = serde_json::from_str(&gap.data).unwrap();
        assert_eq!(data, json!({"after": told, "oldest": ids[1]}));
        assert_eq!(stream.texts(3), ["b", "c", "d"]);
    }
    assert_eq!(subscribe(&server, &format!("?after={}", ids[0])).texts(3), ["b", "c", "d"]);
}

/// Lost otherwise: the same, for long polls.
#[test]
fn long_polls_go_on_where_they_were() {
    let server = start(&["--history", "2"]);
    let poll = |query: &str| {
        let reply = get(&server, &format!("/channels/c/poll?{query}"));
        let last: u64 = reply.header("Last-Event-ID").unwrap().parse().unwrap();
        (reply.status, last, serde_json::from_slice(&reply.body).unwrap_or(Value::Null))
    };
    let (status, position, _) = poll("timeout=0");
    assert_eq!(status, 204);
    let waiting = server.send(&request("GET", "/channels/c/poll", &[], b""));
    let also = server.send(&request("GET", &format!("/channels/c/poll?after={position}"), &[], b""));
    wait_for_subscribers(&server, 2);
    assert_eq!(publish(&server, "a"), (position + 1, 2));
    for mut client in [waiting, also] {
        let reply = one(&client.answer(), "GET");
        assert_eq!(reply.header("Content-Type"), Some("application/json"));
        assert_eq!(reply.text(), format!(r#"[{{"id":{},"data":"a"}}]"#, position + 1));
    }
    assert_eq!(publish(&server, "b").1, 0, "each was for one message");
    let (a, b, c) = (position + 1, position + 2, position + 3);
    assert_eq!(poll("after=0"), (200, b, json!([{"id": a, "data": "a"}, {"id": b, "data": "b"}])));
    publish(&server, "c");
    let gap = json!({"id": a, "gap": {"after": position, "oldest": b}});
    let expected = json!([gap, {"id": b, "data": "b"}, {"id": c, "data": "c"}]);
    assert_eq!(poll(&format!("after={position}")), (200, c, expected));
    let (status, last, array) = poll("after=9");
    assert_eq!((status, last, array[0]["gap"]["after"].as_u64()), (200, c, Some(9)));
    assert_eq!(poll(&format!("after={c}&timeout=0")), (204, c, Value::Null));
}

/// Lost otherwise: messages to a subscriber, by its kind of connection.
#[test]
fn every_subscriber_gets_every_message_in_order_once() {
    let server = start(&["--history", "1000"]);
    let mut streams: Vec<Stream> = (0..10).map(|_| subscribe(&server, "?after=0")).collect();
    let mut socket = sockets::connect(&server, "?after=0");
    let texts: Vec<String> = (0..300).map(|n| format!("{n} {}", "x".repeat(n * 7 % 2000))).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| texts.iter().map(|text| publish(&server, text)).last());
        for stream in &mut streams {
            let texts = &texts;
            scope.spawn(move || assert_eq!(&stream.texts(texts.len()), texts));
        }
        scope.spawn(|| {
            let mut last = None;
            for text in &texts {
                let message: Value = serde_json::from_str(&sockets::text(&mut socket)).unwrap();
                let id = message["id"].as_u64().unwrap();
                assert!(message["data"] == **text && last.is_none_or(|last| id == last + 1), "{message}");
                last = Some(id);
            }
        });
        scope.spawn(|| {
            let (mut after, mut read) = (0, Vec::new());
            while read.len() < texts.len() {
                let reply = get(&server, &format!("/channels/c/poll?after={after}"));
                let Ok(Value::Array(array)) = serde_json::from_slice(&reply.body) else { continue };
                read.extend(array.iter().map(|message| message["data"].as_str().unwrap().to_owned()));
                after = array.last().unwrap()["id"].as_u64().unwrap();
            }
            assert_eq!(read, texts);
        });
        // A subscriber that comes and goes.
        scope.spawn(|| {
            let (mut after, mut read) = (0, Vec::new());
            while read.len() < texts.len() {
                let mut stream = subscribe(&server, &format!("?after={after}"));
                read.extend(stream.texts(7.min(texts.len() - read.len())));
                after = stream.last_given();
            }
            assert_eq!(read, texts);
        });
    });
    assert_eq!(stats(&server)["disconnected_slow"], 0);
}

/// Lost otherwise: a restart that passes unnoticed.
#[test]
fn another_life_of_the_server_is_a_gap() {
    let server = start(&[]);
    let (id, _) = publish(&server, "before");
    drop(server);
    let server = start(&[]);
    let mut stream = subscribe(&server, &format!("?after={id}"));
    assert_eq!(stream.next().unwrap().name, "gap");
    let (later, subscribers) = publish(&server, "after");
    assert!(later > id && subscribers == 1);
    assert_eq!(stream.texts(1), ["after"]);
    let mut other = subscribe(&server, &format!("?after={}", later - 1));
    assert_eq!(other.texts(1), ["after"], "the gap is told of once");
}

/// Lost otherwise: subscribers that come back all at once, to a server that has just stopped.
#[test]
fn a_stop_tells_when_to_come_back() {
    let mut server = start(&[]);
    let mut streams: Vec<Stream> = (0..8).map(|_| subscribe(&server, "")).collect();
    let mut poll = server.send(&request("GET", "/channels/c/poll", &[], b""));
    let mut socket = sockets::connect(&server, "");
    wait_for_subscribers(&server, 10);
    server.signal("TERM");
    let mut times: Vec<u64> = Vec::new();
    for stream in &mut streams {
        assert_eq!(stream.next(), None, "an orderly end");
        times.push(stream.parser.retry);
    }
    assert!(times.iter().all(|time| (1000..=4000).contains(time)), "{times:?}");
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 1, "not all at once: {times:?}");
    let reply = one(&poll.answer(), "GET");
    let retry: u64 = reply.header("Retry-After").unwrap().parse().unwrap();
    assert!(reply.status == 503 && (1..=4).contains(&retry));
    match socket.read().unwrap() {
        tungstenite::Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1001),
        other => panic!("a close: {other:?}"),
    }
    assert_eq!(server.wait().code(), Some(0));
}

/// Lost otherwise: a stream that a browser takes for an event of its own.
#[test]
fn the_events_of_the_parser_are_those_of_the_standard() {
    let mut parser = events::Parser::default();
    parser.feed("id: 7\nretry: 5\n\n:\n\nevent: a\ndata: x\ndata:\ndata:  y\n\ndata: z\n\nevent: lost\n\n");
    let event = |name: &str, data: &str| Event { name: name.to_owned(), id: 7, data: data.to_owned() };
    assert_eq!(parser.events, [event("a", "x\n\n y"), event("", "z")]);
}
