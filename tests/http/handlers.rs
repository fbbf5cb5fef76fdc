//! The effects of handlers, in a simulated network.

use super::*;
use pollstack::http::{BUSY, Headers, Outcome};
use pollstack::sim::Client;
use pollstack::{EofAction, Overload, SendError};
use std::io::Write;
use std::rc::Rc;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A handler that is told what to do by the path, and notes what happens to it.
#[derive(Default)]
struct Script {
    held: Vec<ExchangeId>,
    log: Vec<String>,
    /// How much of a streamed reply is still to be sent.
    left: usize,
    /// How much it takes of what it is offered at a time.
    takes: Option<usize>,
    eof: Option<EofAction>,
}

/// A streamed reply that is far larger than anything holds.
const LARGE: usize = 10_000_000;

impl Script {
    fn fill(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        while self.left > 0 {
            let n = self.left.min(1000).min(http.send_capacity(id));
            if n == 0 {
                return assert_eq!(http.send(id, b"x"), Err(SendError::Full));
            }
            http.send(id, &[b'x'; 1000][..n]).unwrap();
            self.left -= n;
        }
        http.finish(id);
    }
}

impl Handler for Script {
    fn body(&mut self, request: &Request<'_>) -> Body {
        match request.path() {
            "/skip" | "/hold" => Body::Skip,
            "/stream" => Body::Stream,
            "/reject" => Body::Reject(Status::UNSUPPORTED_MEDIA_TYPE),
            _ => Body::Collect(10),
        }
    }

    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        let reply = http.respond(id, Status::OK);
        match request.path() {
            "/hold" => self.held.push(id),
            "/stream" => reply.stream(None),
            "/large" => {
                self.left = LARGE;
                reply.stream(None);
                self.fill(http, id);
            }
            "/length" => {
                self.left = LARGE;
                reply.stream(Some(LARGE as u64));
                self.fill(http, id);
            }
            "/short" => {
                reply.stream(Some(3));
                http.send(id, b"ab").unwrap();
                http.finish(id);
            }
            "/long" => {
                reply.stream(Some(1));
                assert_eq!(http.send(id, b"ab"), Err(SendError::Gone));
            }
            "/piece" => reply.body(&vec![b'p'; LARGE]),
            "/shared" => reply.shared(&Rc::from(vec![b's'; LARGE])),
            "/shares" => {
                reply.stream(None);
                let piece = Rc::from(vec![b's'; 1024]);
                while http.send_shared(id, &piece).is_ok() {}
                http.finish(id);
            }
            "/split" => reply.header("X", "a\r\nSet-Cookie: b").body(b"never"),
            "/name" => reply.header("X: y\r\nZ", "a").body(b"never"),
            "/ours" => reply.header("content-length", "1").body(b"never"),
            "/prepared" => reply.headers(&Headers::new().with("A", "b").with("C", "d")).body(b"fine"),
            "/unprepared" => reply.headers(&Headers::new().with("A", "b\nC: d").with("E", "f")).body(b"never"),
            "/huge" => reply.header("X", "x".repeat(8192)).body(b"never"),
            "/none" => http.respond(id, Status::NO_CONTENT).body(b"never"),
            "/same" => http.respond(id, Status::NOT_MODIFIED).body(b"never"),
            "/twice" => {
                reply.body(b"once");
                http.respond(id, Status::OK).body(b"twice");
                assert!(!http.is_open(id));
            }
            "/deadline" => {
                let at = http.now() + Duration::from_secs(3);
                http.set_deadline(id, Some(at));
            }
            "/upgrade" => {
                reply.upgrade("shout");
                let _ = http.send(id, b"hello"); // Gone, if it could not be
            }
            _ => reply.body(request.body()),
        }
    }

    fn on_data(&mut self, http: &mut Responder<'_>, id: ExchangeId, data: &[u8]) -> usize {
        let fits = data.len().min(self.takes.unwrap_or(usize::MAX)).min(http.send_capacity(id));
        http.send(id, &data[..fits].to_ascii_uppercase()).unwrap();
        if data.ends_with(b"!") {
            http.finish(id);
        }
        if data.ends_with(b"?") {
            http.pause(id); // until there is room
        }
        fits
    }

    fn on_data_end(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        http.finish(id);
    }

    fn on_room(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
        if self.left > 0 {
            self.fill(http, id);
        }
        http.resume(id);
    }

    fn on_eof(&mut self, _: &mut Responder<'_>, _: ExchangeId) -> EofAction {
        self.log.push("eof".to_owned());
        self.eof.unwrap_or(EofAction::Keep)
    }

    fn on_close(&mut self, http: &mut Responder<'_>, id: ExchangeId, outcome: Outcome) {
        assert!(!http.is_open(id));
        self.log.push(format!("{outcome:?}"));
    }

    fn on_shutdown(&mut self, http: &mut Responder<'_>) {
        for id in self.held.drain(..) {
            http.respond(id, Status::OK).body(b"goodbye");
        }
    }
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

