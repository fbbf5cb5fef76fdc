//! Nodes that share their channels in a real engine: every subscriber has every message, in order, once, whichever node
//! it reads at, while nodes and the engine die. They run where there is a `redis-server`; with `TOOLS=required` they
//! fail where there is none.

use super::*;
use test_support::engine::Redis;
use test_support::metric;

fn node(redis: &Redis, args: &[&str]) -> Server {
    let url = format!("redis://{}/rooms", redis.address());
    start(&[&["--engine", &url], args].concat())
}

/// The ids and the texts of an answer to a long poll.
fn messages(reply: &Response) -> Vec<(u64, String)> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let array: Vec<Value> = serde_json::from_slice(&reply.body).unwrap();
    array.iter().map(|one| (one["id"].as_u64().unwrap(), one["data"].as_str().unwrap_or("gap").to_owned())).collect()
}

/// A message as a WebSocket brings it.
fn framed(id: u64, text: &str) -> String {
    format!(r#"{{"id":{id},"data":"{text}"}}"#)
}

/// The next event of a stream.
fn event(stream: &mut Stream) -> (u64, String) {
    let event = stream.next().expect("an event");
    (event.id, event.data)
}

fn texts(server: &Server, after: u64) -> Vec<String> {
    let found = messages(&get(server, &format!("/channels/c/poll?after={after}")));
    assert!(found.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "ids have no holes: {found:?}");
    found.into_iter().map(|(_, text)| text).collect()
}

/// Lost otherwise: the messages of another node, in any form of reading, or their order.
#[test]
fn nodes_share_their_channels() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (one, two) = (node(&redis, &[]), node(&redis, &[]));
    let (first, readers) = publish(&one, "a");
    assert_eq!(readers, 0);
    let mut stream = subscribe(&two, &format!("?after={}", first - 1));
    let mut socket = sockets::connect(&two, &format!("?after={first}"));
    wait_for_subscribers(&two, 2);
    assert_eq!(publish(&two, "b"), (first + 1, 2), "those of this node are counted");
    assert_eq!(publish(&one, "c"), (first + 2, 0));
    for (n, text) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(event(&mut stream), (first + n as u64, text.to_owned()));
    }
    for (n, text) in ["b", "c"].into_iter().enumerate() {
        assert_eq!(sockets::text(&mut socket), framed(first + 1 + n as u64, text));
    }
    socket.send(tungstenite::Message::text("d")).unwrap();
    assert_eq!(event(&mut stream), (first + 3, "d".to_owned()));
    for node in [&one, &two] {
        assert_eq!(texts(node, first), ["b", "c", "d"]);
    }
    assert_eq!(stats(&two)["of"], "this node");
    let last: Value = serde_json::from_slice(&get(&one, "/channels/c").body).unwrap();
    assert_eq!(last, json!({ "subscribers": 0, "last": first + 3 }));
}

/// Lost otherwise: the operator's view of the engine, as a node has it.
#[test]
fn a_node_tells_of_its_engine() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let url = format!("redis://{}/rooms", redis.address());
    let args = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--engine", &url];
    let node = Server::spawn(command(env!("CARGO_BIN_EXE_pubsub"), &args), 2);
    wait_until("a message is published", || {
        let reply = ask(&node, "POST", "/channels/c", &[("Content-Type", "text/plain")], b"a");
        (reply.status == 200).then_some(())
    });
    let answered = metric(&node, "pubsub_engine_requests_total");
    assert!(answered > 0);
    assert_eq!(metric(&node, "pubsub_engine_seconds_count"), answered);
    assert_eq!(metric(&node, "pubsub_engine_up"), 1);
    redis.kill();
    wait_until("the engine is missed", || (metric(&node, "pubsub_engine_up") == 0).then_some(()));
    assert!(metric(&node, "pubsub_engine_failures_total") > 0);
    assert_eq!(metric(&node, "pubsub_engine_unknown_total"), 0, "no message was on its way");
    test_support::documented_metrics(&test_support::metrics(&node), "pubsub_engine_");
}

