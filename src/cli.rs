//! The command line of the `pollstack` server.

use clap::{Args, Parser, Subcommand};
use pollstack::durable::SyncPolicy;
use pollstack::engine::Target;
use pollstack::http::Host;
use pollstack::net::Address;
use pollstack::options::{AddressList, UnixFile, duration, positive, timeout};
use std::path::PathBuf;
use std::time::Duration;

/// A bounded, blocking LIFO stack over TCP.
///
/// Clients push items of 1 to 127 bytes and pop the one pushed last. A push to a full stack waits
/// for room, a pop from an empty stack waits for an item. The items live in memory, and are lost
/// when the server stops, unless --data names a file for them, or --engine a Redis.
#[derive(Clone, Debug, Parser)]
#[command(version, verbatim_doc_comment, after_long_help = AFTER, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Listen on IP:PORT, [IPV6]:PORT or unix:PATH; may be repeated
    ///
    /// Port 0 takes a free port. The clients of all addresses count together.
    #[arg(long = "listen", value_name = "ADDR", env = "POLLSTACK_LISTEN")]
    #[arg(default_value = "127.0.0.1:8080", help_heading = "Network")]
    pub(crate) listen: Vec<AddressList>,

    #[command(flatten)]
    pub(crate) unix_file: UnixFile,

    /// How many connections may wait in the kernel to be accepted, per address
    ///
    /// A flood that overflows this queue can lose the first bytes of requests (SYN cookies).
    #[arg(long, value_name = "CONNS", env = "POLLSTACK_BACKLOG", default_value_t = 4096)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..), help_heading = "Network")]
    pub(crate) backlog: u32,

    /// Serve HTTP for operators on IP:PORT, [IPV6]:PORT or unix:PATH; may be repeated
    ///
    /// There are POST /push and /pop, GET /stack, /clients, /metrics, /healthz, a page at /.
    /// It answers when the stack is full. Whichever program reaches it may push, pop and
    /// disconnect clients.
    #[arg(long, value_name = "ADDR", env = "POLLSTACK_HTTP", help_heading = "Network")]
    #[arg(verbatim_doc_comment)]
    pub(crate) http: Vec<AddressList>,

    /// Answer HTTP requests for this name; may be repeated. Names of loopback always are
    ///
    /// Without it, requests to addresses other than loopback may name any host.
    #[arg(long, value_name = "HOST", env = "POLLSTACK_HTTP_HOST", value_delimiter = ',')]
    #[arg(value_parser = Host::parse, help_heading = "Network")]
    pub(crate) http_host: Vec<Host>,

    /// How many HTTP connections there may be
    #[arg(long, value_name = "CONNS", env = "POLLSTACK_HTTP_MAX_CLIENTS", default_value_t = 256)]
    #[arg(value_parser = positive::<usize>, help_heading = "Limits")]
    pub(crate) http_max_clients: usize,

    /// How many items the stack holds; a push to a full stack waits
    #[arg(long, value_name = "ITEMS", env = "POLLSTACK_CAPACITY", default_value_t = 100)]
    #[arg(value_parser = positive::<usize>, help_heading = "Limits")]
    pub(crate) capacity: usize,

    /// Keep the items in this file, which is made if it is not there
    ///
    /// A push is answered when its item is on the disk (--sync). After a crash, an item that was
    /// popped just before may be there again. `pollstack inspect FILE` prints what is in it.
    #[arg(long, value_name = "FILE", env = "POLLSTACK_DATA", help_heading = "Data")]
    #[arg(verbatim_doc_comment)]
    pub(crate) data: Option<PathBuf>,

    /// When items are on the disk: always (before the answer), never, or every so often, as 100ms
    ///
    /// With a time, pushes are answered at once, and a crash can cost those of that time. With
    /// never, the system writes when it likes, and a power cut can cost the whole file.
    #[arg(long, value_name = "WHEN", env = "POLLSTACK_SYNC", default_value_t = SyncPolicy::Always)]
    #[arg(requires = "data", verbatim_doc_comment, help_heading = "Data")]
    pub(crate) sync: SyncPolicy,

    /// Share the stack of a Redis 7 or Valkey with other servers: redis://[USER@]HOST[:PORT]/NAME
    ///
    /// More hosts may follow, with commas: those of one engine, of which one takes writes. Pushes
    /// are as durable as it makes them (appendonly, appendfsync). The password is in a file, or
    /// in the variable POLLSTACK_ENGINE_PASSWORD. With rediss:// the connection is encrypted.
    #[arg(long, value_name = "URL", env = "POLLSTACK_ENGINE", help_heading = "Data")]
    #[arg(verbatim_doc_comment, conflicts_with = "data")]
    pub(crate) engine: Option<Target>,

    /// Answer when so many replicas of the engine have it, too; until then, requests wait
    #[arg(long, value_name = "N", env = "POLLSTACK_WAIT_REPLICAS", default_value_t = 0)]
    #[arg(requires = "engine", help_heading = "Data")]
    pub(crate) wait_replicas: usize,

    /// Read the password of the engine from this file, its first line
    #[arg(long, value_name = "FILE", env = "POLLSTACK_ENGINE_PASSWORD_FILE")]
    #[arg(requires = "engine", help_heading = "Data")]
    pub(crate) engine_password_file: Option<PathBuf>,

    /// Trust the engine by this certificate of its authority, PEM: for rediss://HOST/NAME
    ///
    /// The certificate of the engine has to hold for HOST. Files of TLS are read at the start.
    #[arg(long, value_name = "FILE", env = "POLLSTACK_ENGINE_CA", requires = "engine", help_heading = "Data")]
    #[arg(verbatim_doc_comment)]
    pub(crate) engine_ca: Option<PathBuf>,

    /// Show the engine this certificate chain, PEM, if it asks for one
    #[arg(long, value_name = "FILE", env = "POLLSTACK_ENGINE_CERT", requires = "engine_key", help_heading = "Data")]
    pub(crate) engine_cert: Option<PathBuf>,

    /// The key of --engine-cert, PEM
    #[arg(long, value_name = "FILE", env = "POLLSTACK_ENGINE_KEY", requires = "engine_cert", help_heading = "Data")]
    pub(crate) engine_key: Option<PathBuf>,

    /// How many clients are served at once; the next one reads 0xFF (busy)
    #[arg(long, value_name = "CLIENTS", env = "POLLSTACK_MAX_CLIENTS", default_value_t = 100)]
    #[arg(value_parser = positive::<usize>, help_heading = "Limits")]
    pub(crate) max_clients: usize,

    /// The age above which the oldest client gives way to a newcomer, as 10s, 500ms, 2m
    ///
    /// No client is closed for its age unless a new client finds all places taken.
    #[arg(long, value_name = "AGE", env = "POLLSTACK_EVICT_AFTER", default_value = "10s")]
    #[arg(value_parser = duration, help_heading = "Limits")]
    pub(crate) evict_after: Duration,

    /// How long connected clients may still take when the server stops
    #[arg(long, value_name = "TIME", env = "POLLSTACK_GRACE", default_value = "5s")]
    #[arg(value_parser = duration, help_heading = "Shutdown")]
    pub(crate) grace: Duration,
}

