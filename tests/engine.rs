//! Edges that share a stack in a real engine: what clients see while edges and the engine are killed, stopped, full
//! or read-only. They run where there is a `redis-server`; with `TOOLS=required` they fail where there is none.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use test_support::engine::Redis;
use test_support::history::{is_linearizable, observe};
use test_support::{Client, Server, TEST_TIMEOUT, replies, run, start, wait_until};

const CAPACITY: usize = 3;

fn edge(redis: &Redis) -> Server {
    edge_with(redis, &[])
}

fn edge_with(redis: &Redis, more: &[&str]) -> Server {
    let url = format!("redis://{}/jobs", redis.address());
    let args = ["--capacity", &CAPACITY.to_string(), "--engine", &url];
    let mut command = test_support::pollstack!(&["--listen", "127.0.0.1:0"]);
    command.args(args).args(more);
    Server::spawn(command, if more.contains(&"--http") { 2 } else { 1 })
}

/// Starts a server that is to end by itself.
fn rejected(args: &[&str], password: &str) -> Output {
    let program = test_support::pollstack!(&[&["--listen", "127.0.0.1:0"], args].concat());
    // One that runs is ended by the hangup of its time.
    let mut command = Command::new("timeout");
    command.arg("20").arg(program.get_program()).args(program.get_args());
    command.env("POLLSTACK_ENGINE_PASSWORD", password);
    run(command)
}

/// Waits until so many pushes, and so many pops, wait in the engine.
fn wait_for_parked(redis: &Redis, pushes: usize, pops: usize) {
    wait_until("requests wait in the engine", || {
        let count = |line: &str| redis.ask(&["ZCARD", &format!("{{pollstack:jobs}}:{line}")]);
        let parked = [count("pushes"), count("pops")];
        (parked == [pushes, pops].map(|count| format!(":{count}\r\n+OK\r\n"))).then_some(())
    });
}

/// Asks the face of a server.
fn get(server: &Server, path: &str) -> replies::Response {
    let stream = TcpStream::connect(server.address_behind("http on ")).unwrap();
    let mut client = Client::new(stream);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
    replies::one(&client.answer(), "GET")
}

/// Returns whether the stream has ended, or was reset, without a byte.
fn is_closed_unanswered(client: &mut Client) -> bool {
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    bytes.is_empty()
}

/// Lost otherwise: the one order of two edges: a LIFO, whose parked requests are served as they came.
#[test]
fn edges_share_one_stack_and_one_order() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (one, two) = (edge(&redis), edge(&redis));
    one.stored(b"a");
    two.stored(b"b");
    assert_eq!([one.popped(), two.popped()], [b"b", b"a"]);
    let mut pops = Vec::new();
    for n in 0..4 {
        pops.push(if n % 2 == 0 { one.pop() } else { two.pop() });
        wait_for_parked(&redis, 0, n + 1);
    }
    for (n, item) in [b"1", b"2", b"3", b"4"].into_iter().enumerate() {
        if n < 2 {
            two.stored(item)
        } else {
            one.stored(item)
        }
        assert_eq!(pops[n].item(), item);
    }
    for n in 0..CAPACITY {
        if n % 2 == 0 { one.stored(b"full") } else { two.stored(b"full") }
    }
    let mut pushes = Vec::new();
    for (n, edge) in [&two, &one, &two].into_iter().enumerate() {
        pushes.push(edge.push(&[b'0' + n as u8]));
        wait_for_parked(&redis, n + 1, 0);
    }
    for (push, top) in pushes.iter_mut().zip([&b"full"[..], b"0", b"1"]) {
        assert_eq!(one.popped(), top);
        assert_eq!(push.answer(), [0], "the room goes to the push that came first");
    }
}

/// Lost otherwise: the one order in which all that clients of two edges see can be explained.
#[test]
fn what_clients_of_two_edges_see_is_a_stack() {
    let Some(redis) = Redis::start(&["--appendfsync", "no"]) else { return };
    let (one, two) = (edge(&redis), edge(&redis));
    for _ in 0..50 {
        let history = observe(&[&one, &two]);
        assert!(is_linearizable(&history, CAPACITY), "a stack of {CAPACITY} could not: {history:?}");
    }
}

