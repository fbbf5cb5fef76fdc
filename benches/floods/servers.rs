//! The servers: ours, the baselines, and the peers, which are in `benches/peers`.

use crate::baseline;
use crate::protocol::Protocol;
use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_support::machine::{self, Placement, ordinary, there};
use test_support::{Server, TEST_TIMEOUT, build, command, example, keeps_frames};

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pollstack,
    /// The plainest loop that can do the same work: accept, read, write, close, blocking.
    Baseline,
    /// The same, and the end of the stream goes out with the answer.
    OnePacketBaseline,
    /// The plain one, waiting for events before it accepts.
    EventBaseline,
    MioStack,
    TokioStack,
    NodeStack,
    TwistedStack,
    Redis,
    Beanstalkd,
    /// Ours with `--data`, and the two that sync before they answer.
    DurablePollstack,
    DurableRedis,
    DurableBeanstalkd,
    /// Ours with `--engine`, and the engine beside it.
    Edge,
    /// Two of these, with one engine.
    TwoEdges,
    /// Ours with `--http`, and a scraper that asks for its metrics once a second, fifteen times as often as is usual.
    Scraped,
    Echo,
    /// It takes a short read for the last, as ours does.
    MioEcho,
    /// It reads until nothing is left, as mio's documentation asks for.
    MioEchoDrain,
    TokioEcho,
    Chat,
    Accio,
    /// The plainest receiver: accept, read to the end, blocking.
    Sink,
}

/// The configuration of a server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    /// How many clients it is to hold, if not as many as it likes.
    pub(crate) clients: Option<usize>,
    /// The oldest is evicted for every newcomer, instead of after an hour.
    pub(crate) evicts: bool,
    /// Ours has room for all that is pushed.
    pub(crate) endless: bool,
    /// The engine of an edge, if it is not to have one of its own.
    pub(crate) engine: Option<SocketAddr>,
}

