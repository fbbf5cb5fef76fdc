//! The script of the stack: its arguments, and what it returns. `stack.lua` says what it does.

use super::resp::Reply;
use super::target::Target;
use crate::stack::wire::Item;
use crate::stack::{Ask, Asks, LEASE, Told};

/// The script of the stack, in [Lua](https://redis.io/docs/latest/develop/programmability/eval-intro/).
pub const SCRIPT: &str = include_str!("stack.lua");

/// The keys, behind the [prefix](Target::prefix).
const KEYS: [&str; 9] = ["meta", "items", "pushes", "pops", "payloads", "flight", "edges", "replies", "answers"];

pub(super) fn keys(target: &Target) -> [String; 9] {
    KEYS.map(|key| target.prefix() + key)
}

/// Returns the arguments that bring a batch.
pub(super) fn args(capacity: usize, batch: &Asks) -> Vec<Vec<u8>> {
    let mut words = head(batch.edge, &batch.number.to_string(), capacity);
    for ask in &batch.asks {
        let (kind, id, item) = match ask {
            Ask::Push(id, item) => ("push", Some(id), Some(item)),
            Ask::Pop(id) => ("pop", Some(id), None),
            Ask::Cancel(id) => ("cancel", Some(id), None),
            Ask::Delivered(id) => ("delivered", Some(id), None),
            Ask::Undelivered(id) => ("undelivered", Some(id), None),
            Ask::Leave => ("leave", None, None),
        };
        words.push(kind.into());
        words.extend(id.map(|id| id.to_string().into_bytes()));
        words.extend(item.map(|item| item.payload().to_vec()));
    }
    words
}

/// Returns the arguments that only ask whether the capacity fits.
pub(super) fn question(capacity: usize) -> Vec<Vec<u8>> {
    head(0, "-1", capacity)
}

fn head(edge: u64, number: &str, capacity: usize) -> Vec<Vec<u8>> {
    [name(edge), number.to_owned(), capacity.to_string(), LEASE.as_millis().to_string()].map(String::into_bytes).into()
}

/// Returns the name of an edge in the engine.
fn name(edge: u64) -> String {
    format!("{edge:016x}")
}

/// Returns the channel on which an edge is told that answers wait.
pub(super) fn channel(target: &Target, edge: u64) -> String {
    format!("{}edge:{}", target.prefix(), name(edge))
}

/// Reads the answer to a batch; `None` if it is none.
pub(super) fn told(reply: &Reply) -> Option<Told> {
    let Reply::List(parts) = reply else { return None };
    let (head, rest) = parts.split_at_checked(5)?;
    let number = |at: usize| head[at].number();
    let size = |at: usize| usize::try_from(number(at)?).ok();
    let mut answers = Vec::with_capacity(rest.len() / 2);
    for pair in rest.chunks(2) {
        let [id, Reply::Text(item)] = pair else { return None };
        answers.push((id.number()?, if item.is_empty() { None } else { Some(Item::new(item)?) }));
    }
    Some(Told { number: number(0)?, items: size(1)?, waiting: (size(2)?, size(3)?), more: number(4)? == 1, answers })
}

/// Says that the stack in the engine is not the one that is wanted.
pub(super) fn other_capacity(error: &str, capacity: usize) -> String {
    let other = error.strip_prefix("CAPACITY ").unwrap_or(error);
    format!("its stack holds {other} items, and --capacity is {capacity}")
}
