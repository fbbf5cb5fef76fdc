//! The real server as a child process, and clients for it. Every wait here ends: with what is
//! waited for, or after `TEST_TIMEOUT` with a panic.

use socket2::SockRef;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Far longer than anything takes that works.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Held while a process is started and while a client is closed: a process that is just being
/// started has a copy of every descriptor for a moment, and would keep a closed connection open.
static NO_FORK: Mutex<()> = Mutex::new(());

pub fn no_fork() -> MutexGuard<'static, ()> {
    NO_FORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a process that has no copy of a descriptor any more when this returns. Its start is over for the system when
/// the new program is in place, which is before the copies are closed; the process gets its new name and arguments behind
/// that. A benchmark that starts itself has other arguments.
pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let _guard = no_fork();
    let child = command.spawn()?;
    let read = |of: &str, what: &str| std::fs::read(format!("/proc/{of}/{what}")).unwrap_or_default();
    let own = [read("thread-self", "comm"), read("self", "cmdline")];
    let pid = child.id().to_string();
    let has_begun = || {
        let [name, arguments] = [read(&pid, "comm"), read(&pid, "cmdline")];
        name != own[0] || !arguments.is_empty() && arguments != own[1]
    };
    wait_until("the program begins", || (own[0].is_empty() || has_begun()).then_some(()));
    Ok(child)
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    /// The lines of its announcement.
    pub ready: Vec<String>,
    stdout: Mutex<Receiver<String>>,
}

/// Sends a signal, as `TERM`, to a process.
pub fn signal(pid: u32, name: &str) {
    let _guard = no_fork();
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success(), "SIG{name} is sent");
}

/// Returns the command of a server, with none of the variables that would configure it.
pub fn command(program: impl AsRef<OsStr>, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    for name in [
        "LISTEN",
        "CAPACITY",
        "MAX_CLIENTS",
        "EVICT_AFTER",
        "BACKLOG",
        "GRACE",
        "UNIX_MODE",
        "UNIX_OWNER",
        "HTTP",
        "HTTP_HOST",
        "HTTP_MAX_CLIENTS",
        "DATA",
        "SYNC",
        "ENGINE",
        "WAIT_REPLICAS",
        "ENGINE_PASSWORD",
        "ENGINE_PASSWORD_FILE",
        "ENGINE_CA",
        "ENGINE_CERT",
        "ENGINE_KEY",
    ] {
        command.env_remove(format!("POLLSTACK_{name}"));
    }
    command.env_remove("RUST_LOG").args(args).stdin(Stdio::null());
    command
}

/// Returns the command of `program` with a listening socket handed over, as a service manager does.
#[cfg(unix)]
pub fn handed(program: &Command, socket: &std::net::TcpListener) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\""]);
    command.arg(program.get_program()).args(program.get_args());
    command.stdin(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()));
    command
}

/// The command of the stack server. A macro, for cargo tells the path only to the package's own tests.
#[macro_export]
macro_rules! pollstack {
    ($args:expr) => {
        $crate::command(env!("CARGO_BIN_EXE_pollstack"), $args)
    };
}

/// A stack server on a free port, started with these arguments.
#[macro_export]
macro_rules! start {
    ($args:expr) => {
        $crate::Server::start(env!("CARGO_BIN_EXE_pollstack"), $args)
    };
}

/// Returns the command of a single-file example of the workspace.
pub fn example(name: &str, args: &[&str]) -> Command {
    command(build("--example", name), args)
}

/// Returns the path of a program of the workspace, built by cargo in the profile of the caller: cargo hands a
/// test the binaries of its own package only. A build that is up to date takes a moment.
pub fn build(kind: &str, name: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(format!("{kind} {name}")).or_insert_with(|| build_now(kind, name)).clone()
}

/// Has all programs that are built from here on keep frame pointers and line numbers, for a profiler. They have a
/// target folder of their own.
pub fn keep_frames() {
    KEEPS_FRAMES.store(true, Ordering::Relaxed);
}

