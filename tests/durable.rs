//! The stack in a file: what is there after a crash, what a disk that fails costs, and which files are rejected.

use pollstack::client::Client as StackClient;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use test_support::{Client, Server, TEST_TIMEOUT, run, start, wait_until};

const STORED: [u8; 1] = [0];

/// A folder with a data file that is still to be made.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stack.data");
    (folder, path)
}

fn start_on(path: &Path, more: &[&str]) -> Server {
    let data = ["--data", path.to_str().unwrap()];
    start!(&[&data[..], more].concat())
}

/// Starts a server that is to end by itself.
fn rejected(args: &[&str]) -> Output {
    // One that runs is ended by the hangup of its time.
    let program = test_support::pollstack!(&[&["--listen", "127.0.0.1:0"], args].concat());
    let mut command = Command::new("timeout");
    command.arg("20").arg(program.get_program()).args(program.get_args());
    run(command)
}

/// Stops the server, and waits for its end.
fn stop(mut server: Server) {
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

/// Kills the server at once: it is told nothing.
fn kill(mut server: Server) {
    server.signal("KILL");
    server.wait();
}

/// Returns what the commands say of a file.
fn told(args: &[&str]) -> (Option<i32>, String) {
    let output = run(test_support::pollstack!(args));
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Returns the items of a file that no server uses, from the bottom to the top.
fn items(path: &Path) -> Vec<String> {
    let (status, text) = told(&["export", path.to_str().unwrap()]);
    assert_eq!(status, Some(0), "{text}");
    let item =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    text.lines().map(item).collect()
}

/// Lost otherwise: the items, or their order, over a restart.
#[test]
fn a_restart_keeps_items_and_order() {
    let (_folder, path) = place();
    for how in [stop, kill] {
        let server = start_on(&path, &[]);
        for item in [b"a", b"b", b"c"] {
            server.stored(item);
        }
        assert_eq!(server.popped(), b"c");
        server.stored(b"d");
        // A push that is answered is behind the pop: its batch holds the removal, too.
        how(server);
        assert_eq!(items(&path), ["a", "b", "d"]);
        let server = start_on(&path, &[]);
        assert_eq!([server.popped(), server.popped(), server.popped()], [b"d", b"b", b"a"]);
        let mut waiting = server.pop();
        server.barrier();
        assert!(waiting.is_waiting(), "it is empty");
        drop(waiting);
        stop(server);
        assert_eq!(items(&path), [""; 0]);
    }
}

/// The clients of one server, until it is killed: three of four push, one pops.
#[derive(Default)]
struct Seen {
    /// Items whose push was answered, and those whose push was sent.
    stored: HashSet<String>,
    sent: HashSet<String>,
    popped: Vec<String>,
}

/// Ends after so long, or later: when so many pushes have been answered.
fn crowd(server: Server, clients: usize, round: u64, life: Duration, pushes: u64) -> Seen {
    let address = server.address();
    let (number, stored) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let work = |n: usize| {
            let (mut seen, number, stored) = (Seen::default(), &number, &stored);
            let client = StackClient::new(address).timeout(TEST_TIMEOUT);
            loop {
                if n % 4 != 0 {
                    let item = format!("{round}-{n}-{}", number.fetch_add(1, Ordering::Relaxed));
                    seen.sent.insert(item.clone());
                    if client.push(item.as_bytes()).is_err() {
                        return seen;
                    }
                    seen.stored.insert(item);
                    stored.fetch_add(1, Ordering::Relaxed);
                } else {
                    match client.pop() {
                        Ok(item) => seen.popped.push(String::from_utf8(item).unwrap()),
                        Err(_) => return seen,
                    }
                }
            }
        };
        let threads: Vec<_> = (0..clients).map(|n| scope.spawn(move || work(n))).collect();
        std::thread::sleep(life); // the instant of the crash is any
        wait_until("pushes are answered", || (stored.load(Ordering::Relaxed) >= pushes).then_some(()));
        kill(server);
        threads.into_iter().fold(Seen::default(), |mut all, thread| {
            let seen = thread.join().unwrap();
            all.stored.extend(seen.stored);
            all.sent.extend(seen.sent);
            all.popped.extend(seen.popped);
            all
        })
    })
}

