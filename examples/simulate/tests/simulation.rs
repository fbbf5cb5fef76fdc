//! The servers in simulated worlds, a fixed set of them; `examples/simulate` runs them by the million.

use pollstack::sim::Fault;
use simulate::{Report, SERVERS, Server};

const COSTS_A_CONNECTION: [Fault; 3] = [Fault::LostAccept, Fault::NoDescriptors, Fault::WatchFails];

/// Lost otherwise: items, order, places, connections or rest, in situations that no test
/// names. Every kind of fault is made.
#[test]
fn all_is_as_it_should_be() {
    std::thread::scope(|scope| {
        for server in SERVERS {
            scope.spawn(move || is_as_it_should_be(server));
        }
    });
}

fn is_as_it_should_be(server: Server) {
    let mut sum = Report::default();
    // Those whose worlds take long without optimisation have fewer here.
    let worlds = if ["chat", "http", "rooms", "tls"].contains(&server.name) { 100 } else { 300 };
    for seed in 0..worlds {
        let mut report = Report::default();
        simulate::run(server, seed, &mut report, false).unwrap_or_else(|failure| panic!("{failure}"));
        sum.add(&report);
    }
    let enough = 1000 / server.cost;
    assert!(sum.worlds == worlds && sum.connections > enough, "{}: {sum:?}", server.name);
    assert!(sum.ended > enough / 10 && sum.aborted > enough / 10, "{}: {sum:?}", server.name);
    // The pairs of proxy and tls are known by the order of their accepts, so none is lost there.
    let left_out = |fault| ["proxy", "tls"].contains(&server.name) && COSTS_A_CONNECTION.contains(&fault);
    let fired = Fault::ALL.into_iter().zip(sum.fired);
    assert!(fired.clone().all(|(fault, n)| n > 0 || left_out(fault)), "{}: {:?}", server.name, sum.fired);
}

/// Lost otherwise: worlds with TLS that can be told again. Its random numbers decide no length and no event.
#[test]
fn a_seed_decides_the_events_of_tls() {
    let tls = SERVERS.into_iter().find(|server| server.name == "tls").unwrap();
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| {
            let mut report = Report::default();
            simulate::run(tls, seed, &mut report, false).unwrap_or_else(|failure| panic!("{failure}"));
            (report.events, report.connections, report.fired)
        });
        assert_eq!(first, second, "seed {seed}");
    }
}