/// Returns whether they do.
pub fn keeps_frames() -> bool {
    KEEPS_FRAMES.load(Ordering::Relaxed)
}

static KEEPS_FRAMES: AtomicBool = AtomicBool::new(false);

fn build_now(kind: &str, name: &str) -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--workspace", "--quiet", "--locked", "--message-format", "json", kind, name]);
    cargo.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml")]);
    cargo.args((!cfg!(debug_assertions)).then_some("--release"));
    if keeps_frames() {
        cargo.args(["--target-dir", concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/profile")]);
        cargo.args(["--config", "build.rustflags=['-Cforce-frame-pointers=yes']"]);
        cargo.args(["--config", "profile.release.debug='line-tables-only'"]);
    }
    // The build of a dependency (ring) is done again when these change, which cargo sets for a test.
    let of_cargo = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_cargo)) {
        cargo.env_remove(name);
    }
    let output = run(cargo);
    assert!(output.status.success(), "{name} is built: {}", String::from_utf8_lossy(&output.stderr));
    let messages = output.stdout.split(|byte| *byte == b'\n').map(serde_json::from_slice::<serde_json::Value>);
    let mut paths = messages.filter_map(|message| Some(PathBuf::from(message.ok()?["executable"].as_str()?)));
    paths.find(|path| path.file_stem().is_some_and(|stem| stem == name)).expect("cargo says where it is")
}

/// Checks that the program explains itself: a man page, the completions of shells, and the options in force.
pub fn check_command_line(program: &str, name: &str, args: &[&str], line: &str) {
    let printed = |args: &[&str]| {
        let output = run(command(program, args));
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(printed(&["--generate", "man"]).contains(&format!(".TH {name} 1")));
    for shell in ["bash", "elvish", "fish", "zsh"] {
        let text = printed(&["--generate", shell]);
        assert!(text.contains(name) && text.contains("grace"), "{shell}: {text}");
    }
    let config = printed(&[args, &["--print-config"]].concat());
    assert!(config.lines().any(|other| other == line), "{line}: {config}");
}

/// Checks the metrics of `server`, which was started with `--metrics 127.0.0.1:0`: that a scraper can read them, that
/// they hold `line` besides the counts of the loop, and that a page of another site cannot read them.
pub fn check_metrics(server: &Server, name: &str, line: &str) {
    let reply = ask_for_metrics(server, "localhost");
    assert_eq!(reply.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = reply.text();
    assert!(text.lines().any(|other| other == line), "{line}: {text}");
    let of_the_loop = format!("# TYPE {name}_connections_total counter\n{name}_connections_total 1\n");
    assert!(text.contains(&of_the_loop), "{text}");
    assert_eq!(ask_for_metrics(server, "evil.example").status, 403);
}

/// Checks that `server`, which was started with `--metrics 0.0.0.0:0`, tells its metrics to a scraper of another machine,
/// which names it by its address and comes by way of a tunnel.
pub fn check_metrics_elsewhere(server: &Server) {
    assert_eq!(ask_for_metrics(server, "10.0.0.5:9100").status, 200);
}

fn ask_for_metrics(server: &Server, host: &str) -> crate::replies::Response {
    let mut client = Client::new(TcpStream::connect(server.address_behind("metrics on ")).expect("it listens"));
    client.send(format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes());
    crate::replies::one(&client.answer(), "GET")
}

/// Returns the metrics of `server`, which was started with `--metrics 127.0.0.1:0`.
pub fn metrics(server: &Server) -> String {
    ask_for_metrics(server, "localhost").text().to_owned()
}

/// Returns the value of one of them.
pub fn metric(server: &Server, name: &str) -> u64 {
    let text = metrics(server);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} is missing: {text}"))
}

/// Returns the names of the metrics in `text` that begin so. The document for operators tells of each.
pub fn documented_metrics<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let document = include_str!("../../../doc/operations.md");
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let names: Vec<&str> = names.filter(|name| name.starts_with(prefix)).collect();
    for name in &names {
        let told = [format!("`{name}`"), format!("`{name}{{")];
        assert!(told.iter().any(|told| document.contains(told)), "doc/operations.md tells of {name}");
    }
    assert!(!names.is_empty(), "{prefix}: {text}");
    names
}

