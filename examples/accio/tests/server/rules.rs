//! The specification, over real sockets.

use super::*;
use std::time::{Duration, Instant};

/// Lost otherwise: bytes, or the truth about them: the header does not count, the rest does. All
/// values of a byte are file, also those that look like a confirmation.
#[test]
fn every_byte_of_a_file_is_counted() {
    let server = start(&[]);
    for size in [0, 1, 9_999, 10_000, 10_001] {
        let file: Vec<u8> = (0..size).map(|n| n as u8).collect();
        assert_eq!(upload(&server, &file), size.to_string());
    }
    assert_eq!(upload(&server, &[CONFIRM, CONFIRM_AGAIN, ACCIO].concat()), "45");
}

/// Lost otherwise: the memory of the machine, to a large file.
#[test]
fn a_file_of_a_gibibyte_takes_no_memory() {
    let server = start(&[]);
    let (mut client, part) = (confirmed(&server), vec![0xA5; 1 << 20]);
    (0..1024).for_each(|_| client.send(&part));
    client.fin();
    assert_eq!(server.line(), (1u64 << 30).to_string());
    assert!(server.peak_memory() < 8 << 20, "{} bytes were resident", server.peak_memory());
}

/// Lost otherwise: clients whose confirmations the network cuts and glues as it likes.
#[test]
fn confirmations_and_file_may_come_in_any_pieces() {
    let server = start(&[]);
    let whole = [CONFIRM, CONFIRM_AGAIN, b"file"].concat();
    for at in 0..=whole.len() {
        let mut client = connect(&server);
        client.send(&whole[..at]);
        greeted(&mut client);
        if at >= CONFIRM.len() {
            greeted(&mut client);
        }
        client.send(&whole[at..]);
        client.fin();
        client.answer();
        assert_eq!(server.line(), "4", "cut at {at}");
    }
    let mut client = connect(&server);
    whole.iter().for_each(|byte| client.send(&[*byte]));
    client.fin();
    assert_eq!(client.answer(), [ACCIO, ACCIO].concat());
    assert_eq!(server.line(), "4");
}

/// Lost otherwise: the next client, to one that confirms something else. A wrong confirmation is not counted.
#[test]
fn a_wrong_confirmation_is_an_error() {
    let server = start(&[]);
    let wrong: [&[u8]; 10] = [
        b"\0",
        b"confirm-accio\n",
        b"confirm-accio \r\n",
        b"Confirm-accio\r\n",
        b"confirm-accio-again\r\n\r\n",
        b"confirm-accio\r\nX",
        b"confirm-accio\r\n\r\n",
        b"confirm-accio\r\nconfirm-accio\r\n",
        b"confirm-accio\r\nconfirm-accio-again\r\nX",
        b"confirm-accio\r\nconfirm-accio-again\r\r\n",
    ];
    for text in wrong {
        let mut client = connect(&server);
        client.send(text);
        assert_eq!(server.line(), "ERROR", "{}", text.escape_ascii());
        let end = client.read_to_end(&mut Vec::new());
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset), "it is given up");
        assert_eq!(upload(&server, b"next"), "4");
    }
}

/// Lost otherwise: the line that tells a script that something has gone wrong, or the next client.
#[test]
fn who_ends_or_resets_too_early_is_an_error() {
    let server = start(&[]);
    let whole = [CONFIRM, CONFIRM_AGAIN].concat();
    for at in [0, 1, CONFIRM.len() - 1, CONFIRM.len(), CONFIRM.len() + 1, whole.len() - 1] {
        let mut client = connect(&server);
        client.send(&whole[..at]);
        client.fin();
        assert_eq!(server.line(), "ERROR", "end after {at}");
        assert_eq!(upload(&server, b"next"), "4");
    }
    for at in [0, 1, CONFIRM.len(), CONFIRM.len() + 1, whole.len()] {
        let mut client = connect(&server);
        client.send(&whole[..at]);
        greeted(&mut client);
        if at >= CONFIRM.len() {
            greeted(&mut client);
        }
        client.reset();
        assert_eq!(server.line(), "ERROR", "reset after {at}");
        assert_eq!(upload(&server, b"next"), "4");
    }
    let mut client = confirmed(&server);
    client.send(b"the first part of a file");
    client.reset();
    assert_eq!(server.line(), "ERROR", "a part is not the whole");
    assert_eq!(upload(&server, b"next"), "4");
}

/// Lost otherwise: clients, when more than one come. None is rejected, one is greeted at a time,
/// and they are served in the order in which they came.
#[test]
fn eleven_clients_are_served_one_after_the_other() {
    let server = start(&[]);
    let mut clients: Vec<Client> = (0..11).map(|_| connect(&server)).collect();
    clients.iter_mut().for_each(|client| client.send(CONFIRM));
    for n in 0..clients.len() {
        greeted(&mut clients[n]);
        greeted(&mut clients[n]);
        assert!(clients[n + 1..].iter_mut().all(Client::is_waiting), "one at a time, and {n} is it");
        clients[n].send(&[CONFIRM_AGAIN, &vec![b'x'; n]].concat());
        assert!(clients[n + 1..].iter_mut().all(Client::is_waiting));
        clients[n].fin();
        assert_eq!(server.line(), n.to_string());
    }
}

