//! The protocol, rule by rule, over real sockets. The numbers are those of the requirements: PR for
//! the protocol, UR for user names, TR for the technique.

use super::*;

/// Lost otherwise (PR1): clients whose requests the network cuts and glues as it likes. One byte at
/// a time and all at once come to the same.
#[test]
fn pr1_the_same_dialogue_in_any_pieces() {
    let requests = b"HELLO-FROM ann\r\nLIST\nSEND ann to  me\r\nSEND bob there?\nSEND\nsend ann x\n\nLIST x\nLIST\n";
    let expected = "HELLO ann\nLIST-OK ann\nDELIVERY ann to  me\nSEND-OK\nBAD-DEST-USER\nBAD-RQST-BODY\nBAD-RQST-HDR\n\
                    BAD-RQST-HDR\nBAD-RQST-BODY\nLIST-OK ann\n";
    let server = start(&[]);
    for size in (1..12).chain([requests.len()]) {
        let mut ann = User::connect(&server);
        requests.chunks(size).for_each(|piece| ann.client().send(piece));
        expected.lines().for_each(|line| ann.hears(line));
        ann.client().fin();
        ann.is_let_go();
    }
    for at in 1..requests.len() {
        let mut ann = User::connect(&server);
        ann.client().send(&requests[..at]);
        let whole = requests[..at].iter().filter(|byte| **byte == b'\n').count();
        let answers = if whole > 2 { whole + 1 } else { whole }; // the third has two lines
        expected.lines().take(answers).for_each(|line| ann.hears(line));
        ann.client().send(&requests[at..]);
        expected.lines().skip(answers).for_each(|line| ann.hears(line));
        ann.client().fin();
        ann.is_let_go();
    }
}

/// Lost otherwise (PR2, PR3): users, at the door.
#[test]
fn pr2_pr3_a_valid_name_is_logged_in() {
    let server = start(&[]);
    let longest = "n".repeat(protocol::MAX_NAME);
    for name in ["ann", "x", "Ünïcödé", "with-every:other;sign!", "HELLO-FROM", &longest] {
        User::log_in(&server, name);
    }
    let mut raw = User::connect(&server);
    raw.say(b"HELLO-FROM \xFF\xE9");
    raw.hears(b"HELLO \xFF\xE9");
}

/// Lost otherwise (PR4, UR1, UR2): lists that can be told apart, and messages that arrive.
#[test]
fn pr4_ur1_ur2_an_invalid_name_is_rejected_and_closed() {
    let server = start(&[]);
    let too_long = format!("HELLO-FROM {}", "n".repeat(protocol::MAX_NAME + 1));
    let obeyed = ["\x1b[2J", "a\0", "a\x7f", "\u{85}", "\u{202e}bob"].map(|name| format!("HELLO-FROM {name}"));
    let lines = ["HELLO-FROM", "HELLO-FROM ", "HELLO-FROM a b", "HELLO-FROM  a", "HELLO-FROM a,b", &too_long];
    for line in lines.into_iter().chain(obeyed.iter().map(String::as_str)) {
        let mut user = User::connect(&server);
        user.ask(line, "BAD-RQST-BODY");
        user.is_let_go();
    }
}

/// Lost otherwise (PR5): a name, to another client.
#[test]
fn pr5_a_name_in_use_is_rejected_and_closed() {
    let server = start(&[]);
    let mut ann = User::log_in(&server, "ann");
    let mut other = User::connect(&server);
    other.ask("HELLO-FROM ann", "IN-USE");
    other.is_let_go();
    assert_eq!(list(&mut ann), "ann");
    drop(User::log_in(&server, "Ann")); // names are bytes
}

/// Lost otherwise (PR6): the name one has, by a second login.
#[test]
fn pr6_a_second_login_is_rejected_and_changes_nothing() {
    let server = start(&[]);
    let mut ann = User::log_in(&server, "ann");
    for line in ["HELLO-FROM bob", "HELLO-FROM ann", "HELLO-FROM", "HELLO-FROM a,b"] {
        ann.ask(line, "BAD-RQST-HDR");
    }
    assert_eq!(list(&mut ann), "ann");
}

