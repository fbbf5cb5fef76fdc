//! The service on a network in memory, whose kernel takes exactly what the test allows, and whose
//! clock is moved by hand.

use chat::Chat;
use chat::protocol::{self, Front, MAX_LINE};
use pollstack::sim::{Client, Sim, World};
use pollstack::{EventLoop, Limits, ListenerConfig, Overload};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const NANOSECOND: Duration = Duration::from_nanos(1);

struct Room {
    world: World,
    server: EventLoop<Chat, Sim>,
}

impl Room {
    fn new() -> Room {
        let (world, chat) = (World::new(0), Chat::new(16, 64, TIMEOUT));
        let limits = chat.limits(Limits::default());
        world.set_window(1 << 20); // clients read only at the end
        let server = world.serve(chat, limits, listener().max_conns(80));
        Room { world, server }
    }

    fn log_in(&mut self, name: &str) -> Client {
        let wire = self.world.send(format!("HELLO-FROM {name}\n").as_bytes());
        self.settle();
        assert_eq!(text(&wire), format!("HELLO {name}\n"));
        wire
    }

    fn settle(&mut self) {
        self.world.settle(&mut self.server);
    }

    fn advance(&mut self, time: Duration) {
        self.world.advance(time);
        self.world.turn(&mut self.server);
        self.settle();
    }
}

fn listener() -> ListenerConfig {
    ListenerConfig::new("127.0.0.1:1".parse().unwrap())
}

/// The text that a client has received since the last time.
fn text(wire: &Client) -> String {
    String::from_utf8(wire.read()).unwrap()
}

/// Lost otherwise (PR12): the meaning of SEND-OK. It comes with the last byte of the DELIVERY, not
/// with the last but one.
#[test]
fn send_ok_waits_for_the_whole_delivery() {
    let mut room = Room::new();
    let (ann, bob) = (room.log_in("ann"), room.log_in("bob"));
    let delivery = "DELIVERY ann hello\n";
    bob.set_room(0);
    ann.send(b"SEND bob hello\n");
    for taken in 0..delivery.len() {
        room.settle();
        assert_eq!(text(&ann), "", "{taken} bytes are taken");
        bob.set_room(1);
    }
    room.settle();
    assert_eq!(text(&bob), delivery);
    assert_eq!(text(&ann), "SEND-OK\n");
}

/// Lost otherwise (PR14): the truth about messages to a recipient that goes. A message that the kernel had taken
/// whole is confirmed. One that it had not, or that was held back, is not.
#[test]
fn a_recipient_who_goes_is_told_to_the_senders() {
    for reset in [true, false] {
        let mut room = Room::new();
        let (ann, bob, carl) = (room.log_in("ann"), room.log_in("bob"), room.log_in("carl"));
        bob.set_room("DELIVERY ann 1\nDELIVERY ann 2".len());
        let big = "x".repeat(60_000);
        ann.send(b"SEND bob 1\nSEND bob 2\nSEND bob 3\n");
        room.settle();
        carl.send(format!("SEND bob {big}\nSEND bob {big}\nSEND bob {big}\nSEND ann after\n").as_bytes());
        room.settle();
        assert_eq!((text(&ann), text(&carl)), (String::new(), String::new()), "all are with the same kernel call");
        if reset {
            bob.abort();
            room.settle();
        } else {
            room.advance(TIMEOUT);
            assert!(bob.was_reset(), "a part must not pass for the whole");
        }
        assert_eq!(text(&ann), "SEND-OK\nBAD-DEST-USER\nBAD-DEST-USER\nDELIVERY carl after\n");
        assert_eq!(text(&carl), "BAD-DEST-USER\nBAD-DEST-USER\nBAD-DEST-USER\nSEND-OK\n");
        ann.send(b"LIST\n");
        room.settle();
        assert_eq!(text(&ann), "LIST-OK ann,carl\n");
    }
}

