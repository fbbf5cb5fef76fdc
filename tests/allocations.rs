//! In steady state a request allocates nothing. A file of its own: it replaces the allocator by one
//! that counts.

use mio::{Events, Poll};
use pollstack::client::Client;
use pollstack::net::Address;
use pollstack::stack::StackService;
use pollstack::{EventLoop, Limits, ListenerConfig, Service};
use std::thread;
use std::time::Duration;

/// Serves until `opened` connections have been opened in all.
fn serve_until(opened: u64, server: &mut EventLoop<StackService>, poll: &mut Poll, events: &mut Events) {
    serve_while(server, poll, events, |server| server.stats().opened < opened || server.stats().open > 0);
}

fn serve_while<S: Service>(
    server: &mut EventLoop<S>,
    poll: &mut Poll,
    events: &mut Events,
    busy: impl Fn(&EventLoop<S>) -> bool,
) {
    while busy(server) {
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
    let listener = server.listen(ListenerConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let Address::Tcp(address) = server.addresses(listener).unwrap()[0] else { panic!("a TCP address") };

    let client = Client::new(address).timeout(Duration::from_secs(30));
    // Half of the pops find an item, half of them park until it is pushed.
    let run = move |requests: u64| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..requests / 8).for_each(|_| client.push(b"hello").unwrap()));
                scope.spawn(|| (0..requests / 8).for_each(|_| assert_eq!(client.pop().unwrap(), b"hello")));
            }
        });
    };
    let warming = {
        let run = run.clone();
        thread::spawn(move || run(WARM))
    };
    serve_until(WARM, &mut server, &mut poll, &mut events);
    warming.join().unwrap();

    let clients = thread::spawn(move || run(REQUESTS));
    let counted = allocation_counter::measure(|| serve_until(WARM + REQUESTS, &mut server, &mut poll, &mut events));
    clients.join().unwrap();
    assert_eq!(server.stats().opened, WARM + REQUESTS);
    // A pattern that the warm-up has not met may grow one of the tables, once; a request may not.
    assert!(counted.count_total <= 20, "{} allocations for {REQUESTS} requests", counted.count_total);
}

/// Lost otherwise: the same, for requests of HTTP on connections that are kept.
#[cfg(feature = "http")]
#[test]
fn requests_on_a_kept_connection_allocate_nothing() {
    use pollstack::http::{Clock, ExchangeId, Handler, Http, Request, Responder, Status};
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::rc::Rc;
    use std::time::Instant;

    const REQUESTS: usize = 4_000;

    struct Page(Rc<[u8]>, usize);

    impl Handler for Page {
        fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
            self.1 += usize::from(request.header("Accept") == Some(b"*/*"));
            http.respond(id, Status::OK).header("Content-Type", "text/plain").shared(&self.0);
        }
    }

    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(256);
    let page = Http::new(Page(vec![b'x'; 5000].into(), 0), Clock::system());
    let mut server = EventLoop::embedded(page, Limits::default(), poll.registry(), 0..10_000).unwrap();
    let listener = server.listen(ListenerConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let Address::Tcp(address) = server.addresses(listener).unwrap()[0] else { panic!("a TCP address") };
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        for _ in 0..2 * REQUESTS {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n").unwrap();
            let (mut reply, mut got) = ([0; 8192], 0);
            let is_whole = |reply: &[u8]| {
                let head = reply.windows(4).position(|end| end == b"\r\n\r\n");
                head.is_some_and(|head| reply.len() == head + 4 + 5000)
            };
            while !is_whole(&reply[..got]) {
                got += stream.read(&mut reply[got..]).unwrap();
            }
        }
    });
    serve_while(&mut server, &mut poll, &mut events, |server| server.service().handler().1 < REQUESTS);
    let start = Instant::now();
    let counted = allocation_counter::measure(|| {
        serve_while(&mut server, &mut poll, &mut events, |server| server.service().handler().1 < 2 * REQUESTS);
    });
    let most = 40 + 2 * start.elapsed().as_secs(); // the date is worked out anew every second
    client.join().unwrap();
    assert!(counted.count_total <= most, "{} allocations for {REQUESTS} requests", counted.count_total);
}
