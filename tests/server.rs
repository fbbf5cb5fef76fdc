//! The binary as its operator meets it: options, errors, signals, limits, and rest.

use std::net::TcpStream;
use std::process::Output;
use std::time::{Duration, Instant};
use test_support::{Client, Server, pollstack, push, run, start, wait_until};

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

// ---- options and errors -------------------------------------------------------------------------

/// Lost otherwise: an operator who has to read the source.
#[test]
fn help_and_version_tell_what_it_is() {
    let help = run(pollstack!(&["--help"]));
    assert!(help.status.success());
    for word in ["--listen", "--capacity", "--max-clients", "--evict-after", "--backlog", "--grace", "POLLSTACK_LISTEN"]
    {
        assert!(stdout(&help).contains(word), "--help lacks {word}:\n{}", stdout(&help));
    }
    assert!(stdout(&help).lines().all(|line| line.len() <= 100), "lines fit a terminal");
    assert_eq!(stdout(&run(pollstack!(&["--version"]))), format!("pollstack {}\n", env!("CARGO_PKG_VERSION")));
}

/// Lost otherwise: scripts that tell wrong usage (2) from a failure (1), and people who are not
/// told what to write instead.
#[test]
fn a_bad_argument_is_named_and_exits_with_2() {
    for (args, names) in [
        (["--listen", "localhost"], "IP:PORT"),
        (["--listen", "127.0.0.1:70000"], "`127.0.0.1:70000`"),
        (["--capacity", "0"], "at least 1"),
        (["--max-clients", "many"], "'many'"),
        (["--evict-after", "soon"], "'soon'"),
        (["--backlog", "-1"], "-1"),
    ] {
        let output = run(pollstack!(&args));
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = stderr(&output);
        assert!(text.contains(names) && text.lines().count() == 1, "{args:?}: {text}");
    }
}

/// Lost otherwise: an operator in front of `os error 98`.
#[test]
fn an_address_in_use_is_named_with_a_remedy() {
    let server = start!(&[]);
    let address = server.address().to_string();
    let output = run(pollstack!(&["--listen", &address]));
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
    assert!(text.contains("is another server running there?"), "{text}");
    server.stored(b"unharmed");
}

/// Lost otherwise: the same, for the other ways in which an address can be wrong.
#[test]
fn an_address_that_cannot_be_had_is_named() {
    for address in ["192.0.2.1:0", "unix:/no/such/folder/stack.sock"] {
        let output = run(pollstack!(&["--listen", address]));
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(address), "{}", stderr(&output));
    }
}

/// Lost otherwise: containers, which are configured by their environment.
#[test]
fn options_can_come_from_the_environment() {
    let mut command = pollstack!(&[]);
    command.env("POLLSTACK_LISTEN", "127.0.0.1:0,[::1]:0").env("POLLSTACK_CAPACITY", "1");
    command.env("POLLSTACK_MAX_CLIENTS", "2").env("POLLSTACK_EVICT_AFTER", "1h").env("POLLSTACK_GRACE", "1s");
    let server = Server::spawn(command, 2);
    server.stored(b"one");
    let mut parked = server.push(b"two");
    server.barrier();
    assert!(parked.is_waiting(), "the capacity is 1");
    let _second = server.connect();
    wait_until("the limit of 2 shows", || (server.push(b"three").answer() == [0xFF]).then_some(()));
}

/// Lost otherwise: a server that promises more clients than it can serve, and finds out under load.
#[test]
fn more_clients_than_descriptors_is_an_error_that_names_both() {
    let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
    let clients = (hard + 1).to_string();
    let output = run(pollstack!(&["--listen", "127.0.0.1:0", "--max-clients", &clients]));
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains(&clients) && text.contains(&format!("may open {hard}")), "{text}");
    assert!(text.contains("ulimit -n"), "{text}");
}

/// Lost otherwise: the same, for a number that no sum can hold.
#[test]
fn absurd_numbers_of_clients_are_an_error_too() {
    let output = run(pollstack!(&["--listen", "127.0.0.1:0", "--max-clients", &u64::MAX.to_string()]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("ulimit -n"), "{}", stderr(&output));
}

/// Lost otherwise: a user's file, taken for a socket that may be replaced.
#[test]
fn a_file_that_is_not_a_socket_is_left_alone() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "precious").unwrap();
    let output = run(pollstack!(&["--listen", &format!("unix:{}", file.path().display())]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not a socket"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "precious");
}

/// Lost otherwise: a socket that users can reach who must not, or cannot who must.
#[test]
fn a_unix_socket_has_the_mode_and_owner_that_are_asked_for() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stack.sock");
    let address = format!("unix:{}", path.display());
    let own = std::fs::metadata(folder.path()).unwrap();
    let group = if own.uid() == 0 { 4242 } else { own.gid() };
    let server = start!(&["--listen", &address, "--unix-mode", "620", "--unix-owner", &format!(":{group}")]);
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!((file.permissions().mode() & 0o777, file.gid()), (0o620, group));
    drop(server);
    let output = run(pollstack!(&["--listen", &address, "--unix-owner", "no-such-user"]));
    assert!(output.status.code() == Some(2) && stderr(&output).contains("there is no user"), "{output:?}");
}

