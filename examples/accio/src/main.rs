//! An Accio server: receives files, one client at a time, and says how long they were.
//!
//! The loop's part in it: `Overload::Defer` with room for one is a queue for nothing, in the
//! order in which the clients came, kept by the kernel; a deadline that moves with every byte costs
//! a word in memory, and no timer; and a file of any size goes through in flat memory, because
//! `on_data` is lent the bytes where the kernel has put them.
//!
//! ```text
//! cargo run --release -p accio -- 5000
//! (printf 'confirm-accio\r\nconfirm-accio-again\r\n\r\n'; cat README.md) | nc -N 127.0.0.1 5000
//! ```

use accio::upload::Folder;
use accio::{Accio, Results};
use clap::Parser;
use pollstack::net::{Address, Handle};
use pollstack::operate::Observed;
use pollstack::options::{self, duration, timeout};
use pollstack::server;
use pollstack::signals::{SIGQUIT, StopSignals, terminating};
use pollstack::{EventLoop, Overload, descriptors};
use std::error::Error;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Bytes read for one client before the next has its turn. There is seldom a next one here, and
/// with the usual quarter of it an upload takes 3 % more CPU.
const TURN_BYTES: usize = 1024 * 1024;

/// Receives files, and prints their lengths.
#[derive(Parser)]
#[command(
    version,
    after_help = "Try it, for port 5000:
  (printf 'confirm-accio\\r\\nconfirm-accio-again\\r\\n\\r\\n'; cat FILE) | nc -N 127.0.0.1 5000"
)]
struct Options {
    /// Listen on this port of all IPv4 interfaces; 0 takes a free one. Where, is said on standard error
    #[arg(allow_negative_numbers = true)]
    port: u16,

    /// Listen on IP:PORT, [IPV6]:PORT or unix:PATH, too; may be repeated
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Address>,

    /// Serve GET /metrics, for Prometheus, on IP:PORT, [IPV6]:PORT or unix:PATH; may be repeated
    #[arg(long, value_name = "ADDR")]
    metrics: Vec<Address>,

    /// Save the files as DIR/1.file, DIR/2.file and so on; those that fail hold the word ERROR
    ///
    /// The numbers follow those of the files that are there.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,

    /// Serve this many clients at a time; the others wait
    #[arg(long, value_name = "CLIENTS", default_value = "1")]
    parallel: std::num::NonZeroUsize,

    /// Print the SHA-256 digest of each file behind its length
    #[arg(long)]
    digest: bool,

    /// How long a client may be silent
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    timeout: Duration,

    /// How long files that have begun may still take when the server stops
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    grace: Duration,
}

fn main() -> ExitCode {
    let options: Options = options::parse("ERROR");
    server::start_log();
    server::exit("ERROR", serve(&options))
}

/// Standard output, which a full pipe does not block.
struct Stdout {
    /// Set when there is a loop to wake.
    handle: Option<Handle>,
    /// It cannot be written to, and it has been said why.
    failing: bool,
}

impl Results for Stdout {
    fn try_line(&mut self, line: &str) -> bool {
        let stdout = server::stdout();
        if let Some(error) = stdout.error().filter(|_| !self.failing) {
            log::error!("results cannot be written, and are lost: {error}");
        }
        self.failing = stdout.error().is_some();
        let taken = stdout.try_write(format!("{line}\n").as_bytes());
        if let Some(handle) = self.handle.clone().filter(|_| !taken) {
            stdout.wake_when_written(handle);
        }
        taken
    }
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let folder = options.save.as_deref().map(open).transpose()?;
    let clients = options.parallel.get();
    let files = if folder.is_some() { clients } else { 0 };
    let limits = descriptors::reserve(clients, files.saturating_add(options.listen.len() + server::SCRAPERS))
        .map_err(|error| format!("--parallel {clients}: {error}"))?;
    let accio = Accio::new(options.timeout, folder, options.digest, Stdout { handle: None, failing: false });
    let observed = Observed::new("accio", accio, &options.metrics, Instant::now());
    let mut event_loop = EventLoop::with_limits(observed, limits.turn(TURN_BYTES))?;
    let handle = event_loop.handle()?;
    event_loop.call(|accio, _| accio.service_mut().results.handle = Some(handle));
    let all_interfaces = Address::Tcp((Ipv4Addr::UNSPECIFIED, options.port).into());
    let listen = server::activated_or("--listen", [&all_interfaces].into_iter().chain(&options.listen))?;
    let listener = event_loop.listen(listen.max_conns(clients).overload(Overload::Defer))?;
    let signals = StopSignals::new(&event_loop, &[&terminating()[..], &[SIGQUIT]].concat())?;
    let counts = event_loop.service().listener();
    let metrics = server::listen_for_metrics(&mut event_loop, counts, &options.metrics)?;
    server::report(event_loop.addresses(listener)?.iter().map(server::listening).chain(metrics));
    Ok(signals.run(&mut event_loop, options.grace)?)
}

fn open(folder: &Path) -> Result<Folder, String> {
    Folder::open(folder).map_err(|error| format!("--save {}: {error}", folder.display()))
}
