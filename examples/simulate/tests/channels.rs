//! The script of a channel in a real engine beside its model, as `engine.rs` has it for the stack's.

use pollstack::engine::{Reply, Session, Target};
use proptest::collection::vec;
use proptest::prelude::*;
use simulate::channels::{Broken, Channels, Message, Page};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};
use test_support::engine::Redis;

const NAMES: [&str; 2] = ["a", "b"];

/// An event at one of two channels.
#[derive(Clone, Debug)]
enum Step {
    /// A message of so many bytes is published, and so many are kept.
    Publish(usize, usize),
    /// So far behind the end, or before it, a page is read, of so many bytes, by a node that knows what is before it.
    Read(i64, usize, bool),
    /// The last page is asked for again.
    Again,
    /// The engine has no memory any more, or has.
    NoMemory(bool),
    /// A fail-over: what the engine had at the last `Save` is there.
    Save,
    Restore,
    /// The channel is forgotten.
    Forget,
    /// Another program's value is in its place, or no more.
    Break(bool),
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let what = prop_oneof![
        12 => (1..40_usize, 1..6_usize).prop_map(|(len, keep)| Step::Publish(len, keep)),
        2 => (1..40_usize).prop_map(|len| Step::Publish(len, 100)),
        8 => (-8..3_i64, 1..100_usize, any::<bool>()).prop_map(|(at, bytes, knows)| Step::Read(at, bytes, knows)),
        2 => (1..100_usize).prop_map(|bytes| Step::Read(i64::MIN, bytes, false)), // from the beginning
        2 => Just(Step::Again),
        1 => any::<bool>().prop_map(Step::NoMemory),
        1 => Just(Step::Save),
        1 => Just(Step::Restore),
        1 => Just(Step::Forget),
        1 => any::<bool>().prop_map(Step::Break),
    ];
    (0..NAMES.len(), what)
}

/// Returns the microseconds of the engine's clock.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// The script, or another one that a planted fault has changed.
fn script() -> String {
    std::env::var_os("ENGINE_SCRIPT").map_or(pubsub::SCRIPT.to_owned(), |path| std::fs::read_to_string(path).unwrap())
}

/// A real engine.
struct Real {
    redis: Redis,
    session: Session,
    digest: Vec<u8>,
}

impl Real {
    fn start() -> Option<Real> {
        let redis = Redis::start(&["--appendfsync", "no"])?;
        let mut session = open(&redis);
        let Reply::Text(digest) = session.ask(&["SCRIPT", "LOAD", &script()]).unwrap() else { panic!("no digest") };
        Some(Real { redis, session, digest })
    }

    fn ask(&mut self, words: &[&str]) -> Reply {
        self.session.ask(words).unwrap()
    }

    /// Runs the script for a channel. Returns what it says, and that the channel is broken.
    fn run(&mut self, name: &str, args: &[&str]) -> Result<Reply, Broken> {
        let keys = [numbers(name), stream(name)];
        let mut words = vec![&b"EVALSHA"[..], &self.digest, b"2", keys[0].as_bytes(), keys[1].as_bytes()];
        words.extend(args.iter().map(|arg| arg.as_bytes()));
        self.session.ask(&words).map_err(|error| {
            assert!(error.starts_with("CHANNEL WRONGTYPE "), "left: {error}");
            Broken
        })
    }

    fn publish(&mut self, name: &str, text: &str, keep: usize) -> Result<u64, Broken> {
        Ok(self.run(name, &["publish", text, &keep.to_string(), name])?.number().expect("an id"))
    }

    fn read(&mut self, name: &str, from: u64, bytes: usize, stamp: Option<u64>) -> Result<Page, Broken> {
        let stamp = stamp.map(|stamp| stamp.to_string()).unwrap_or_default();
        let reply = self.run(name, &["read", &from.to_string(), &bytes.to_string(), &stamp])?;
        let Reply::List(parts) = reply else { panic!("left: {reply:?}") };
        let messages = parts[2..].chunks(2).map(|pair| message(text(&pair[0]), text(&pair[1])));
        let (first, next) = (parts[0].number().expect("an id"), parts[1].number().expect("an id"));
        Ok(Page { first, next, messages: messages.collect() })
    }

