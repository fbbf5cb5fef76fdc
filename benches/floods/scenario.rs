//! The scenarios: each is a load, where both ends run, and the servers that are to
//! stand it.

use crate::clients::{Order, Pace, Tally};
use crate::persistent_clients::Messages;
use crate::protocol::Request;
use crate::servers::Kind;
use test_support::machine::Placement;

pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) what: &'static str,
    pub(crate) load: Load,
    /// Where both ends run, one after the other.
    pub(crate) placements: &'static [Placement],
    pub(crate) entries: Vec<Entry>,
    /// The server that the others are compared with: the first of this kind, without idle connections.
    pub(crate) base: Option<Kind>,
    /// Also part of a quick run.
    pub(crate) quick: bool,
}

impl Scenario {
    pub(crate) fn base_entry(&self) -> Option<Entry> {
        self.base.map(entry)
    }
}

/// A server, and how many connections it holds that do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) idle: usize,
}

impl Entry {
    pub(crate) fn name(self) -> String {
        match self.idle {
            0 => self.kind.name().to_owned(),
            idle => format!("{}, {idle} idle", self.kind.name()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Clients that come, ask once and go.
    Flood { order: Order, payload: usize, pace: Pace },
    /// The same, and all 100 places are taken.
    Crowd { request: Request, clients: usize },
    /// Clients that all park, so that each newcomer evicts the oldest.
    Evictions,
    /// Clients that stay.
    Messages(Messages),
    /// A file of so many MiB.
    Upload { mebibytes: usize },
}

impl Load {
    /// Returns how many requests, or MiB, that was.
    pub(crate) fn units(self, tally: &Tally) -> f64 {
        let each = if let Load::Upload { mebibytes } = self { mebibytes } else { 1 };
        tally.requests() as f64 * each as f64
    }

    /// The unit that is counted.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Load::Flood { .. } => "requests",
            Load::Crowd { .. } => "rejections",
            Load::Evictions => "evictions",
            Load::Messages(_) => "messages",
            Load::Upload { .. } => "MiB",
        }
    }
}

const STACKS: [Kind; 9] = [
    Kind::Baseline,
    Kind::OnePacketBaseline,
    Kind::EventBaseline,
    Kind::MioStack,
    Kind::TokioStack,
    Kind::Redis,
    Kind::Beanstalkd,
    Kind::NodeStack,
    Kind::TwistedStack,
];
/// Those that have places to run out of.
const BOUNDED: [Kind; 4] = [Kind::MioStack, Kind::TokioStack, Kind::NodeStack, Kind::TwistedStack];
const BOTH: &[Placement] = &[Placement::Limit, Placement::Apart];
/// The beginning of the names of scenarios with idle connections.
pub(crate) const IDLE: &str = "idle, ";
/// How many clients a server holds at once where that matters.
pub(crate) const PLACES: usize = 100;
/// Connections beside the 100 that fill the server, in the scenario `eviction`.
pub(crate) const EVICTING: usize = 28;

/// Ours first, the baseline twice for the noise.
fn with_baseline(peers: &[Kind]) -> Vec<Entry> {
    let kinds = [&[Kind::Pollstack][..], peers, &[Kind::Baseline]].concat();
    kinds.into_iter().map(entry).collect()
}

fn entry(kind: Kind) -> Entry {
    Entry { kind, idle: 0 }
}

fn entries(kinds: &[Kind]) -> Vec<Entry> {
    kinds.iter().copied().map(entry).collect()
}

/// Returns all there is, in the order in which it runs.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (clients, payload) in [(1, 1), (10, 1), (64, 1), (100, 1), (64, 127)] {
        all.push(Scenario {
            name: format!("immediate, {clients} clients, payload {payload}"),
            what: "push and pop in turn, each answered at once",
            load: Load::Flood { order: Order::Alternating, payload, pace: Pace::Closed(clients) },
            // A server that has one client is never at its limit.
            placements: if clients == 1 { &[Placement::Apart] } else { BOTH },
            entries: with_baseline(&STACKS),
            base: Some(Kind::Baseline),
            quick: clients == 64 && payload == 1,
        });
    }
    all.push(Scenario {
        name: "immediate, 3000 a second".to_owned(),
        what: "an open loop: latency from when each client was due",
        load: Load::Flood { order: Order::Alternating, payload: 1, pace: Pace::Open(3000) },
        placements: &[Placement::Apart],
        entries: with_baseline(&STACKS),
        base: Some(Kind::Baseline),
        quick: true,
    });
    for clients in [1, 64, 1000] {
        all.push(Scenario {
            name: format!("durable pushes, {clients} clients"),
            what: "each answered when its item is on the disk",
            load: Load::Flood { order: Order::Only(Request::Push), payload: 20, pace: Pace::Closed(clients) },
            placements: &[Placement::Apart],
            entries: entries(&[Kind::DurablePollstack, Kind::DurableRedis, Kind::DurableBeanstalkd]),
            base: Some(Kind::DurableRedis),
            quick: false,
        });
    }
    for clients in [1, 64, 1000] {
        all.push(Scenario {
            name: format!("an engine, {clients} clients"),
            what: "push and pop in turn: by way of an edge or two, embedded, and at redis-server itself; with the engine's time",
            load: Load::Flood { order: Order::Alternating, payload: 20, pace: Pace::Closed(clients) },
            placements: &[Placement::Apart],
            entries: entries(&[Kind::Edge, Kind::TwoEdges, Kind::Pollstack, Kind::Redis]),
            base: Some(Kind::Redis),
            quick: false,
        });
    }
    all.push(Scenario {
        name: "beside a scraper, 64 clients".to_owned(),
        what: "push and pop in turn, while its metrics are asked for",
        load: Load::Flood { order: Order::Alternating, payload: 1, pace: Pace::Closed(64) },
        placements: BOTH,
        entries: entries(&[Kind::Scraped, Kind::Pollstack]),
        base: Some(Kind::Pollstack),
        quick: false,
    });
    all.extend(parked());
    all.extend(overload());
    all.extend(idle());
    all.extend(echo());
    all.push(Scenario {
        name: "chat, fan-in".to_owned(),
        what: "15 senders to one reader, 16 messages of 64 bytes each under way",
        load: Load::Messages(Messages::FanIn { clients: 16, bytes: 64, depth: 16 }),
        placements: BOTH,
        entries: entries(&[Kind::Chat]),
        base: None,
        quick: false,
    });
    all.push(Scenario {
        name: "accio, upload".to_owned(),
        what: "a file of 1 GiB; the baseline is a blocking read loop with the same buffer",
        load: Load::Upload { mebibytes: 1024 },
        placements: &[Placement::Apart],
        entries: entries(&[Kind::Accio, Kind::Sink]),
        base: Some(Kind::Sink),
        quick: false,
    });
    all
}

