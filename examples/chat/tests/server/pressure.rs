//! Many messages, and users who do not read them.

use super::*;
use std::time::{Duration, Instant};

const USERS: usize = 16;
const MESSAGES: usize = 1000;

/// Lost otherwise: messages, their order, or their confirmations, when all users write to
/// all as fast as it can be read.
#[test]
fn sixteen_users_send_a_thousand_messages_to_each_other() {
    let server = start(&[]);
    let users: Vec<User> = (0..USERS).map(|n| User::log_in(&server, &format!("user{n}"))).collect();
    thread::scope(|scope| {
        for (me, mut user) in users.into_iter().enumerate() {
            let writer = user.client().stream().try_clone().unwrap();
            scope.spawn(move || write_to_all(me, writer));
            scope.spawn(move || read_from_all(user));
        }
    });
}

fn write_to_all(me: usize, mut stream: impl Write) {
    for number in 0..MESSAGES {
        let mut lines = Vec::new();
        for to in (0..USERS).filter(|to| *to != me) {
            writeln!(lines, "SEND user{to} {number}").unwrap();
        }
        stream.write_all(&lines).unwrap();
    }
}

/// Reads until it has been sent all, and has been told that all it has sent has arrived.
fn read_from_all(mut user: User) {
    let (mut next, mut confirmed) = ([0; USERS], 0);
    for _ in 0..2 * (USERS - 1) * MESSAGES {
        let line = String::from_utf8(user.hear()).unwrap();
        match line.strip_prefix("DELIVERY user").and_then(|rest| rest.split_once(' ')) {
            Some((from, number)) => {
                let next = &mut next[from.parse::<usize>().unwrap()];
                assert_eq!(number.parse(), Ok(*next), "from {from}");
                *next += 1;
            }
            None => {
                assert_eq!(line, "SEND-OK");
                confirmed += 1;
            }
        }
    }
    assert_eq!(confirmed, (USERS - 1) * MESSAGES);
}

/// Lost otherwise: the server's memory, and all users' time, to one user who does not read. It is
/// disconnected in the end, and the sender is told which of its messages it has not got.
#[test]
fn twenty_thousand_messages_to_one_who_does_not_read() {
    const FLOOD: usize = 20_000;
    let server = start(&["--timeout", "5s"]);
    let (mut ann, bob) = (User::log_in(&server, "ann"), User::log_in(&server, "bob"));
    let (mut carl, mut dora) = (User::log_in(&server, "carl"), User::log_in(&server, "dora"));
    let mut writer = ann.client().stream().try_clone().unwrap();
    let flood = thread::spawn(move || {
        let line = format!("SEND bob {}\n", "x".repeat(8000));
        (0..FLOOD).for_each(|_| writer.write_all(line.as_bytes()).unwrap());
    });
    let answers = thread::spawn(move || {
        let answers: Vec<Vec<u8>> = (0..FLOOD).map(|_| ann.hear()).collect();
        let delivered = answers.iter().take_while(|answer| *answer == b"SEND-OK").count();
        assert!(answers[delivered..].iter().all(|answer| answer == b"BAD-DEST-USER"));
        delivered
    });
    let (start, mut slowest) = (Instant::now(), Duration::ZERO);
    while list(&mut carl).contains("bob") {
        let before = Instant::now();
        carl.ask("SEND dora hi", "SEND-OK");
        dora.hears("DELIVERY carl hi");
        slowest = slowest.max(before.elapsed());
        assert!(start.elapsed() < TEST_TIMEOUT, "the one who does not read is disconnected");
    }
    assert!(slowest.as_secs() < 4, "the others waited {slowest:?}, which is not for the 5 s of the timeout");
    flood.join().unwrap();
    let delivered = answers.join().unwrap();
    assert!((1..FLOOD).contains(&delivered), "{delivered} were taken by the kernels' buffers");
    assert!(server.peak_memory() < 32 << 20, "{} bytes were resident", server.peak_memory());
    drop(bob);
}

/// Lost otherwise: users who read, but slowly. The kernel says for seconds that it has no room for
/// them, as long as it has only a little.
#[test]
fn one_who_reads_slowly_is_not_disconnected() {
    let server = start(&["--timeout", "2s"]);
    let (mut ann, mut bob) = (User::log_in(&server, "ann"), User::log_in(&server, "bob"));
    let mut writer = ann.client().stream().try_clone().unwrap();
    let flood = thread::spawn(move || {
        let line = format!("SEND bob {}\n", "x".repeat(8000)).repeat(100);
        while writer.write_all(line.as_bytes()).is_ok() {}
    });
    let answers = thread::spawn(move || while ann.hear() == b"SEND-OK" {});
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        bob.client().read_exact(&mut [0; 10_000]).expect("it is still connected");
        thread::sleep(Duration::from_millis(25)); // that is how slowly it reads
    }
    assert!(!answers.is_finished(), "all that was answered has arrived");
    drop(server);
    flood.join().unwrap();
    assert!(answers.join().is_err(), "the end comes with the server's");
}

/// Lost otherwise: all users' time, to one who does not read the answers to its own requests.
#[test]
fn one_who_does_not_read_its_answers_holds_back_only_itself() {
    let server = start(&["--timeout", "1s"]);
    let (mut ann, mut bob) = (User::log_in(&server, "ann"), User::log_in(&server, "bob"));
    ann.client().stream().set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
    let line = b"LIST\n".repeat(10_000);
    let error = wait_until("ann is disconnected", || ann.client().stream().write_all(&line).err());
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    assert_eq!(list(&mut bob), "bob");
    assert!(server.peak_memory() < 32 << 20, "{} bytes were resident", server.peak_memory());
}