/// Lost otherwise: which answer is for which request, when a later one is known before an earlier.
#[test]
fn an_answer_that_is_known_early_waits_for_its_turn() {
    let mut room = Room::new();
    let (ann, slow, quick) = (room.log_in("ann"), room.log_in("slow"), room.log_in("quick"));
    slow.set_room(0);
    ann.send(b"SEND slow 1\nSEND quick 2\nSEND nobody 3\nSEND\nNONSENSE\nLIST\nSEND quick 4\n");
    room.settle();
    assert_eq!(text(&quick), "DELIVERY ann 2\n", "it does not wait for the slow one");
    assert_eq!(text(&ann), "");
    slow.set_room(100);
    room.settle();
    let answers = "SEND-OK\nSEND-OK\nBAD-DEST-USER\nBAD-RQST-BODY\nBAD-RQST-HDR\nLIST-OK ann,slow,quick\nSEND-OK\n";
    assert_eq!(text(&ann), answers);
}

/// Lost otherwise: a user who reads slowly, or the others' patience with one who does not read. Ten
/// seconds are counted from the last byte that was taken, or from when there was something to take.
#[test]
fn ten_seconds_without_taking_anything_are_too_long() {
    let mut room = Room::new();
    let (ann, bob) = (room.log_in("ann"), room.log_in("bob"));
    room.advance(TIMEOUT * 100);
    bob.set_room(0);
    ann.send(b"SEND bob hello\n");
    room.settle();
    for _ in 0..5 {
        room.advance(TIMEOUT - NANOSECOND);
        assert!(!bob.is_closed());
        bob.set_room(1);
        room.settle();
    }
    room.advance(TIMEOUT - NANOSECOND);
    assert!(!bob.is_closed());
    assert_eq!(text(&ann), "");
    room.advance(NANOSECOND);
    assert!(bob.is_closed());
    assert_eq!(text(&ann), "BAD-DEST-USER\n");
    assert_eq!(room.server.timeout(), None, "nothing is left to wait for");
}

/// Lost otherwise: the same patience, to senders who keep on sending to one who takes nothing.
#[test]
fn more_messages_do_not_give_more_time() {
    let mut room = Room::new();
    let (ann, bob) = (room.log_in("ann"), room.log_in("bob"));
    bob.set_room(0);
    for _ in 0..2 {
        assert!(!bob.is_closed());
        ann.send(b"SEND bob hello\n");
        room.settle();
        room.advance(TIMEOUT / 2);
    }
    assert!(bob.is_closed());
}

/// Lost otherwise: the confirmation of what has arrived, to a recipient who keeps its own output
/// from ever running empty.
#[test]
fn a_recipient_cannot_put_off_the_answers_of_its_senders() {
    let mut room = Room::new();
    let (ann, bob) = (room.log_in("ann"), room.log_in("bob"));
    bob.set_room(0);
    ann.send(b"SEND bob hello\n");
    room.settle();
    for _ in 0..10 {
        bob.send(b"LIST\n");
        bob.set_room("LIST-OK ann,bob\n".len());
        room.settle();
    }
    assert_eq!(text(&ann), "SEND-OK\n");
}

/// Lost otherwise: another client's login, or answers without a request, to the bytes behind
/// a line that has been rejected.
#[test]
fn nothing_counts_behind_an_endless_line() {
    let mut room = Room::new();
    let (ann, bob) = (room.log_in("ann"), room.log_in("bob"));
    bob.set_room(0);
    ann.send(b"SEND bob hello\n");
    room.settle();
    ann.send(&[b'x'; 70_000]);
    room.settle();
    ann.send(b"\nHELLO-FROM eve\nLIST\n");
    room.settle();
    bob.set_room(1000);
    room.settle();
    assert_eq!(text(&ann), "SEND-OK\nBAD-RQST-BODY\n");
    assert!(ann.has_ended());
}

/// Lost otherwise: the answers of those who have no more to ask, in a pipeline; and the end of what
/// they have sent. The end comes behind it.
#[test]
fn a_hang_up_comes_behind_what_was_sent_before() {
    let mut room = Room::new();
    let (ann, bob, carl) = (room.log_in("ann"), room.log_in("bob"), room.log_in("carl"));
    bob.set_room(0);
    let big = format!("SEND bob {}\n", "x".repeat(60_000));
    ann.send(big.repeat(4).as_bytes());
    ann.end();
    room.settle();
    carl.send(b"LIST\n");
    room.settle();
    assert_eq!(text(&carl), "LIST-OK ann,bob,carl\n", "she has messages to send");
    bob.set_room(big.len() * 3);
    room.settle();
    carl.send(b"LIST\n");
    room.settle();
    assert_eq!(text(&carl), "LIST-OK bob,carl\n", "all are on their way");
    assert_eq!(text(&ann), "SEND-OK\n".repeat(2));
    bob.set_room(usize::MAX);
    room.settle();
    assert_eq!(text(&ann), "SEND-OK\n".repeat(2));
    assert!(ann.has_ended());
}

