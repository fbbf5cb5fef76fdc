//! The servers, and the files that they serve.

use crate::common::{PATIENCE, Server, example};
use crate::machine::{self, Placement, ordinary, there};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The files, by name: what is measured, and a large one that takes no place on the disk.
pub(crate) const SIZES: [(&str, u64); 3] = [("1k", 1 << 10), ("100k", 100 << 10), ("10m", 10 << 20)];
pub(crate) const LARGE: (&str, u64) = ("1g", 1 << 30);

/// How many connections a server takes.
const PLACES: usize = 4096;

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

/// What is in a file.
fn content(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// A server of the files.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
}

impl Contender {
    /// Ours, and nginx if it is there.
    pub(crate) fn all(site: &Site) -> Vec<Contender> {
        [Contender::web(site), Contender::nginx(site)].into_iter().flatten().collect()
    }

    pub(crate) fn web(site: &Site) -> Option<Contender> {
        let config = site.path().join("web.conf");
        fs::write(&config, "host default www\nparameter timeout 600\n").ok()?;
        let places = PLACES.to_string();
        let config = config.to_str()?;
        let program = example("web", &["--listen", "127.0.0.1:0", "--max-clients", &places, "--config", config]);
        let server = Server::try_spawn(ordinary(&program), 1)?;
        let address = server.address();
        Some(Contender { name: "pollstack's web", server, address })
    }

    pub(crate) fn nginx(site: &Site) -> Option<Contender> {
        let Some(program) = ["nginx", "/usr/sbin/nginx"].into_iter().find(|program| there(program)) else {
            println!("left out: nginx is not installed; benches/peers/install.sh does that");
            return None;
        };
        let address = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?;
        let config = site.path().join("nginx.conf");
        fs::write(&config, nginx_config(site.path(), address)).ok()?;
        let mut command = Command::new(program);
        command.arg("-p").arg(site.path()).arg("-c").arg(&config).args(["-e", "stderr"]);
        let server = Server::try_spawn(ordinary(&command), 0)?;
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if start.elapsed() > PATIENCE {
                println!("left out: nginx does not listen");
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Contender { name: "nginx", server, address })
    }

    /// On a processor of its own.
    pub(crate) fn place(&self) {
        machine::place(&self.server, Placement::Apart);
    }

    pub(crate) fn cpu(&self) -> Duration {
        machine::cpu(self.server.pid())
    }

    /// Whether the files come as they are.
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
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /{name} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

/// As nginx is usually tuned for files; one process, and no limit to the requests of a connection.
fn nginx_config(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr error;
worker_rlimit_nofile 20000;
events {{ worker_connections {PLACES}; }}
http {{
    access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
    keepalive_timeout 600; keepalive_requests 1000000000; send_timeout 600;
    open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen {address} backlog=4096; root {folder}/www; }}
}}
"
    )
}