/// The commands of a client. Without one, it is the server that runs.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Push an item, or one for each line of a file
    Push {
        /// The item, 1 to 127 bytes; `-` reads standard input, a line an item
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        text: Option<String>,
        /// Read this file, a line an item
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Pop items, and print them, one a line
    Pop {
        /// How many; 0 goes on until there is none within --timeout
        #[arg(long, value_name = "N", default_value_t = 1)]
        count: u64,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Print what is in a data file: how many items, and those on top
    Inspect {
        #[command(flatten)]
        data: FileOptions,
        /// How many items to print, from the top
        #[arg(long, value_name = "N", default_value_t = 10)]
        items: usize,
    },
    /// Print the items of a data file as lines of JSON, from the bottom to the top
    Export {
        #[command(flatten)]
        data: FileOptions,
    },
    /// Put items from standard input, lines of JSON, on top of those of a data file
    Import {
        #[command(flatten)]
        data: FileOptions,
    },
    /// Print what the server has and does, as its --http tells it
    Stat {
        #[command(flatten)]
        face: FaceOptions,
    },
    /// Print the same, every second: on a terminal in one place, elsewhere a line each
    Top {
        #[command(flatten)]
        face: FaceOptions,
        /// Stop after so many times
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
}

/// A file that a server has kept its items in.
#[derive(Clone, Debug, Args)]
pub(crate) struct FileOptions {
    /// The file; no server uses it
    pub(crate) file: PathBuf,
}

/// How a client reaches the HTTP of a server, and how long it waits.
#[derive(Clone, Debug, Args)]
pub(crate) struct FaceOptions {
    /// Where the server's --http is: IP:PORT, [IPV6]:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    pub(crate) connect: Address,
    /// How long each question may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub(crate) timeout: Duration,
}

/// How a client reaches the server, and how long it tries.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClientOptions {
    /// Where the server is: IP:PORT, [IPV6]:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) connect: Address,
    /// How long to wait for a connection and each answer; 0s waits as long as it takes
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// How often to try again if the server is busy or cannot be reached
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retry: u32,
}

const AFTER: &str = "\
Exit status of push and pop:
  0 done, 1 failed, 2 wrong usage, 3 busy, 4 no answer in time, 5 closed without an answer

Signals:
  SIGTERM, SIGINT, SIGHUP  admit those who wait, serve all, exit with status 0; again: exit at once.
                           SIGHUP is ignored if it was at the start (nohup)

Environment:
  RUST_LOG         what is logged to standard error: error, warn (the default), info, debug
  POLLSTACK_ENGINE_PASSWORD
                   the password of --engine

The first lines on standard output say where the server listens, one address a line:
  listening on 127.0.0.1:8080
Those of --http follow, as `http on 127.0.0.1:8081`. All addresses are bound by the first line.

Try it:
  printf '\\005hello' | nc 127.0.0.1 8080 | xxd    push (answer 00)
  printf '\\200' | nc 127.0.0.1 8080 | xxd         pop  (answer 05, hello)";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Lost otherwise: the server, which does not start if two options clash.
    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    /// Lost otherwise: the limits that the protocol's document promises.
    #[test]
    fn the_defaults_are_those_of_the_protocol() {
        let options = Options::parse_from(["pollstack"]);
        assert_eq!((options.capacity, options.max_clients), (100, 100));
        assert_eq!(options.evict_after, Duration::from_secs(10));
    }

    /// Lost otherwise: a man page that describes this server. `UPDATE_MAN=1` rewrites it.
    #[test]
    fn the_man_page_is_up_to_date() {
        let page = pollstack::options::man::<Options>().unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/doc/pollstack.1");
        if std::env::var_os("UPDATE_MAN").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let on_disk = std::fs::read(path).unwrap_or_default();
        assert!(page == on_disk, "doc/pollstack.1 is out of date; run UPDATE_MAN=1 cargo test --bin pollstack");
    }
}