/// Lost otherwise (PR7): the users' peace from those who have not said who they are.
#[test]
fn pr7_anything_else_before_the_login_is_rejected_and_closed() {
    let server = start(&[]);
    let mut ann = User::log_in(&server, "ann");
    for line in ["LIST", "LIST x", "SEND ann hi", "SEND", "GET / HTTP/1.1", "", " ", "hello-from bob", "HELLO-FROMbob"]
    {
        let mut stranger = User::connect(&server);
        stranger.ask(line, "BAD-RQST-HDR");
        stranger.is_let_go();
    }
    assert_eq!(list(&mut ann), "ann", "and nothing was delivered");
}

/// Lost otherwise (PR8, PR9, TR3): who is there. It is exactly the users who are logged in, in the order in
/// which they did.
#[test]
fn pr8_pr9_the_list_is_exactly_the_logged_in_users() {
    let server = start(&[]);
    let mut ann = User::log_in(&server, "ann");
    let _stranger = User::connect(&server);
    assert_eq!(list(&mut ann), "ann");
    let carl = User::log_in(&server, "carl");
    let bob = User::log_in(&server, "bob");
    assert_eq!(list(&mut ann), "ann,carl,bob");
    drop(bob);
    wait_until("bob is gone", || (list(&mut ann) == "ann,carl").then_some(()));
    carl.0.into_inner().reset();
    wait_until("carl is gone", || (list(&mut ann) == "ann").then_some(()));
}

/// Lost otherwise (PR10, PR11): a message, or what its sender has written: all bytes pass.
#[test]
fn pr10_pr11_a_message_arrives_as_it_is_and_is_confirmed() {
    let server = start(&[]);
    let (mut ann, mut bob) = (User::log_in(&server, "ann"), User::log_in(&server, "bob"));
    let all_bytes: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').chain(*b"\r\rend").collect();
    for text in [&b"hello"[..], b" two  spaces ", b",", b"\xFF", &all_bytes] {
        ann.say([b"SEND bob ", text].concat());
        bob.hears([b"DELIVERY ann ", text].concat());
        ann.hears("SEND-OK");
    }
    ann.say("SEND ann to myself");
    ann.hears("DELIVERY ann to myself");
    ann.hears("SEND-OK");
}

/// Lost otherwise (PR13): certainty that a user is not there.
#[test]
fn pr13_a_message_to_an_unknown_user_is_rejected() {
    let server = start(&[]);
    let mut ann = User::log_in(&server, "ann");
    let _stranger = User::connect(&server);
    ann.ask("SEND bob hi", "BAD-DEST-USER");
    ann.ask("SEND Ann hi", "BAD-DEST-USER");
    let mut bob = User::log_in(&server, "bob");
    bob.client().fin();
    wait_until("bob has hung up", || (list(&mut ann) == "ann").then_some(()));
    ann.ask("SEND bob hi", "BAD-DEST-USER");
}

/// Lost otherwise (PR15, TR1): sixteen places, and the word for the seventeenth.
#[test]
fn pr15_tr1_sixteen_users_and_no_more() {
    let server = start(&[]);
    let mut users: Vec<User> = (0..16).map(|n| User::log_in(&server, &format!("user{n}"))).collect();
    assert_eq!(list(&mut users[15]).split(',').count(), 16);
    let mut late = User::connect(&server);
    late.ask("HELLO-FROM late", "BUSY");
    late.is_let_go();
    drop(users.pop());
    wait_until("a place is free", || (list(&mut users[0]).split(',').count() == 15).then_some(()));
    drop(User::log_in(&server, "late"));
    let small = start(&["--max-users", "1"]);
    let _only = User::log_in(&small, "only");
    for (name, answer) in [("late", "BUSY"), ("only", "IN-USE"), ("a,b", "BAD-RQST-BODY")] {
        User::connect(&small).ask(&format!("HELLO-FROM {name}"), answer);
    }
}

/// Lost otherwise (PR16): a client's place, to a header that the server does not know.
#[test]
fn pr16_an_unknown_header_is_rejected_and_the_user_stays() {
    let server = start(&[]);
    let mut ann = User::log_in(&server, "ann");
    for line in ["", " ", "QUIT", "list", "LIST\t", "SENDann hi", "HELLO ann", "\r", "LIST-OK ann", "DELIVERY ann hi"] {
        ann.ask(line, "BAD-RQST-HDR");
    }
    assert_eq!(list(&mut ann), "ann");
}