    /// Returns the stamp of the last message.
    fn stamp(&mut self, name: &str) -> u64 {
        let reply = self.ask(&["XREVRANGE", &stream(name), "+", "-", "COUNT", "1"]);
        let Reply::List(entries) = &reply else { panic!("left: {reply:?}") };
        let Some(Reply::List(entry)) = entries.first() else { panic!("left: {reply:?}") };
        message(text(&entry[0]), "").stamp
    }

    /// Returns the first id of the channel's life, if it is `now` or later; otherwise `now`.
    fn began(&mut self, name: &str, now: u64) -> u64 {
        self.ask(&["HGET", &numbers(name), "first"]).number().unwrap_or_default().max(now)
    }

    /// Returns the milliseconds that a key is kept: `None` if it is not there.
    fn life(&mut self, key: &str) -> Option<u64> {
        match self.ask(&["PTTL", key]) {
            Reply::Number(-2) => None,
            reply => Some(reply.number().expect("it is forgotten some time")),
        }
    }
}

fn open(redis: &Redis) -> Session {
    let target: Target = format!("redis://{}/x", redis.address()).parse().unwrap();
    Session::open(&target, &redis.address().into(), &script()).unwrap()
}

fn numbers(name: &str) -> String {
    format!("{{x}}{name}:numbers")
}

fn stream(name: &str) -> String {
    format!("{{x}}{name}:stream")
}

fn text(reply: &Reply) -> &str {
    let Reply::Text(text) = reply else { panic!("left: {reply:?}") };
    std::str::from_utf8(text).unwrap()
}

fn message(entry: &str, text: &str) -> Message {
    let (id, stamp) = entry.split_once('-').unwrap();
    Message { id: id.parse().unwrap(), stamp: stamp.parse().unwrap(), text: text.to_owned() }
}

/// A listener to all channels.
struct Listener(Session);

impl Listener {
    fn start(redis: &Redis) -> Listener {
        let mut session = open(redis);
        NAMES.iter().for_each(|name| drop(session.ask(&["SSUBSCRIBE", name]).unwrap()));
        Listener(session)
    }

    /// Returns what it has been told: channels, and messages.
    fn heard(mut self) -> Vec<(String, Message)> {
        let mut heard = Vec::new();
        loop {
            match self.0.ask(&["PING", "over"]).unwrap() {
                Reply::Push(words) => {
                    let words: Vec<&str> = words.iter().map(|word| std::str::from_utf8(word).unwrap()).collect();
                    let (entry, text) = words[2].split_once(' ').unwrap();
                    heard.push((words[1].to_owned(), message(entry, text)));
                }
                _ => return heard,
            }
        }
    }
}

/// A fail-over puts this back.
#[derive(Clone, Default)]
struct Saved {
    model: Channels,
    keys: Vec<(String, Vec<u8>, u64)>,
}

fn save(real: &mut Real, model: &Channels) -> Saved {
    let keys = NAMES.iter().flat_map(|name| [numbers(name), stream(name)]);
    let mut saved = Saved { model: model.clone(), keys: Vec::new() };
    for key in keys.collect::<Vec<_>>() {
        if let Reply::Text(dump) = real.ask(&["DUMP", &key]) {
            let life = real.ask(&["PTTL", &key]).number().unwrap_or(0);
            saved.keys.push((key, dump, life));
        }
    }
    saved
}

fn restore(real: &mut Real, saved: &Saved) {
    real.ask(&["FLUSHALL"]);
    for (key, dump, life) in &saved.keys {
        let words = [&b"RESTORE"[..], key.as_bytes(), life.to_string().as_bytes(), dump].map(<[u8]>::to_vec);
        real.session.ask(&words).unwrap();
    }
}