/// Lost otherwise: the item that was on its way to a client of an edge that has died, or the client that the engine
/// goes on serving in its name.
#[test]
fn a_dead_edge_gives_its_items_back() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (mut one, two) = (edge(&redis), edge(&redis));
    let _parked = one.pop();
    wait_for_parked(&redis, 0, 1);
    one.signal("KILL");
    one.wait();
    two.stored(b"a"); // the engine has it handed out by the first edge
    assert_eq!(two.popped(), b"a");
    wait_for_parked(&redis, 0, 0);
}

/// Lost otherwise: an item that two clients get: that of an edge which was only stopped, and goes on.
#[test]
fn an_edge_that_was_taken_for_dead_answers_nothing_from_before() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (one, two) = (edge(&redis), edge(&redis));
    let mut parked = one.pop();
    let silent = one.connect();
    wait_for_parked(&redis, 0, 1);
    one.suspend();
    two.stored(b"a");
    assert_eq!(two.popped(), b"a");
    one.signal("CONT");
    assert!(is_closed_unanswered(&mut parked));
    drop(silent);
    one.stored(b"b");
    assert_eq!(two.popped(), b"b");
}

/// Lost otherwise: pushes that were answered, or the clients that wait while the engine is away.
#[test]
fn clients_wait_while_the_engine_is_away() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let one = edge_with(&redis, &["--http", "127.0.0.1:0"]);
    one.stored(b"a");
    assert_eq!(get(&one, "/healthz").status, 200);
    redis.kill();
    let mut push = one.push(b"b");
    let mut pops = [one.pop(), one.pop()];
    wait_until("the edge knows", || (get(&one, "/healthz").status == 503).then_some(()));
    assert!(get(&one, "/healthz").text().starts_with("the engine does not answer: "));
    redis.restart();
    assert_eq!(push.answer(), [0]);
    let mut items = pops.each_mut().map(|pop| pop.item());
    items.sort();
    assert_eq!(items, [b"a", b"b"]);
    wait_until("the edge knows", || (get(&one, "/healthz").status == 200).then_some(()));
    // An engine that is there, and says nothing: the connection is made anew in the end.
    redis.signal("STOP");
    let mut push = one.push(b"c");
    one.barrier();
    one.wait_until_asleep();
    let before = one.sleeps();
    thread::sleep(Duration::from_secs(2)); // the silence is under test
    // A slow machine has it try again meanwhile; one that spins wakes thousands of times.
    assert!(one.sleeps() <= before + 10, "it sleeps while it waits for the engine");
    wait_until("the edge gives up", || (get(&one, "/healthz").status == 503).then_some(()));
    redis.signal("CONT");
    assert_eq!(push.answer(), [0]);
    assert_eq!(one.popped(), b"c", "it is pushed once");
    let reply = get(&one, "/metrics");
    let text = reply.text();
    for line in ["pollstack_engine_up 1", "pollstack_engine_expired_total 0"] {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
    assert!(text.contains("pollstack_engine_retries_total 1\n") || text.contains("pollstack_engine_retries_total 2\n"));
}