/// Runs a server that is expected to exit by itself.
pub fn run(mut command: Command) -> Output {
    let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
    child.wait_with_output().unwrap()
}

impl Server {
    /// Starts the stack server on a free port and waits until it is ready.
    pub fn start(program: impl AsRef<OsStr>, args: &[&str]) -> Server {
        let mut all = vec!["--listen", "127.0.0.1:0"];
        all.extend(args);
        Server::spawn(command(program, &all), 1)
    }

    /// Starts `command` and waits until it has said `lines` lines.
    pub fn spawn(command: Command, lines: usize) -> Server {
        Server::try_spawn(command, lines).expect("the server says something")
    }

    /// As [`spawn`](Self::spawn); `None` if it ends, or says nothing, instead.
    pub fn try_spawn(mut command: Command, lines: usize) -> Option<Server> {
        let mut child = spawn(command.stdout(Stdio::piped())).expect("the server starts");
        let lines_of = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, stdout) = channel();
        thread::spawn(move || lines_of.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut server = Server { child, ready: Vec::new(), stdout: Mutex::new(stdout) };
        server.ready = (0..lines).map(|_| server.try_line()).collect::<Option<_>>()?;
        Some(server)
    }

    /// As [`spawn`](Self::spawn), for a server that says on standard error where it listens. The lines that
    /// follow there go to the standard error of the test.
    pub fn spawn_on_stderr(command: Command, lines: usize) -> Server {
        Server::try_spawn_on_stderr(command, lines).expect("the server says where it listens")
    }

    /// As [`spawn_on_stderr`](Self::spawn_on_stderr); `None` if it ends instead.
    pub fn try_spawn_on_stderr(mut command: Command, lines: usize) -> Option<Server> {
        command.stderr(Stdio::piped());
        let mut server = Server::try_spawn(command, 0)?;
        let mut lines_of = BufReader::new(server.stderr()).lines().map_while(Result::ok);
        server.ready = lines_of.by_ref().take(lines).collect();
        thread::spawn(move || lines_of.for_each(|line| eprintln!("{line}")));
        (server.ready.len() == lines).then_some(server)
    }

    /// Returns the next line on its standard output.
    pub fn line(&self) -> String {
        self.try_line().expect("the server says something")
    }

    fn try_line(&self) -> Option<String> {
        self.stdout.lock().unwrap().recv_timeout(TEST_TIMEOUT).ok()
    }

    /// Returns the address in what it said when it was ready.
    pub fn address(&self) -> SocketAddr {
        self.address_behind("listening on ")
    }

