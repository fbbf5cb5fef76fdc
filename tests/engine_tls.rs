//! TLS from an edge to its engine: a real redis-server that asks for client certificates. They run where there is a
//! `redis-server`; with `TOOLS=required` they fail where there is none.

use pollstack::engine::{Engaged, Link, LinkEvent, Linked, SCRIPT, Target};
use pollstack::net::Address;
use pollstack::{ConnId, Context, EventLoop, Limits, ListenerConfig, ListenerId, Service};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};
use test_support::engine::Redis;
use test_support::{Client, Server, TEST_TIMEOUT, replies, run, tls_file, wait_until};

/// The options of a client that the engine trusts, and that trusts it.
fn files() -> [String; 6] {
    let option = |name: &str, file: &str| [name.to_owned(), tls_file(file)];
    let [ca, cert] = [option("--engine-ca", "ca.pem"), option("--engine-cert", "client.pem")];
    let all = [ca, cert, option("--engine-key", "client-key.pem")].concat();
    all.try_into().expect("three options")
}

fn edge(url: &str) -> Server {
    let mut command = test_support::pollstack!(&["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--engine", url]);
    command.args(files());
    Server::spawn(command, 2)
}

/// Asks the face of a server.
fn get(server: &Server, path: &str) -> replies::Response {
    let stream = std::net::TcpStream::connect(server.address_behind("http on ")).unwrap();
    let mut client = Client::new(stream);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
    replies::one(&client.answer(), "GET")
}

/// Starts a server that is to end by itself.
fn rejected(args: &[&str]) -> Output {
    let program = test_support::pollstack!(&[&["--listen", "127.0.0.1:0"], args].concat());
    // One that runs is ended by the hangup of its time.
    let mut command = Command::new("timeout");
    command.arg("20").arg(program.get_program()).args(program.get_args());
    run(command)
}

/// Lost otherwise: a stack whose engine is only to be reached with TLS, and its clients while the link is cut.
#[test]
fn edges_share_a_stack_over_tls() {
    let Some(mut redis) = Redis::encrypted() else { return };
    let port = redis.tls_address().port();
    // By address and by name: its certificate holds for both.
    let one = edge(&format!("rediss://127.0.0.1:{port}/jobs"));
    let two = edge(&format!("rediss://localhost:{port}/jobs"));
    one.stored(b"a");
    two.stored(b"b");
    assert_eq!([one.popped(), two.popped()], [b"b", b"a"]);
    let mut parked = two.pop();
    for item in [b"c", b"d", b"e"] {
        redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
        redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        one.stored(item);
        assert_eq!(parked.item(), item);
        parked = two.pop();
    }
    redis.kill();
    let mut push = one.push(b"f");
    wait_until("the edge knows", || (get(&one, "/healthz").status == 503).then_some(()));
    // A handshake that stalls: the link sleeps, and is made anew in the end.
    let silent = TcpListener::bind(redis.tls_address()).unwrap();
    let stalled = [silent.accept().unwrap(), silent.accept().unwrap()]; // of both edges
    one.wait_until_asleep();
    let before = one.sleeps();
    thread::sleep(Duration::from_secs(2)); // the silence is under test
    // A slow machine has it try again meanwhile; one that spins wakes thousands of times.
    assert!(one.sleeps() <= before + 10, "it sleeps during the handshake");
    wait_until("the edge gives up", || get(&one, "/healthz").text().contains("no answer within 5s").then_some(()));
    drop((silent, stalled));
    redis.restart();
    assert_eq!(push.answer(), [0]);
    assert_eq!(parked.item(), b"f");
    // Its plain port is for this test alone.
    let clients = redis.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    let ports = clients.lines().filter(|line| line.contains("laddr=")).map(|line| line.contains(&format!(":{port} ")));
    assert_eq!(ports.collect::<Vec<_>>(), [true, true], "{clients}");
}

/// Lost otherwise: the reason why a link that has worked does not come back: that of the engine's new certificate.
#[test]
fn an_engine_that_changes_is_not_trusted() {
    let Some(redis) = Redis::encrypted() else { return };
    let one = edge(&format!("rediss://{}/jobs", redis.tls_address()));
    one.stored(b"a");
    let (cert, key) = (tls_file("client.pem"), tls_file("client-key.pem"));
    redis.ask(&["CONFIG", "SET", "tls-cert-file", &cert, "tls-key-file", &key]);
    redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    wait_until("the edge knows", || get(&one, "/healthz").text().contains("invalid peer certificate").then_some(()));
    let mut pop = one.pop();
    let (cert, key) = (tls_file("cert.pem"), tls_file("key.pem"));
    redis.ask(&[
        "CONFIG",
        "SET",
        "tls-cert-file",
        &cert,
        "tls-key-file",
        &key,
        "tls-ca-cert-file",
        &tls_file("ca.pem"),
    ]);
    wait_until("the edge knows", || get(&one, "/healthz").text().contains("alert").then_some(()));
    redis.ask(&["CONFIG", "SET", "tls-ca-cert-file", &tls_file("client.pem")]);
    assert_eq!(pop.item(), b"a");
}