/// Lost otherwise: a wrong answer, or a lost item, when the engine rejects what it is asked for.
#[test]
fn an_engine_that_rejects_is_asked_again() {
    let Some(redis) = Redis::start(&[]) else { return };
    let one = edge(&redis);
    one.stored(b"a");
    redis.ask(&["SCRIPT", "FLUSH"]);
    one.stored(b"b");
    // Without memory, pushes wait and pops go on.
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let mut push = one.push(b"c");
    wait_for_parked(&redis, 1, 0);
    assert_eq!(one.popped(), b"b");
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(push.answer(), [0]);
    // Read-only, as after a fail-over.
    redis.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let mut push = one.push(b"d");
    one.barrier();
    redis.ask(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(push.answer(), [0]);
    // Another program's value in our place.
    redis.ask(&["RENAME", "{pollstack:jobs}:items", "aside"]);
    redis.ask(&["SET", "{pollstack:jobs}:items", "x"]);
    let mut pop = one.pop();
    one.barrier();
    redis.ask(&["RENAME", "aside", "{pollstack:jobs}:items"]);
    assert_eq!(pop.item(), b"d");
    assert_eq!([one.popped(), one.popped()], [b"c", b"a"]);
}

/// Lost otherwise: an edge that starts on another stack than was meant, or a password in a log.
#[test]
fn an_engine_that_does_not_fit_is_rejected_in_a_sentence() {
    let Some(redis) = Redis::start(&["--requirepass", "hush"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hush\n").unwrap();
    let url = format!("redis://{}/jobs", redis.address());
    let file = file.to_str().unwrap();
    let _one = start!(&["--engine", &url, "--engine-password-file", file]);
    let nothing = format!("redis://{}/jobs", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    for (args, password, words) in [
        (&["--engine", &url, "--capacity", "5"][..], "hush", "its stack holds 100 items, and --capacity is 5"),
        (&["--engine", &url], "loud", "WRONGPASS"),
        (&["--engine", &url], "", "NOAUTH"),
        (&["--engine", &nothing], "", "refused"),
        (&["--engine", "redis://localhost.invalid/jobs"], "", "localhost.invalid"),
        (&["--engine", "redis://hush:hush@localhost/jobs"], "", "a password does not belong here"),
        (&["--engine", &url, "--engine-password-file", "/no/file"], "", "/no/file"),
        (&["--engine", &url, "--data", "/tmp/x"], "", "cannot be used with"),
    ] {
        let output = rejected(args, password);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_ne!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(text.contains(words), "{args:?}: {text}");
        assert!(!text.replace("redis://hush:hush@", "").contains("hush"), "{text}");
    }
}

/// Answers the commands of one client after the other: the n-th client's with the n-th list, all others' with the last.
/// The last answer of a list goes on without end, unless it is empty.
fn fake_engine(answers: Vec<Vec<&'static str>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for n in 0.. {
            let Ok((mut client, _)) = listener.accept() else { return };
            let Some((last, first)) = answers[n.min(answers.len() - 1)].split_last() else { return };
            let mut commands = BufReader::new(client.try_clone().unwrap());
            let number = |commands: &mut BufReader<TcpStream>| {
                let mut line = String::new();
                commands.read_line(&mut line).unwrap();
                line[1..].trim().parse::<usize>().unwrap()
            };
            for answer in first {
                for _ in 0..number(&mut commands) {
                    let mut word = vec![0; number(&mut commands) + 2];
                    commands.read_exact(&mut word).unwrap();
                }
                client.write_all(answer.as_bytes()).unwrap();
            }
            while !last.is_empty() && client.write_all(last.repeat(4096).as_bytes()).is_ok() {}
        }
    });
    address
}

/// Lost otherwise: the edge, which the peer at the other end of its link could abort, or fill.
#[test]
fn an_engine_that_answers_nonsense_does_no_harm() {
    const NESTED: &str = "*1\r\n";
    let url = |answers| format!("redis://{}/jobs", fake_engine(answers));
    for (answers, reason) in [
        (vec![NESTED], "it nests deeper than 8"),
        (vec!["+endless"], "its answer is longer than 1048576 bytes"),
        (vec!["_\r\n", "$x\r\n"], "it does not speak RESP: \"x\" is no length"),
    ] {
        let output = rejected(&["--engine", &url(vec![answers])], "");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains(reason), "{reason}: {output:?}");
    }
    let good = vec!["_\r\n", "$1\r\na\r\n", "*5\r\n:-1\r\n:0\r\n:0\r\n:0\r\n:0\r\n", ""];
    for (answer, reason) in
        [(NESTED, "it nests deeper than 8"), ("+endless", "its answer is longer than the input buffer")]
    {
        // The first client is the check at the start.
        let url = url(vec![good.clone(), vec![answer]]);
        let args = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--engine", &url];
        let edge = Server::spawn(test_support::pollstack!(&args), 2);
        wait_until(reason, || get(&edge, "/healthz").text().contains(reason).then_some(()));
    }
}

/// Lost otherwise: the start of an edge, to a peer that answers a byte at a time for ever.
#[test]
fn a_start_does_not_wait_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/jobs", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut client = listener.accept().unwrap().0;
        let mut rest = b"+".repeat(600).into_iter();
        while rest.next().is_some_and(|byte| client.write_all(&[byte]).is_ok()) {
            thread::sleep(Duration::from_millis(50)); // thirty seconds in all, and never silent for long
        }
    });
    let output = rejected(&["--engine", &url], "");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("the rest of an answer: it does not answer within 5s"), "{error}");
}