/// Lost otherwise: senders who have nothing else under way, when the one they wait for goes.
#[test]
fn who_is_held_back_is_told_when_the_recipient_goes() {
    let mut room = Room::new();
    let (ann, bob, carl) = (room.log_in("ann"), room.log_in("bob"), room.log_in("carl"));
    bob.set_room(0);
    ann.send(format!("SEND bob {}\n", "x".repeat(65_000)).repeat(2).as_bytes());
    room.settle();
    carl.send(format!("SEND bob {}\n", "x".repeat(60_000)).as_bytes());
    room.settle();
    bob.abort();
    room.settle();
    assert_eq!(text(&carl), "BAD-DEST-USER\n");
}

/// Lost otherwise: the server's time, to a line that comes byte by byte and is searched from its
/// start each time; and a line whose `\r` and `\n` come apart at the very limit.
#[test]
fn the_longest_line_may_come_byte_by_byte() {
    let mut room = Room::new();
    let (ann, bob) = (room.log_in("ann"), room.log_in("bob"));
    let line = [b"SEND bob ", &vec![b'x'; MAX_LINE - b"SEND bob ".len()][..], b"\r\n"].concat();
    for byte in &line {
        ann.send(&[*byte]);
        room.world.turn(&mut room.server);
    }
    room.settle();
    assert_eq!(text(&ann), "SEND-OK\n");
    assert_eq!(text(&bob).len(), b"DELIVERY ann ".len() + MAX_LINE - b"SEND bob ".len() + 1);
    let mut searched = 0;
    for end in [1, 10, MAX_LINE + 1] {
        assert_eq!(protocol::front(&line[..end], &mut searched), Front::Part);
        assert_eq!(searched, end, "it is not searched again");
    }
}

/// Lost otherwise: places for users, or the time to type one's name.
#[test]
fn ten_seconds_without_a_login_are_too_long() {
    let mut room = Room::new();
    let (silent, slow) = (room.world.connect(), room.world.connect());
    room.settle();
    room.advance(TIMEOUT - NANOSECOND);
    slow.send(b"HELLO-FROM slow\n");
    silent.send(b"HELLO-FROM silent");
    room.settle();
    room.advance(NANOSECOND);
    assert!(silent.is_closed() && !slow.is_closed());
    room.advance(TIMEOUT);
    assert!(!slow.is_closed());
}

/// Lost otherwise: the messages of all senders but one, to a recipient whose room that one always
/// fills first.
#[test]
fn senders_who_are_held_back_take_turns() {
    let mut room = Room::new();
    let bob = room.log_in("bob");
    bob.set_room(0);
    let senders = ["ann", "carl", "dora"].map(|name| (name, room.log_in(name)));
    let line = format!("SEND bob {}\n", "x".repeat(30_000));
    for (_, sender) in &senders {
        sender.send(line.repeat(100).as_bytes());
        room.settle();
    }
    let mut heard = BTreeMap::new();
    for _ in 0..60 {
        bob.set_room(35_000);
        room.settle();
        let received = text(&bob);
        for (name, _) in &senders {
            *heard.entry(*name).or_insert(0) += received.matches(&format!("DELIVERY {name}")).count();
        }
    }
    assert!(heard.values().all(|count| *count > 10), "{heard:?}");
}

/// Lost otherwise: answers, when there is no room for them. It is left by messages from others, and
/// no request is taken that there is no room to answer.
#[test]
fn there_is_always_room_for_the_answers() {
    let mut room = Room::new();
    let (ann, bob, carl) = (room.log_in("ann"), room.log_in("bob"), room.log_in("carl"));
    ann.set_room(0);
    carl.set_room(0);
    ann.send(b"SEND carl hello\n".repeat(60).as_slice());
    room.settle();
    for (times, size) in [(2, 60_000), (20, 1000)] {
        bob.send(format!("SEND ann {}\n", "x".repeat(size)).repeat(times).as_bytes());
    }
    room.settle();
    carl.set_room(2000);
    room.settle();
    assert_eq!(text(&carl), "DELIVERY ann hello\n".repeat(60));
    ann.set_room(usize::MAX);
    room.settle();
    assert_eq!(text(&ann).matches("SEND-OK\n").count(), 60);

    ann.set_room(0);
    ann.send(b"SEND nobody x\n".repeat(20_000).as_slice());
    room.settle();
    assert!(ann.unread() > 0, "it is held back");
    ann.set_room(usize::MAX);
    room.settle();
    assert_eq!(text(&ann), "BAD-DEST-USER\n".repeat(20_000));
}

