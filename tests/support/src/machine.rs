//! The machine: which processor runs what, and what the kernel tells of a run.

use crate::{Server, TEST_TIMEOUT};
use std::ffi::OsStr;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Where the two ends of a load run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// A processor each. The clients need more of theirs than the server of its own, which
    /// therefore sleeps, and wakes again for every request or two.
    Apart,
    /// Both on one processor, the clients first: they look every [`NAP`] what has come, and ask as
    /// often again, and the rest is the server's. So it always finds work, as a server at its
    /// limit does, whatever its clients cost.
    Limit,
}

/// How long the clients leave the processor to a server at its limit.
pub const NAP: Duration = Duration::from_micros(200);

impl Placement {
    pub fn name(self) -> &'static str {
        match self {
            Placement::Apart => "a core each",
            Placement::Limit => "at its limit",
        }
    }

    /// Returns whether this machine lets the clients go first, where they have to.
    pub fn can_be_had(self) -> bool {
        static CAN: OnceLock<bool> = OnceLock::new();
        let real_time = || Command::new("chrt").args(["-f", "1", "true"]).output().is_ok_and(|o| o.status.success());
        self == Placement::Apart || *CAN.get_or_init(|| can_pin() && real_time())
    }

    fn processor(self) -> &'static str {
        if self == Placement::Apart && processors() > 1 { "1" } else { "0" }
    }
}

/// Returns a program as an argument of another one, if there is one.
pub fn under(wrapper: &[&str], program: &Command) -> Command {
    let mut words = wrapper.iter().map(OsStr::new).chain([program.get_program()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// A program as an ordinary process that ends with this one; as it is on a machine without the
/// tools for that.
pub fn ordinary(program: &Command) -> Command {
    let mut words = Vec::new();
    if there("setpriv") {
        words.extend(["setpriv", "--pdeathsig", "KILL"]);
    }
    if can_pin() {
        words.extend(["chrt", "-o", "0"]);
    }
    let mut command = under(&words, program);
    command.stdin(Stdio::null());
    command
}

/// Puts a server, with all its threads, where it belongs.
pub fn place(server: &Server, placement: Placement) {
    place_process(server.pid(), placement);
}

pub fn place_process(pid: u32, placement: Placement) {
    if can_pin() {
        let _ = Command::new("taskset").args(["-acp", placement.processor(), &pid.to_string()]).output();
    }
}

/// Puts the calling thread, the clients, on the first processor; before all others at the limit.
pub fn place_clients(placement: Placement) {
    let Some(thread) = own_thread().filter(|_| can_pin()) else { return };
    let class = if placement == Placement::Limit { ["-f", "-p", "1"] } else { ["-o", "-p", "0"] };
    let _ = Command::new("taskset").args(["-cp", "0", &thread]).output();
    let _ = Command::new("chrt").args(class).arg(&thread).output();
}

/// Has the calling thread run as soon as it can, on the server's processor: what it measures is
/// the server, and not how long the crowd's packets keep the clients' kernel busy.
pub fn hurry() {
    if let Some(thread) = own_thread().filter(|_| can_pin()) {
        let _ = Command::new("taskset").args(["-cp", Placement::Apart.processor(), &thread]).output();
        let _ = Command::new("chrt").args(["-f", "-p", "1", &thread]).output();
    }
}

fn own_thread() -> Option<String> {
    let path = fs::read_link("/proc/thread-self").ok()?;
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Returns all there are, also those that this process keeps away from.
pub fn processors() -> usize {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|line| line.starts_with("processor")).count().max(1)
}

/// Returns whether there are `taskset` and `chrt` (util-linux).
pub fn can_pin() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| there("taskset") && there("chrt"))
}

/// Returns whether a program is installed.
pub fn there(program: &str) -> bool {
    let version = |flag| Command::new(program).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
    version("--version").is_ok_and(|status| status.success()) || version("-v").is_ok_and(|status| status.success())
}

/// Returns the processor time of all threads of a process.
pub fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let time = |path| fs::read_to_string(path).ok()?.split(' ').next()?.parse::<u64>().ok();
    Duration::from_nanos(threads.filter_map(|thread| time(thread.path().join("schedstat"))).sum())
}

/// How long a thread has run, and how long it was ready to run and had no processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub ran: Duration,
    pub waited: Duration,
}