/// Lost otherwise: messages, or their being read once, of a client whose node dies: it goes on at another.
#[test]
fn a_client_goes_on_at_another_node() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (one, two) = (node(&redis, &[]), node(&redis, &[]));
    let mut stream = subscribe(&one, "");
    let mut socket = sockets::connect(&one, "");
    wait_for_subscribers(&one, 2);
    let (first, _) = publish(&two, "a");
    assert_eq!(event(&mut stream), (first, "a".to_owned()));
    assert_eq!(sockets::text(&mut socket), framed(first, "a"));
    drop(one); // SIGKILL
    publish(&two, "b");
    let three = node(&redis, &[]);
    publish(&three, "c");
    let mut stream = subscribe(&three, &format!("?after={first}"));
    let mut socket = sockets::connect(&two, &format!("?after={first}"));
    publish(&two, "d");
    for (n, text) in ["b", "c", "d"].into_iter().enumerate() {
        assert_eq!(event(&mut stream), (first + 1 + n as u64, text.to_owned()));
        assert_eq!(sockets::text(&mut socket), framed(first + 1 + n as u64, text));
    }
    assert_eq!(texts(&three, first), ["b", "c", "d"]);
}

/// Lost otherwise: the same behind haproxy, which connects a client to a node that is there.
#[test]
fn behind_haproxy_clients_go_on_whichever_node_dies() {
    let Some(redis) = Redis::start(&["--appendfsync", "no"]) else { return };
    let mut nodes: Vec<Server> = (0..3).map(|_| node(&redis, &[])).collect();
    let addresses: Vec<_> = nodes.iter().map(Server::address).collect();
    let Some(proxy) = test_support::engine::haproxy(&addresses) else { return };
    let (first, _) = publish(&proxy, "0");
    let (sender, read) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for follow in [by_stream, by_stream, by_socket, by_socket, by_poll, by_poll] {
            let (proxy, sender) = (&proxy, sender.clone());
            scope.spawn(move || {
                let (mut last, start) = (first, std::time::Instant::now());
                while last < first + 5 {
                    assert!(start.elapsed() < test_support::TEST_TIMEOUT, "{last} was the last one");
                    follow(proxy, last, &mut |id, text| {
                        assert_eq!((id, text), (last + 1, &*(id - first).to_string()), "in order, and once");
                        last = id;
                        sender.send(id).unwrap();
                        id < first + 5
                    });
                }
            });
        }
        for n in 1..=5 {
            assert_eq!(retried(&proxy, &n.to_string()), first + n);
            for _ in 0..6 {
                assert_eq!(read.recv_timeout(test_support::TEST_TIMEOUT), Ok(first + n), "all of them have it");
            }
            if n == 2 || n == 4 {
                nodes.pop(); // SIGKILL
            }
        }
    });
}

/// Reads a stream of events, until `take` has enough, or its server dies.
fn by_stream(server: &Server, after: u64, take: &mut dyn FnMut(u64, &str) -> bool) {
    let target = format!("/channels/c/events?after={after}");
    let mut stream = Stream::new(server.send(&request("GET", &target, &[], b"")));
    if !stream.opens() {
        return;
    }
    while stream.next_or_cut().is_some_and(|event| take(event.id, &event.data)) {}
}

/// The same over a WebSocket.
fn by_socket(server: &Server, after: u64, take: &mut dyn FnMut(u64, &str) -> bool) {
    let Some(mut socket) = sockets::try_connect(server, &format!("?after={after}")) else { return };
    while let Ok(message) = socket.read() {
        let Ok(message) = serde_json::from_slice::<Value>(&message.into_data()) else { continue }; // a ping
        if !take(message["id"].as_u64().unwrap(), message["data"].as_str().unwrap()) {
            return;
        }
    }
}

/// The same with an answer of a long poll.
fn by_poll(server: &Server, after: u64, take: &mut dyn FnMut(u64, &str) -> bool) {
    let answer = server.send(&request("GET", &format!("/channels/c/poll?after={after}"), &[], b"")).answer();
    if !answer.is_empty() {
        let _ = messages(&one(&answer, "GET")).iter().all(|(id, text)| take(*id, text));
    }
}