/// Lost otherwise: messages, their order, or the word that some are missing; the simulation trusts the model.
#[test]
fn the_script_of_a_channel_does_what_its_model_does() {
    let Some(real) = Real::start() else { return };
    let real = RefCell::new(real);
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in vec(step(), 1..60))| {
        let real = &mut *real.borrow_mut();
        real.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        real.ask(&["FLUSHALL"]);
        let listener = Listener::start(&real.redis);
        let (mut model, mut saved, mut has_memory) = (Channels::default(), Saved::default(), true);
        let mut published = Vec::new();
        // The messages that a node knows, lost ones too, and the next ids.
        let mut known: BTreeMap<(usize, u64), u64> = BTreeMap::new();
        let (mut ends, mut last) = ([0; 2], (0, 0, 1, None));
        for (n, (at, step)) in steps.into_iter().enumerate() {
            let (name, before) = (NAMES[at], now());
            let step = if let Step::Again = step { Step::Read(0, 0, false) } else { step };
            match step {
                Step::Publish(len, keep) => {
                    let text = format!("{n}{}", "x".repeat(len));
                    let id = real.publish(name, &text, keep);
                    let stamp = if id.is_ok_and(|id| id > 0) { real.stamp(name) } else { real.began(name, before) };
                    prop_assert!((before..=now()).contains(&stamp), "left: a message of {}", stamp);
                    prop_assert_eq!(id, model.publish(stamp, name, &text, keep).map(Option::unwrap_or_default));
                    if let Ok(id @ 1..) = id {
                        known.insert((at, id), stamp);
                        ends[at] = id + 1;
                        published.push((name.to_owned(), Message { id, stamp, text }));
                    }
                }
                Step::Read(back, bytes, knows) => {
                    let from = ends[at].saturating_add_signed(back);
                    let stamp = known.get(&(at, from.wrapping_sub(1))).copied().filter(|_| knows);
                    let (at, from, bytes, stamp) = if bytes > 0 { (at, from, bytes, stamp) } else { last };
                    let name = NAMES[at];
                    let page = real.read(name, from, bytes, stamp);
                    // If a life begins with it, it is at the engine's time.
                    let began = page.as_ref().map_or_else(|_| real.began(name, before), |page| page.first);
                    let began = began.max(before);
                    prop_assert_eq!(&page, &model.read(began, name, from, bytes, stamp));
                    for message in page.iter().flat_map(|page| &page.messages) {
                        known.insert((at, message.id), message.stamp);
                    }
                    ends[at] = page.map_or(ends[at], |page| page.next);
                    last = (at, from, bytes, stamp);
                }
                Step::NoMemory(no_memory) => {
                    has_memory = !no_memory;
                    real.ask(&["CONFIG", "SET", "maxmemory", if no_memory { "1" } else { "0" }]);
                    model.set_no_memory(no_memory);
                }
                Step::Save => saved = save(real, &model),
                Step::Restore if has_memory => {
                    restore(real, &saved);
                    model = saved.model.clone();
                    model.set_no_memory(false);
                }
                Step::Forget => {
                    real.ask(&["DEL", &numbers(name), &stream(name)]);
                    model.forget(name);
                }
                Step::Break(is_broken) if has_memory && model.set_broken(name, is_broken) => {
                    real.ask(&["DEL", &stream(name)]);
                    if is_broken {
                        real.ask(&["SET", &stream(name), "another's"]);
                    }
                }
                Step::Restore | Step::Break(_) | Step::Again => {}
            }
            let (life, expected) = (real.life(&numbers(name)), model.life(name));
            let is_near = |life: u64| expected.is_some_and(|expected| life <= expected && life + 10_000 > expected);
            prop_assert!(life.map_or(expected.is_none(), is_near), "left: kept {:?}, not {:?}", life, expected);
        }
        prop_assert_eq!(listener.heard(), published);
    });
}

/// Lost otherwise: the link of a node, and all its channels, for another program's value in the place of one.
#[test]
fn numbers_of_another_type_are_an_error_of_the_channel() {
    let Some(mut real) = Real::start() else { return };
    real.ask(&["SET", &numbers("a"), "another's"]);
    assert_eq!(real.publish("a", "text", 10), Err(Broken));
    assert_eq!(real.read("a", 0, 100, None), Err(Broken));
    assert!(real.publish("b", "text", 10).is_ok());
}