/// A server that runs.
pub(crate) struct Instance {
    pub(crate) kind: Kind,
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    /// The engine of an edge, and the other edge.
    beside: Vec<Instance>,
    /// Its data.
    _folder: Option<TempDir>,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Pollstack => "pollstack",
            Kind::Baseline => "baseline",
            Kind::OnePacketBaseline => "baseline, one packet",
            Kind::EventBaseline => "baseline with events",
            Kind::MioStack | Kind::MioEcho => "plain mio",
            Kind::MioEchoDrain => "plain mio until WouldBlock",
            Kind::TokioStack | Kind::TokioEcho => "tokio",
            Kind::NodeStack => "Node",
            Kind::TwistedStack => "Twisted",
            Kind::Redis => "redis-server",
            Kind::Beanstalkd => "beanstalkd",
            Kind::DurablePollstack => "pollstack --data",
            Kind::Edge => "pollstack --engine",
            Kind::TwoEdges => "two of pollstack --engine",
            Kind::Scraped => "pollstack --http, scraped",
            Kind::DurableRedis => "redis-server appendfsync always",
            Kind::DurableBeanstalkd => "beanstalkd -b -f 0",
            Kind::Echo => "pollstack's echo",
            Kind::Chat => "pollstack's chat",
            Kind::Accio => "pollstack's accio",
            Kind::Sink => "baseline",
        }
    }

    /// Returns whether it is one of our servers, or a baseline, and not a peer.
    pub(crate) fn is_ours(self) -> bool {
        use Kind::*;
        matches!(
            self,
            Pollstack
                | DurablePollstack
                | Edge
                | TwoEdges
                | Scraped
                | Echo
                | Chat
                | Accio
                | Baseline
                | OnePacketBaseline
                | EventBaseline
                | Sink
        )
    }

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Kind::Redis | Kind::DurableRedis => Protocol::Redis,
            Kind::Beanstalkd | Kind::DurableBeanstalkd => Protocol::Beanstalk,
            _ => Protocol::Stack,
        }
    }

    /// Starts one; says why not if that cannot be.
    pub(crate) fn start(self, setup: Setup) -> Result<Instance, String> {
        self.start_under(&[], setup)
    }

    /// The same, as an argument of another program.
    pub(crate) fn start_under(self, wrapper: &[&str], setup: Setup) -> Result<Instance, String> {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        if self.protocol() != Protocol::Stack {
            return self.start_at(wrapper, free());
        }
        let folder = self.folder()?;
        let mut program = self.program(setup)?;
        if let Some(folder) = &folder {
            program.arg("--data").arg(folder.path().join("stack.data"));
        }
        let mut beside = Vec::new();
        if matches!(self, Kind::Edge | Kind::TwoEdges) {
            let engine = match setup.engine {
                Some(engine) => engine,
                None => {
                    beside.push(Kind::Redis.start(setup)?);
                    beside[0].address
                }
            };
            if self == Kind::TwoEdges {
                beside.push(Kind::Edge.start(Setup { engine: Some(engine), ..setup })?);
            }
            program.arg("--engine").arg(format!("redis://{engine}/floods"));
        }
        if self == Kind::Scraped {
            program.args(["--http", "127.0.0.1:0"]);
        }
        let program = machine::under(wrapper, &program);
        let server = match self {
            Kind::Accio => Server::try_spawn_on_stderr(ordinary(&program), 1),
            Kind::Scraped | Kind::Chat => Server::try_spawn(ordinary(&program), 2),
            _ => Server::try_spawn(ordinary(&program), 1),
        };
        let server = server.ok_or("it does not start")?;
        if self == Kind::Scraped {
            scrape(server.address_behind("http on "));
        }
        let address = server.address();
        let address = SocketAddr::from(([127, 0, 0, 1], address.port()));
        Ok(Instance { kind: self, server, address, beside, _folder: folder })
    }

    /// Returns a folder for its data, on the disk of the target folder.
    fn folder(self) -> Result<Option<TempDir>, String> {
        let is_durable = matches!(self, Kind::DurablePollstack | Kind::DurableRedis | Kind::DurableBeanstalkd);
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        is_durable.then(|| tempfile::tempdir_in(target).map_err(|error| error.to_string())).transpose()
    }

    fn program(self, setup: Setup) -> Result<Command, String> {
        let clients = setup.clients.unwrap_or(100).to_string();
        let age = if setup.evicts { "0" } else { "3600" };
        Ok(match self {
            Kind::Pollstack | Kind::DurablePollstack | Kind::Edge | Kind::TwoEdges | Kind::Scraped => {
                let evict_after = if setup.evicts { "1ns" } else { "1h" };
                let listen = ["--listen", "127.0.0.1:0", "--max-clients", &clients, "--evict-after", evict_after];
                let endless = setup.endless || self == Kind::DurablePollstack;
                let capacity = if endless { "1000000000" } else { "100" };
                command(stack_server(), &[&listen[..], &["--capacity", capacity]].concat())
            }
            Kind::Baseline => baseline::command(baseline::BLOCKING),
            Kind::OnePacketBaseline => baseline::command(baseline::ONE_PACKET),
            Kind::EventBaseline => baseline::command(baseline::EVENTS),
            Kind::Sink => baseline::command(baseline::SINK),
            Kind::MioStack => peer("target/release/mio-stack", &["127.0.0.1:0", &clients, age])?,
            Kind::TokioStack => peer("target/release/tokio-stack", &["127.0.0.1:0", &clients, age])?,
            Kind::MioEcho => peer("target/release/mio-echo", &["127.0.0.1:0", "short"])?,
            Kind::MioEchoDrain => peer("target/release/mio-echo", &["127.0.0.1:0"])?,
            Kind::TokioEcho => peer("target/release/tokio-echo", &["127.0.0.1:0"])?,
            Kind::NodeStack => script("node", "node/stack.mjs", &[&clients, age])?,
            Kind::TwistedStack => script("venv/bin/python", "twisted/stack.py", &[&clients, age])?,
            Kind::Echo => example("echo", &["127.0.0.1:0"]),
            Kind::Chat => command(build("--bin", "chat"), &["--port", "0"]),
            Kind::Accio => command(build("--bin", "accio"), &["0"]),
            Kind::Redis | Kind::Beanstalkd | Kind::DurableRedis | Kind::DurableBeanstalkd => {
                return Err("it is started otherwise".to_owned());
            }
        })
    }

    /// Those that cannot say which port they have are given one.
    fn start_at(self, wrapper: &[&str], address: SocketAddr) -> Result<Instance, String> {
        let port = address.port().to_string();
        let mut program;
        let folder = self.folder()?;
        if self.protocol() == Protocol::Redis {
            program = installed("redis-server")?;
            program.args(["--port", &port, "--bind", "127.0.0.1", "--tcp-backlog", "4096", "--loglevel", "warning"]);
            program.args(["--save", "", "--maxclients", "20000"]);
            match &folder {
                Some(folder) => {
                    program.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(folder.path())
                }
                None => program.args(["--appendonly", "no"]),
            };
            // It takes only 127.0.0.1 itself for this machine.
            program.args(["--protected-mode", "no"]);
        } else {
            program = installed("beanstalkd")?;
            program.args(["-l", "127.0.0.1", "-p", &port]);
            if let Some(folder) = &folder {
                program.args(["-f", "0", "-b"]).arg(folder.path());
            }
        }
        let server = Server::try_spawn(ordinary(&machine::under(wrapper, &program)), 0).ok_or("it does not start")?;
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if start.elapsed() > TEST_TIMEOUT {
                return Err("it does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Instance { kind: self, server, address, beside: Vec::new(), _folder: folder })
    }
}

impl Instance {
    /// Has it, and what it needs, run where `placement` says.
    pub(crate) fn place(&self, placement: Placement) {
        machine::place(&self.server, placement);
        self.beside.iter().for_each(|other| other.place(placement));
    }

    /// Returns the processor time that it has used, with what it needs.
    pub(crate) fn cpu(&self) -> Duration {
        machine::cpu(self.server.pid()) + self.beside.iter().map(Instance::cpu).sum::<Duration>()
    }

    /// Returns where its clients connect: to itself, and to the other edge.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let edges = self.beside.iter().filter(|other| other.kind == Kind::Edge).map(|edge| edge.address);
        [self.address].into_iter().chain(edges).collect()
    }
}