/// Lost otherwise: what was published while a node had no engine, or the clients that wait for it.
#[test]
fn a_node_reads_on_when_the_engine_is_back() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let (one, two) = (node(&redis, &[]), node(&redis, &[]));
    let mut stream = subscribe(&one, "");
    wait_for_subscribers(&one, 1);
    let (first, _) = publish(&two, "a");
    assert_eq!(event(&mut stream), (first, "a".to_owned()));
    for n in 1..6 {
        redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
        // At once, while that node's subscription may be gone.
        assert_eq!(retried(&two, &format!("m{n}")), first + n);
        assert_eq!(event(&mut stream), (first + n, format!("m{n}")));
    }
    redis.restart();
    redis.kill();
    let late = one.send(&request("GET", "/channels/other/events", &[], b""));
    let mut late = Stream::new(late);
    let rejected = ask(&two, "POST", "/channels/c", &[], b"lost");
    assert_eq!(rejected.status, 503, "{}", rejected.text());
    redis.restart();
    late.open();
    assert_eq!(retried(&two, "back"), first + 6);
    assert_eq!(event(&mut stream), (first + 6, "back".to_owned()));
}

/// Lost otherwise: a node and all its channels, for another program's value in the place of one.
#[test]
fn a_broken_channel_is_broken_alone() {
    let Some(redis) = Redis::start(&["--appendfsync", "no"]) else { return };
    let one = node(&redis, &[]);
    let mut stream = subscribe(&one, "");
    wait_for_subscribers(&one, 1);
    redis.ask(&["SET", "{pollstack:rooms}:channel:bad:numbers", "another's"]);
    for _ in 0..3 {
        assert_eq!(ask(&one, "POST", "/channels/bad", &[], b"text").status, 503);
        assert_eq!(get(&one, "/channels/bad/poll?after=0").status, 503);
        assert_eq!(get(&one, "/channels/bad").status, 503);
    }
    let (first, _) = publish(&one, "a");
    assert_eq!(event(&mut stream), (first, "a".to_owned()));
    // One that was good is broken: its stream ends, and there is a good one again.
    redis.ask(&["DEL", "{pollstack:rooms}:channel:c:numbers", "{pollstack:rooms}:channel:c:stream"]);
    redis.ask(&["SET", "{pollstack:rooms}:channel:c:stream", "another's"]);
    redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(stream.next(), None);
    redis.ask(&["DEL", "{pollstack:rooms}:channel:c:stream", "{pollstack:rooms}:channel:bad:numbers"]);
    let (last, _) = publish(&one, "b");
    assert!(last > first && ask(&one, "POST", "/channels/bad", &[], b"text").status == 200);
    let found = messages(&get(&one, &format!("/channels/c/poll?after={first}")));
    assert_eq!(found, [(last - 1, "gap".to_owned()), (last, "b".to_owned())]);
}

/// Lost otherwise: messages, without a word, that an engine has lost, and whose ids it has given again.
#[test]
fn lost_ids_are_a_gap_even_if_they_were_given_again() {
    for again in [0, 2, 5] {
        let Some(redis) = Redis::start(&["--appendfsync", "no"]) else { return };
        let one = node(&redis, &[]);
        let (first, _) = publish(&one, "a");
        let lost: Vec<u64> = ["b", "c"].map(|text| publish(&one, text).0).into();
        let mut stream = subscribe(&one, &format!("?after={}", first - 1));
        wait_for_subscribers(&one, 1);
        (0..3).for_each(|n| assert_eq!(event(&mut stream).0, first + n));
        // A fail-over, and a node that publishes before that one is back. Nothing is lost while a node sleeps.
        one.signal("STOP");
        redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        redis.ask(&["HSET", "{pollstack:rooms}:channel:c:numbers", "next", &lost[0].to_string()]);
        lost.iter()
            .for_each(|id| drop(redis.ask(&["XDEL", "{pollstack:rooms}:channel:c:stream", &entry(&redis, *id)])));
        redis.ask(&["XSETID", "{pollstack:rooms}:channel:c:stream", &format!("{first}-99999999999999999")]);
        let two = node(&redis, &[]);
        (0..again).for_each(|n| assert_eq!(publish(&two, "again").0, lost[0] + n));
        one.signal("CONT");
        wait_for_subscribers(&one, 0); // they come back
        let found = messages(&get(&two, &format!("/channels/c/poll?timeout=0&after={}", lost[1])));
        assert_eq!(found.first().map(|(_, text)| text.as_str()), Some("gap"), "{again}: {found:?}");
        let (next, _) = publish(&two, "d");
        assert!(next > lost[1] + again);
        assert_eq!(texts(&one, next - 1), ["d"]);
    }
}

/// The name of a message in the engine.
fn entry(redis: &Redis, id: u64) -> String {
    let id = id.to_string();
    let answer = redis.ask(&["XRANGE", "{pollstack:rooms}:channel:c:stream", &id, &id]);
    answer.lines().find(|line| line.starts_with(&id)).unwrap().to_owned()
}