/// Lost otherwise: a way to see what a server would do, and its man page.
#[test]
fn the_command_line_explains_itself() {
    let program = env!("CARGO_BIN_EXE_pollstack");
    test_support::check_command_line(program, "pollstack", &["--capacity", "5"], "--capacity=5  # command line");
    test_support::check_command_line(program, "pollstack", &[], "--evict-after=10s  # default");
}

/// Lost otherwise: a server on a Unix path, to another one that is started at the same moment, or its clients, to
/// one that only asks whether it is there.
#[test]
#[cfg(target_os = "linux")]
fn one_server_has_a_unix_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a,b.sock");
    let address = format!("unix:{}", path.display());
    for _ in 0..5 {
        // A dead one is there.
        let _ = std::fs::remove_file(&path);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let servers: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                let mut command = pollstack!(&["--listen", &address, "--max-clients", "1"]);
                command.stderr(std::process::Stdio::null());
                Server::try_spawn(command, 1)
            };
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        let [server] = &servers[..] else { panic!("{} servers listen", servers.len()) };
        assert_eq!(server.ready, [format!("listening on {address}")]);
        let mut parked = std::os::unix::net::UnixStream::connect(&path).unwrap();
        std::io::Write::write_all(&mut parked, &[0x80]).unwrap();
        let second = run(pollstack!(&["--listen", &address]));
        assert!(stderr(&second).contains("is another server running there?"), "{second:?}");
        parked.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
        let waiting = std::io::Read::read(&mut parked, &mut [0]).unwrap_err();
        assert_eq!(waiting.kind(), std::io::ErrorKind::WouldBlock, "the parked client is there");
    }
    // One that has bound its socket and does not listen yet.
    let bound = folder.path().join("bound.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&bound).unwrap()).unwrap();
    let output = run(pollstack!(&["--listen", &format!("unix:{}", bound.display())]));
    assert!(stderr(&output).contains("is another server running there?") && bound.exists(), "{output:?}");
    // An abstract name is no file's.
    let output = run(pollstack!(&["--listen", "unix:@name"]));
    assert!(output.status.code() == Some(2) && stderr(&output).contains("unix:./@NAME"), "{output:?}");
}

/// Lost otherwise: a server whose script sets a variable to nothing, or an hour's search for the option that has
/// the wrong value.
#[test]
fn variables_are_named_and_empty_ones_are_none() {
    let names = ["LISTEN", "CAPACITY", "MAX_CLIENTS", "EVICT_AFTER", "BACKLOG", "GRACE"];
    let mut command = pollstack!(&["--listen", "127.0.0.1:0"]);
    command.envs(names.map(|name| (format!("POLLSTACK_{name}"), "")));
    Server::spawn(command, 1).stored(b"x");
    for name in &names[1..] {
        let mut command = pollstack!(&["--listen", "127.0.0.1:0"]);
        command.env(format!("POLLSTACK_{name}"), "-1s");
        let output = run(command);
        let text = stderr(&output);
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
        assert!(text.contains(&format!("(from POLLSTACK_{name})")) && text.contains("'-1s'"), "{text}");
    }
    let mut command = pollstack!(&["--listen", "127.0.0.1:0", "--grace=-1s"]);
    command.env("POLLSTACK_GRACE", "5s");
    let text = stderr(&run(command));
    assert!(text.contains("--grace") && !text.contains("from POLLSTACK"), "{text}");
    let twice = run(pollstack!(&["--listen", "127.0.0.1:9", "--listen", "127.0.0.1:9"]));
    assert!(stderr(&twice).contains("127.0.0.1:9: this address is given twice"), "{twice:?}");
    let http = run(pollstack!(&["--listen", "127.0.0.1:0", "--http", "127.0.0.1:9,127.0.0.1:9"]));
    assert!(stderr(&http).contains("--http 127.0.0.1:9: this address is given twice"), "{http:?}");
}

