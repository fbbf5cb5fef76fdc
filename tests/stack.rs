//! The stack server's rules, one by one, against the real binary over real sockets.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;
use test_support::{Client, Server, pollstack, push, start, wait_until};

const STORED: [u8; 1] = [0x00];
const BUSY: [u8; 1] = [0xFF];
const NOTHING: [u8; 0] = [];

// ---- the wire -----------------------------------------------------------------------------------

/// Lost otherwise: the protocol document could not be trusted by those who write clients.
#[test]
fn the_exchanges_of_the_protocol_document_hold() {
    let document = include_str!("../doc/protocol.md");
    let blocks: Vec<&str> =
        document.split("```exchange\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 6, "every exchange block is found");
    for block in blocks {
        let server = start!(&[]);
        let mut client = None;
        for line in block.lines() {
            let (side, words) = line.split_at(1);
            let (words, fin) = words.strip_suffix(" FIN").map_or((words, false), |words| (words, true));
            let bytes: Vec<u8> = words.split_whitespace().map(|word| u8::from_str_radix(word, 16).unwrap()).collect();
            match side {
                ">" => {
                    let sender = client.insert(server.send(&bytes));
                    if fin {
                        sender.fin();
                    }
                }
                _ => assert_eq!(client.take().unwrap().answer(), bytes, "in\n{block}"),
            }
        }
    }
}

/// Lost otherwise: items of some length, or with some byte in them.
#[test]
fn items_of_every_length_and_of_every_byte_come_back() {
    let server = start!(&[]);
    for len in 1..=127u8 {
        let payload: Vec<u8> = (0..len).map(|n| n.wrapping_mul(2).wrapping_add(len)).collect();
        server.stored(&payload);
        assert_eq!(server.popped(), payload);
    }
    for byte in 0..=255 {
        server.stored(&[byte]);
        assert_eq!(server.popped(), [byte]);
    }
}

/// Lost otherwise: clients that set the low bits of a pop's header.
#[test]
fn a_pop_is_any_byte_with_the_high_bit() {
    let server = start!(&[]);
    for header in 0x80..=0xFF {
        server.stored(&[header]);
        assert_eq!(server.send(&[header]).item(), [header]);
    }
}

/// Lost otherwise: the order that makes it a stack, or a part of its hundred items.
#[test]
fn a_hundred_pushes_then_a_hundred_pops_in_reverse() {
    let server = start!(&[]);
    (0..100).for_each(|n| server.stored(&[n]));
    (0..100).rev().for_each(|n| assert_eq!(server.popped(), [n]));
}

/// Lost otherwise: requests that the network delivers in small pieces.
#[test]
fn a_request_may_come_byte_by_byte() {
    let server = start!(&[]);
    let mut client = server.connect();
    for byte in push(b"slowly") {
        assert!(client.is_waiting());
        client.send(&[byte]);
        server.barrier();
    }
    assert_eq!(client.answer(), STORED);
    assert_eq!(server.popped(), b"slowly");
}

/// Lost otherwise: the response of a client that sends too much, to the reset of a careless close.
#[test]
fn trailing_bytes_never_cost_the_response() {
    let server = start!(&[]);
    for n in 0..500u32 {
        let mut bytes = push(&n.to_be_bytes());
        bytes.extend(vec![0xAA; 1 + 40 * n as usize]);
        assert_eq!(server.send(&bytes).answer(), STORED);
        let mut bytes = vec![0x80; 1 + 40 * n as usize];
        bytes[0] = 0xC3;
        assert_eq!(server.send(&bytes).item(), n.to_be_bytes());
    }
}

/// Lost otherwise: the same, for more than the server reads at once.
#[test]
fn a_megabyte_of_trailing_bytes_does_not_cost_the_response() {
    let server = start!(&[]);
    let client = server.connect();
    let mut writer = client.stream().try_clone().unwrap();
    let sender = thread::spawn(move || {
        let mut bytes = push(b"item");
        bytes.resize(1_000_000, 0xAA);
        let _ = writer.write_all(&bytes);
    });
    let mut client = client;
    assert_eq!(client.answer(), STORED);
    sender.join().unwrap();
    assert_eq!(server.popped(), b"item");
}

/// Lost otherwise: a client that parks and goes on sending would be cut off, or fill memory.
#[test]
fn bytes_behind_a_parked_request_are_ignored() {
    let server = start!(&[]);
    let mut pop = server.pop();
    for _ in 0..50 {
        pop.send(&[0xAA; 10_000]);
    }
    server.barrier();
    assert!(pop.is_waiting());
    server.stored(b"item");
    assert_eq!(pop.item(), b"item");
}

/// Lost otherwise: a stack with empty items on it, which no response can carry.
#[test]
fn a_push_of_nothing_is_closed_and_stores_nothing() {
    let server = start!(&[]);
    server.stored(b"below");
    assert_eq!(server.send(&[0x00]).answer(), NOTHING);
    assert_eq!(server.send(&[0x00, 0x01, 0x41]).answer(), NOTHING);
    assert_eq!(server.popped(), b"below");
    let mut pop = server.pop();
    server.barrier();
    assert!(pop.is_waiting());
}

// ---- parking ------------------------------------------------------------------------------------

/// Lost otherwise: a consumer that is there before its producer.
#[test]
fn a_parked_pop_gets_the_next_push() {
    let server = start!(&[]);
    let mut pop = server.pop();
    server.barrier();
    assert!(pop.is_waiting());
    server.stored(b"item");
    assert_eq!(pop.item(), b"item");
}

/// Lost otherwise: a producer that is faster than its consumer.
#[test]
fn a_parked_push_enters_when_there_is_room() {
    let server = start!(&[]);
    (0..100).for_each(|n| server.stored(&[n]));
    let mut parked = server.push(b"late");
    server.barrier();
    assert!(parked.is_waiting(), "the 101st item waits");
    assert_eq!(server.popped(), [99]);
    assert_eq!(parked.answer(), STORED);
    assert_eq!(server.popped(), b"late");
    assert_eq!(server.popped(), [98]);
}

/// Lost otherwise: fairness among those who wait for an item.
#[test]
fn parked_pops_are_served_in_the_order_they_came() {
    let server = start!(&[]);
    let mut pops: Vec<Client> = (0..50).map(|_| server.pop()).collect();
    for (n, pop) in pops.iter_mut().enumerate() {
        server.stored(&[n as u8]);
        assert_eq!(pop.item(), [n as u8]);
    }
}

/// Lost otherwise: fairness among those who wait for room; and who waits longest enters before
/// the next pop is served.
#[test]
fn parked_pushes_enter_in_the_order_they_came() {
    let server = start!(&["--capacity", "1"]);
    server.stored(&[0]);
    let mut pushes: Vec<Client> = (1..50).map(|n| server.push(&[n])).collect();
    server.barrier();
    for (n, parked) in pushes.iter_mut().enumerate() {
        assert_eq!(server.popped(), [n as u8]);
        assert_eq!(parked.answer(), STORED);
    }
}

/// Lost otherwise: all other clients, to one that sends its request slowly.
#[test]
fn a_slow_writer_is_overtaken() {
    let server = start!(&[]);
    let mut slow = server.send(&push(b"slow")[..3]);
    server.barrier();
    server.stored(b"fast");
    assert!(slow.is_waiting());
    slow.send(b"ow");
    assert_eq!(slow.answer(), STORED);
    assert_eq!(server.popped(), b"slow");
    assert_eq!(server.popped(), b"fast");
}

/// Lost otherwise: the order of arrival, when a slow writer parks behind those that overtook it.
#[test]
fn a_request_counts_from_its_last_byte() {
    let server = start!(&["--capacity", "1"]);
    server.stored(&[0]);
    let mut first = server.send(&[1]);
    server.barrier();
    let mut second = server.push(&[2]);
    server.barrier();
    first.send(&[1]);
    server.barrier();
    assert_eq!(server.popped(), [0]);
    assert_eq!(second.answer(), STORED, "complete first, served first");
    assert!(first.is_waiting());
    assert_eq!(server.popped(), [2]);
    assert_eq!(first.answer(), STORED);
}

/// Lost otherwise: items, when many push and pop at the same time.
#[test]
fn sixteen_writers_and_sixteen_readers_exchange_every_item_once() {
    let server = &start!(&["--capacity", "10"]);
    let popped = thread::scope(|scope| {
        for writer in 0..16u8 {
            scope.spawn(move || (0..100).for_each(|n| server.stored(&[writer, n])));
        }
        let readers: Vec<_> =
            (0..16).map(|_| scope.spawn(|| (0..100).map(|_| server.popped()).collect::<Vec<_>>())).collect();
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    let all: BTreeSet<Vec<u8>> = (0..16).flat_map(|writer| (0..100).map(move |n| vec![writer, n])).collect();
    assert_eq!(popped.len(), all.len());
    assert_eq!(popped.into_iter().collect::<BTreeSet<_>>(), all);
}

// ---- hanging up ---------------------------------------------------------------------------------

/// Lost otherwise: half an item on the stack.
#[test]
fn half_a_request_and_gone_stores_nothing() {
    let server = start!(&[]);
    server.stored(b"below");
    drop(server.send(&push(b"unfinished")[..4]));
    server.send(&push(b"unfinished")[..4]).reset();
    let mut half = server.send(&push(b"unfinished")[..4]);
    half.fin();
    assert_eq!(half.answer(), NOTHING);
    server.barrier();
    assert_eq!(server.popped(), b"below");
    let mut pop = server.pop();
    server.barrier();
    assert!(pop.is_waiting());
}

/// Lost otherwise: clients that end their half with their request, as `nc -N` does.
#[test]
fn fin_behind_a_complete_request_is_answered() {
    let server = start!(&[]);
    for n in 0..200 {
        let mut client = server.push(&[n]);
        client.fin();
        assert_eq!(client.answer(), STORED);
        let mut client = server.pop();
        client.fin();
        assert_eq!(client.item(), [n]);
    }
}

/// Lost otherwise: an item, handed to a pop whose client has gone.
#[test]
fn fin_and_reset_cancel_a_parked_pop() {
    let server = start!(&[]);
    for n in 0..50 {
        let mut leaver = server.pop();
        server.barrier();
        match n % 3 {
            0 => leaver.fin(),
            1 => drop(leaver),
            _ => leaver.reset(),
        }
        server.barrier();
        server.stored(&[n]);
        assert_eq!(server.popped(), [n]);
        if n % 3 == 0 {
            leaver = server.pop();
            leaver.fin();
            assert_eq!(leaver.answer(), NOTHING, "there is nothing to pop");
        }
    }
}

/// Lost otherwise: the stack's meaning, with items on it of clients that gave up.
#[test]
fn fin_and_reset_cancel_a_parked_push() {
    let server = start!(&["--capacity", "1"]);
    server.stored(b"only");
    let mut leaver = server.push(b"half-closed");
    server.barrier();
    leaver.fin();
    assert_eq!(leaver.answer(), NOTHING);
    drop(server.push(b"closed"));
    let leaver = server.push(b"reset");
    server.barrier();
    leaver.reset();
    server.barrier();
    assert_eq!(server.popped(), b"only");
    let mut pop = server.pop();
    server.barrier();
    assert!(pop.is_waiting(), "nothing of those who left was stored");
}

/// Lost otherwise: the server, to clients that park and leave.
#[test]
fn a_hundred_parked_pops_that_leave_are_forgotten() {
    let server = start!(&[]);
    let descriptors = server.descriptors();
    for round in 0..10 {
        let pops: Vec<Client> = (0..100).map(|_| server.pop()).collect();
        wait_until("they are in", || (server.descriptors() == descriptors + 100).then_some(()));
        drop(pops);
        wait_until("the descriptors are back", || (server.descriptors() == descriptors).then_some(()));
        server.stored(&[round]);
        assert_eq!(server.popped(), [round]);
    }
}

// ---- too many -----------------------------------------------------------------------------------

/// Lost otherwise: a rejected client could not tell a busy server from a broken one. It has sent
/// its request already, which makes a careless close a reset.
#[test]
fn two_hundred_rejected_clients_read_busy_and_the_end() {
    let server = start!(&["--evict-after", "1h"]);
    let mut holders: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    let mut rejected: Vec<Client> = (0..200).map(|n| server.push(&[n])).collect();
    rejected.iter_mut().for_each(|client| assert_eq!(client.answer(), BUSY));
    let mut large = vec![0x7F; 300_000];
    large[0] = 0x80;
    for _ in 0..20 {
        assert_eq!(server.send(&large).answer(), BUSY);
    }
    assert!(holders.iter_mut().all(Client::is_waiting), "the clients inside are not disturbed");
    drop(holders.pop());
    wait_until("a place is free", || (server.push(b"item").answer() == STORED).then_some(()));
}

/// Lost otherwise: the same, for those who send only after they have been rejected.
#[test]
fn rejected_clients_may_send_late() {
    let server = start!(&["--max-clients", "1", "--evict-after", "1h"]);
    let _holder = server.connect();
    let mut rejected: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    server.barrier();
    rejected.iter_mut().for_each(|client| client.send(&[0x01]));
    rejected.iter_mut().for_each(|client| client.send(&[0x41]));
    rejected.iter_mut().for_each(|client| assert_eq!(client.answer(), BUSY));
}

/// Lost otherwise: the same, for those whose request comes in pieces.
#[test]
fn rejected_clients_may_send_slowly() {
    let server = start!(&["--max-clients", "1", "--evict-after", "1h"]);
    let _holder = server.connect();
    server.barrier();
    for _ in 0..500 {
        let mut client = server.send(&[5]);
        let _ = client.stream().write_all(b"hello"); // which may well come after the answer
        assert_eq!(client.answer(), BUSY);
    }
}

/// Lost otherwise: the server, to a thousand clients that say nothing.
#[test]
fn of_a_thousand_silent_clients_a_hundred_are_held_and_the_rest_read_busy() {
    let server = start!(&["--evict-after", "1h"]);
    let mut clients: Vec<Client> = (0..1000).map(|_| server.connect()).collect();
    server.barrier();
    let held = clients.iter_mut().take(100).all(Client::is_waiting);
    assert!(held, "the first hundred are in");
    clients.iter_mut().skip(100).for_each(|client| assert_eq!(client.answer(), BUSY));
    drop(clients);
    wait_until("a place is free", || (server.push(b"item").answer() == STORED).then_some(()));
    wait_until("the descriptors are back", || (server.descriptors() < 20).then_some(()));
}

/// Lost otherwise: a newcomer rejected although a place has come free in the same instant.
#[test]
fn a_place_is_free_from_the_instant_its_client_leaves() {
    let server = start!(&["--max-clients", "2"]);
    let descriptors = server.descriptors();
    for n in 0..100 {
        let leaver = server.pop();
        let stayer = server.connect();
        wait_until("both are in", || (server.send(&[0x00]).answer() == BUSY).then_some(()));
        // Stopped, the server learns of all three events at once.
        server.signal("STOP");
        if n % 2 == 0 {
            drop(leaver)
        } else {
            leaver.reset()
        }
        let mut newcomer = server.push(&[n]);
        server.signal("CONT");
        assert_eq!(newcomer.answer(), STORED);
        assert_eq!(server.popped(), [n]);
        drop(stayer);
        wait_until("the places are free", || (server.descriptors() == descriptors).then_some(()));
    }
}

/// Lost otherwise: a server full of pops that wait for a push which is always rejected.
#[test]
fn a_push_breaks_the_deadlock_of_a_hundred_parked_pops() {
    let server = start!(&["--evict-after", "200ms"]);
    let mut pops: Vec<Client> = (0..100).map(|_| server.pop()).collect();
    wait_until("the oldest is old enough", || (server.push(b"item").answer() == STORED).then_some(()));
    assert_eq!(pops[0].answer(), NOTHING, "the oldest was evicted");
    assert_eq!(pops[1].item(), b"item", "the next was served");
    server.barrier();
    assert!(pops[2..].iter_mut().all(Client::is_waiting), "and no other was touched");
}

/// Lost otherwise: clients that wait in peace, closed for their age alone.
#[test]
fn evicts_only_for_a_newcomer_that_needs_the_place() {
    let server = start!(&["--evict-after", "1ms", "--max-clients", "3"]);
    let mut old = server.pop();
    let mut slow = server.send(&[4, b's']);
    thread::sleep(Duration::from_millis(100)); // nothing happens, so there is nothing to wait for
    server.barrier(); // a newcomer who finds room
    assert!(old.is_waiting() && slow.is_waiting());
    server.stored(b"item");
    assert_eq!(old.item(), b"item");
    slow.send(b"low");
    assert_eq!(slow.answer(), STORED);
}

/// Lost otherwise: more clients than a newcomer's place needs.
#[test]
fn only_the_oldest_is_evicted_and_one_for_each_newcomer() {
    let server = start!(&["--evict-after", "5ms", "--max-clients", "5"]);
    let mut clients: Vec<Client> = (0..5).map(|_| server.pop()).collect();
    for evicted in 0..5 {
        // A newcomer is rejected as long as the oldest is too young.
        let newcomer = wait_until("a newcomer is let in", || {
            let mut newcomer = server.connect();
            let oldest = &mut clients[evicted];
            wait_until("one of the two goes", || (!newcomer.is_waiting() || !oldest.is_waiting()).then_some(()));
            newcomer.is_waiting().then_some(newcomer)
        });
        clients.push(newcomer);
        assert_eq!(clients[evicted].answer(), NOTHING, "the oldest gives way");
        assert!(clients[evicted + 1..].iter_mut().all(Client::is_waiting), "no other does");
    }
}

// ---- many addresses -----------------------------------------------------------------------------

/// Lost otherwise: networks without IPv4; and twice as many clients as were asked for.
#[test]
fn all_addresses_share_one_stack_and_one_limit() {
    let args = ["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--max-clients", "1"];
    let server = Server::spawn(pollstack!(&args), 2);
    let address = server.ready[1].strip_prefix("listening on ").unwrap();
    assert!(address.starts_with("[::1]:"), "{address}");
    let connect = || Client::new(std::net::TcpStream::connect(address).unwrap());
    let mut v6 = connect();
    v6.send(&push(b"item"));
    assert_eq!(v6.answer(), STORED);
    assert_eq!(server.popped(), b"item");
    let _holder = connect();
    wait_until("the holder is in", || (server.send(&[0x00]).answer() == BUSY).then_some(()));
    assert_eq!(server.push(b"item").answer(), BUSY);
    assert_eq!(connect().answer(), BUSY);
}

/// Lost otherwise: clients on the same machine that need no port; restarts after a crash.
#[test]
fn a_unix_socket_serves_is_removed_and_replaced() {
    use std::os::unix::net::UnixStream;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stack.sock");
    let address = format!("unix:{}", path.display());
    let mut server = Server::spawn(pollstack!(&["--listen", &address]), 1);
    assert_eq!(server.ready, [format!("listening on {address}")]);
    let ask = |request: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    };
    assert_eq!(ask(&push(b"item")), STORED);
    assert_eq!(ask(&[0x80]), push(b"item"));
    let rejected = test_support::run(pollstack!(&["--listen", &address]));
    assert!(!rejected.status.success(), "a socket in use is not taken over");
    assert_eq!(ask(&push(b"item")), STORED, "nor is it removed");

    server.signal("KILL");
    server.wait();
    assert!(path.exists(), "a killed server leaves its file");
    let mut server = Server::spawn(pollstack!(&["--listen", &address]), 1);
    assert_eq!(ask(&push(b"item")), STORED);
    server.signal("TERM");
    assert!(server.wait().success());
    assert!(!path.exists(), "an orderly end removes it");
}
