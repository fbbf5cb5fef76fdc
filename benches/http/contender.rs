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
use test_support::{Server, TEST_TIMEOUT, build, command, example, tls_file, wait_until};

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

/// Returns the order in which so many have their turns: there and back (A B B A), so that what changes slowly hits all
/// of them alike.
pub(crate) fn order(count: usize, turn: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if turn % 2 == 1 {
        order.reverse();
    }
    order
}

/// The content of a file.
pub(crate) fn content(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// A server.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    server: Server,
    /// The processes that serve.
    pids: Vec<u32>,
    pub(crate) scheme: &'static str,
    pub(crate) address: SocketAddr,
    /// How it is started, if it tells where it listens.
    program: Option<Command>,
    /// The server behind a proxy.
    _upstream: Option<Box<Contender>>,
}

/// A configuration of nginx that is not the usual one.
#[derive(Clone, Copy, Default)]
struct Nginx<'a> {
    /// Directives of the whole, of HTTP, and of the server.
    main: &'a str,
    http: &'a str,
    server: &'a str,
    /// Options of the listener.
    listen: &'a str,
    /// More workers than one.
    more_workers: usize,
}

const NGINX_CACHE: &str = "open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;";

impl Contender {
    pub(crate) const PUBSUB: &str = "pollstack's pubsub";

    pub(crate) fn web(site: &Site) -> Option<Contender> {
        Contender::start_web("pollstack's web", site, &["--listen", "127.0.0.1:0"])
    }

    /// Over TLS.
    pub(crate) fn secure_web(site: &Site) -> Option<Contender> {
        let (cert, key) = (tls_file("cert.pem"), tls_file("key.pem"));
        let options = ["--tls-listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key];
        Contender::start_web("pollstack's web", site, &options).map(Contender::secure)
    }

    /// With two workers.
    pub(crate) fn web_workers(site: &Site) -> Option<Contender> {
        Contender::start_web("pollstack's web", site, &["--listen", "127.0.0.1:0", "--workers", "2"])
    }

    fn start_web(name: &'static str, site: &Site, options: &[&str]) -> Option<Contender> {
        let config = site.path().join("web.conf");
        fs::write(&config, "host default www\nparameter timeout 600\n").ok()?;
        let places = FILE_PLACES.to_string();
        let common = ["--max-clients", &places, "--config", config.to_str()?];
        Contender::that_tells(name, command(build("--bin", "web"), &[options, &common].concat()))
    }

    /// A proxy before our web server.
    pub(crate) fn before_web(site: &Site, proxy: impl FnOnce(SocketAddr) -> Option<Contender>) -> Option<Contender> {
        let web = Contender::web(site)?;
        let mut proxy = proxy(web.address)?;
        proxy._upstream = Some(Box::new(web));
        Some(proxy)
    }

    /// A proxy of TCP before a server.
    pub(crate) fn proxy(upstream: SocketAddr) -> Option<Contender> {
        let program = example("proxy", &["127.0.0.1:0", &upstream.to_string()]);
        Contender::that_tells("pollstack's proxy", program)
    }

    /// The same, with an option.
    pub(crate) fn haproxy(site: &Site, upstream: SocketAddr, name: &'static str, option: &str) -> Option<Contender> {
        let address = free()?;
        let config = format!(
            "global\n maxconn 4000\n nbthread 1\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n \
             timeout server 60s\n {option}\nlisten bench\n bind {address}\n server upstream {upstream}\n"
        );
        let file = site.path().join(format!("{address}.cfg"));
        fs::write(&file, config).ok()?;
        let program = ["haproxy", "/usr/sbin/haproxy"].into_iter().find(|program| there(program));
        let Some(program) = program else {
            println!("left out: haproxy is not installed; benches/peers/install.sh does that");
            return None;
        };
        let mut command = Command::new(program);
        command.args(["-db", "-q", "-f"]).arg(file);
        let server = Server::try_spawn(ordinary(&command), 0)?;
        listens(name, address).then(|| Contender::new(name, server, address))
    }

    fn secure(mut self) -> Contender {
        self.scheme = "https";
        self
    }

    fn new(name: &'static str, server: Server, address: SocketAddr) -> Contender {
        Contender { name, pids: vec![server.pid()], server, scheme: "http", address, program: None, _upstream: None }
    }

    pub(crate) fn pubsub() -> Option<Contender> {
        let places = PLACES.to_string();
        let program = command(build("--bin", "pubsub"), &["--listen", "127.0.0.1:0", "--max-subscribers", &places]);
        Contender::that_tells(Contender::PUBSUB, program)
    }

    /// The least that a message to many costs.
    pub(crate) fn baseline() -> Option<Contender> {
        Contender::that_tells("baseline: a bare loop of sends", baseline::command().ok()?)
    }

    pub(crate) fn node() -> Option<Contender> {
        if !there("node") {
            println!("left out: Node is not installed; benches/peers/install.sh does that");
            return None;
        }
        let mut program = Command::new("node");
        program.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/node/fanout.mjs")).arg("127.0.0.1:0");
        Contender::that_tells("Node", program)
    }

    pub(crate) fn nginx(site: &Site) -> Option<Contender> {
        Contender::start_nginx("nginx", site, Nginx { http: NGINX_CACHE, ..Nginx::default() })
    }

    /// Over TLS; it resumes sessions, or not.
    pub(crate) fn secure_nginx(site: &Site, resumes: bool) -> Option<Contender> {
        let tickets = if resumes { "on" } else { "off" };
        let (cert, key) = (tls_file("cert.pem"), tls_file("key.pem"));
        let server = format!(
            "ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3; \
             ssl_session_tickets {tickets};"
        );
        let setup = Nginx { http: NGINX_CACHE, server: &server, listen: "ssl", ..Nginx::default() };
        Contender::start_nginx("nginx", site, setup).map(Contender::secure)
    }

    /// With two workers.
    pub(crate) fn nginx_workers(site: &Site) -> Option<Contender> {
        let setup = Nginx { http: NGINX_CACHE, listen: "reuseport", more_workers: 1, ..Nginx::default() };
        Contender::start_nginx("nginx", site, setup)
    }

    pub(crate) fn nchan(site: &Site) -> Option<Contender> {
        let module = "/usr/lib/nginx/modules/ngx_nchan_module.so";
        if !Path::new(module).exists() {
            println!("left out: nchan is not installed; benches/peers/install.sh does that");
            return None;
        }
        let setup = Nginx {
            main: &format!("load_module {module};"),
            http: "nchan_max_reserved_memory 256M;",
            server: "location ~ ^/channels/(\\w+)/events$ { nchan_subscriber eventsource; nchan_channel_id $1; \
                 nchan_subscriber_first_message newest; }
                 location ~ ^/channels/(\\w+)$ { nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 256; }",
            ..Nginx::default()
        };
        Contender::start_nginx("nginx with nchan", site, setup)
    }

    /// One that says where it listens.
    fn that_tells(name: &'static str, program: Command) -> Option<Contender> {
        let Some(server) = Server::try_spawn(ordinary(&program), 1) else {
            println!("left out: {name} does not start");
            return None;
        };
        let address = server.address();
        let mut contender = Contender::new(name, server, address);
        contender.program = Some(program);
        Some(contender)
    }

    /// Has it do something anew, as an argument of another program, and ends it.
    pub(crate) fn once_under<R>(&mut self, wrapper: &[&str], load: impl FnOnce(&Contender) -> R) -> Option<R> {
        let program = machine::under(wrapper, self.program.as_ref()?);
        self.server = Server::try_spawn(ordinary(&program), 1)?;
        (self.address, self.pids) = (self.server.address(), vec![self.server.pid()]);
        let done = load(self);
        self.server.signal("TERM");
        self.server.wait();
        Some(done)
    }

    fn start_nginx(name: &'static str, site: &Site, setup: Nginx<'_>) -> Option<Contender> {
        let Some(program) = ["nginx", "/usr/sbin/nginx"].into_iter().find(|program| there(program)) else {
            println!("left out: nginx is not installed; benches/peers/install.sh does that");
            return None;
        };
        let address = free()?;
        let config = site.path().join("nginx.conf");
        fs::write(&config, nginx_config(site.path(), address, setup)).ok()?;
        // If this program is killed, the master has to be asked to end: it takes the workers with it.
        let mut command = Command::new(if there("setpriv") { "setpriv" } else { program });
        if there("setpriv") {
            command.args(["--pdeathsig", "TERM", program]);
        }
        command.arg("-p").arg(site.path()).arg("-c").arg(&config).args(["-e", "stderr"]);
        let server = Server::try_spawn(command, 0)?;
        if !listens(name, address) {
            return None;
        }
        let master = server.pid();
        let pids = wait_until("nginx has its workers", || {
            let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).ok()?;
            let pids: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
            (pids.len() == 1 + setup.more_workers).then_some(pids)
        });
        let mut nginx = Contender::new(name, server, address);
        nginx.pids = pids;
        Some(nginx)
    }

