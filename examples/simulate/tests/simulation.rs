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
    let worlds = if ["chat", "http", "rooms"].contains(&server.name) { 100 } else { 300 };
    for seed in 0..worlds {
        let mut report = Report::default();
        simulate::run(server, seed, &mut report, false).unwrap_or_else(|failure| panic!("{failure}"));
        sum.add(&report);
    }
    assert!(sum.worlds == worlds && sum.connections > 1000, "{}: {sum:?}", server.name);
    assert!(sum.ended > 100 && sum.aborted > 100, "{}: {sum:?}", server.name);
    // The proxy's pairs are known by the order of their accepts, so none is lost there.
    let left_out = |fault| server.name == "proxy" && COSTS_A_CONNECTION.contains(&fault);
    let fired = Fault::ALL.into_iter().zip(sum.fired);
    assert!(fired.clone().all(|(fault, n)| n > 0 || left_out(fault)), "{}: {:?}", server.name, sum.fired);
}
