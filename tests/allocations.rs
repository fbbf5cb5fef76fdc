//! In steady state a request allocates nothing. A file of its own: it replaces the allocator by one
//! that counts.

use mio::{Events, Poll};
use pollstack::client::Client;
use pollstack::net::Address;
use pollstack::stack::StackService;
use pollstack::{EventLoop, Limits, Listen};
use std::thread;
use std::time::Duration;

/// Serves until `opened` connections have been opened in all.
fn serve_until(opened: u64, server: &mut EventLoop<StackService>, poll: &mut Poll, events: &mut Events) {
    while server.stats().opened < opened || server.stats().open > 0 {
        poll.poll(events, server.timeout().or(Some(Duration::from_secs(30)))).unwrap();
        events.iter().for_each(|event| assert!(server.handle_event(event)));
        server.turn();
    }
}

/// Lost otherwise: speed, and memory that cannot fragment because it is not asked for.
#[test]
fn requests_allocate_nothing_once_the_server_has_warmed_up() {
    const WARM: u64 = 400;
    const REQUESTS: u64 = 4_000;
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(256);
    let limits = Limits::default();
    let mut server = EventLoop::embedded(StackService::new(100), limits, poll.registry(), 0..10_000).unwrap();
    let listener = server.listen(Listen::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let Address::Tcp(address) = server.addresses(listener).unwrap()[0] else { panic!("a TCP address") };

    let client = Client::new(address).patience(Duration::from_secs(30));
    // Half of the pops find an item, half of them park until it is pushed.
    let run = move |requests: u64| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..requests / 8).for_each(|_| client.push(b"hello").unwrap()));
                scope.spawn(|| (0..requests / 8).for_each(|_| assert_eq!(client.pop().unwrap(), b"hello")));
            }
        });
    };
    let warming = thread::spawn(move || run(WARM));
    serve_until(WARM, &mut server, &mut poll, &mut events);
    warming.join().unwrap();

    let clients = thread::spawn(move || run(REQUESTS));
    let counted = allocation_counter::measure(|| serve_until(WARM + REQUESTS, &mut server, &mut poll, &mut events));
    clients.join().unwrap();
    assert_eq!(server.stats().opened, WARM + REQUESTS);
    // A pattern that the warm-up has not met may grow one of the tables, once; a request may not.
    assert!(counted.count_total <= 20, "{} allocations for {REQUESTS} requests", counted.count_total);
}