    /// On a processor of its own.
    pub(crate) fn place(&self) {
        // Several are to have all processors.
        if let [pid] = self.pids[..] {
            machine::place_process(pid, Placement::Apart);
        }
    }

    /// The first process that serves.
    pub(crate) fn pid(&self) -> u32 {
        self.pids[0]
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.pids.iter().map(|pid| machine::cpu(*pid)).sum()
    }

    /// Resident bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.pids.iter().map(|pid| process_memory(*pid, "VmRSS")).sum()
    }

    pub(crate) fn peak_memory(&self) -> u64 {
        self.pids.iter().map(|pid| process_memory(*pid, "VmHWM")).sum()
    }

    /// Its system calls, from here on.
    pub(crate) fn trace(&self) -> Option<Strace> {
        if let [pid] = self.pids[..] { Strace::attach(pid) } else { None }
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
        if !self.pids.contains(&self.server.pid()) {
            self.server.signal("TERM");
            self.server.wait(); // a worker without its master would stay
        }
    }
}

/// Returns an address that is free.
fn free() -> Option<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()
}

/// Waits until somewhere is listened.
fn listens(name: &str, address: SocketAddr) -> bool {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        if start.elapsed() > TEST_TIMEOUT {
            println!("left out: {name} does not listen");
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// As nginx is usually tuned; no limit to the requests of a connection.
fn nginx_config(folder: &Path, address: SocketAddr, setup: Nginx<'_>) -> String {
    let (folder, workers) = (folder.display(), 1 + setup.more_workers);
    let Nginx { main, http, server, listen, .. } = setup;
    format!(
        "{main}
daemon off; user root; worker_processes {workers}; pid {folder}/nginx.pid; error_log stderr error;
worker_rlimit_nofile 20000;
events {{ worker_connections {PLACES}; }}
http {{
    access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
    keepalive_timeout 600; keepalive_requests 1000000000; send_timeout 600;
    {http}
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen {address} backlog=4096 {listen}; root {folder}/www; {server} }}
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
