//! The servers, and the files that they serve.

use crate::baseline;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_support::machine::{self, Placement, Strace, ordinary, there};
use test_support::{Server, TEST_TIMEOUT, build, command, wait_until};

/// The files, by name: what is measured, and a large one that takes no place on the disk.
pub(crate) const SIZES: [(&str, u64); 3] = [("1k", 1 << 10), ("100k", 100 << 10), ("10m", 10 << 20)];
pub(crate) const LARGE: (&str, u64) = ("1g", 1 << 30);

/// How many connections a server takes; of files, each with one that is open.
const PLACES: usize = 12_000;
const FILE_PLACES: usize = 4096;

/// A folder with files.
pub(crate) struct Site {
    folder: TempDir,
}

impl Site {
    pub(crate) fn new() -> io::Result<Site> {
        let folder = tempfile::Builder::new().prefix("http-bench").tempdir()?;
        let www = folder.path().join("www");
        fs::create_dir(&www)?;
        for (name, len) in SIZES {
            fs::write(www.join(name), content(len))?;
        }
        fs::File::create(www.join(LARGE.0))?.set_len(LARGE.1)?;
        Ok(Site { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The content of a file.
fn content(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// A server.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    server: Server,
    /// The process that serves.
    pid: u32,
    pub(crate) address: SocketAddr,
}

impl Contender {
    pub(crate) const PUBSUB: &str = "pollstack's pubsub";

    /// Servers of the files: ours, and nginx if it is there.
    pub(crate) fn of_files(site: &Site) -> Vec<Contender> {
        [Contender::web(site), Contender::nginx(site)].into_iter().flatten().collect()
    }

    pub(crate) fn web(site: &Site) -> Option<Contender> {
        let config = site.path().join("web.conf");
        fs::write(&config, "host default www\nparameter timeout 600\n").ok()?;
        let places = FILE_PLACES.to_string();
        let config = config.to_str()?;
        let program =
            command(build("--bin", "web"), &["--listen", "127.0.0.1:0", "--max-clients", &places, "--config", config]);
        Contender::that_tells("pollstack's web", &program)
    }

    pub(crate) fn pubsub() -> Option<Contender> {
        let places = PLACES.to_string();
        let program = command(build("--bin", "pubsub"), &["--listen", "127.0.0.1:0", "--max-subscribers", &places]);
        Contender::that_tells(Contender::PUBSUB, &program)
    }

    /// The least that a message to many costs.
    pub(crate) fn baseline() -> Option<Contender> {
        Contender::that_tells("baseline: a bare loop of sends", &baseline::command().ok()?)
    }

    pub(crate) fn node() -> Option<Contender> {
        if !there("node") {
            println!("left out: Node is not installed; benches/peers/install.sh does that");
            return None;
        }
        let mut program = Command::new("node");
        program.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/node/fanout.mjs")).arg("127.0.0.1:0");
        Contender::that_tells("Node", &program)
    }

    pub(crate) fn nginx(site: &Site) -> Option<Contender> {
        Contender::start_nginx(
            "nginx",
            site,
            "",
            "open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;",
            "",
        )
    }

    pub(crate) fn nchan(site: &Site) -> Option<Contender> {
        let module = "/usr/lib/nginx/modules/ngx_nchan_module.so";
        if !Path::new(module).exists() {
            println!("left out: nchan is not installed; benches/peers/install.sh does that");
            return None;
        }
        Contender::start_nginx(
            "nginx with nchan",
            site,
            &format!("load_module {module};"),
            "nchan_max_reserved_memory 256M;",
            "location ~ ^/channels/(\\w+)/events$ { nchan_subscriber eventsource; nchan_channel_id $1; \
             nchan_subscriber_first_message newest; }
             location ~ ^/channels/(\\w+)$ { nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 256; }",
        )
    }

    /// One that says where it listens.
    fn that_tells(name: &'static str, program: &Command) -> Option<Contender> {
        let Some(server) = Server::try_spawn(ordinary(program), 1) else {
            println!("left out: {name} does not start");
            return None;
        };
        let (pid, address) = (server.pid(), server.address());
        Some(Contender { name, server, pid, address })
    }

    fn start_nginx(name: &'static str, site: &Site, main: &str, http: &str, server: &str) -> Option<Contender> {
        let Some(program) = ["nginx", "/usr/sbin/nginx"].into_iter().find(|program| there(program)) else {
            println!("left out: nginx is not installed; benches/peers/install.sh does that");
            return None;
        };
        let address = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?;
        let config = site.path().join("nginx.conf");
        fs::write(&config, nginx_config(site.path(), address, main, http, server)).ok()?;
        // If this program is killed, the master has to be asked to end: it takes the worker with it.
        let mut command = Command::new(if there("setpriv") { "setpriv" } else { program });
        if there("setpriv") {
            command.args(["--pdeathsig", "TERM", program]);
        }
        command.arg("-p").arg(site.path()).arg("-c").arg(&config).args(["-e", "stderr"]);
        let server = Server::try_spawn(command, 0)?;
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if start.elapsed() > TEST_TIMEOUT {
                println!("left out: {name} does not listen");
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let master = server.pid();
        let pid = wait_until("nginx has a worker", || {
            let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        });
        Some(Contender { name, server, pid, address })
    }

    /// On a processor of its own.
    pub(crate) fn place(&self) {
        machine::place_process(self.pid, Placement::Apart);
    }

    pub(crate) fn cpu(&self) -> Duration {
        machine::cpu(self.pid)
    }

    /// Resident bytes.
    pub(crate) fn memory(&self) -> u64 {
        process_memory(self.pid, "VmRSS")
    }

    pub(crate) fn peak_memory(&self) -> u64 {
        process_memory(self.pid, "VmHWM")
    }

    /// Its system calls, from here on.
    pub(crate) fn trace(&self) -> Option<Strace> {
        Strace::attach(self.pid)
    }

    /// Returns whether the files come as they are.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (name, len) in SIZES {
            let reply = get(self.address, name).map_err(|error| format!("{}: {error}", self.name))?;
            let body = reply.windows(4).position(|end| end == b"\r\n\r\n").map(|end| &reply[end + 4..]);
            if body != Some(&content(len)) {
                return Err(format!("{}: /{name} is not what it should be", self.name));
            }
        }
        Ok(())
    }
}

fn get(address: SocketAddr, name: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    write!(stream, "GET /{name} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

impl Drop for Contender {
    fn drop(&mut self) {
        if self.pid != self.server.pid() {
            self.server.signal("TERM");
            self.server.wait(); // a worker without its master would stay
        }
    }
}

/// As nginx is usually tuned; one worker, and no limit to the requests of a connection.
fn nginx_config(folder: &Path, address: SocketAddr, main: &str, http: &str, server: &str) -> String {
    let folder = folder.display();
    format!(
        "{main}
daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log stderr error;
worker_rlimit_nofile 20000;
events {{ worker_connections {PLACES}; }}
http {{
    access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
    keepalive_timeout 600; keepalive_requests 1000000000; send_timeout 600;
    {http}
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen {address} backlog=4096; root {folder}/www; {server} }}
}}
"
    )
}

/// A line of `/proc/PID/status`, in bytes.
fn process_memory(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