fn parked() -> [Scenario; 2] {
    let orders = [
        ("parked pops", Order::PopsFirst(32), "32 pops that wait, then the 32 pushes that serve them, and so on"),
        ("parked pushes", Order::PushesFirst(32), "32 pushes to a full stack, then the 32 pops that make room"),
    ];
    orders.map(|(name, order, what)| {
        // A list or a tube is never full.
        let bounded = matches!(order, Order::PushesFirst(_));
        let peers: Vec<Kind> = STACKS[3..].iter().copied().filter(|kind| !bounded || BOUNDED.contains(kind)).collect();
        Scenario {
            name: name.to_owned(),
            what,
            load: Load::Flood { order, payload: 1, pace: Pace::Closed(64) },
            placements: BOTH,
            entries: entries(&[&[Kind::Pollstack], &peers[..]].concat()),
            base: Some(Kind::MioStack),
            quick: !bounded,
        }
    })
}

fn overload() -> Vec<Scenario> {
    let crowd = |name: String, what, request, clients, quick| Scenario {
        name,
        what,
        load: Load::Crowd { request, clients },
        placements: BOTH,
        entries: entries(&[&[Kind::Pollstack], &BOUNDED[..]].concat()),
        base: Some(Kind::MioStack),
        quick,
    };
    let what = "100 hold all places; the others, with their requests, read FF and the end";
    let mut all: Vec<Scenario> = [101, 200, 1000]
        .map(|clients| {
            crowd(format!("overload, {clients} clients"), what, Request::Push, clients - 100, clients == 200)
        })
        .into();
    let late = "the same, and they send their requests only when they have read FF";
    all.push(crowd("overload, late requests".to_owned(), late, Request::Late, 100, false));
    all.push(Scenario {
        name: "eviction".to_owned(),
        what: "pops of an empty stack that has no place left: each evicts the oldest",
        load: Load::Evictions,
        placements: BOTH,
        entries: entries(&[&[Kind::Pollstack], &BOUNDED[..]].concat()),
        base: Some(Kind::MioStack),
        quick: false,
    });
    all
}

fn idle() -> [Scenario; 5] {
    let kinds = [Kind::Pollstack, Kind::MioStack, Kind::TokioStack, Kind::Redis, Kind::Beanstalkd];
    kinds.map(|kind| {
        let counts: &[usize] = if kind == Kind::Pollstack { &[0, 100, 1_000, 10_000] } else { &[0, 10_000] };
        Scenario {
            name: format!("{IDLE}{}", kind.name()),
            what: "10 busy clients beside connections that have sent a part of a request",
            load: Load::Flood { order: Order::Alternating, payload: 1, pace: Pace::Closed(10) },
            placements: &[Placement::Limit],
            entries: counts.iter().map(|idle| Entry { kind, idle: *idle }).collect(),
            base: Some(kind),
            quick: false,
        }
    })
}

fn echo() -> [Scenario; 3] {
    let loads = [
        ("echo", "64 clients, a message of 64 bytes each under way", 64, 64, 1),
        ("echo, pipelined", "64 clients, 16 messages of 64 bytes each under way", 64, 64, 16),
        ("echo, large", "4 clients, a message of 1 MiB each under way", 4, 1 << 20, 1),
    ];
    loads.map(|(name, what, clients, bytes, depth)| Scenario {
        name: name.to_owned(),
        what,
        load: Load::Messages(Messages::Echo { clients, bytes, depth }),
        // Large messages fill the buffers between both ends: who waits for whom is chance.
        placements: if bytes > 65_536 { &[Placement::Apart] } else { BOTH },
        entries: entries(&[Kind::Echo, Kind::MioEcho, Kind::MioEchoDrain, Kind::TokioEcho, Kind::MioEcho]),
        base: Some(Kind::MioEcho),
        quick: depth == 16,
    })
}