/// A world, a server in it, and a client that has sent `bytes`.
fn play(bytes: &[u8]) -> (World, EventLoop<Http<Script>, Sim>, Client) {
    let world = World::new(1);
    let mut server = serve(&world, Script::default(), pollstack::Limits::default());
    let client = world.connect();
    client.send(bytes);
    world.settle(&mut server);
    (world, server, client)
}

/// All that a client reads while the server sends.
fn read_all(world: &World, server: &mut EventLoop<Http<Script>, Sim>, client: &Client) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let some = client.read();
        world.settle(server);
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

fn log(server: &EventLoop<Http<Script>, Sim>) -> Vec<&str> {
    server.service().handler().log.iter().map(String::as_str).collect()
}

/// Lets the first held request be answered, from outside.
fn release(server: &mut EventLoop<Http<Script>, Sim>, body: &[u8]) {
    server.call(|http, cx| {
        http.call(cx, |script, http| {
            let id = script.held.remove(0);
            http.respond(id, Status::OK).body(body);
            http.respond(id, Status::OK).body(b"a stale id reaches no exchange");
        })
    });
}

/// Lost otherwise: long polls, and the order of replies around them.
#[test]
fn a_request_can_be_held_and_answered_by_its_id() {
    let (world, mut server, client) = play(&[&request("/hold")[..], &request("/hold"), &request("/after")].concat());
    assert_eq!(client.read(), b"", "the others wait behind it");
    assert_eq!(server.service().handler().held.len(), 1);
    let other = world.connect();
    other.send(GET);
    world.settle(&mut server);
    assert_eq!(one(&other.read(), "GET").status, 200, "and no other client does");
    release(&mut server, b"first");
    world.settle(&mut server);
    assert_eq!(one(&client.read(), "GET").text(), "first");
    client.end();
    world.settle(&mut server);
    release(&mut server, b"second");
    world.settle(&mut server);
    let (replies, _) = replies(&client.read(), &["GET", "GET"]).expect("two replies");
    assert_eq!((replies[0].text(), replies[1].status), ("second", 200));
    assert!(client.has_ended(), "there is nothing left to answer");
}

/// Lost otherwise: the connection of a client that asks for more than the loop holds while it waits.
#[test]
fn requests_without_end_wait_behind_a_held_one() {
    let (world, mut server, client) = play(&request("/hold"));
    let many = 10_000;
    client.send(&GET.repeat(many));
    world.settle(&mut server);
    assert!(!client.is_closed() && client.unread() > 100_000);
    release(&mut server, b"at last");
    let bytes = read_all(&world, &mut server, &client);
    assert_eq!(replies(&bytes, &vec!["GET"; 1 + many]).map(|(_, len)| len), Some(bytes.len()));
}

/// Lost otherwise: subscribers who have gone, for as long as nothing is published.
#[test]
fn a_handler_is_told_when_its_client_goes() {
    let (world, mut server, client) = play(&request("/hold"));
    client.abort();
    world.settle(&mut server);
    assert_eq!(log(&server), ["Aborted"]);
    release(&mut server, b"too late");

    let (world, mut server, client) = play(&request("/hold"));
    client.end();
    world.settle(&mut server);
    assert_eq!(log(&server), ["eof"], "it may still read");
    release(&mut server, b"there");
    world.settle(&mut server);
    assert_eq!(one(&client.read(), "GET").text(), "there");
    assert_eq!((log(&server), client.has_ended()), (vec!["eof", "Complete"], true));

    let (world, mut server, client) = play(b"");
    server.call(|http, cx| http.call(cx, |script, _| script.eof = Some(EofAction::Abort)));
    client.send(&request("/hold"));
    client.end();
    world.settle(&mut server);
    assert_eq!((log(&server), client.is_closed()), (vec!["eof", "Aborted"], true));
}

