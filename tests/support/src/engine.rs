//! A redis-server, for tests of what is in an engine. They are left out where none is installed, and say so, unless
//! `TOOLS=required` is in the environment.

use crate::{Server, TEST_TIMEOUT, leave_out, tls_file, wait_until};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CONFIG: &str = include_str!("../../../packaging/redis.conf");

/// A redis-server with a folder of its own, in which it keeps what it has over a [restart](Redis::restart); killed
/// when dropped.
pub struct Redis {
    child: Child,
    address: SocketAddr,
    tls: Option<SocketAddr>,
    args: Vec<String>,
    folder: TempDir,
}

impl Redis {
    /// Starts one that syncs each write, with these arguments besides.
    pub fn start(args: &[&str]) -> Option<Redis> {
        Redis::start_at(own_address(), None, args)
    }

    /// Starts one that has a port for TLS, too, as `packaging/redis.conf` says: with the certificate of the tests, for
    /// `localhost` and 127.0.0.1, and for clients that show `client.pem`. It is at 127.0.0.2, too, for which that does
    /// not hold.
    pub fn encrypted() -> Option<Redis> {
        let [plain, tls] = own_ports();
        let port = tls.port().to_string();
        let values = [
            ("6379", port),
            ("/etc/redis/cert.pem", tls_file("cert.pem")),
            ("/etc/redis/key.pem", tls_file("key.pem")),
            ("/etc/redis/clients.pem", tls_file("client.pem")),
        ];
        let lines = CONFIG.lines().filter_map(|line| line.strip_prefix("#tls-"));
        let lines = values.iter().fold(lines.collect::<Vec<_>>().join("\n"), |text, (from, to)| text.replace(from, to));
        let options = lines.lines().map(|line| format!("--tls-{line}"));
        let mut args: Vec<String> = ["--bind", "127.0.0.1", "127.0.0.2"].map(str::to_owned).into();
        args.extend(options.flat_map(|option| option.split(' ').map(str::to_owned).collect::<Vec<_>>()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Redis::start_at(plain, Some(tls), &args)
    }

    fn start_at(address: SocketAddr, tls: Option<SocketAddr>, args: &[&str]) -> Option<Redis> {
        let folder = tempfile::tempdir().unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let child = required("redis-server", start(address, &args, &folder))?;
        let redis = Redis { child, address, tls, args, folder };
        redis.wait();
        Some(redis)
    }

    /// Starts one as `packaging/redis.conf` says.
    pub fn recommended() -> Option<Redis> {
        let lines = CONFIG.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let words = lines.flat_map(|line| format!("--{line}").split(' ').map(str::to_owned).collect::<Vec<_>>());
        let words: Vec<String> = words.map(|word| word.trim_matches('"').to_owned()).collect();
        Redis::start(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address of the port for TLS.
    pub fn tls_address(&self) -> SocketAddr {
        self.tls.expect("it is encrypted")
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, with what it had.
    pub fn restart(&mut self) {
        self.kill();
        self.child = start(self.address, &self.args, &self.folder).unwrap();
        self.wait();
    }

    /// Sends it a signal, as `STOP`.
    pub fn signal(&self, name: &str) {
        crate::signal(self.child.id(), name);
    }

    /// Runs a command, and returns what it says, as it says it.
    pub fn ask(&self, words: &[&str]) -> String {
        ask(self.address, words).unwrap()
    }

    fn wait(&self) {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while !ask(self.address, &["PING"]).is_ok_and(|answer| !answer.starts_with("-LOADING")) {
            assert!(Instant::now() < deadline, "redis-server is not ready");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts haproxy as `packaging/haproxy.cfg` says, in front of these servers.
pub fn haproxy(servers: &[SocketAddr]) -> Option<Server> {
    required("haproxy", Command::new("haproxy").arg("-v").stdout(Stdio::null()).status())?;
    let (address, folder) = (own_address().to_string(), tempfile::tempdir().unwrap());
    let config = include_str!("../../../packaging/haproxy.cfg").replace("0.0.0.0:8080", &address);
    let config = config.lines().filter(|line| !line.contains(" server ")).map(|line| format!("{line}\n"));
    let servers = servers.iter().enumerate().map(|(n, server)| format!("    server n{n} {server}\n"));
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, config.chain(servers).collect::<String>()).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo \"listening on $0\"; exec haproxy -db -q -f \"$1\"", &address]).arg(&file);
    let haproxy = Server::spawn(command, 1);
    wait_until("haproxy listens", || TcpStream::connect(haproxy.address()).ok());
    Some(haproxy)
}

/// Leaves the test out if a program is not there, or fails.
fn required<T>(name: &str, started: io::Result<T>) -> Option<T> {
    started.map_err(|error| leave_out(&format!("{name}: {error}"))).ok()
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns an address that no other server takes while this one is being started again: the loopback network has
/// millions.
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 1 + high % 250, low, NEXT.fetch_add(1, Ordering::Relaxed)], 24379))
}

/// Returns two free ports of 127.0.0.1, which the system gives no client, nor a listener that asks for any.
fn own_ports() -> [SocketAddr; 2] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() as u16 % 500 * 16;
    std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed))
        .map(|n| 10_000 + first.wrapping_add(n) % 8000 * 2)
        .map(|port| [port, port + 1].map(|port| SocketAddr::from(([127, 0, 0, 1], port))))
        .find(|ports| ports.iter().all(|address| TcpListener::bind(address).is_ok()))
        .expect("some are free")
}

fn start(address: SocketAddr, args: &[String], folder: &TempDir) -> io::Result<Child> {
    let mut redis = Command::new("redis-server");
    redis.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
    redis.args(["--protected-mode", "no", "--save", "", "--appendonly", "yes"]);
    redis.args(["--appendfsync", "always", "--dir"]).arg(folder.path()).args(args);
    crate::spawn(redis.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

fn ask(address: SocketAddr, words: &[&str]) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    let strings: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    write!(stream, "*{}\r\n{strings}*1\r\n$4\r\nQUIT\r\n", words.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
