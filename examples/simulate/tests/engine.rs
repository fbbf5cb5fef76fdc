//! The script in a real engine beside its model: the same batches bring the same answers. It runs where there is a
//! `redis-server`; with `TOOLS=required` in the environment it fails where there is none.

use pollstack::engine::{SCRIPT, Session, Target};
use pollstack::stack::wire::Item;
use pollstack::stack::{Ask, Asks, LEASE};
use proptest::collection::vec;
use proptest::prelude::*;
use simulate::engine::{Engine, Expired};
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};
use test_support::engine::Redis;

/// An event at one of three edges.
#[derive(Clone, Debug)]
enum Step {
    /// It asks for so many things, of these kinds.
    Batch(Vec<u8>),
    /// Its last batch is sent again.
    Again,
    /// A batch is sent that has been applied long ago.
    Old,
    /// Its lease ends.
    End,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let what = prop_oneof![
        12 => vec(any::<u8>(), 0..12).prop_map(Step::Batch),
        2 => Just(Step::Again),
        1 => Just(Step::Old),
        1 => Just(Step::End),
    ];
    (0..3_usize, what)
}

/// An edge that knows what it has asked for.
struct Edge {
    name: u64,
    number: u64,
    next: u64,
    open: Vec<u64>,
    popped: Vec<u64>,
    last: Asks,
}

impl Edge {
    fn new(name: u64) -> Edge {
        let last = Asks { edge: name, number: 0, asks: Vec::new() };
        Edge { name, number: 0, next: 1, open: Vec::new(), popped: Vec::new(), last }
    }

    fn batch(&mut self, kinds: &[u8]) -> Asks {
        let mut asks = Vec::new();
        let joins = self.number == 0; // a batch of no requests
        for kind in kinds.iter().filter(|_| !joins) {
            let (number, pick) = (usize::from(kind / 8), kind % 8);
            asks.push(match pick {
                0..3 => Ask::Push(self.id(), Item::new(format!("{}-{}", self.name, self.next).as_bytes()).unwrap()),
                3..6 => Ask::Pop(self.id()),
                6 if !self.popped.is_empty() => {
                    let id = self.popped.remove(number % self.popped.len());
                    if number % 2 == 0 { Ask::Delivered(id) } else { Ask::Undelivered(id) }
                }
                _ if !self.open.is_empty() => Ask::Cancel(self.open.remove(number % self.open.len())),
                _ => continue,
            });
        }
        let batch = Asks { edge: self.name, number: self.number, asks };
        self.number += 1;
        self.last = batch.clone();
        batch
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.open.push(self.next);
        self.next
    }
}

/// Returns the milliseconds of the engine's clock.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn target(redis: &Redis, name: &str) -> Target {
    format!("redis://{}/{name}", redis.address()).parse().unwrap()
}

/// The script, or another one that a planted fault has changed.
fn script() -> String {
    std::env::var_os("ENGINE_SCRIPT").map_or(SCRIPT.to_owned(), |path| std::fs::read_to_string(path).unwrap())
}

/// Lost otherwise: the answers of an edge with hundreds of clients, or the edge: a reply has to fit its input.
#[test]
fn many_answers_come_in_parts() {
    let Some(redis) = Redis::start(&["--appendfsync", "no"]) else { return };
    let mut session = Session::open(&target(&redis, "y"), &redis.address().into(), &script()).unwrap();
    let mut model = Engine::new(1000);
    let mut both = |batch: Asks| {
        let told = model.apply(now(), LEASE.as_millis() as u64, &batch).unwrap();
        assert_eq!(session.apply(1000, &batch), Ok(told.clone()));
        told
    };
    let item = Item::new(b"item").unwrap();
    for edge in [1, 2] {
        both(Asks { edge, number: 0, asks: Vec::new() });
    }
    both(Asks { edge: 1, number: 1, asks: (0..300).map(Ask::Pop).collect() });
    both(Asks { edge: 2, number: 1, asks: (0..300).map(|id| Ask::Push(id, item)).collect() });
    let told = both(Asks { edge: 1, number: 2, asks: Vec::new() });
    assert_eq!((told.answers.len(), told.more), (256, true));
    let told = both(Asks { edge: 1, number: 3, asks: Vec::new() });
    assert_eq!((told.answers.len(), told.more), (44, false));
}

/// Lost otherwise: items, doubles, or an order that edges do not share; the simulation trusts the model.
#[test]
fn the_script_does_what_its_model_does() {
    let Some(redis) = Redis::start(&["--appendfsync", "no"]) else { return };
    let session = Session::open(&target(&redis, "x"), &redis.address().into(), &script()).unwrap();
    let session = RefCell::new(session);
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(capacity in 1..6_usize, steps in vec(step(), 1..60))| {
        let mut session = session.borrow_mut();
        session.ask(&["FLUSHALL"]).unwrap();
        let mut model = Engine::new(capacity);
        let mut edges = [1, 2, 3].map(Edge::new);
        let mut lives = 4;
        for (at, step) in steps {
            let edge = &mut edges[at];
            let batch = match step {
                Step::Batch(kinds) => edge.batch(&kinds),
                Step::Again => edge.last.clone(),
                Step::Old => Asks { number: edge.number.saturating_sub(3).max(1), ..edge.last.clone() },
                Step::End => {
                    let keys = "{pollstack:x}:edges";
                    session.ask(&["ZADD", keys, "XX", "0", &format!("{:016x}", edge.name)]).unwrap();
                    model.end_lease(edge.name);
                    continue;
                }
            };
            let real = session.apply(capacity, &batch);
                        match model.apply(now(), LEASE.as_millis() as u64, &batch) {
                Ok(told) => {
                    for (id, item) in &told.answers {
                        edge.open.retain(|other| other != id);
                        edge.popped.extend(item.map(|_| *id).filter(|_| edge.last == batch));
                    }
                    prop_assert_eq!(real, Ok(told), "{:?}", batch);
                }
                Err(Expired) => {
                    prop_assert!(real.as_ref().is_err_and(|error| error.starts_with("EXPIRED")), "left: {:?}", real);
                    *edge = Edge::new(lives);
                    lives += 1;
                }
            }
        }
        let mut last = Edge::new(99);
        for kinds in [vec![], vec![4; 9]] {
            let batch = last.batch(&kinds);
                        let told = model.apply(now(), LEASE.as_millis() as u64, &batch).unwrap();
            prop_assert_eq!(session.apply(capacity, &batch), Ok(told), "what is left");
        }
    });
}