/// Returns the path of our server.
fn stack_server() -> PathBuf {
    if keeps_frames() { build("--bin", "pollstack") } else { env!("CARGO_BIN_EXE_pollstack").into() }
}

/// Asks for the metrics of a server until it has gone.
fn scrape(address: SocketAddr) {
    std::thread::spawn(move || {
        while let Ok(mut stream) = TcpStream::connect(address) {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
            std::thread::sleep(Duration::from_secs(1));
        }
    });
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

fn peer(path: &str, args: &[&str]) -> Result<Command, String> {
    let path = peers().join(path);
    if !path.exists() {
        return Err("not built; benches/peers/install.sh does that".to_owned());
    }
    let mut command = Command::new(path);
    command.args(args);
    Ok(command)
}

fn script(interpreter: &str, path: &str, args: &[&str]) -> Result<Command, String> {
    let own = peers().join(interpreter);
    let mut command = if own.is_file() { Command::new(own) } else { installed(interpreter)? };
    command.arg(peers().join(path)).arg("127.0.0.1:0").args(args);
    Ok(command)
}

fn installed(program: &str) -> Result<Command, String> {
    match there(program) {
        true => Ok(Command::new(program)),
        false => Err("not installed; benches/peers/install.sh does that".to_owned()),
    }
}
