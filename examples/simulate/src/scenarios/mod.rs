//! Worlds, and what is done in them.

mod accio;
mod chaos;
mod chat;
mod durable;
mod http;
mod model;
mod operate;
mod post;
mod proxy;
mod reader;
mod report;
mod rooms;
mod shared;
mod stack;
mod tls;
mod tls_peer;
mod truth;

pub use report::Report;

use pollstack::sim::World;
use report::Check;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A server, and how it is tried.
#[derive(Clone, Copy)]
pub struct Server {
    /// The name on the command line.
    pub name: &'static str,
    /// One world of it stands for so many of the others, for what it costs.
    pub cost: u64,
    run: fn(u64, &World, &mut Report) -> Check,
}

/// All of them.
pub const SERVERS: [Server; 11] = [
    Server { name: "stack", cost: 1, run: stack::run },
    Server { name: "operate", cost: 1, run: operate::run },
    Server { name: "durable", cost: 1, run: durable::run },
    Server { name: "shared", cost: 1, run: shared::run },
    Server { name: "rooms", cost: 1, run: rooms::run },
    Server { name: "chat", cost: 1, run: chat::run },
    Server { name: "accio", cost: 1, run: accio::run },
    Server { name: "http", cost: 1, run: http::run },
    Server { name: "proxy", cost: 1, run: proxy::run },
    Server { name: "chaos", cost: 1, run: chaos::run },
    Server { name: "tls", cost: 10, run: tls::run },
];

/// Runs a server in the world of a seed. A failure comes with the trace of that world, and the
/// command that tells it again.
pub fn run(server: Server, seed: u64, report: &mut Report, trace: bool) -> Result<(), String> {
    let world = World::new(seed);
    let result = catch_unwind(AssertUnwindSafe(|| (server.run)(seed, &world, report)));
    let result = result.unwrap_or_else(|panic| Err(message(&*panic).into()));
    if let Err(error) = result {
        return Err(format!(
            "{}{}: seed {seed}: {error}\n\
             cargo run --release -p simulate -- --server {} --first {seed} --seeds 1 --trace",
            report.trace(&world),
            server.name,
            server.name
        ));
    }
    if trace {
        print!("{}", report.trace(&world));
    }
    report.close(&world);
    Ok(())
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    format!("it has panicked: {}", text.unwrap_or("?"))
}
