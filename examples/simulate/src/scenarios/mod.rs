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
    run: fn(u64, &World, &mut Report) -> Check,
}

/// All of them.
pub const SERVERS: [Server; 10] = [
    Server { name: "stack", run: stack::run },
    Server { name: "operate", run: operate::run },
    Server { name: "durable", run: durable::run },
    Server { name: "shared", run: shared::run },
    Server { name: "rooms", run: rooms::run },
    Server { name: "chat", run: chat::run },
    Server { name: "accio", run: accio::run },
    Server { name: "http", run: http::run },
    Server { name: "proxy", run: proxy::run },
    Server { name: "chaos", run: chaos::run },
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
