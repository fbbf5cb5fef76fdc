//! Histories of the concurrent clients of a stack, and whether a stack could have answered so.

use crate::Server;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Requests of each of eight clients: as many as every order of them all can be tried for.
const EACH: usize = 3;

/// A request that has been answered, and when, on a clock that only counts.
#[derive(Clone, Debug)]
pub struct Done {
    pub began: u64,
    pub ended: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Push(Vec<u8>),
    Pop(Vec<u8>),
}

/// Whether there is an order of `history` in which a stack of `capacity` items would have answered
/// so: one in which each request takes effect at some point between its beginning and its end.
pub fn is_linearizable(history: &[Done], capacity: usize) -> bool {
    fn search(
        left: u32,
        stack: &mut Vec<Vec<u8>>,
        seen: &mut HashSet<(u32, Vec<Vec<u8>>)>,
        of: (&[Done], usize),
    ) -> bool {
        let (history, capacity) = of;
        if left == 0 {
            return true;
        }
        if !seen.insert((left, stack.clone())) {
            return false;
        }
        let is_left = |n: &usize| left & (1 << n) != 0;
        let soonest_end = (0..history.len()).filter(is_left).map(|n| history[n].ended).min().unwrap();
        (0..history.len()).filter(is_left).filter(|n| history[*n].began < soonest_end).any(|n| {
            let rest = left & !(1 << n);
            match &history[n].what {
                What::Push(item) if stack.len() < capacity => {
                    stack.push(item.clone());
                    let found = search(rest, stack, seen, of);
                    stack.pop();
                    found
                }
                What::Pop(item) if stack.last() == Some(item) => {
                    let item = stack.pop().unwrap();
                    let found = search(rest, stack, seen, of);
                    stack.push(item);
                    found
                }
                _ => false,
            }
        })
    }
    search(u32::MAX >> (32 - history.len()), &mut Vec::new(), &mut HashSet::new(), (history, capacity))
}

/// Has four clients push and four pop at the same time, at one server after the other, and returns what they saw. It
/// begins and ends with an empty stack.
pub fn observe(servers: &[&Server]) -> Vec<Done> {
    let clock = AtomicU64::new(1);
    let tick = || clock.fetch_add(1, Ordering::SeqCst);
    let request = |worker: usize, n: usize| {
        let (began, server) = (tick(), servers[(worker / 2 + n) % servers.len()]);
        let what = if worker % 2 == 0 {
            let item = format!("{worker}.{n}").into_bytes();
            server.stored(&item);
            What::Push(item)
        } else {
            What::Pop(server.popped())
        };
        Done { began, ended: tick(), what }
    };
    let request = &request;
    thread::scope(|scope| {
        let one = |worker| scope.spawn(move || (0..EACH).map(|n| request(worker, n)).collect::<Vec<_>>());
        let workers: Vec<_> = (0..8).map(one).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}
