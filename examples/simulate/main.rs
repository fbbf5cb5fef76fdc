//! The servers in a simulated world, by the million.
//!
//! What it shows about the loop: it runs on any [`Net`](pollstack::net::Net). Here that is a
//! network in memory with a clock that jumps, clients who hang up, stall and send rubbish, and a
//! kernel that interrupts, splits, reorders and runs out; and after every turn a naive model says
//! what should have happened. A seed decides everything, so what fails once fails again.
//!
//! ```text
//! cargo run --release --features sim --example simulate -- --seeds 100000
//! cargo run --release --features sim --example simulate -- --first 4711 --seeds 1 --story
//! ```

mod model;
mod report;
mod stack;

use clap::Parser;
use pollstack::sim::World;
use report::Report;
use std::process::ExitCode;

/// Runs servers in simulated worlds, and stops at the first that is not as it should be.
#[derive(Parser)]
struct Options {
    /// How many worlds
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,

    /// The seed of the first
    #[arg(long, default_value_t = 0)]
    first: u64,

    /// Tell what happens in each
    #[arg(long)]
    story: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut report = Report::default();
    for seed in options.first..options.first + options.seeds {
        let world = World::new(seed);
        let check = stack::run(seed, &world, &mut report);
        if options.story || check.is_err() {
            print!("{}", report.story(&world));
        }
        if let Err(error) = check {
            println!("seed {seed}: {error}");
            return ExitCode::FAILURE;
        }
        report.close(&world);
    }
    println!("{report:?}");
    ExitCode::SUCCESS
}