/// Lost otherwise (PR17): the same for a body. A sender without a message is told so before any recipient
/// looks for the recipient.
#[test]
fn pr17_an_invalid_body_is_rejected_and_the_user_stays() {
    let server = start(&[]);
    let mut ann = User::log_in(&server, "ann");
    for line in ["SEND", "SEND ", "SEND ann", "SEND ann ", "SEND nobody", "SEND  ann hi", "LIST ann", "LIST  "] {
        ann.ask(line, "BAD-RQST-BODY");
    }
    assert_eq!(list(&mut ann), "ann");
}

/// Lost otherwise (PR12, PR14): the order of the answers, which is all that tells a client which of
/// its messages has arrived.
#[test]
fn pr12_pr14_answers_come_in_the_order_of_the_requests() {
    let server = start(&[]);
    let (mut ann, mut bob) = (User::log_in(&server, "ann"), User::log_in(&server, "bob"));
    ann.client().send(b"SEND bob 1\nSEND nobody 2\nLIST\nSEND\nSEND bob 3\nLIST x\nSEND bob 4\n");
    for line in ["SEND-OK", "BAD-DEST-USER", "LIST-OK ann,bob", "BAD-RQST-BODY", "SEND-OK", "BAD-RQST-BODY", "SEND-OK"]
    {
        ann.hears(line);
    }
    for text in ["1", "3", "4"] {
        bob.hears(format!("DELIVERY ann {text}"));
    }
}

/// Lost otherwise (TR2, TR4): all users, to one who stops in the middle of a line or of reading.
#[test]
fn tr2_tr4_no_user_waits_for_another() {
    let server = start(&[]);
    let mut slow: Vec<User> = (0..14).map(|n| User::log_in(&server, &format!("slow{n}"))).collect();
    slow.iter_mut().for_each(|user| user.client().send(b"SEND slow0 never fini"));
    let (mut ann, mut bob) = (User::log_in(&server, "ann"), User::log_in(&server, "bob"));
    for _ in 0..100 {
        ann.ask("SEND bob hi", "SEND-OK");
        bob.hears("DELIVERY ann hi");
    }
}

/// Lost otherwise (TR3): the answers to a client that has nothing more to ask, as in a shell
/// pipeline. A client that hangs up is off the list at once, but is answered.
#[test]
fn tr3_who_hangs_up_is_answered_and_gone() {
    let server = start(&[]);
    let mut ann = User::log_in(&server, "ann");
    let mut bob = User::connect(&server);
    bob.client().send(b"HELLO-FROM bob\nSEND ann hi\nLIST");
    bob.client().fin();
    bob.hears("HELLO bob");
    bob.hears("SEND-OK");
    bob.is_let_go();
    ann.hears("DELIVERY bob hi");
    assert_eq!(list(&mut ann), "ann");
}

/// Lost otherwise (TR5): scripts that wait for the server.
#[test]
fn tr5_it_says_when_it_is_on() {
    let server = start(&[]);
    assert_eq!(server.ready[0], "Server is on");
    assert_eq!(server.ready[1], format!("listening on {}", server.address()));
    User::log_in(&server, "ann");
}

/// Lost otherwise: the longest line, or the server's memory to one that never ends.
#[test]
fn an_endless_line_is_rejected() {
    let server = start(&[]);
    let (mut ann, mut bob) = (User::log_in(&server, "ann"), User::log_in(&server, "bob"));
    let longest = vec![b'x'; protocol::MAX_LINE - b"SEND bob ".len()];
    for end in [&b"\n"[..], b"\r\n"] {
        ann.client().send(&[b"SEND bob ", &longest[..], end].concat());
        ann.hears("SEND-OK");
        bob.hears([b"DELIVERY ann ", &longest[..]].concat());
    }
    let before = server.peak_memory();
    let endless = vec![b'x'; 1 << 20];
    // As many as one whole line and one more byte. The server stops reading somewhere behind them.
    for size in [longest.len() + 1, endless.len()] {
        for name in ["first", "second"] {
            let mut user = User::log_in(&server, name);
            let _ = user.client().stream().write(&[b"SEND bob ", &endless[..size], b"\n"].concat());
            user.hears("BAD-RQST-BODY");
            user.client().fin();
            user.is_let_go();
        }
        let mut stranger = User::connect(&server);
        // Without an end, the byte behind the longest line might still be a `\r`.
        let _ = stranger.client().stream().write(&endless[..endless.len().min(protocol::MAX_LINE + 2)]);
        stranger.hears("BAD-RQST-BODY");
    }
    assert!(server.peak_memory() < before + (1 << 20), "it is not kept");
    assert_eq!(list(&mut ann), "ann,bob");
}