/// Waits for its link.
struct Waiting {
    deadline: Instant,
    is_linked: bool,
}

impl Service for Waiting {
    type Conn = ();

    fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, _: ListenerId) {}

    fn on_data(&mut self, _: &mut Context<'_>, _: ConnId, (): &mut (), input: &[u8]) -> usize {
        input.len()
    }

    fn on_timer(&mut self, cx: &mut Context<'_>) {
        cx.stop(Duration::ZERO);
    }
}

impl Engaged for Waiting {
    fn on_link(&mut self, cx: &mut Context<'_>, _: &mut Link, event: LinkEvent) {
        if matches!(event, LinkEvent::Ready) {
            self.is_linked = true;
            cx.stop(Duration::ZERO);
        }
    }

    fn settle(&mut self, _: &mut Context<'_>, _: &mut Link) -> bool {
        !self.is_linked
    }

    fn timer(&self, _: &Link) -> Option<Instant> {
        Some(self.deadline)
    }
}

/// Lost otherwise: an engine whose name has another address than at the start, as after a fail-over by DNS; and the edge, to
/// a list without an address.
#[test]
fn a_name_is_looked_up_again() {
    let Some(redis) = Redis::encrypted() else { return };
    let files = ["ca.pem", "client.pem", "client-key.pem"].map(|name| PathBuf::from(tls_file(name)));
    // Nothing is known of the host, and no server is where it was.
    let gone = Address::Tcp(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    for (host, addresses) in [("localhost", vec![gone]), ("localhost", vec![]), ("127.0.0.1", vec![])] {
        let target: Target = format!("rediss://{host}:{}/jobs", redis.tls_address().port()).parse().unwrap();
        let target = target.with_tls(Some(&files[0]), Some((&files[1], &files[2]))).unwrap();
        let (net, link) = (target.network().unwrap(), Link::new(target, addresses, SCRIPT));
        let waiting = Waiting { deadline: Instant::now() + TEST_TIMEOUT, is_linked: false };
        let mut event_loop = EventLoop::with_net(net, Linked::new(waiting, link), Limits::default());
        let outgoing = event_loop.service().listener();
        event_loop.listen(ListenerConfig::unbound().id(outgoing).max_conns(Linked::<Waiting>::CONNS)).unwrap();
        event_loop.call(|linked, cx| linked.start(cx));
        event_loop.run().unwrap();
        assert!(event_loop.service().service().is_linked, "{host}");
    }
}

/// Lost otherwise: an hour, to an option that is missing or wrong; or a password, to an engine that was not verified.
#[test]
fn what_is_wrong_is_said_at_the_start() {
    let Some(redis) = Redis::encrypted() else { return };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (plain, tls, port) = (redis.address(), redis.tls_address(), redis.tls_address().port());
    let url = format!("rediss://{tls}/jobs");
    let files = files();
    let [ca, cert] = [&files[..2], &files[2..]].map(|part| part.iter().map(String::as_str).collect::<Vec<_>>());
    let both = [&ca[..], &cert].concat();
    let (other, key) = (tls_file("client.pem"), tls_file("key.pem"));
    let wrong = [&["--engine-ca", &other], &cert[..]].concat();
    let missing = [&["--engine-ca", "/no/file"], &cert[..]].concat();
    let misfit = [&ca[..], &cert[..2], &["--engine-key", &key]].concat();
    for (url, files, words) in [
        (url.as_str(), &ca[..], "CertificateRequired"),
        (&url, &wrong, "UnknownIssuer"),
        (&format!("rediss://127.0.0.2:{port}/jobs"), &both, "not valid for name"),
        (&format!("rediss://{plain}/jobs"), &both, "the TLS handshake"),
        (&format!("rediss://{}/jobs", silent.local_addr().unwrap()), &both, "does not answer within 5s"),
        (&format!("redis://{tls}/jobs"), &[], "rediss://"),
        (&format!("redis://{tls}/jobs"), &ca, "write rediss://"),
        (&url, &[], "--engine-ca FILE"),
        (&url, &missing, "/no/file"),
        (&url, &misfit, "key.pem"),
        (&url, &cert[..2], "--engine-key"),
    ] {
        let output = rejected(&[&["--engine", url], files].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{url} {files:?}: {output:?}", output = output.status);
        assert_eq!(text.lines().count(), 1, "{url} {files:?}: {text}");
        assert!(text.contains(words), "{url} {files:?}: {text}");
    }
}
