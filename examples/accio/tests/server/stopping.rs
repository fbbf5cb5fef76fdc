//! Signals, in every situation: the exit status is 0.

use super::*;
use std::io::{BufRead, BufReader};
use std::time::Instant;

const SIGNALS: [&str; 3] = ["QUIT", "TERM", "INT"];

/// Lost otherwise: scripts that stop the server. Clients that have not begun do not hold it up.
#[test]
fn a_signal_ends_it_with_status_0() {
    for signal in SIGNALS {
        let mut idle = start(&[]);
        idle.signal(signal);
        assert_eq!(idle.wait().code(), Some(0), "idle, SIG{signal}");

        let mut server = start(&["--grace", "1h", "--timeout", "1h"]);
        let mut client = connect(&server);
        greeted(&mut client);
        let _waiting = connect(&server);
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "during a handshake, SIG{signal}");
        assert_eq!(server.line(), "ERROR");
    }
}

/// Lost otherwise: a file that was nearly there.
#[test]
fn a_file_that_has_begun_may_end() {
    for signal in SIGNALS {
        let mut server = start(&["--grace", "1h"]);
        let mut client = confirmed(&server);
        client.send(b"first");
        server.signal(signal);
        let port = server.address().port();
        let refused = || std::net::TcpStream::connect(("127.0.0.1", port)).is_err().then_some(());
        wait_until("no client is accepted any more", refused);
        client.send(b"last");
        client.fin();
        assert_eq!(server.line(), "9");
        assert_eq!(server.wait().code(), Some(0));
    }
}

/// Lost otherwise: the end of the server, to a client that goes on for ever.
#[test]
fn the_grace_period_ends_a_transfer() {
    for signal in SIGNALS {
        let mut server = start(&["--grace", "100ms"]);
        let mut client = confirmed(&server);
        client.send(b"first");
        let start = Instant::now();
        server.signal(signal);
        assert_eq!(server.line(), "ERROR");
        assert_eq!(server.wait().code(), Some(0));
        assert!(start.elapsed() < TEST_TIMEOUT / 2);
    }
}

/// Lost otherwise: the end of a server that waits for its clients.
#[test]
fn a_second_signal_ends_a_server_that_drains() {
    let mut server = start(&["--grace", "1h", "--timeout", "1h"]);
    let mut client = confirmed(&server);
    client.send(b"some of it");
    wait_until("the server exits", || {
        server.signal("TERM"); // signals that are pending are one
        server.try_wait()
    });
    assert_eq!(server.wait().code(), Some(128 + 15));
}

/// Lost otherwise: every client, to a script that does not read the results.
#[test]
fn results_that_nothing_reads_hold_up_no_client() {
    let mut child = {
        let _guard = test_support::no_fork();
        let mut command = command(env!("CARGO_BIN_EXE_accio"), &["0", "--parallel", "100"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let (mut stderr, mut line) = (BufReader::new(child.stderr.take().unwrap()), String::new());
    stderr.read_line(&mut line).unwrap();
    let port: u16 = line.trim().rsplit(':').next().unwrap().parse().unwrap();
    let connect = || Client::new(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    // A pipe has room for 64 KiB.
    for _ in 0..12_000 {
        connect().send(b"?");
    }
    greeted(&mut connect());
    let _ = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    let status = wait_until("it exits", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