/// Lost otherwise: places, to clients that connect and say nothing.
#[test]
fn strangers_have_a_limit_of_their_own() {
    let server = start(&["--timeout", "1h", "--max-users", "2"]);
    let mut ann = User::log_in(&server, "ann");
    let mut strangers: Vec<User> = (0..100).map(|_| User::connect(&server)).collect();
    drop(User::log_in(&server, "bob"));
    let (oldest, others) = strangers.split_at_mut(37);
    for oldest in oldest {
        oldest.hears("BUSY");
        oldest.is_let_go();
    }
    wait_until("bob is gone", || (list(&mut ann) == "ann").then_some(()));
    assert!(others.iter_mut().all(|other| other.client().is_waiting()), "the others have their time");
}

/// Lost otherwise: the same. `exact` has the nanoseconds.
#[test]
fn strangers_have_little_time() {
    let server = start(&["--timeout", "2s", "--max-users", "2"]);
    let mut ann = User::log_in(&server, "ann");
    let mut strangers: Vec<User> = (0..10).map(|_| User::connect(&server)).collect();
    strangers.iter_mut().for_each(User::is_let_go);
    let _bob = User::log_in(&server, "bob");
    assert_eq!(list(&mut ann), "ann,bob", "users stay, however long they are silent");
}

/// Lost otherwise: a graceful end. Every user reads the end of the stream, not a reset.
#[test]
fn sigterm_ends_every_stream() {
    let mut server = start(&[]);
    let (mut ann, mut bob) = (User::log_in(&server, "ann"), User::log_in(&server, "bob"));
    let mut stranger = User::connect(&server);
    ann.ask("SEND bob bye", "SEND-OK");
    server.signal("TERM");
    bob.hears("DELIVERY ann bye");
    [&mut ann, &mut bob, &mut stranger].into_iter().for_each(User::is_let_go);
    assert!(server.wait().success());
}

/// Lost otherwise: people who are not told what to write instead.
#[test]
fn bad_options_are_named() {
    let server = start(&[]);
    let port = server.address().port().to_string();
    for (args, status, names) in [
        (["--port", "70000"], 2, "70000"),
        (["--max-users", "0"], 2, "at least 1"),
        (["--max-users", "99999999"], 1, "--max-users"),
        (["--timeout", "soon"], 2, "soon"),
        (["--address", "localhost"], 2, "write an IP address or unix:PATH"),
        (["--address", "192.0.2.1"], 1, "has to be an address of this machine"),
        (["--port", &port], 1, "is another server running there?"),
    ] {
        let output = run(command(env!("CARGO_BIN_EXE_chat"), &args));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
        assert!(text.contains(names), "{args:?}: {text}");
        assert!(status == 2 || text.lines().count() == 1, "{text}");
    }
}

/// Lost otherwise: users of IPv6 and of Unix sockets.
#[test]
fn it_listens_on_ipv6_and_on_unix_sockets() {
    let server = start(&["--address", "::1"]);
    assert!(matches!(server.address(), SocketAddr::V6(_)));
    User::log_in(&server, "ann");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.sock");
    let server = start(&["--address", &format!("unix:{}", path.display())]);
    assert_eq!(server.ready[1], format!("listening on unix:{}", path.display()));
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream.write_all(b"HELLO-FROM ann\n").unwrap();
    let mut hello = [0; 10];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"HELLO ann\n");
}

/// Lost otherwise: a way to see what a server would do, and its man page.
#[test]
fn the_command_line_explains_itself() {
    test_support::check_command_line(env!("CARGO_BIN_EXE_chat"), "chat", &[], "--port=5378  # default");
}

/// Lost otherwise: the operator's view of it.
#[test]
fn it_tells_its_metrics() {
    let args = ["--port", "0", "--metrics", "127.0.0.1:0"];
    let server = Server::spawn(command(env!("CARGO_BIN_EXE_chat"), &args), 3);
    assert!(server.ready[1].starts_with("listening on "), "the first line is that: {:?}", server.ready);
    test_support::check_metrics(&server, "chat", "chat_users 0");
    let args = ["--port", "0", "--metrics", "0.0.0.0:0"];
    test_support::check_metrics_elsewhere(&Server::spawn(command(env!("CARGO_BIN_EXE_chat"), &args), 3));
}
