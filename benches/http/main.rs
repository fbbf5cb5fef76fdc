//! Servers of HTTP on the loop beside those that people would use instead, always in the same run.
//!
//! ```text
//! cargo bench --bench http                        everything, under ten minutes
//! cargo bench --bench http -- --quick             a little of each part, a minute
//! cargo bench --bench http -- files               only those whose names say so
//! cargo bench --bench http -- --list              the parts
//! cargo bench --bench http -- --profile files     where the time of our server goes
//! cargo bench --bench http -- --save FILE         keeps the figures
//! cargo bench --bench http -- --compare FILE      says what differs from figures that were kept
//! ```
//!
//! Servers have their turns there and back (A B B A). The measure is the processor time that a server takes for a
//! request, as a ratio within a pair of turns. The load of files is wrk's: on a processor of its own, where it is the
//! bottleneck, and with two threads on both, where the server is. nginx has its access log off, sendfile and its cache
//! of open files on. Results go to `target/http`; `index.html` there has them all. Linux only.

mod baseline;
mod bulk;
mod contender;
mod fanout;
mod files;
mod flood;
mod handshakes;
mod profile;
mod readers;
mod subscribers;
mod wrk;

use clap::Parser;
use contender::Site;
use instrument::{Keep, Page, Results, Table};
use std::process::ExitCode;
use std::time::Instant;
use std::{fs, io};

#[derive(Parser)]
#[command(name = "http", about = "Servers of HTTP, beside nginx, nchan, Node and haproxy")]
struct Options {
    /// Only the parts whose names contain one of these.
    names: Vec<String>,
    /// Fewer and shorter turns: a minute.
    #[arg(long)]
    quick: bool,
    /// Name the parts.
    #[arg(long)]
    list: bool,
    /// Pairs of turns.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// Say where the time of our server goes, in the first of these parts: files, `tls, files`, proxy or fan-out.
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    keep: Keep,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part: its name, what it does, and how it is measured, with the files, so many pairs of turns, or quickly.
struct Part {
    name: &'static str,
    what: &'static str,
    measure: fn(&Site, usize, bool) -> Result<Table, String>,
}

/// The parts, in the order in which they run.
const PARTS: [Part; 10] = [
    Part { name: "files", what: "files of 1 KiB to 10 MiB, beside nginx", measure: files::plain },
    Part { name: "tls, files", what: "files on kept connections over TLS, beside nginx", measure: files::secure },
    Part { name: "tls, connections", what: "full and resumed handshakes, beside nginx", measure: handshakes::measure },
    Part { name: "workers", what: "two workers, beside two of nginx", measure: files::workers },
    Part { name: "proxy", what: "the proxy of the examples, beside haproxy", measure: files::proxied },
    Part { name: "proxy, both ways", what: "long streams both ways at once, beside haproxy", measure: bulk::measure },
    Part {
        name: "readers",
        what: "slow readers of a large file: memory, and what others feel; beside nginx",
        measure: |site, _, quick| readers::measure(site, quick),
    },
    Part {
        name: "fan-out",
        what: "a message to many subscribers, beside a bare loop of sends, nchan and Node",
        measure: fanout::measure,
    },
    Part {
        name: "fan-out, stalled",
        what: "subscribers beside others that never read",
        measure: |_, _, quick| fanout::beside_stalled(quick),
    },
    Part {
        name: "flood",
        what: "clients beside one that publishes as fast as it can",
        measure: |_, _, quick| flood::measure(quick),
    },
];

fn main() -> ExitCode {
    if baseline::run_if_asked() {
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    if !options.bench || !cfg!(target_os = "linux") {
        println!("http: to be run by `cargo bench --bench http`, on Linux");
        return ExitCode::SUCCESS; // `cargo test --all-targets` runs it, too
    }
    if options.list {
        PARTS.iter().for_each(|part| println!("{}: {}", part.name, part.what));
        return ExitCode::SUCCESS;
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("http: {why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), String> {
    let names = |part: &Part, name: &String| part.name.contains(&**name);
    if let Some(unknown) = options.names.iter().find(|name| !PARTS.iter().any(|part| names(part, name))) {
        return Err(format!("there is no part `{unknown}`; --list names them"));
    }
    let then = options.keep.earlier()?;
    let wanted = |part: &&Part| options.names.is_empty() || options.names.iter().any(|name| names(part, name));
    let pairs = options.pairs.map_or(if options.quick { 1 } else { 3 }, usize::from);
    let site = Site::new().map_err(|error| format!("the files cannot be made: {error}"))?;
    let folder = instrument::folder(env!("CARGO_TARGET_TMPDIR"), "http").map_err(|error| error.to_string())?;
    let mut results = Results { run: instrument::run("http"), tables: Vec::new() };
    if options.profile {
        let part = PARTS.iter().find(wanted).map_or("files", |part| part.name);
        let path = profile::profile(part, &site, &folder, &results.run)?;
        println!("The page is {}.", path.display());
        return Ok(());
    }
    for part in PARTS.iter().filter(wanted) {
        let start = Instant::now();
        let table = (part.measure)(&site, pairs, options.quick).map_err(|why| format!("{}: {why}", part.name))?;
        results.tables.push(table);
        eprintln!("{}: {} s", part.name, start.elapsed().as_secs());
        save(&results, None, &folder).map_err(|error| error.to_string())?; // so that nothing is lost if the next one hangs
    }
    let differences = options.keep.tell(&results, then.as_ref())?;
    save(&results, differences.as_ref(), &folder).map_err(|error| error.to_string())?;
    println!("\nAll results are on {}.", folder.join("index.html").display());
    Ok(())
}

fn save(results: &Results, differences: Option<&Table>, folder: &std::path::Path) -> io::Result<()> {
    results.save(&folder.join("results.json"))?;
    fs::write(folder.join("table.md"), results.markdown())?;
    let mut page = Page::new("HTTP", &results.run);
    differences.into_iter().chain(&results.tables).for_each(|table| page.table(table));
    page.save(&folder.join("index.html"))
}