/// Lost otherwise: what a long poll is given, when its client has sent a byte too many and then hung up.
#[test]
fn an_end_behind_a_pipelined_byte_is_told_to_the_exchange_that_waits() {
    for behind in [&b"\r\n"[..], b"G", &request("/")] {
        let (world, mut server, client) = play(b"");
        server.call(|http, cx| http.call(cx, |script, _| script.eof = Some(EofAction::Abort)));
        client.send(&[&request("/hold"), behind].concat());
        world.settle(&mut server);
        assert_eq!(log(&server), [""; 0], "the rest waits");
        client.end();
        world.settle(&mut server);
        assert_eq!((log(&server), client.is_closed()), (vec!["eof", "Aborted"], true));
    }
    // A client that may still read is served to its end.
    let (world, mut server, client) = play(&[request("/hold"), request("/hold")].concat());
    client.end();
    world.settle(&mut server);
    assert_eq!(log(&server), ["eof"]);
    release(&mut server, b"one");
    world.settle(&mut server);
    release(&mut server, b"two");
    world.settle(&mut server);
    let replies = client.read();
    assert!(replies.windows(3).any(|text| text == b"one") && replies.ends_with(b"two"));
    assert_eq!((log(&server), client.has_ended()), (vec!["eof", "Complete", "eof", "Complete"], true));
}

/// Lost otherwise: memory, to a client that asks for much and reads slowly.
#[test]
fn large_replies_wait_for_their_reader() {
    for (path, byte) in [("/large", b'x'), ("/length", b'x'), ("/piece", b'p'), ("/shared", b's')] {
        let (world, mut server, client) = play(&[&request(path)[..], GET].concat());
        let waiting = server.service().handler().left;
        assert!(waiting == 0 || waiting > LARGE - 300_000, "{path} is {waiting} ahead of its reader");
        let bytes = read_all(&world, &mut server, &client);
        let (replies, len) = replies(&bytes, &["GET", "GET"]).expect("two replies");
        assert!(replies[0].body.len() == LARGE && replies[0].body.iter().all(|b| *b == byte), "{path}");
        assert_eq!((replies[1].status, len), (200, bytes.len()));
        assert_eq!(log(&server), ["Complete", "Complete"]);
    }
}