/// Lost otherwise: an edge whose requests outlive it for the length of a lease.
#[test]
fn a_stopped_edge_leaves_the_engine() {
    let Some(redis) = Redis::start(&[]) else { return };
    let mut one = edge(&redis);
    let mut parked = one.pop();
    wait_for_parked(&redis, 0, 1);
    one.signal("TERM");
    assert!(is_closed_unanswered(&mut parked));
    assert_eq!(one.wait().code(), Some(0));
    assert_eq!(redis.ask(&["ZCARD", "{pollstack:jobs}:edges"]), ":0\r\n+OK\r\n");
    assert_eq!(redis.ask(&["ZCARD", "{pollstack:jobs}:pops"]), ":0\r\n+OK\r\n");
}

/// Lost otherwise: pushes that were answered, when the engine's machine is gone and a replica takes over.
#[test]
fn answers_wait_for_replicas() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (host, port) = (redis.address().ip().to_string(), redis.address().port().to_string());
    let Some(replica) = Redis::start(&["--replicaof", &host, &port]) else { return };
    let one = edge_with(&redis, &["--wait-replicas", "1", "--http", "127.0.0.1:0"]);
    one.stored(b"a");
    replica.signal("STOP");
    let mut push = one.push(b"b");
    // A batch before it may be the one that no replica has: that is sent again, and the push waits behind it.
    let is_there = || redis.ask(&["LLEN", "{pollstack:jobs}:items"]).starts_with(":2");
    let is_behind = || get(&one, "/healthz").status == 503;
    wait_until("it is in the engine, or waits to be", || (is_there() || is_behind()).then_some(()));
    push.stream().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(push.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "it waits");
    push.stream().set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    replica.signal("CONT");
    assert_eq!(push.answer(), [0]);
    assert_eq!([one.popped(), one.popped()], [b"b", b"a"]);
}

/// Lost otherwise: a stack on a cluster: its keys are on one node, to which the others send us.
#[test]
fn an_edge_follows_a_cluster() {
    let Some(owner) = Redis::start(&["--cluster-enabled", "yes"]) else { return };
    let Some(other) = Redis::start(&["--cluster-enabled", "yes"]) else { return };
    owner.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    other.ask(&["CLUSTER", "MEET", &owner.address().ip().to_string(), &owner.address().port().to_string()]);
    wait_until("they know each other", || {
        let knows = other.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
        (knows && other.ask(&["GET", "{pollstack:jobs}:x"]).starts_with("-MOVED")).then_some(())
    });
    let one = edge(&other);
    one.stored(b"a");
    let mut parked = one.pop();
    assert_eq!(parked.item(), b"a");
    assert_eq!(owner.ask(&["ZCARD", "{pollstack:jobs}:edges"]), ":1\r\n+OK\r\n");
}

/// Lost otherwise: the configurations that doc/scaling.md recommends: that of the engine allows all that an edge asks
/// for, and behind haproxy the death of an edge is not seen.
#[test]
fn the_recommended_configurations_work() {
    let Some(redis) = Redis::recommended() else { return };
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "change-me").unwrap();
    let url = format!("redis://pollstack@{}/jobs", redis.address());
    let args = ["--engine", &url, "--engine-password-file", password.to_str().unwrap(), "--capacity", "3"];
    let (one, two) = (start!(&args), start!(&args));
    let mut parked = two.pop();
    two.barrier();
    one.stored(b"a");
    assert_eq!(parked.item(), b"a");

    let Some(haproxy) = test_support::engine::haproxy(&[one.address(), two.address()]) else { return };
    let ask = |request: &[u8]| haproxy.send(request).answer();
    assert_eq!(ask(&test_support::push(b"b")), [0]);
    drop(one);
    for _ in 0..4 {
        assert_eq!(ask(&test_support::push(b"c")), [0]);
        assert_eq!(ask(&[0x80]), b"\x01c");
    }
}

/// How often each item was seen, and whether its push was answered.
#[derive(Default)]
struct History {
    stored: Vec<u64>,
    popped: BTreeMap<u64, usize>,
}