/// Lost otherwise: memory, to one who asks on and on while an early answer is open.
#[test]
fn the_answers_that_wait_are_bounded() {
    let mut room = Room::new();
    let (ann, slow) = (room.log_in("ann"), room.log_in("slow"));
    slow.set_room(0);
    ann.send(b"SEND slow x\n");
    ann.send(b"SEND nobody x\n".repeat(20_000).as_slice());
    room.settle();
    assert!(ann.unread() > 0, "it is held back");
    slow.set_room(100);
    room.settle();
    assert_eq!(text(&ann), format!("SEND-OK\n{}", "BAD-DEST-USER\n".repeat(20_000)));
}

/// Lost otherwise: a stop that takes its whole grace period, or answers that were due.
#[test]
fn a_stop_answers_first() {
    let mut room = Room::new();
    let (ann, bob, carl) = (room.log_in("ann"), room.log_in("bob"), room.log_in("carl"));
    bob.set_room(0);
    ann.send(b"SEND bob hello\n");
    room.settle();
    room.server.stop(Duration::from_secs(60));
    room.settle();
    assert!(carl.has_ended() && !ann.has_ended() && !bob.has_ended());
    bob.set_room(100);
    room.settle();
    assert_eq!((text(&ann), text(&bob)), ("SEND-OK\n".to_owned(), "DELIVERY ann hello\n".to_owned()));
    assert!(ann.has_ended() && bob.has_ended());
}

/// Lost otherwise: the last word, to a reset. A client that may still be sending is not closed at once.
#[test]
fn the_last_word_is_not_lost_to_what_still_comes() {
    let mut room = Room::new();
    let stranger = room.world.send(b"LIST\n");
    room.settle();
    assert_eq!(text(&stranger), "BAD-RQST-HDR\n");
    assert!(stranger.has_ended() && !stranger.is_closed());
    stranger.send(b"LIST\n");
    stranger.end();
    room.settle();
    assert!(stranger.is_closed() && !stranger.was_reset());

    let (world, chat) = (World::new(0), Chat::new(1, 64, TIMEOUT));
    let reject = Overload::Reject(protocol::BUSY.into());
    let mut server = world.serve(chat, Limits::default(), listener().max_conns(1).overload(reject));
    let _only = world.connect();
    world.settle(&mut server);
    for (request, at_once) in [(&b"HELLO-FROM ann\n"[..], true), (b"HELLO-FR", false)] {
        let late = world.send(request);
        world.settle(&mut server);
        assert_eq!(text(&late), "BUSY\n");
        assert_eq!(late.is_closed(), at_once, "whether a part of a request is still to come");
    }
}

/// Lost otherwise: a name, to a user who has hung up while a message of hers waits for a recipient that does not read.
#[test]
fn who_hangs_up_gives_the_name_free_at_once() {
    let mut room = Room::new();
    let (ann, bob) = (room.log_in("ann"), room.log_in("bob"));
    bob.set_room(0);
    let big = format!("SEND bob {}\n", "x".repeat(MAX_LINE / 2));
    for _ in 0..5 {
        ann.send(big.as_bytes());
        room.settle();
    }
    ann.send(b"SEND bob last\n");
    ann.end();
    room.settle();
    let other = room.log_in("ann");
    bob.set_room(1 << 20);
    room.settle();
    assert!(text(&bob).ends_with("DELIVERY ann last\n"), "it was sent before");
    assert!(ann.is_closed() && !other.is_closed());
    bob.send(b"LIST\n");
    room.settle();
    assert_eq!(text(&bob), "LIST-OK bob,ann\n", "and the old one leaves the name to the new one");
}

#[derive(Clone, Debug)]
enum Act {
    /// Who, to whom, how long.
    Send(usize, usize, usize),
    List(usize),
    /// The kernel takes so many bytes of what there is for one of them.
    Window(usize, usize),
    Reset(usize),
    Turn,
}

