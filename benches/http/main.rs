//! The cost of a file, in the example `web` and in nginx, and of a message to many, in the
//! example `pubsub`, in nginx with nchan and in Node; always in the same run.
//!
//! ```text
//! cargo bench --bench http                        everything, thirteen minutes
//! cargo bench --bench http -- --quick             fewer turns, two minutes
//! cargo bench --bench http -- files               only what is called so: files, readers, fan-out, flood
//! ```
//!
//! The load of `files` is wrk's. Both servers have their turns there and back (A B B A); what counts
//! is the processor time that a server takes for a request, as a ratio within a pair of turns: with
//! wrk on a processor of its own, where it is the bottleneck, and with two threads of it on both,
//! where the server is. `readers` are slow ones of a large file: the memory they take,
//! and what the client of a small file feels of them. In `fan-out`, many are subscribed to one
//! channel; in `flood`, one of them publishes as fast as it can. nginx has one worker, its access log off, sendfile and its cache of open files on. Tables go to `target/http`. Linux only.

mod baseline;
mod contender;
mod fanout;
mod files;
mod flood;
mod readers;
mod subscribers;

use clap::Parser;
use contender::{Contender, Site};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;
use std::{env, fs, io};

#[derive(Parser)]
#[command(name = "http", about = "Servers of HTTP, beside nginx")]
struct Options {
    /// Only the parts whose names contain one of these: files, readers, fan-out, flood.
    names: Vec<String>,
    /// Fewer and shorter turns: two minutes.
    #[arg(long)]
    quick: bool,
    /// Pairs of turns.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The parts, in the order in which they run.
const PARTS: [&str; 4] = ["files", "readers", "fan-out", "flood"];

fn main() -> ExitCode {
    if baseline::run_if_asked() {
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    if !options.bench || !cfg!(target_os = "linux") {
        println!("http: to be run by `cargo bench --bench http`, on Linux");
        return ExitCode::SUCCESS; // `cargo test --all-targets` runs it, too
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
    if let Some(unknown) = options.names.iter().find(|name| !PARTS.iter().any(|part| part.contains(&***name))) {
        return Err(format!("there is no part `{unknown}`; there are {}", PARTS.join(", ")));
    }
    let wanted = |part: &str| options.names.is_empty() || options.names.iter().any(|name| part.contains(&**name));
    let pairs = options.pairs.map_or(if options.quick { 2 } else { 6 }, usize::from);
    let site = Site::new().map_err(|error| format!("the files cannot be made: {error}"))?;
    let mut text = head();
    if wanted("files") {
        text += &files::measure(&Contender::of_files(&site), pairs, options.quick)?;
    }
    if wanted("readers") {
        text += &readers::measure(&site, options.quick)?;
    }
    if wanted("fan-out") {
        text += &fanout::measure(&site, pairs, options.quick)?;
    }
    if wanted("flood") {
        text += &flood::measure(options.quick)?;
    }
    print!("\n{text}");
    let folder = save(&text).map_err(|error| error.to_string())?;
    println!("\nThe tables are in {}.", folder.display());
    Ok(())
}

fn head() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let command = ["cargo bench --bench http --", &arguments.join(" ")].join(" ");
    format!("{}; {}; `{}`\n", test_support::machine::describe(), &now[..10], command.trim_end_matches([' ', '-']))
}

fn save(text: &str) -> io::Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../http");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("table.md"), text)?;
    folder.canonicalize()
}

/// Returns the quartiles.
fn middle(mut figures: Vec<f64>) -> [f64; 3] {
    figures.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| figures.get(figures.len() * quarter / 4).copied().unwrap_or(f64::NAN))
}

/// A median, and the middle half.
fn in_words([low, median, high]: [f64; 3]) -> String {
    format!("{median:.2} ({low:.2} to {high:.2})")
}