/// Lost otherwise: clients of HTTP/1.0, which know no chunks, and HEAD.
#[test]
fn streamed_replies_are_framed_for_their_clients() {
    let (world, mut server, client) = play(b"GET /large HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let reply = one(&read_all(&world, &mut server, &client), "GET");
    assert!(client.has_ended() && reply.closes() && reply.header("Transfer-Encoding").is_none());
    assert_eq!(reply.body.len(), LARGE);

    let (world, mut server, client) = play(&[b"HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n", GET].concat());
    let bytes = read_all(&world, &mut server, &client);
    let (replies, len) = replies(&bytes, &["HEAD", "GET"]).expect("two replies");
    assert_eq!((replies[0].header("Transfer-Encoding"), len), (Some("chunked"), bytes.len()));
}

/// Lost otherwise: clients that take a part for the whole.
#[test]
fn a_reply_of_the_wrong_length_ends_in_a_reset() {
    for path in ["/short", "/long"] {
        let (_, server, client) = play(&request(path));
        assert!(client.was_reset() && !client.has_ended(), "{path}");
        assert_eq!(log(&server), ["Aborted"]);
    }
}

/// Lost otherwise: files, whole or in part.
#[test]
fn files_are_sent_with_their_length() {
    struct Files(Rc<std::fs::File>);
    impl Handler for Files {
        fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
            let (offset, len) = if request.path() == "/short" { (999_990, 20) } else { (10, 999_990) };
            http.respond(id, Status::OK).file(&self.0, offset, len);
        }
    }
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    file.write_all(&content).unwrap();
    let file = Rc::new(file);
    let world = World::new(1);
    let mut server = serve(&world, Files(Rc::clone(&file)), pollstack::Limits::default());
    let (client, short) = (world.connect(), world.connect());
    client.send(&[b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", GET, b"\r\n", GET].concat());
    short.send(&request("/short"));
    let mut bytes = Vec::new();
    loop {
        let (turns, read) = (world.settle(&mut server), client.read());
        if turns == 0 && read.is_empty() {
            break;
        }
        bytes.extend(read);
    }
    let (replies, _) = replies(&bytes, &["HEAD", "GET", "GET"]).expect("three replies");
    assert!(replies[1].body == content[10..] && replies[2] == replies[1]);
    assert_eq!(replies[0].header("Content-Length"), Some("999990"));
    assert!(short.was_reset(), "not a part for the whole");
}

/// Lost otherwise: the end of every header, to a client that gets a line break into a value.
#[test]
fn no_line_break_gets_into_a_header() {
    for path in ["/split", "/name", "/ours", "/unprepared", "/huge"] {
        let (_, _, client) = play(&[&request(path)[..], GET].concat());
        let (replies, _) = replies(&client.read(), &["GET", "GET"]).expect("two replies");
        assert_eq!((replies[0].status, replies[1].status), (500, 200), "{path}");
        assert_eq!(replies[0].header("Set-Cookie"), None);
    }
}

/// Lost otherwise: fields, from replies whose fields have been written before.
#[test]
fn fields_may_be_prepared() {
    let (_, _, client) = play(&request("/prepared"));
    let reply = one(&client.read(), "GET");
    assert_eq!((reply.status, reply.text()), (200, "fine"));
    assert_eq!((reply.header("A"), reply.header("C")), (Some("b"), Some("d")));
}

/// Lost otherwise: the next reply, to content that may not be there.
#[test]
fn replies_without_content_have_none() {
    for (path, status) in [("/none", 204), ("/same", 304)] {
        let (_, _, client) = play(&[&request(path)[..], &request("/twice"), GET].concat());
        let (replies, _) = replies(&client.read(), &["GET", "GET", "GET"]).expect("three replies");
        assert_eq!((replies[0].status, replies[0].header("Content-Length")), (status, None));
        assert_eq!((replies[1].text(), replies[2].status), ("once", 200), "the first of two is sent");
    }
}

/// Lost otherwise: memory, to uploads; and the rest of an upload, to a handler that takes a part.
#[test]
fn streamed_bodies_go_both_ways_at_the_pace_of_their_reader() {
    for takes in [None, Some(7000)] {
        let (world, mut server, client) = play(b"");
        server.call(|http, cx| http.call(cx, |script, _| script.takes = takes));
        client.send(b"PUT /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
        client.send(&vec![b'a'; 3_000_000]);
        client.send(GET);
        world.settle(&mut server);
        assert!(client.unread() > 2_000_000, "input that is not read back is not taken");
        let bytes = read_all(&world, &mut server, &client);
        let (replies, _) = replies(&bytes, &["PUT", "GET"]).expect("two replies");
        assert!(replies[0].body.len() == 3_000_000 && replies[0].body.iter().all(|byte| *byte == b'A'));
        assert_eq!(replies[1].status, 200);
    }
}

/// Lost otherwise: uploads, which would have their framing in them, if the handler cannot take the
/// first byte of a chunk at once.
#[test]
fn a_chunk_can_wait_at_its_beginning() {
    #[derive(Default)]
    struct Reluctant {
        id: Option<ExchangeId>,
        willing: bool,
        body: Vec<u8>,
    }

    impl Handler for Reluctant {
        fn body(&mut self, _: &Request<'_>) -> Body {
            Body::Stream
        }

        fn on_request(&mut self, _: &mut Responder<'_>, id: ExchangeId, _: &Request<'_>) {
            self.id = Some(id);
        }

        fn on_data(&mut self, _: &mut Responder<'_>, _: ExchangeId, data: &[u8]) -> usize {
            let n = usize::from(self.willing);
            self.body.extend(&data[..n]);
            self.willing = !self.willing;
            n
        }

        fn on_data_end(&mut self, http: &mut Responder<'_>, id: ExchangeId) {
            http.respond(id, Status::OK).body(&self.body);
        }
    }

    let world = World::new(1);
    let mut server = serve(&world, Reluctant::default(), pollstack::Limits::default());
    let client = world.connect();
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    for _ in 0..10 {
        world.settle(&mut server);
        server
            .call(|http, cx| http.call(cx, |reluctant, http| reluctant.id.into_iter().for_each(|id| http.resume(id))));
    }
    assert_eq!(one(&client.read(), "PUT").text(), "abc");
}

/// Lost otherwise: connections, to unwanted bodies, or the next request in one of them.
#[test]
fn bodies_are_read_past_or_rejected() {
    let post = |path, body: &[u8], len: usize| {
        [format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n").as_bytes(), body, GET].concat()
    };
    let (world, mut server, client) = play(&post("/skip", GET, GET.len()));
    let (all, len) = replies(&client.read(), &["POST", "GET"]).expect("two replies");
    assert_eq!((all.len(), all[0].closes()), (2, false), "{len}");
    client.send(&post("/hold", b"abc", 3));
    world.settle(&mut server);
    release(&mut server, b"held");
    world.settle(&mut server);
    assert_eq!(replies(&client.read(), &["POST", "GET"]).expect("two replies").0[0].text(), "held");

    let (_, _, client) = play(&post("/skip", &vec![b'a'; 1_100_000], 1_100_000));
    assert!(one(&client.read(), "POST").closes(), "too long to be worth it");
    let chunked = b"POST /skip HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n";
    let (_, _, client) = play(&[&chunked[..], &vec![b'a'; 2_000_000]].concat());
    assert_eq!(one(&client.read(), "POST").status, 200);
    assert!(client.has_ended());
    let (_, _, client) = play(&[&chunked[..chunked.len() - 8], b"1\r\nabad"].concat());
    assert_eq!(one(&client.read(), "POST").status, 200, "an answer has been given, and no other is");

    let (_, _, client) = play(&post("/reject", b"abc", 3));
    assert_eq!(one(&client.read(), "POST").status, 415);
    let expecting = b"POST /skip HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let (_, _, client) = play(expecting);
    assert!(one(&client.read(), "POST").closes(), "the next bytes may be the body, or a request");
}

/// Lost otherwise: other protocols, such as WebSocket.
#[test]
fn an_upgraded_connection_is_the_handlers() {
    let (world, mut server, client) = play(&[&request("/upgrade")[..], b"ahead"].concat());
    let text = String::from_utf8(client.read()).unwrap();
    let (head, raw) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: Upgrade\r\n") && head.ends_with("\r\nUpgrade: shout"), "{head}");
    assert!(!head.contains("Content-Length"));
    assert_eq!(raw, "helloAHEAD");
    client.send(b"get / http/1.1\r\n\r\n");
    world.settle(&mut server);
    assert_eq!(client.read(), b"GET / HTTP/1.1\r\n\r\n");
    // It may hold the client back although it has taken all, and go on.
    for _ in 0..2 {
        client.send(b"more?");
        world.settle(&mut server);
        assert_eq!(client.read(), b"MORE?");
    }
    client.send(b"end!");
    world.settle(&mut server);
    assert_eq!((client.read(), client.has_ended()), (b"END!".to_vec(), true));
    assert_eq!(log(&server), ["Complete"]);
    let (_, _, client) = play(b"GET /upgrade HTTP/1.0\r\n\r\n");
    assert_eq!(one(&client.read(), "GET").status, 400, "not in 1.0");
}

/// Lost otherwise: connections, to clients that send a byte now and then.
#[test]
fn slow_requests_are_timed_out_by_the_clock() {
    let limits = Limits::default();
    // The head: absolute, whatever trickles in.
    let (world, mut server, client) = play(b"GET / HTTP/1.1\r\nHost: a\r\n");
    let step = limits.head_time / 4;
    for _ in 0..3 {
        world.advance(step);
        client.send(b"a: b\r\n");
        world.settle(&mut server);
    }
    world.advance(step - Duration::from_nanos(1));
    world.settle(&mut server);
    assert_eq!(client.read(), b"", "not a nanosecond early");
    world.advance(Duration::from_nanos(1));
    world.settle(&mut server);
    let reply = one(&client.read(), "GET");
    assert_eq!((reply.status, reply.closes(), client.has_ended()), (408, true, true));

    // And a head that brings nothing more.
    let (world, mut server, client) = play(b"");
    let silence = limits.head_time / 8;
    let brief = limits.read_time(silence);
    server.call(|http, _| http.set_limits(brief));
    client.send(b"GET / HTTP/1.1\r\n");
    world.settle(&mut server);
    world.advance(silence - Duration::from_nanos(1));
    client.send(b"Host: a\r\n");
    world.settle(&mut server);
    world.advance(silence - Duration::from_nanos(1));
    world.settle(&mut server);
    assert_eq!(client.read(), b"", "bytes that have come count");
    world.advance(Duration::from_nanos(1));
    world.settle(&mut server);
    assert_eq!(one(&client.read(), "GET").status, 408);

    // The body: as long as something comes.
    let (world, mut server, client) = play(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    for _ in 0..5 {
        world.advance(limits.read_time - Duration::from_nanos(1));
        client.send(b"x");
        world.settle(&mut server);
    }
    world.advance(limits.read_time);
    world.settle(&mut server);
    assert_eq!(one(&client.read(), "POST").status, 408);

    // Nothing at all: quietly, before the first request and after it.
    for bytes in [&b""[..], GET] {
        let (world, mut server, client) = play(bytes);
        client.read();
        world.advance(limits.idle_time - Duration::from_nanos(1));
        world.settle(&mut server);
        assert!(!client.has_ended());
        world.advance(Duration::from_nanos(1));
        world.settle(&mut server);
        assert_eq!((client.read(), client.has_ended()), (vec![], true));
    }
}

/// Lost otherwise: memory, to clients that do not read; and clients that read slowly.
#[test]
fn who_reads_nothing_is_given_up() {
    let stall = Limits::default().stall_time;
    let (world, mut server, client) = play(&request("/piece"));
    for _ in 0..3 {
        world.advance(stall - Duration::from_nanos(1));
        world.settle(&mut server);
        assert!(!client.read_at_most(1000).is_empty());
        world.settle(&mut server);
    }
    assert!(!client.is_closed());
    for _ in 0..2 {
        world.advance(stall); // the kernel still had room for what was read last
        world.settle(&mut server);
    }
    assert!(client.was_reset(), "not a part for the whole");
    assert_eq!(log(&server), ["Aborted"]);
}

/// Lost otherwise: long polls that end in time, and clients that only wait.
#[test]
fn a_handler_has_deadlines_of_its_own() {
    let (world, mut server, client) = play(&request("/deadline"));
    world.advance(Duration::from_nanos(2_999_999_999));
    world.settle(&mut server);
    assert_eq!(client.read(), b"");
    world.advance(Duration::from_nanos(1));
    world.settle(&mut server);
    assert_eq!(one(&client.read(), "GET").status, 503);
    assert!(!client.has_ended());

    let (world, mut server, client) = play(&request("/hold"));
    world.advance(Duration::from_secs(100_000));
    world.settle(&mut server);
    release(&mut server, b"at last");
    world.settle(&mut server);
    assert_eq!(one(&client.read(), "GET").text(), "at last");
}

/// Lost otherwise: requests that are being answered when the server is stopped.
#[test]
fn a_stop_answers_what_is_held_and_closes_what_is_idle() {
    let (world, mut server, client) = play(&request("/hold"));
    let (idle, partial, busy) = (world.connect(), world.connect(), world.connect());
    busy.send(&request("/large"));
    idle.send(GET);
    partial.send(&GET[..10]);
    world.settle(&mut server);
    idle.read();
    server.stop(Duration::from_secs(5));
    world.settle(&mut server);
    assert!(idle.has_ended());
    let reply = one(&client.read(), "GET");
    assert_eq!((reply.text(), reply.closes(), client.has_ended()), ("goodbye", true, true));
    partial.send(&GET[10..]);
    world.settle(&mut server);
    assert!(one(&partial.read(), "GET").closes() && partial.has_ended());
    let bytes = read_all(&world, &mut server, &busy);
    assert!(!one(&bytes, "GET").closes() && busy.has_ended(), "it had begun before");
    for client in [client, idle, partial, busy] {
        client.end();
    }
    world.settle(&mut server);
    assert!(server.is_stopped());
}

/// Lost otherwise: the reply to a reset, when the server is stopped while a client that knows nothing
/// of it has sent on.
#[test]
fn a_stop_does_not_cut_off_who_is_still_sending() {
    let world = World::new(1);
    world.set_buffers(100, 1000); // the rest is under way
    let mut server = serve(&world, Script::default(), pollstack::Limits::default());
    let client = world.connect();
    client.send(&request("/hold"));
    world.settle(&mut server);
    server.stop(Duration::from_secs(5));
    client.send(&GET.repeat(100));
    world.settle(&mut server);
    assert_eq!(one(&client.read(), "GET").text(), "goodbye");
    assert!(client.has_ended() && !client.was_reset());
}

/// Lost otherwise: places, to clients that send a byte of a body now and then, for as long as they like,
/// whether the body is collected or read past, before its reply or behind it.
#[test]
fn a_body_has_to_come_in_time() {
    for path in ["/collect", "/skip", "/hold"] {
        let (world, second) = (World::new(1), Duration::from_secs(1));
        let mut server = serve(&world, Script::default(), pollstack::Limits::default());
        let limits = Limits::default().body_time(second * 100);
        server.call(|http, _| http.set_limits(limits));
        let client = world.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").as_bytes());
        for _ in 0..4 {
            world.settle(&mut server);
            client.read();
            assert!(!client.has_ended(), "{path}: there is time");
            world.advance(second * 25);
            client.send(b"x");
        }
        world.settle(&mut server);
        client.read();
        assert!(client.has_ended(), "{path}: it is waited for");
    }
}

/// Lost otherwise: the time that a stop gives to others, to a body that is not wanted any more.
#[test]
fn a_stop_does_not_wait_for_a_body_that_is_read_past() {
    let (world, mut server, client) = play(b"POST /skip HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert!(!one(&client.read(), "POST").closes());
    server.stop(Duration::from_secs(5));
    world.settle(&mut server);
    assert!(client.has_ended());
    client.end();
    world.settle(&mut server);
    assert!(server.is_stopped());
}

/// Lost otherwise: a page for a client without a place.
#[test]
fn newcomers_beyond_the_capacity_read_a_page() {
    let world = World::new(1);
    let clock = Clock::new(world.now(), UNIX_EPOCH);
    let mut server = EventLoop::with_net(world.net(), Http::new(Tell, clock), pollstack::Limits::default());
    let listen = ListenerConfig::new("127.0.0.1:80".parse().unwrap());
    server.listen(listen.max_conns(1).overload(Overload::Reject(BUSY.into()))).unwrap();
    let (first, second) = (world.connect(), world.connect());
    first.send(b"GET"); // one that waits for nothing would give way
    second.send(GET);
    world.settle(&mut server);
    assert_eq!(one(&second.read(), "GET").status, 503);
    assert!(second.has_ended());
}

/// Lost otherwise: caches, which compare dates.
#[test]
fn the_date_is_that_of_the_reply() {
    let (world, mut server, client) = play(GET);
    assert_eq!(one(&client.read(), "GET").header("Date"), Some(DATE));
    world.advance(Duration::from_secs(22));
    client.send(GET);
    world.settle(&mut server);
    assert_eq!(one(&client.read(), "GET").header("Date"), Some("Sun, 06 Nov 1994 08:49:59 GMT"));
}

/// Lost otherwise: the end of a chunk, when a shared buffer takes the last of the room.
#[test]
fn a_chunk_is_sent_whole_or_not_at_all() {
    for output in 9000..10100 {
        let world = World::new(1);
        let mut server = serve(&world, Script::default(), pollstack::Limits::default().output(output));
        let client = world.connect();
        client.send(b"GET /shares HTTP/1.1\r\nHost: a\r\n\r\n");
        world.settle(&mut server);
        let reply = one(&client.read(), "GET");
        assert!(reply.body.len() >= 7 * 1024 && reply.body.iter().all(|byte| *byte == b's'), "output {output}");
    }
}