/// Lost otherwise: the server, to a log file that reaches the size limit of the process; or every client, to a log
/// that nothing reads.
#[test]
fn a_log_that_takes_nothing_more_holds_up_no_client() {
    let logging = || {
        let mut command = pollstack!(&["--listen", "127.0.0.1:0"]);
        command.env("RUST_LOG", "debug");
        command
    };
    let folder = tempfile::tempdir().unwrap();
    let program = logging();
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -f 8; exec \"$0\" \"$@\""]).arg(program.get_program()).args(program.get_args());
    limited.env("RUST_LOG", "debug").stderr(std::fs::File::create(folder.path().join("log")).unwrap());
    let mut unread = logging();
    unread.stderr(std::process::Stdio::piped());
    for command in [limited, unread] {
        let mut server = Server::spawn(command, 1);
        for _ in 0..3000 {
            server.stored(b"x");
            assert_eq!(server.popped(), b"x");
        }
        server.signal("TERM");
        assert!(server.wait().success());
    }
}

/// Lost otherwise: servers that listen on all addresses of both kinds, on one port.
#[test]
fn ipv4_and_ipv6_have_their_ports_apart() {
    let one_port = || {
        let v6 = Server::spawn(pollstack!(&["--listen", "[::]:0"]), 1);
        let address = format!("0.0.0.0:{}", v6.address().port());
        let v4 = Server::try_spawn(pollstack!(&["--listen", &address]), 1)?;
        Some((v4.ready.clone(), address))
    };
    // The port of one kind that the system finds may be a connection's in the other.
    let (ready, address) = (0..20).find_map(|_| one_port()).expect("a port that is free in both");
    assert_eq!(ready, [format!("listening on {address}")]);
}

/// Lost otherwise: a server that keeps to a soft limit it is free to raise.
#[test]
fn a_soft_descriptor_limit_is_raised() {
    let mut command = std::process::Command::new("sh");
    let script =
        format!("ulimit -Sn 64; exec {} --listen 127.0.0.1:0 --max-clients 200", env!("CARGO_BIN_EXE_pollstack"));
    command.args(["-c", &script]);
    let server = Server::spawn(command, 1);
    let clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    wait_until("all 200 are in", || (server.push(b"x").answer() == [0xFF]).then_some(()));
    drop(clients);
}

// ---- signals ------------------------------------------------------------------------------------

/// Lost otherwise: the requests under way when a server is replaced by its successor.
#[test]
fn sigterm_serves_its_clients_and_exits_with_0() {
    let mut server = start!(&["--grace", "30s"]);
    server.stored(b"item");
    let mut slow = server.send(&[4, b's', b'l']);
    server.barrier();
    server.signal("TERM");
    let address = server.address();
    wait_until("no client is accepted", || TcpStream::connect(address).is_err().then_some(()));
    assert!(slow.is_waiting());
    slow.send(b"ow");
    assert_eq!(slow.answer(), [0x00]);
    assert!(server.wait().success());
}

