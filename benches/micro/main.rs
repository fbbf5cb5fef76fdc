//! The cost of our own code, without any network: the parser, the stack with its lines, and a turn
//! of the loop.

mod memory;

use criterion::{BatchSize, Criterion, Throughput};
use memory::Memory;
use pollstack::net::{Ready, Source};
use pollstack::stack::StackService;
use pollstack::stack::lifo::{Decision, Lifo};
use pollstack::stack::wire::{Item, POP, Parsed, parse};
use pollstack::{EventLoop, Limits, ListenerConfig};
use std::hint::black_box;
use std::rc::Rc;

fn parser(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for len in [1, 127] {
        let request = Item::new(&vec![b'x'; len]).map(|item| item.frame().to_vec()).unwrap_or_default();
        group.throughput(Throughput::Bytes(request.len() as u64));
        group.bench_function(format!("push of {len}"), |b| {
            b.iter(|| matches!(parse(black_box(&request)), Parsed::Request(..)))
        });
    }
    group.bench_function("pop", |b| b.iter(|| matches!(parse(black_box(&[POP])), Parsed::Request(..))));
    group.bench_function("push of 127, a byte at a time", |b| {
        let request = Item::new(&[b'x'; 127]).map(|item| item.frame().to_vec()).unwrap_or_default();
        b.iter(|| {
            (1..=request.len()).filter(|n| matches!(parse(black_box(&request[..*n])), Parsed::Request(..))).count()
        });
    });
    group.finish();
}

fn lifo(c: &mut Criterion) {
    let mut group = c.benchmark_group("lifo");
    group.bench_function("push and pop", |b| {
        let mut lifo = Lifo::new(100);
        b.iter(|| {
            lifo.push(1, 7);
            black_box(lifo.decide());
            lifo.pop(2);
            black_box(lifo.decide());
            lifo.delivered();
        });
    });
    for parked in [1, 100, 10_000] {
        group.bench_function(format!("push served to the first of {parked} parked pops"), |b| {
            let mut lifo = Lifo::new(100);
            for client in 0..parked {
                lifo.pop(client);
            }
            b.iter(|| {
                lifo.push(parked, 7);
                black_box(lifo.decide());
                if let Some(Decision::Popped(client, _)) = lifo.decide() {
                    lifo.delivered();
                    lifo.pop(client);
                }
            });
        });
        group.bench_function(format!("cancel one in the middle of {parked}"), |b| {
            let mut lifo: Lifo<u64, u64> = Lifo::new(100);
            let mut tickets: Vec<_> = (0..parked).map(|client| lifo.pop(client)).collect();
            let middle = tickets.len() / 2;
            b.iter(|| {
                lifo.cancel(tickets[middle]);
                tickets[middle] = lifo.pop(1);
            });
        });
    }
    group.bench_function("a hundred clients park and leave", |b| {
        b.iter_batched(
            || Lifo::<u64, u64>::new(100),
            |mut lifo| {
                let tickets: Vec<_> = (0..100).map(|client| lifo.pop(client)).collect();
                tickets.into_iter().filter(|ticket| lifo.cancel(*ticket)).count()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Newcomers that push and pop in turn: the turn that accepts them, and the one that serves them.
fn turn(c: &mut Criterion) {
    let mut group = c.benchmark_group("turn");
    for clients in [2, 64] {
        group.throughput(Throughput::Elements(clients as u64));
        group.bench_function(format!("{clients} newcomers"), |b| {
            let net = Memory::new([&[POP], &[1, b'x']]);
            let waiting = Rc::clone(&net.waiting);
            let mut server = EventLoop::with_net(net, StackService::new(100), Limits::default());
            server
                .listen(ListenerConfig::new("127.0.0.1:1".parse().expect("an address")))
                .expect("a network in memory");
            b.iter(|| {
                waiting.set(clients);
                server.notify(Source::Listener(0), Ready { readable: true, ..Ready::default() });
                while server.timeout().is_some() {
                    server.turn();
                }
            });
            assert_eq!((server.stats().open, server.service().items()), (0, 0));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    parser(&mut criterion);
    lifo(&mut criterion);
    turn(&mut criterion);
    criterion.final_summary();
}
