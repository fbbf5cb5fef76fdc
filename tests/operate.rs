//! The HTTP face of the stack server: over real sockets beside the other protocol, and in a simulated network for what
//! the kernel does not take.
#![cfg(unix)]

use pollstack::http::Guard;
use pollstack::operate::{Operated, Places};
use pollstack::sim::{Client as SimClient, Sim, World};
use pollstack::stack::StackService;
use pollstack::{EventLoop, Limits, ListenerConfig, ListenerId};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use test_support::engine::Redis;
use test_support::replies::{Response, one};
use test_support::{Client, Server, documented_metrics, pollstack, wait_until};

/// A server with a face, and where that is.
fn start(args: &[&str]) -> (Server, SocketAddr) {
    let mut all = vec!["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    all.extend(args);
    let server = Server::spawn(pollstack!(&all), 2);
    assert!(server.ready[0].starts_with("listening on "), "scripts wait for the first line: {:?}", server.ready);
    let face = server.address_behind("http on ");
    (server, face)
}

fn ask(face: SocketAddr, line: &str, body: &[u8]) -> Client {
    ask_with(face, line, "", body)
}

fn ask_with(face: SocketAddr, line: &str, fields: &str, body: &[u8]) -> Client {
    let mut client = Client::new(TcpStream::connect(face).expect("the face accepts"));
    let host = if fields.contains("Host:") { "" } else { "Host: localhost\r\n" };
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\n{host}{fields}Connection: close\r\nContent-Length: {length}\r\n\r\n");
    client.send(&[head.as_bytes(), body].concat());
    client
}

fn answer(mut client: Client, method: &str) -> Response {
    one(&client.answer(), method)
}

fn get(face: SocketAddr, path: &str) -> Response {
    answer(ask(face, &format!("GET {path}"), b""), "GET")
}

fn stack(face: SocketAddr) -> serde_json::Value {
    serde_json::from_slice(&get(face, "/stack").body).unwrap()
}

/// Waits until so many pushes and pops wait.
fn wait_for_parked(face: SocketAddr, pushes: u64, pops: u64) {
    let expected = serde_json::json!({"pushes": pushes, "pops": pops});
    wait_until("they wait", || (stack(face)["parked"] == expected).then_some(()));
}

/// Lost otherwise: the order of arrival, to clients of the other kind.
#[test]
fn both_kinds_of_clients_wait_in_one_line() {
    let (server, face) = start(&["--capacity", "1"]);
    let mut first = server.pop();
    wait_for_parked(face, 0, 1);
    let second = ask(face, "POST /pop", b"");
    wait_for_parked(face, 0, 2);
    let mut third = server.pop();
    wait_for_parked(face, 0, 3);
    server.stored(b"one");
    assert_eq!(answer(ask(face, "POST /push", b"two"), "POST").status, 204);
    server.stored(b"three");
    let reply = answer(second, "POST");
    assert_eq!((first.item(), reply.text(), third.item()), (b"one".to_vec(), "two", b"three".to_vec()));
    assert!(reply.status == 200 && reply.closes(), "the end tells that the item has left");
    // A full stack: pushes of both kinds wait, and are stored in their order.
    server.stored(b"a");
    let push = ask(face, "POST /push", b"b");
    wait_for_parked(face, 1, 0);
    let mut last = server.push(b"c");
    wait_for_parked(face, 2, 0);
    assert_eq!(server.popped(), b"a");
    assert_eq!((answer(push, "POST").status, server.popped()), (204, b"b".to_vec()));
    assert_eq!((last.answer(), server.popped()), (vec![0], b"c".to_vec()));
}

/// Lost otherwise: an item, to a client that has gone; or a client's patience.
#[test]
fn who_goes_away_or_is_late_is_cancelled() {
    let (server, face) = start(&["--capacity", "1"]);
    for goes in [Client::reset, drop::<Client>] {
        let pop = ask(face, "POST /pop", b"");
        wait_for_parked(face, 0, 1);
        goes(pop);
        wait_for_parked(face, 0, 0);
    }
    assert_eq!(answer(ask(face, "POST /pop?timeout=0", b""), "POST").status, 204);
    server.stored(b"kept");
    let push = ask(face, "POST /push?timeout=0", b"late");
    let reply = answer(push, "POST");
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));
    assert_eq!(server.popped(), b"kept");
    assert_eq!(stack(face)["depth"], 0, "the late one is not stored");
    let metrics = get(face, "/metrics");
    for line in [
        "pollstack_cancelled_total 4",
        "pollstack_parked_total 4",
        "pollstack_requests_total{kind=\"push\"} 2",
        "pollstack_service_seconds_count 2",
        "pollstack_wait_seconds_count 0",
    ] {
        assert!(metrics.text().lines().any(|other| other == line), "{line}: {}", metrics.text());
    }
}