/// Lost otherwise: the requests under way when a terminal is closed; or a server that was to outlive it.
#[test]
fn a_hangup_stops_it_unless_that_is_ignored() {
    let mut server = start!(&["--grace", "30s"]);
    let mut slow = server.send(&[4, b's']);
    server.barrier();
    server.signal("HUP");
    let address = server.address();
    wait_until("no client is accepted", || TcpStream::connect(address).is_err().then_some(()));
    slow.send(b"low");
    assert_eq!(slow.answer(), [0x00]);
    assert!(server.wait().success());

    let program = pollstack!(&["--listen", "127.0.0.1:0"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(program.get_program()).args(program.get_args());
    let ignoring = Server::spawn(command, 1);
    ignoring.signal("HUP");
    ignoring.stored(b"it lives");
}

/// Lost otherwise: the graceful stop, in the moment after the server has said that it is ready.
#[test]
fn sigterm_right_after_the_ready_line_is_a_graceful_stop() {
    for _ in 0..20 {
        let mut server = start!(&[]);
        server.signal("TERM");
        assert!(server.wait().success());
    }
}

/// Lost otherwise: clients whose connection stood in the backlog when the signal came.
#[test]
fn who_is_in_the_backlog_at_sigterm_is_served() {
    let mut server = start!(&["--grace", "30s", "--capacity", "300"]);
    server.signal("STOP");
    let mut clients: Vec<Client> = (0..300).map(|n| server.push(&[n as u8, 1])).collect();
    server.signal("TERM");
    server.signal("CONT");
    clients.iter_mut().for_each(|client| assert_eq!(client.answer(), [0x00]));
    assert!(server.wait().success());
}

/// Lost otherwise: a quick restart, to clients that are parked and cannot be served any more.
#[test]
fn parked_clients_do_not_hold_up_a_stop() {
    let mut server = start!(&["--grace", "1h"]);
    let mut pops: Vec<Client> = (0..10).map(|_| server.pop()).collect();
    let mut slow = server.send(&[1]);
    server.barrier();
    server.signal("INT");
    slow.send(b"x");
    assert_eq!(slow.answer(), [0x00]);
    assert_eq!(pops[0].item(), b"x", "one of them can still be served, and is");
    pops[1..].iter_mut().for_each(|pop| assert_eq!(pop.answer(), [0; 0]));
    assert!(server.wait().success());
}

/// Lost otherwise: a stop, to a client that never finishes its request.
#[test]
fn the_grace_period_ends() {
    let mut server = start!(&["--grace", "100ms"]);
    let mut silent = server.connect();
    server.barrier();
    server.signal("TERM");
    assert_eq!(silent.answer(), [0; 0]);
    assert!(server.wait().success());
}

/// Lost otherwise: an operator's way out of a long grace period.
#[test]
fn a_second_signal_exits_at_once() {
    let mut server = start!(&["--grace", "1h"]);
    let _silent = server.connect();
    server.barrier();
    server.signal("TERM");
    let address = server.address();
    wait_until("the first signal has been seen", || TcpStream::connect(address).is_err().then_some(()));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(128 + 15));
}

// ---- limits and rest ----------------------------------------------------------------------------

/// Lost otherwise: the processor and the service, when the process runs out of descriptors.
#[cfg(target_os = "linux")]
#[test]
fn without_descriptors_it_rests_and_goes_on_when_some_are_back() {
    let server = start!(&[]);
    server.stored(b"before");
    server.wait_until_asleep(); // the answer comes before the close
    let open = server.descriptors();
    server.allow_descriptors(4);
    let holders: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    wait_until("they are in", || (server.descriptors() == open + 4).then_some(()));
    let mut waiting: Vec<Client> = (0..20).map(|n| server.push(&[n])).collect();

    let (start, cpu, sleeps) = (Instant::now(), server.cpu(), server.sleeps());
    std::thread::sleep(Duration::from_secs(1)); // it should use no processor time in it
    let (used, naps) = (server.cpu() - cpu, server.sleeps() - sleeps);
    assert!(used < start.elapsed() / 10, "used {used:?} of processor time while it can do nothing");
    assert!(naps < 100 * start.elapsed().as_secs(), "woke {naps} times");
    assert!(waiting.iter_mut().all(Client::is_waiting), "no client is rejected");

    drop(holders); // descriptors come back, and the server is not told
    waiting.iter_mut().for_each(|client| assert_eq!(client.answer(), [0x00]));

    server.allow_descriptors(0); // and again, until the limit is raised, which no event tells
    let mut late = server.pop();
    server.allow_descriptors(100);
    assert_eq!(late.item(), [19]);
}

/// Lost otherwise: battery and processor, to a server that polls.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_server_sleeps() {
    let server = start!(&["--evict-after", "1ms"]);
    let descriptors = server.descriptors();
    let clients: Vec<Client> = (0..20).map(|n| if n % 2 == 0 { server.pop() } else { server.send(&[9, 9]) }).collect();
    server.barrier();
    wait_until("only they are there", || (server.descriptors() == descriptors + 20).then_some(()));
    // The last packets of the clients, or a page of its own, may come late.
    wait_until("it sleeps for a second", || {
        server.wait_until_asleep();
        let before = (server.cpu(), server.sleeps());
        std::thread::sleep(Duration::from_secs(1)); // nothing happens, so there is nothing to wait for
        ((server.cpu(), server.sleeps()) == before).then_some(())
    });
    drop(clients);
}

/// Lost otherwise: the server and its items, to clients that come, take a place and break off.
#[test]
fn storms_of_resets_leave_nothing_behind() {
    let server = start!(&[]);
    server.stored(b"kept");
    let descriptors = server.descriptors();
    for n in 0..2000u32 {
        match n % 5 {
            0 => server.connect().reset(),
            1 => server.send(&[7, 1, 2]).reset(),
            2 => drop(server.send(&[0x80; 3])), // may or may not get the item, and is gone
            3 => server.send(&push(b"kept")).reset(),
            _ => server.send(&[0x00]).reset(),
        }
    }
    wait_until("all places are free", || (server.descriptors() <= descriptors).then_some(()));
    wait_until("the stack is empty", || {
        let mut pop = server.pop();
        server.barrier();
        if pop.is_waiting() {
            return Some(());
        }
        assert_eq!(pop.item(), b"kept");
        None
    });
    server.stored(b"after");
    assert_eq!(server.popped(), b"after");
}

/// Lost otherwise: everything, to a signal in the wrong moment.
#[test]
fn stop_and_continue_change_nothing() {
    let server = start!(&[]);
    let mut parked = server.pop();
    for _ in 0..50 {
        server.signal("STOP");
        server.signal("CONT");
    }
    server.stored(b"item");
    assert_eq!(parked.item(), b"item");
}