/// Lost otherwise: the user that doc/scaling.md recommends, who may do what is needed.
#[test]
fn the_recommended_user_may_do_what_is_needed() {
    let Some(redis) = Redis::recommended() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "change-me").unwrap();
    let url = format!("redis://pollstack@{}/rooms", redis.address());
    let one = start(&["--engine", &url, "--engine-password-file", file.to_str().unwrap()]);
    let mut stream = subscribe(&one, "");
    let (first, _) = publish(&one, "a");
    assert_eq!(event(&mut stream), (first, "a".to_owned()));
    assert_eq!(texts(&one, first - 1), ["a"]);
}

/// Lost otherwise: the readers of a node that cannot give as fast as another one publishes, or its memory.
#[test]
fn a_node_holds_the_engine_back() {
    let Some(redis) = Redis::start(&["--appendfsync", "no"]) else { return };
    let (one, two) = (node(&redis, &[]), node(&redis, &[]));
    crowds::flood(&one, &two);
}

/// Lost otherwise: a processor, while a node that stops waits for its last client; and its exit status.
#[test]
fn a_node_that_stops_sleeps() {
    let Some(redis) = Redis::start(&["--appendfsync", "no"]) else { return };
    let mut one = node(&redis, &["--grace", "60s"]);
    publish(&one, "a");
    redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    retried(&one, "b"); // the link has failed, and is there again
    let slow = one.send(b"POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    get(&one, "/stats");
    one.signal("TERM");
    wait_until("it listens no more", || std::net::TcpStream::connect(one.address()).is_err().then_some(()));
    one.wait_until_asleep();
    let before = one.sleeps();
    std::thread::sleep(std::time::Duration::from_secs(1)); // the silence is under test
    assert!(one.sleeps() <= before + 2, "it sleeps");
    drop(slow);
    assert!(one.wait().success());
}

/// Publishes a message, again while the engine is away. Returns its id.
fn retried(server: &Server, text: &str) -> u64 {
    wait_until("it is published", || {
        let post = request("POST", "/channels/c", &[("Content-Type", "text/plain")], text.as_bytes());
        let answer = server.send(&post).answer();
        if answer.is_empty() {
            return None; // haproxy found only servers that have died, and it does not know yet
        }
        let reply = one(&answer, "POST");
        let value: Value = serde_json::from_slice(&reply.body).ok().filter(|_| reply.status == 200)?;
        value["id"].as_u64()
    })
}

/// Lost otherwise: the word that messages are missing, when the engine no longer holds them.
#[test]
fn a_gap_is_told_of() {
    let Some(redis) = Redis::start(&[]) else { return };
    let one = node(&redis, &["--history", "3"]);
    let ids: Vec<u64> = (0..6).map(|n| publish(&one, &n.to_string()).0).collect();
    let two = node(&redis, &["--history", "3"]);
    let found = messages(&get(&two, &format!("/channels/c/poll?after={}", ids[0])));
    let expected = [(ids[2], "gap"), (ids[3], "3"), (ids[4], "4"), (ids[5], "5")];
    assert_eq!(found, expected.map(|(id, text)| (id, text.to_owned())));
    // An engine without memory takes no message, and goes on giving those that it has.
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(ask(&one, "POST", "/channels/c", &[], b"big").status, 503);
    assert_eq!(texts(&two, ids[3]), ["4", "5"]);
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(publish(&one, "6").0, ids[5] + 1);
}

/// Lost otherwise: a long history, which comes in parts, or one of long messages.
#[test]
fn a_long_history_is_read_in_parts() {
    let Some(redis) = Redis::start(&["--appendfsync", "no"]) else { return };
    let (one, two) = (node(&redis, &[]), node(&redis, &[]));
    let long = "x".repeat(40_000);
    let ids: Vec<u64> =
        (0..200).map(|n| publish(&one, &if n % 50 == 0 { long.clone() } else { n.to_string() }).0).collect();
    let mut after = ids[0] - 1;
    let mut found = Vec::new();
    while after < ids[199] {
        let part = messages(&get(&two, &format!("/channels/c/poll?after={after}")));
        after = part.last().unwrap().0;
        found.extend(part.into_iter().map(|(id, _)| id));
    }
    assert_eq!(found, ids);
}