/// Lost otherwise: time, if clients need not wait for each other; or the limit, if they do.
#[test]
fn with_parallel_so_many_are_served_at_a_time() {
    let server = start(&["--parallel", "3"]);
    let mut served: Vec<Client> = (0..3).map(|_| confirmed(&server)).collect();
    let mut fourth = connect(&server);
    fourth.send(CONFIRM);
    served[1].send(b"22");
    served[1].fin();
    assert_eq!(server.line(), "2", "the order is that of the ends");
    greeted(&mut fourth);
    let mut fifth = connect(&server);
    fifth.send(CONFIRM);
    served[0].fin();
    assert_eq!(server.line(), "0");
    greeted(&mut fifth);
}

/// Lost otherwise: a server that never comes to its next client, or never leaves a slow one alone.
/// `exact` has the nanoseconds.
#[test]
fn silence_is_an_error_and_a_slow_client_is_not() {
    let server = start(&["--parallel", "2", "--timeout", "3s"]);
    let start = Instant::now();
    // The slow one begins first: a deadline that its bytes do not move is over first.
    let (mut slow, _silent) = (confirmed(&server), confirmed(&server));
    let (error, silence, sent) = std::thread::scope(|scope| {
        let error = scope.spawn(|| (server.line(), start.elapsed()));
        let mut sent = 0;
        while !error.is_finished() {
            slow.send(b".");
            sent += 1;
            std::thread::sleep(Duration::from_millis(500)); // the silence under test
        }
        let (error, silence) = error.join().unwrap();
        (error, silence, sent)
    });
    assert_eq!(error, "ERROR");
    assert!(silence >= Duration::from_secs(3), "an error after {silence:?}");
    slow.fin();
    assert_eq!(server.line(), sent.to_string());
}

/// Lost otherwise: scripts that look for the word at the start of the line.
#[test]
fn a_bad_port_is_an_error_in_one_line() {
    let server = start(&[]);
    let port = server.address().port().to_string();
    for (args, status, names) in [
        (&["abc"][..], 2, "'abc'"),
        (&["70000"], 2, "70000"),
        (&["65536"], 2, "65536"),
        (&["-1"], 2, "-1"),
        (&[""], 2, "PORT"),
        (&[], 2, "PORT"),
        (&["0", "1"], 2, "'1'"),
        (&["0", "--parallel", "0"], 2, "'0'"),
        (&["0", "--parallel", "99999999"], 1, "--parallel"),
        (&["0", "--save", "/no/such/folder"], 1, "--save /no/such/folder: No such file"),
        (&["0", "--save", "/proc"], 1, "--save /proc: "),
        (&["0", "--listen", "localhost:1"], 2, "IP:PORT"),
        (&[&port], 1, "is another server running there?"),
    ] {
        let output = run(command(env!("CARGO_BIN_EXE_accio"), args));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
        assert!(text.starts_with("ERROR: ") && text.contains(names) && text.lines().count() == 1, "{args:?}: {text}");
        assert_eq!(output.stdout, b"");
    }
    let help = run(command(env!("CARGO_BIN_EXE_accio"), &["--help"]));
    assert!(help.status.success() && help.stderr.is_empty());
}

/// Lost otherwise: clients from other machines, users of IPv6 and of Unix sockets.
#[test]
fn it_listens_on_all_interfaces_and_where_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accio.sock");
    let unix = format!("unix:{}", path.display());
    let server = Server::spawn_on_stderr(
        command(env!("CARGO_BIN_EXE_accio"), &["0", "--listen", "[::1]:0", "--listen", &unix]),
        3,
    );
    assert!(server.address().ip().is_unspecified() && server.address().is_ipv4());
    assert_eq!(upload(&server, b"v4"), "2");
    let v6 = server.ready[1].strip_prefix("listening on ").unwrap();
    let mut client = Client::new(std::net::TcpStream::connect(v6).unwrap());
    client.send(&[CONFIRM, CONFIRM_AGAIN, b"six"].concat());
    client.fin();
    assert_eq!(server.line(), "3");
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.write_all(&[CONFIRM, CONFIRM_AGAIN, b"unix"].concat()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(server.line(), "4");
}

/// Lost otherwise: a way to see what a server would do, and its man page.
#[test]
fn the_command_line_explains_itself() {
    test_support::check_command_line(env!("CARGO_BIN_EXE_accio"), "accio", &["0"], "--timeout=10s  # default");
}

/// Lost otherwise: the operator's view of it.
#[test]
fn it_tells_its_metrics() {
    let args = ["0", "--metrics", "127.0.0.1:0"];
    let server = Server::spawn_on_stderr(command(env!("CARGO_BIN_EXE_accio"), &args), 2);
    test_support::check_metrics(&server, "accio", "accio_files_total{result=\"error\"} 0");
    let args = ["0", "--metrics", "0.0.0.0:0"];
    let elsewhere = Server::spawn_on_stderr(command(env!("CARGO_BIN_EXE_accio"), &args), 2);
    test_support::check_metrics_elsewhere(&elsewhere);
}
