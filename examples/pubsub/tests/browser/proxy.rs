//! The chat room behind an nginx that buffers what it passes on, as it does unless it is told not to.

use crate::room::{expect, publish, say, serve};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use test_support::browser::Browser;
use test_support::browser::tool;
use test_support::engine::own_address;
use test_support::{spawn, wait_until};

/// An nginx, killed when it is dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Proxy {
    fn start(nginx: &Path, server: SocketAddr, location: &str) -> Proxy {
        let (folder, address) = (tempfile::tempdir().unwrap(), own_address());
        fs::write(folder.path().join("nginx.conf"), configuration(folder.path(), address, server, location)).unwrap();
        let mut command = Command::new(nginx);
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = spawn(&mut command).unwrap();
        let mut proxy = Proxy { child, address, _folder: folder };
        wait_until("nginx listens", || {
            assert_eq!(proxy.child.try_wait().unwrap(), None, "nginx starts");
            TcpStream::connect(address).ok()
        });
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One that passes on what it is asked for, and nothing about buffers.
const PLAIN: &str = "location / { proxy_pass http://127.0.0.1:8000; proxy_set_header Host $http_host; }";

/// One process, all of whose files are in a folder. `location` names the server as the README does.
fn configuration(folder: &Path, address: SocketAddr, server: SocketAddr, location: &str) -> String {
    let location = location.replace("127.0.0.1:8000", &server.to_string());
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
        .concat();
    format!(
        "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\n\
         events {{ }}\n\
         http {{ access_log off; {paths}\n\
         server {{ listen {address}; {location} }} }}\n",
        folder.display()
    )
}

/// Lost otherwise: those who put it behind a proxy, and whose readers see nothing until a buffer is
/// full.
#[test]
fn messages_come_at_once_through_a_proxy() {
    let Some(nginx) = tool(&["nginx"]) else { return };
    let Some(browser) = Browser::start() else { return };
    let server = serve(0).unwrap();
    let proxy = Proxy::start(&nginx, server.address(), PLAIN);
    // No page loses its patience here, and asks for what a stream does not bring.
    let patient = "const delayed = setTimeout; setInterval = () => 0; \
        setTimeout = (what, when, ...more) => when < 5000 ? delayed(what, when, ...more) : 0";
    let (ann, bob) = (browser.page(), browser.page());
    for page in [&ann, &bob] {
        page.before_all(patient);
        page.open(&format!("http://{}/", proxy.address));
        page.wait_for("document.querySelector('.state').textContent === 'Connected.'");
    }
    say(&ann, "hello");
    expect(&bob, &["hello"]);
    publish(server.address(), "lobby", "from behind");
    expect(&ann, &["hello", "from behind"]);
    // By the streams: no page has had to wait for a poll.
    for page in [&ann, &bob] {
        let asked = "performance.getEntriesByType('resource').some(entry => entry.name.includes('timeout=25'))";
        assert_eq!(page.value(asked), false);
    }
    // This nginx passes no upgrade on, of which browsers complain.
    let complaints: Vec<String> = browser.complaints().into_iter().filter(|text| !text.contains("handshake")).collect();
    assert_eq!(complaints, [""; 0]);
}

/// Lost otherwise: an evening, to lines of the README that do not work.
#[test]
fn the_nginx_of_the_readme_passes_everything_on() {
    let Some(nginx) = tool(&["nginx"]) else { return };
    let args = ["--listen", "127.0.0.1:0", "--allow-host", "room.example"];
    let server = test_support::Server::spawn(test_support::command(env!("CARGO_BIN_EXE_pubsub"), &args), 1);
    let readme = include_str!("../../../../README.md");
    let location = readme.split("```nginx\n").nth(1).unwrap().split("```").next().unwrap();
    let proxy = Proxy::start(&nginx, server.address(), location);
    let ask = |line: &str, fields: &str| {
        let mut stream = TcpStream::connect(proxy.address).unwrap();
        stream.set_read_timeout(Some(test_support::TEST_TIMEOUT)).unwrap();
        let origin = "Origin: https://room.example\r\nConnection: Upgrade\r\n";
        write!(stream, "{line} HTTP/1.1\r\nHost: room.example\r\n{origin}{fields}\r\n").unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(ask("GET /", ""), "200");
    assert_eq!(ask("GET /channels/lobby/ws", upgrade), "101");
    assert_eq!(ask("POST /channels/lobby", "Content-Length: 5\r\n\r\nhello"), "200");
}