/// Lost otherwise: an item whose push was answered. `KILLS=300` for the long one.
#[test]
fn killed_at_any_instant_it_has_what_it_has_acknowledged() {
    let rounds = std::env::var("KILLS").map_or(6, |rounds| rounds.parse().expect("KILLS is a number"));
    let (_folder, path) = place();
    let (mut pushed, mut again, mut total) = (0, 0, 0);
    for round in 0..rounds {
        let before = items_or_none(&path);
        let server = start_on(&path, &["--capacity", "1000", "--max-clients", "1000"]);
        // Every other life may end before its first push is answered.
        let pushes = if round % 2 == 0 { 0 } else { 40 };
        let seen = crowd(server, 64, round, Duration::from_millis(20 + round * 37 % 300), pushes);
        let after = items(&path);
        let there: HashSet<&String> = after.iter().collect();
        assert_eq!(there.len(), after.len(), "an item is there twice");
        let mut counts: HashMap<&String, usize> = HashMap::new();
        seen.popped.iter().for_each(|item| *counts.entry(item).or_default() += 1);
        assert!(counts.values().all(|count| *count == 1), "an item was popped twice in one life");
        // Acknowledged: popped, or there.
        let owed = seen.stored.iter().chain(&before).filter(|item| !there.contains(item) && !counts.contains_key(item));
        assert_eq!(owed.count(), 0, "round {round}: acknowledged, and neither popped nor there");
        // Nothing comes from nowhere.
        let known = |item: &&String| seen.sent.contains(*item) || before.contains(*item);
        assert!(after.iter().chain(&seen.popped).all(|item| known(&item)));
        // Those that were there before lie below, in their order; and of one client, a later push is above an earlier.
        let old: Vec<&String> = before.iter().filter(|item| there.contains(item)).collect();
        assert!(after.iter().take(old.len()).eq(old), "round {round}: {after:?}");
        let mut last = HashMap::new();
        for item in after.iter().filter(|item| seen.sent.contains(*item)) {
            let (client, number) = item.rsplit_once('-').unwrap();
            let below = last.insert(client, number.parse::<u64>().unwrap());
            assert!(below < last.get(client).copied(), "round {round}: {after:?}");
        }
        let back = seen.popped.iter().filter(|item| there.contains(item)).count();
        (pushed, again, total) = (pushed + seen.stored.len(), again + back, total + after.len());
    }
    println!("{rounds} kills, {pushed} acknowledged pushes, {again} pops there again, {total} items found");
}

fn items_or_none(path: &Path) -> Vec<String> {
    if path.exists() { items(path) } else { Vec::new() }
}