    pub fn address_behind(&self, words: &str) -> SocketAddr {
        let rest = self.ready.iter().find_map(|line| line.split_once(words)).expect("an address").1;
        rest.split(',').next().unwrap().parse().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client that has said nothing yet.
    pub fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address()).expect("the server accepts"))
    }

    /// A client that has sent `bytes`.
    pub fn send(&self, bytes: &[u8]) -> Client {
        let mut client = self.connect();
        client.send(bytes);
        client
    }

    pub fn push(&self, payload: &[u8]) -> Client {
        self.send(&push(payload))
    }

    pub fn pop(&self) -> Client {
        self.send(&[0x80])
    }

    /// Pushes, and waits until it is done.
    pub fn stored(&self, payload: &[u8]) {
        assert_eq!(self.push(payload).answer(), [0x00], "push of {payload:?}");
    }

    /// Pops, and returns the payload.
    pub fn popped(&self) -> Vec<u8> {
        self.pop().item()
    }

    /// Waits until the server has dealt with all that was sent before. A push of nothing changes
    /// nothing, and is answered by a close; that of a full server says so, which is as good.
    pub fn barrier(&self) {
        self.send(&[0x00]).answer();
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Stops it, until it is sent `CONT`, and waits until it has stopped.
    pub fn suspend(&self) {
        self.signal("STOP");
        let path = format!("/proc/{}/stat", self.pid());
        let stopped = || std::fs::read_to_string(&path).unwrap().contains(") T ").then_some(());
        wait_until("the server is suspended", stopped);
    }

    /// Returns its standard error, if its command has made a pipe of that.
    pub fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("a pipe that has not been taken")
    }

    /// Returns its status if it has exited.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the server to exit.
    pub fn wait(&mut self) -> ExitStatus {
        wait_until("the server exits", || self.child.try_wait().unwrap())
    }

    /// Returns the most memory that has been resident, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM") * 1024
    }

    /// Returns the memory that is resident, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS") * 1024
    }

    /// A figure that the kernel tells of it.
    fn status(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Returns the processor time it has used.
    pub fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.pid())).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until it waits.
    pub fn wait_until_asleep(&self) {
        let asleep = || std::fs::read_to_string(format!("/proc/{}/wchan", self.pid())).unwrap().contains("poll");
        wait_until("the server waits", || asleep().then_some(()));
    }

    /// Returns how often it has gone to sleep.
    pub fn sleeps(&self) -> u64 {
        self.status("voluntary_ctxt_switches")
    }

    /// Returns how many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        self.open_descriptors().count()
    }

    /// Lets it open no more than `more` descriptors beyond those it has: the limit is on their
    /// numbers, of which the lowest free one is always the next.
    #[cfg(target_os = "linux")]
    pub fn allow_descriptors(&self, more: usize) {
        let open: Vec<u64> = self.open_descriptors().collect();
        let limit = (0..).filter(|number| !open.contains(number)).nth(more).unwrap();
        let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
        let pid = i32::try_from(self.pid()).unwrap();
        rlimit::prlimit(pid, rlimit::Resource::NOFILE, Some((limit, hard)), None).unwrap();
    }

    fn open_descriptors(&self) -> impl Iterator<Item = u64> {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the bytes of a push request, and of the response to a pop.
pub fn push(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(payload.len()).unwrap()];
    bytes.extend(payload);
    bytes
}

/// Waits for `check` to return something; for what no socket tells.
pub fn wait_until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(result) = check() {
            return result;
        }
        assert!(start.elapsed() < TEST_TIMEOUT, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// One connection to the server.
pub struct Client {
    /// Taken only when it is dropped.
    stream: Option<TcpStream>,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _guard = no_fork();
        self.stream.take();
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream().read(buffer)
    }
}

impl Client {
    pub fn new(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream: Some(stream) }
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.as_ref().unwrap()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream().write_all(bytes).expect("the server takes the request");
    }

    /// Returns all that the server sends, to the end of the stream. A reset is a failure.
    pub fn answer(&mut self) -> Vec<u8> {
        let mut answer = Vec::new();
        self.stream().read_to_end(&mut answer).expect("an orderly end of the stream");
        answer
    }

    /// Returns the payload of a pop response.
    pub fn item(&mut self) -> Vec<u8> {
        let answer = self.answer();
        let (&header, payload) = answer.split_first().expect("a pop response");
        assert_eq!(usize::from(header), payload.len(), "the header of {answer:?}");
        payload.to_vec()
    }

    /// Returns whether the server has neither answered nor closed. Only meaningful behind a barrier.
    pub fn is_waiting(&mut self) -> bool {
        self.stream().set_nonblocking(true).unwrap();
        let waiting = self.stream().peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        self.stream().set_nonblocking(false).unwrap();
        waiting
    }

    /// Ends our half of the stream.
    pub fn fin(&self) {
        self.stream().shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a reset.
    pub fn reset(self) {
        SockRef::from(self.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