const USERS: usize = 4;

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..USERS, 0..USERS, prop_oneof![1..100usize, 1..60_000usize]).prop_map(|(a, b, n)| Act::Send(a, b, n)),
        2 => (0..USERS).prop_map(Act::List),
        6 => (0..USERS, prop_oneof![0..50usize, 0..200_000usize]).prop_map(|(a, n)| Act::Window(a, n)),
        1 => (0..USERS).prop_map(Act::Reset),
        6 => Just(Act::Turn),
    ]
}

/// The whole lines that a user has received.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    /// The numbers of the messages received, by sender.
    deliveries: Vec<(usize, usize)>,
    answers: Vec<String>,
}

impl Heard {
    fn read(&mut self, wire: &Client) {
        self.bytes.extend(wire.read());
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8(self.bytes.drain(..=end).collect()).unwrap();
            let mut words = line.split_whitespace();
            match words.next().unwrap() {
                "DELIVERY" => {
                    let sender = words.next().unwrap().strip_prefix("user").unwrap().parse().unwrap();
                    self.deliveries.push((sender, words.next().unwrap().parse().unwrap()));
                }
                answer => self.answers.push(answer.to_owned()),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Lost otherwise: messages that were confirmed, the order of anything, or everything, to a
    /// server that waits for what does not come.
    #[test]
    fn messages_are_confirmed_in_order_whichever_client_goes(acts in prop::collection::vec(act(), 1..80)) {
        let mut room = Room::new();
        let users: Vec<Client> = (0..USERS).map(|n| room.log_in(&format!("user{n}"))).collect();
        let mut heard: Vec<Heard> = users.iter().map(|_| Heard::default()).collect();
        // The requests of each: the recipient of a SEND, or none for a LIST.
        let mut asked: Vec<Vec<Option<usize>>> = vec![Vec::new(); USERS];
        let mut gone = [false; USERS];
        let at_the_end = (0..USERS).map(|n| Act::Window(n, usize::MAX));
        for act in acts.into_iter().chain(at_the_end) {
            match act {
                Act::Send(from, to, size) => {
                    let number = asked[from].len();
                    users[from].send(format!("SEND user{to} {number} {}\n", "x".repeat(size)).as_bytes());
                    asked[from].push(Some(to));
                }
                Act::List(from) => {
                    users[from].send(b"LIST\n");
                    asked[from].push(None);
                }
                Act::Window(who, bytes) => users[who].set_room(bytes),
                Act::Reset(who) => {
                    users[who].abort();
                    gone[who] = true;
                }
                Act::Turn => room.world.turn(&mut room.server),
            }
            users.iter().zip(&mut heard).for_each(|(user, heard)| heard.read(user));
            check(&heard, &asked, &gone)?;
        }
        room.settle();
        users.iter().zip(&mut heard).for_each(|(user, heard)| heard.read(user));
        check(&heard, &asked, &gone)?;
        for user in (0..USERS).filter(|user| !gone[*user]) {
            prop_assert_eq!(heard[user].answers.len(), asked[user].len(), "user{} is answered", user);
            prop_assert_eq!(users[user].unread(), 0);
        }
    }
}

fn check(heard: &[Heard], asked: &[Vec<Option<usize>>], gone: &[bool; USERS]) -> Result<(), TestCaseError> {
    for (from, answers) in heard.iter().map(|heard| &heard.answers).enumerate() {
        for (number, (answer, to)) in answers.iter().zip(&asked[from]).enumerate() {
            match (answer.as_str(), to) {
                ("LIST-OK", None) => {}
                ("BAD-DEST-USER", Some(to)) => prop_assert!(gone[*to], "user{} is there", to),
                ("SEND-OK", Some(to)) => {
                    prop_assert!(heard[*to].deliveries.contains(&(from, number)), "SEND-OK before DELIVERY {}", number);
                }
                other => prop_assert!(false, "{:?} is not the answer to request {}", other, number),
            }
        }
    }
    for to in heard {
        for from in 0..USERS {
            let numbers = to.deliveries.iter().filter(|delivery| delivery.0 == from).map(|delivery| delivery.1);
            prop_assert!(numbers.is_sorted_by(|a, b| a < b), "in order, each once");
        }
    }
    Ok(())
}