/// Lost otherwise: an answered push, or items popped twice without a reason. Clients push and pop at two edges
/// while those, and the engine, are killed, stopped and continued for `KILLS` seconds.
#[test]
fn answered_pushes_survive_edges_and_engine() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let seconds = std::env::var("KILLS").map_or(6, |text| text.parse().unwrap());
    let edges: [_; 2] = std::array::from_fn(|_| edge(&redis));
    let ports = edges.each_ref().map(|edge| edge.address().to_string());
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut edges = edges.map(Some);
    let url = format!("redis://{}/jobs", redis.address());
    let mut deaths = 0;
    let histories: Vec<History> = thread::scope(|scope| {
        let workers: Vec<_> = (0..16)
            .map(|n| {
                let (next, over, ports) = (&next, &over, &ports);
                scope.spawn(move || work(n, next, over, ports))
            })
            .collect();
        let mut random = fastrand::Rng::with_seed(17);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(random.u64(200..900))); // the time under test
            let n = random.usize(..2);
            let (kind, before) = (random.u8(..5), Instant::now());
            match kind {
                0 => {
                    drop(edges[n].take()); // SIGKILL
                    deaths += 1;
                    let args = ["--listen", &ports[n], "--capacity", "3", "--engine", &url];
                    let again = || Server::try_spawn(test_support::pollstack!(&args), 1);
                    edges[n] = Some(wait_until("it starts again", again));
                }
                1 => redis.restart(),
                2 => {
                    edges[n].as_ref().unwrap().suspend();
                    thread::sleep(Duration::from_millis(random.u64(100..4500)));
                    edges[n].as_ref().unwrap().signal("CONT");
                    deaths += 1;
                }
                3 => {
                    redis.signal("STOP");
                    thread::sleep(Duration::from_millis(random.u64(100..3000)));
                    redis.signal("CONT");
                }
                _ => {}
            }
            // An engine that has heard neither edge for so long may take both for dead.
            if matches!(kind, 1 | 3) && before.elapsed() > Duration::from_secs(2) {
                deaths += 2;
            }
        }
        over.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut all = History::default();
    for history in histories {
        all.stored.extend(history.stored);
        for (item, count) in history.popped {
            *all.popped.entry(item).or_default() += count;
        }
    }
    // All that is left, once the engine knows of the dead.
    let last = edges[0].as_ref().unwrap();
    wait_until("the dead are found", || {
        (redis.ask(&["ZCARD", "{pollstack:jobs}:edges"]) == ":2\r\n+OK\r\n").then_some(())
    });
    // And of the last clients that have hung up: an item for one of them is in flight until its edge gives it back.
    wait_for_parked(&redis, 0, 0);
    wait_until("no item is in flight", || {
        (redis.ask(&["HLEN", "{pollstack:jobs}:flight"]) == ":0\r\n+OK\r\n").then_some(())
    });
    while redis.ask(&["LLEN", "{pollstack:jobs}:items"]) != ":0\r\n+OK\r\n" {
        *all.popped.entry(number(&last.popped())).or_default() += 1;
    }
    let lost: Vec<_> = all.stored.iter().filter(|item| !all.popped.contains_key(item)).collect();
    assert!(lost.is_empty(), "{} of {} answered pushes are lost: {lost:?}", lost.len(), all.stored.len());
    let doubled: usize = all.popped.values().map(|count| count - 1).sum();
    println!(
        "{} pushes answered, {} popped, {doubled} doubled, {deaths} edges died",
        all.stored.len(),
        all.popped.len()
    );
    assert!(doubled <= 16 * deaths, "{doubled} items are doubled over {deaths} deaths");
    assert!(!all.stored.is_empty());
}

/// Pushes or pops until it is over. After some seconds without an answer, it goes.
fn work(n: usize, next: &AtomicU64, over: &AtomicBool, ports: &[String; 2]) -> History {
    let mut history = History::default();
    while !over.load(Ordering::Relaxed) {
        let Ok(stream) = TcpStream::connect(&ports[n / 2 % 2]) else {
            thread::sleep(Duration::from_millis(20)); // the edge is being started
            continue;
        };
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut client = stream;
        let item = next.fetch_add(1, Ordering::Relaxed);
        let payload = item.to_string();
        let request = if n % 2 == 0 { test_support::push(payload.as_bytes()) } else { vec![0x80] };
        let mut answer = Vec::new();
        let sent = client.write_all(&request);
        let read = sent.and_then(|()| client.read_to_end(&mut answer));
        if read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
            // Its request is cancelled, or answered just now.
            let _ = client.shutdown(std::net::Shutdown::Write);
            client.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
            let _ = client.read_to_end(&mut answer);
        }
        match answer.as_slice() {
            [0] if n % 2 == 0 => history.stored.push(item),
            [len, item @ ..] if n % 2 == 1 && item.len() == usize::from(*len) => {
                *history.popped.entry(number(item)).or_default() += 1;
            }
            _ => {}
        }
    }
    history
}

fn number(item: &[u8]) -> u64 {
    std::str::from_utf8(item).unwrap().parse().unwrap()
}