/// Lost otherwise: a user's file, to a server that takes it for its own or tries to mend it.
#[test]
fn a_file_that_cannot_be_used_is_rejected_and_left_alone() {
    let (folder, path) = place();
    let server = start_on(&path, &[]);
    (0..20).for_each(|n| server.stored(format!("item {n}").as_bytes()));
    stop(server);
    let good = fs::read(&path).unwrap();
    let other = folder.path().join("other");
    let check = |bytes: &[u8], args: &[&str], why: &str| {
        fs::write(&other, bytes).unwrap();
        let output = rejected(&[&["--data", other.to_str().unwrap()], args].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && text.lines().count() == 1 && text.contains(why), "{why}: {text}");
        assert!(fs::read(&other).unwrap() == bytes, "{why}: the file is as it was");
    };
    check(b"a letter to a friend", &[], "not a data file of pollstack");
    check(&good[..good.len() / 2], &[], "damaged");
    check(&good, &["--capacity", "19"], "holds 20 items, more than --capacity 19");
    let mut flipped = good.clone();
    for at in (0..good.len()).filter(|at| good[*at..].starts_with(b"item 11")) {
        flipped[at + 5] ^= 1; // in old pages, too
    }
    check(&flipped, &[], "damaged");
    let output = rejected(&["--data", folder.path().to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is a directory"), "{output:?}");
    let server = start_on(&path, &[]);
    let output = rejected(&["--data", path.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("another process uses it"), "{output:?}");
    assert_eq!(told(&["inspect", path.to_str().unwrap()]).0, Some(1), "nor do the commands touch it");
    assert_eq!(server.popped(), b"item 19");
}

/// Lost otherwise: a server, to a file in which anything is damaged.
#[test]
fn damage_anywhere_is_rejected_or_harmless() {
    let (folder, path) = place();
    let server = start_on(&path, &["--capacity", "1000"]);
    (0..30).for_each(|n| server.stored(format!("item {n}").as_bytes()));
    stop(server);
    let good = fs::read(&path).unwrap();
    let other = folder.path().join("other");
    let used = (0..good.len()).filter(|at| good[*at] != 0).collect::<Vec<_>>();
    for at in used.iter().step_by(used.len() / 30) {
        let mut bytes = good.clone();
        bytes[*at] ^= 0x55;
        fs::write(&other, &bytes).unwrap();
        let (status, text) = told(&["export", other.to_str().unwrap()]);
        match status {
            Some(0) => assert_eq!(text.lines().count(), 30, "byte {at}: {text}"),
            status => assert!(status == Some(1) && text.lines().count() == 1, "byte {at}: {text}"),
        }
    }
}

/// Lost otherwise: pushes that are answered and not there; or a server that does not go on when there is room again.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_holds_pushes_back_until_there_is_room() {
    let (_folder, path) = place();
    stop(start_on(&path, &[]));
    let size = fs::metadata(&path).unwrap().len();
    let args = ["--capacity", "1000000", "--max-clients", "1000", "--http", "127.0.0.1:0"];
    let mut command = Command::new("sh");
    // A limit of the size of files is a full disk that can be made larger.
    command.args(["-c", &format!("ulimit -S -f {} && exec \"$0\" \"$@\"", size / 512 + 100)]);
    let program =
        test_support::pollstack!(&[&["--listen", "127.0.0.1:0", "--data", path.to_str().unwrap()], &args[..]].concat());
    command.arg(program.get_program()).args(program.get_args()).env_remove("RUST_LOG");
    command.stderr(std::process::Stdio::null());
    let server = Server::spawn(command, 2);
    let face = server.address_behind("http on ");
    let health = || {
        let mut client = Client::new(std::net::TcpStream::connect(face).unwrap());
        client.send(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n");
        String::from_utf8(client.answer()).unwrap()
    };
    assert!(health().starts_with("HTTP/1.1 200 "), "{}", health());
    // Push until a push is not answered.
    let mut stored = 0;
    let mut waiting = Vec::new();
    while waiting.is_empty() {
        let clients: Vec<Client> = (0..200).map(|_| server.push(&[b'x'; 127])).collect();
        for mut client in clients {
            let is_known = |client: &mut Client| !client.is_waiting() || health().contains("503");
            wait_until("a push is stored, or cannot be", || is_known(&mut client).then_some(()));
            if client.is_waiting() {
                waiting.push(client);
            } else {
                assert_eq!(client.answer(), STORED);
                stored += 1;
            }
        }
    }
    wait_until("it says so", || health().contains("the data cannot be written").then_some(()));
    assert_eq!(server.popped(), [b'x'; 127], "pops go on");
    let raised = Command::new("prlimit").args(["--pid", &server.pid().to_string(), "--fsize=unlimited"]).status();
    assert!(raised.is_ok_and(|status| status.success()), "the limit is raised");
    for client in &mut waiting {
        assert_eq!(client.answer(), STORED, "it goes on");
        stored += 1;
    }
    wait_until("it is well again", || health().starts_with("HTTP/1.1 200 ").then_some(()));
    kill(server);
    let there = items(&path).len();
    assert!(there == stored || there + 1 == stored, "{there} of {stored}: one was popped");
}

/// Lost otherwise: items, on their way from one server to another.
#[test]
fn export_and_import_are_each_others_opposite() {
    let (folder, path) = place();
    let import = |path: &Path, lines: &str| {
        let mut command = test_support::pollstack!(&["import", path.to_str().unwrap()]);
        let source = folder.path().join("lines");
        fs::write(&source, lines).unwrap();
        command.stdin(fs::File::open(source).unwrap());
        run(command)
    };
    let lines = "{\"text\":\"one\"}\n{\"hex\":\"00ff\"}\n{\"text\":\"zwölf\"}\n";
    assert!(import(&path, lines).status.success());
    assert_eq!(told(&["export", path.to_str().unwrap()]), (Some(0), lines.to_owned()));
    let (_, text) = told(&["inspect", path.to_str().unwrap(), "--items", "1"]);
    assert!(
        text.starts_with("items  3\nbytes  11\n") && text.ends_with("zw\\xc3\\xb6lf\n       and 2 below\n"),
        "{text}"
    );
    for wrong in ["x", "{}", "{\"hex\":\"0\"}", "{\"hex\":\"0g\"}", "{\"text\":\"\"}"] {
        let output = import(&path, &format!("{{\"text\":\"more\"}}\n{wrong}\n"));
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("line 2: "), "{output:?}");
    }
    assert_eq!(told(&["export", path.to_str().unwrap()]).1, lines, "all lines or none");
    let server = start_on(&path, &["--sync", "10ms"]);
    assert_eq!(server.popped(), "zwölf".as_bytes());
    server.stored(b"four");
    stop(server);
    assert_eq!(
        told(&["export", path.to_str().unwrap()]).1,
        "{\"text\":\"one\"}\n{\"hex\":\"00ff\"}\n{\"text\":\"four\"}\n"
    );
    stop(start_on(&path, &["--sync", "never"]));
}
