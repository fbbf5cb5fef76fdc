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

/// Lost otherwise: the end of a server that hangs, here because its output is not read. The
/// second signal does not depend on the output.
#[test]
fn a_second_signal_ends_even_a_server_that_hangs() {
    let mut child = {
        let _guard = test_support::no_fork();
        command(env!("CARGO_BIN_EXE_accio"), &["0"]).stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let (mut stdout, mut line) = (BufReader::new(child.stdout.take().unwrap()), String::new());
    stdout.read_line(&mut line).unwrap();
    let port: u16 = line.trim().rsplit(':').next().unwrap().parse().unwrap();
    let wchan = || std::fs::read_to_string(format!("/proc/{}/wchan", child.id())).unwrap();
    wait_until("the pipe is full", || {
        // Each leaves a line there.
        for _ in 0..1000 {
            let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            let _ = (&stream).write_all(b"?");
        }
        wchan().contains("pipe").then_some(())
    });
    // Signals that are pending are one: the second may come too early to be another.
    let status = wait_until("it exits", || {
        let _guard = test_support::no_fork();
        let _ = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(128 + 15));
}