impl Times {
    /// Those of the first thread of a process.
    pub fn of(pid: u32) -> Times {
        Times::read(&format!("/proc/{pid}/schedstat"))
    }

    /// Those of the calling thread.
    pub fn own() -> Times {
        Times::read("/proc/thread-self/schedstat")
    }

    fn read(path: &str) -> Times {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|n| Duration::from_nanos(n.parse().unwrap_or(0)));
        Times { ran: numbers.next().unwrap_or_default(), waited: numbers.next().unwrap_or_default() }
    }

    /// Returns what has been added since `before`.
    pub fn since(self, before: Times) -> Times {
        Times { ran: self.ran.saturating_sub(before.ran), waited: self.waited.saturating_sub(before.waited) }
    }
}

/// The description of the machine.
pub fn describe() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!("{} x {model}, Linux {}", processors(), kernel.trim());
    if !can_pin() {
        text += ", nothing pinned (taskset and chrt are not installed)";
    }
    if !Placement::Limit.can_be_had() {
        text += ", no server at its limit (chrt may not make the clients a real-time thread)";
    }
    text
}

/// Counters of the kernel that must not move: connections that it dropped or reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Void([u64; 3]);

impl Void {
    pub const NAMES: [&'static str; 3] = ["ListenOverflows", "ListenDrops", "TCPAbortOnClose"];

    pub fn read() -> Void {
        Void(Void::NAMES.map(|name| counter("/proc/net/netstat", "TcpExt:", name)))
    }

    /// Adds what has happened since `before`.
    pub fn add_since(&mut self, before: Void) {
        let now = Void::read();
        (0..3).for_each(|n| self.0[n] += now.0[n] - before.0[n]);
    }

    /// The figures that have moved; empty if none has.
    pub fn moved(&self) -> String {
        let moved = Void::NAMES.iter().zip(self.0).filter(|(_, count)| *count > 0);
        moved.map(|(name, count)| format!("{name} +{count}")).collect::<Vec<_>>().join(" ")
    }
}

/// TCP segments that this machine has sent, to itself or to others.
pub fn segments_sent() -> u64 {
    counter("/proc/net/snmp", "Tcp:", "OutSegs")
}

/// A counter of the kernel: a line of names, and a line of values below.
fn counter(path: &str, protocol: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut rows = text.lines().filter(|line| line.starts_with(protocol)).map(|line| line.split(' '));
    let column = rows.next().and_then(|mut names| names.position(|column| column == name));
    column.and_then(|column| rows.next()?.nth(column)?.parse().ok()).unwrap_or(0)
}

/// A strace that counts the calls of a process.
pub struct Strace {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Strace {
    /// `None` where there is no strace, or where it may not do that.
    pub fn attach(pid: u32) -> Option<Strace> {
        let output = tempfile::NamedTempFile::new().expect("a file");
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(output.path()).args(["-p", &pid.to_string()]).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let traced = || fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| !s.contains("TracerPid:\t0\n"));
        let start = Instant::now();
        while !traced() {
            if child.try_wait().ok()?.is_some() || start.elapsed() > TEST_TIMEOUT {
                let _ = child.kill();
                return None; // it is not allowed to, for example
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Strace { child, output })
    }

    /// Returns the calls by name, most frequent first.
    pub fn stop(mut self) -> Calls {
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
        let text = fs::read_to_string(self.output.path()).unwrap_or_default();
        let rows = text.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()));
        let mut calls: Vec<(String, usize)> = rows
            .filter_map(|row| {
                let columns: Vec<&str> = row.split_whitespace().collect();
                Some(((*columns.last()?).to_owned(), columns.get(3)?.parse().ok()?))
            })
            .filter(|(name, _)| name != "total")
            .collect();
        calls.sort_by_key(|(_, count)| usize::MAX - count);
        Calls(calls)
    }
}

/// System calls by name.
#[derive(Clone, Debug)]
pub struct Calls(pub Vec<(String, usize)>);

impl Calls {
    pub fn total(&self) -> usize {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Returns the calls for each of so many requests.
    pub fn list(&self, requests: f64) -> String {
        let each = |count: usize| count as f64 / requests;
        let shown = self.0.iter().filter(|(_, count)| each(*count) >= 0.0005);
        shown.map(|(name, count)| format!("{name} {:.3}", each(*count))).collect::<Vec<_>>().join(", ")
    }
}