/// Lost otherwise: a dashboard that shows lines; and a metric that an operator finds no word about.
#[test]
fn the_dashboard_and_the_document_name_the_metrics() {
    let (server, face) = start(&[]);
    server.stored(b"an item");
    let text = get(face, "/metrics").text().to_owned();
    assert!(text.contains("pollstack_sent_bytes_total"), "{text}");
    let received = text.lines().find_map(|line| line.strip_prefix("pollstack_received_bytes_total ")).unwrap();
    assert!(received.parse::<u64>().unwrap() > 8, "{received}");
    let mut families = documented_metrics(&text, "pollstack_");
    let redis = Redis::start(&[]);
    let edge = redis.as_ref().map(|redis| start(&["--engine", &format!("redis://{}/jobs", redis.address())]));
    let of_edge = edge.as_ref().map(|(_, face)| get(*face, "/metrics").text().to_owned());
    families.extend(of_edge.iter().flat_map(|text| documented_metrics(text, "pollstack_engine_")));
    let dashboard: serde_json::Value = serde_json::from_str(include_str!("../packaging/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 8);
    for name in queries.iter().flat_map(|query| query.split(|c: char| !c.is_alphanumeric() && c != '_')) {
        let family = name.trim_end_matches("_bucket");
        let is_known = families.contains(&family) || redis.is_none() && name.starts_with("pollstack_engine_");
        assert!(!name.starts_with("pollstack_") || is_known, "{name} is a metric");
    }
}

/// Lost otherwise: the operator's view, when it is needed most; or a way to get rid of a client.
#[test]
fn it_answers_when_the_stack_is_full() {
    let (server, face) = start(&["--max-clients", "2"]);
    let mut held = [server.pop(), server.send(&[5, b'h'])];
    wait_for_parked(face, 0, 1);
    assert_eq!(server.push(b"x").answer(), [0xFF]);
    let about = stack(face);
    assert_eq!((&about["clients"]["now"], &about["clients"]["most"]), (&2.into(), &2.into()));
    let clients: serde_json::Value = serde_json::from_slice(&get(face, "/clients").body).unwrap();
    let states: Vec<&str> =
        clients["oldest"].as_array().unwrap().iter().map(|client| client["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["popping", "reading"]);
    let over_http = ask(face, "POST /pop", b"");
    wait_for_parked(face, 0, 2);
    let all: serde_json::Value = serde_json::from_slice(&get(face, "/clients").body).unwrap();
    let guest = all["oldest"].as_array().unwrap().iter().find(|client| client["listener"] == "http").unwrap();
    assert_eq!(
        (&guest["state"], &guest["peer"]),
        (&"popping".into(), &over_http.stream().local_addr().unwrap().to_string().into())
    );
    let text = get(face, "/metrics").text().to_owned();
    assert!(text.contains("pollstack_listener_connections{listener=\"stack\"} 2\n"), "{text}");
    assert_eq!(answer(ask(face, &format!("DELETE /clients/{}", guest["id"]), b""), "DELETE").status, 204);
    wait_for_parked(face, 0, 1);
    let number = clients["oldest"][0]["id"].as_u64().unwrap();
    assert_eq!(clients["oldest"][0]["peer"], held[0].stream().local_addr().unwrap().to_string());
    assert_eq!(answer(ask(face, &format!("DELETE /clients/{number}"), b""), "DELETE").status, 204);
    assert_eq!(held[0].answer(), b"");
    assert_eq!(answer(ask(face, &format!("DELETE /clients/{number}"), b""), "DELETE").status, 404);
    assert_eq!((get(face, "/healthz").text(), get(face, "/").status), ("ok\n", 200));
}

/// Lost otherwise: a client's way to know what it did wrong; and the stack, to a page of another site.
#[test]
fn requests_are_checked() {
    let (_server, face) = start(&[]);
    let long = [b'x'; 128];
    for (line, body, status) in [
        ("POST /push", &b""[..], 400),
        ("POST /push", &long, 413),
        ("POST /push", &long[..127], 204),
        ("POST /push?timeout=-1", b"x", 400),
        ("POST /pop?timeout=soon", b"", 400),
        ("POST /pop?timeout=86401", b"", 400),
        ("GET /push", b"", 405),
        ("GET /pop", b"", 405),
        ("POST /stack", b"", 405),
        ("GET /clients/1", b"", 405),
        ("GET /clients?limit=1000", b"", 200),
        ("GET /clients?limit=1001", b"", 400),
        ("GET /clients?limit=0", b"", 400),
        ("DELETE /clients/x", b"", 400),
        ("GET /nothing", b"", 404),
        ("HEAD /metrics", b"", 200),
    ] {
        let reply = answer(ask(face, line, body), line.split(' ').next().unwrap());
        assert_eq!(reply.status, status, "{line}");
        assert_eq!(reply.header("Allow").is_some(), status == 405, "{line}");
    }
    for (fields, status) in [
        ("Host: evil.example\r\n", 403),
        ("Origin: https://evil.example\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Origin: http://localhost\r\n", 204),
    ] {
        assert_eq!(answer(ask_with(face, "POST /push", fields, b"x"), "POST").status, status, "{fields}");
    }
    assert_eq!(stack(face)["depth"], 2);
}

/// Lost otherwise: the stack, to pages of other sites, if a service manager has opened the socket on loopback.
#[test]
fn the_host_is_checked_on_a_socket_that_was_handed_over() {
    let foreign = "Host: evil.example\r\nOrigin: http://evil.example\r\n";
    for (address, status) in [("127.0.0.1:0", 403), ("0.0.0.0:0", 204)] {
        let socket = std::net::TcpListener::bind(address).unwrap();
        let mut command = test_support::handed(&pollstack!(&["--listen", "127.0.0.1:0"]), &socket);
        command.env("LISTEN_FDNAMES", "http");
        let server = Server::spawn(command, 2);
        let face = server.address_behind("http on ");
        assert_eq!(answer(ask_with(face, "POST /push", foreign, b"x"), "POST").status, status, "{address}");
    }
}

/// Lost otherwise: the reason, to a client that waits when the server stops.
#[test]
fn a_stop_answers_who_waits() {
    let (mut server, face) = start(&["--grace", "30s"]);
    let pop = ask(face, "POST /pop", b"");
    wait_for_parked(face, 0, 1);
    let mut page = ask(face, "GET /events", b"");
    let mut some = [0; 12];
    std::io::Read::read_exact(&mut page, &mut some).unwrap();
    server.signal("TERM");
    assert_eq!(answer(pop, "POST").status, 503);
    let events = page.answer();
    assert!(events.ends_with(b"0\r\n\r\n"), "the events end in order");
    assert!(server.wait().success());
}

/// Lost otherwise: clients and items, each time that the server is started again: the socket stays, clients wait in its
/// backlog, and the items in the file.
#[test]
fn a_restart_costs_no_client_and_no_item() {
    const POPS: usize = 250;
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stack");
    let manager = std::os::unix::net::UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(test_support::TEST_TIMEOUT)).unwrap();
    let start = || {
        let program = pollstack!(&["--capacity", "1000000", "--grace", "30s", "--data", file.to_str().unwrap()]);
        let mut command = test_support::handed(&program, &socket);
        command.env("NOTIFY_SOCKET", folder.path().join("notify"));
        let server = Server::spawn(command, 1);
        let mut word = [0; 100];
        let len = manager.recv(&mut word).unwrap();
        assert_eq!(&word[..len], b"READY=1\n", "and the service manager is told");
        server
    };
    let mut server = start();
    assert_eq!(server.address(), address);
    let over = std::sync::atomic::AtomicBool::new(false);
    let pushed: usize = std::thread::scope(|scope| {
        let flood = || {
            let client = pollstack::client::Client::new(address).timeout(test_support::TEST_TIMEOUT);
            let mut pushed = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                client.push(b"item").expect("every push is answered");
                pushed += 1;
            }
            pushed
        };
        let floods: Vec<_> = (0..8).map(|_| scope.spawn(flood)).collect();
        for _ in 0..5 {
            // The flood goes on: there is always something to take off.
            let client = pollstack::client::Client::new(address).timeout(test_support::TEST_TIMEOUT);
            (0..POPS / 5).for_each(|_| assert_eq!(client.pop().unwrap(), b"item"));
            server.signal("TERM");
            assert!(server.wait().success());
            server = start();
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        floods.into_iter().map(|flood| flood.join().unwrap()).sum()
    });
    server.signal("TERM");
    assert!(server.wait().success());
    let left = test_support::run(pollstack!(&["export", file.to_str().unwrap()])).stdout;
    assert_eq!(left.iter().filter(|byte| **byte == b'\n').count(), pushed - POPS);
}

// ---- the commands of a client ---------------------------------------------------------------------

fn client(args: &[&str]) -> std::process::Output {
    test_support::run(pollstack!(args))
}

fn told(output: &std::process::Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Lost otherwise: scripts that push and pop, and tell why they could not.
#[test]
fn commands_push_and_pop_and_say_why_not() {
    let server = Server::start(env!("CARGO_BIN_EXE_pollstack"), &["--capacity", "4", "--max-clients", "1"]);
    let connect = ["--connect", &server.address().to_string()];
    let run = |args: &[&str]| client(&[args, &connect].concat());
    assert_eq!(told(&run(&["push", "hello"])), (Some(0), String::new()));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one\ntwo\n").unwrap();
    assert_eq!(run(&["push", "--file", file.path().to_str().unwrap()]).status.code(), Some(0));
    assert_eq!(told(&run(&["pop", "--count", "2"])), (Some(0), "two\none\n".to_owned()));
    assert_eq!(told(&run(&["pop", "--count", "0", "--timeout", "2s"])), (Some(0), "hello\n".to_owned()));
    assert_eq!(run(&["pop", "--timeout", "100ms"]).status.code(), Some(4), "no answer in time");
    let too_long = run(&["push", &"x".repeat(128)]);
    assert_eq!(too_long.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&too_long.stderr).contains("1 to 127 bytes, not 128"), "{too_long:?}");
    let held = server.pop();
    wait_until("the place is taken", || (run(&["push", "x"]).status.code() == Some(3)).then_some(()));
    // It is tried again until there is a place.
    let mut command = pollstack!(&["push", "later", "--retry", "100", connect[0], connect[1]]);
    let mut waiting = command.spawn().unwrap();
    drop(held);
    assert!(waiting.wait().unwrap().success());
    assert_eq!(server.popped(), b"later");
    drop(server);
    assert_eq!(run(&["pop"]).status.code(), Some(1), "nothing listens");
    assert_eq!(client(&["push"]).status.code(), Some(2));
}

/// Lost otherwise: a look at the server, from a terminal or a script.
#[test]
fn commands_tell_what_the_server_does() {
    let (server, face) = start(&[]);
    server.stored(b"x");
    let face = face.to_string();
    let (status, text) = told(&client(&["stat", "--connect", &face]));
    assert!(status == Some(0) && text.starts_with("items            1 of 100\n"), "{text}");
    let (status, text) = told(&client(&["top", "--count", "1", "--connect", &face]));
    let about: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &about["depth"]), (Some(0), &1.into()));
    let folder = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", folder.path().join("http.sock").display());
    let _on_a_path = Server::spawn(pollstack!(&["--listen", "127.0.0.1:0", "--http", &path]), 2);
    let (status, text) = told(&client(&["stat", "--connect", &path]));
    assert!(status == Some(0) && text.starts_with("items            0 of 100\n"), "{text}");
    // The time is that of the whole answer, not of each byte.
    let slow = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = slow.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut face = slow.accept().unwrap().0;
        let end = std::time::Instant::now() + test_support::TEST_TIMEOUT;
        while std::time::Instant::now() < end && std::io::Write::write_all(&mut face, b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let output = client(&["stat", "--timeout", "200ms", "--connect", &address]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not answer within 200ms"), "{output:?}");
    let without = client(&["stat", "--timeout", "200ms", "--connect", &server.address().to_string()]);
    assert_eq!(without.status.code(), Some(1), "that is the other protocol");
}

/// Lost otherwise: clients of a Unix socket.
#[test]
fn the_library_reaches_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("stack.sock").display());
    let _server = Server::spawn(pollstack!(&["--listen", &address]), 1);
    let client = pollstack::client::Client::at(address.parse().unwrap()).timeout(Duration::from_secs(30));
    client.push(b"over a path").unwrap();
    assert_eq!(client.pop().unwrap(), b"over a path");
    let late = client.timeout(Duration::from_millis(50)).pop().unwrap_err();
    assert!(late.is_timeout(), "{late}");
}

fn simulated() -> (World, EventLoop<Operated, Sim>) {
    let (world, face) = (World::new(1), ListenerId::new());
    let places = Places { stack: 10, face: 10 };
    let operated = Operated::new(StackService::new(10), face, Guard::new(&[], &[], false), places, world.now());
    let mut server = EventLoop::with_net(world.net(), operated, Limits::default());
    server.listen(ListenerConfig::new("127.0.0.1:80".parse().unwrap()).id(face)).unwrap();
    (world, server)
}

fn request(world: &World, line: &str, body: &str) -> SimClient {
    world.send(format!("{line} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
}

/// Lost otherwise: the live page, where there are many clients: its events have to fit.
#[test]
fn the_oldest_of_many_clients_are_told_of() {
    let (world, mut server) = simulated();
    server.listen(ListenerConfig::new("127.0.0.1:81".parse().unwrap()).max_conns(2000)).unwrap();
    let held: Vec<SimClient> = (0..2000)
        .map(|_| {
            let client = world.connect_to(1);
            client.send(&[5, b'h']);
            world.advance(Duration::from_millis(1));
            world.settle(&mut server);
            client
        })
        .collect();
    let mut read = |client: &SimClient, end: &str| {
        let mut got = Vec::new();
        while !String::from_utf8_lossy(&got).ends_with(end) {
            world.advance(Duration::from_secs(1)); // an event a second
            world.turn(&mut server);
            world.settle(&mut server);
            got.extend(client.read());
            assert!(world.elapsed() < Duration::from_secs(60), "{} bytes", got.len());
        }
        String::from_utf8(got).unwrap()
    };
    let about = |json: &str| {
        let about: serde_json::Value = serde_json::from_str(json).unwrap();
        let about = if about["clients"].is_object() { about["clients"].clone() } else { about };
        let ages = about["oldest"].as_array().unwrap().iter().map(|client| client["age_seconds"].as_f64().unwrap());
        let ages: Vec<f64> = ages.collect();
        // The first is 1.999 s older than the last of all.
        assert!(ages.is_sorted_by(|one, next| (one - next - 0.001).abs() < 0.0001), "{ages:?}");
        (about["total"].as_u64().unwrap(), ages.len(), about["oldest"][0]["id"].clone())
    };
    let events = read(&request(&world, "GET /events", ""), "\n\n\r\n");
    let event = events.split("data: ").nth(1).unwrap().split("\n\n").next().unwrap();
    let (total, told, oldest) = about(event);
    assert_eq!((total, told), (2000, 200));
    for (path, expected) in [("/clients", 200), ("/clients?limit=3", 3), ("/clients?limit=1000", 1000)] {
        let reply = read(&request(&world, &format!("GET {path}"), ""), "\"total\":2000}");
        let reply = reply.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(about(reply), (2000, expected, oldest.clone()), "{path}");
    }
    assert!(held.iter().all(|client| !client.has_ended()));
}

/// Lost otherwise: an item, to a client whose kernel took none of the response; or twice the same, if it did.
#[test]
fn an_item_that_has_not_left_goes_back_on_top() {
    let (world, mut server) = simulated();
    for item in ["below", "top"] {
        request(&world, "POST /push", item);
        world.settle(&mut server);
    }
    for taken in [0, 1, 50] {
        let pop = world.connect();
        world.settle(&mut server);
        pop.set_room(taken);
        pop.send(b"POST /pop HTTP/1.1\r\nHost: a\r\n\r\n");
        world.settle(&mut server);
        assert_eq!(server.service().stack().items(), 1);
        pop.abort();
        world.settle(&mut server);
        assert_eq!(server.service().stack().items(), 2, "{taken} bytes were taken");
    }
    let pop = request(&world, "POST /pop", "");
    world.settle(&mut server);
    let reply = one(&pop.read(), "POST");
    assert_eq!((reply.text(), server.service().stack().items()), ("top", 1));
    world.advance(Duration::from_secs(60));
    world.turn(&mut server);
    world.settle(&mut server);
    assert_eq!(server.service().stack().held(), 1);
    assert_eq!(server.service().stack().counts().undelivered, 3);
}
