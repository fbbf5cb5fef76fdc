//! The chat room behind an nginx that buffers what it passes on, as it does unless it is told not to.

use crate::room::{expect, publish, say, serve};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use test_support::browser::Browser;
use test_support::browser::tool;
use test_support::no_fork;

/// Ports to try: a free one may be taken before nginx has it.
const TRIES: usize = 10;

/// An nginx, killed when it is dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Proxy {
    fn start(nginx: &Path, server: SocketAddr) -> Proxy {
        (0..TRIES).find_map(|_| Proxy::try_start(nginx, server)).expect("nginx starts")
    }

    /// `None` if another program has the port.
    fn try_start(nginx: &Path, server: SocketAddr) -> Option<Proxy> {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        fs::write(folder.path().join("nginx.conf"), configuration(folder.path(), address, server)).unwrap();
        let mut command = Command::new(nginx);
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = {
            let _guard = no_fork();
            command.spawn().unwrap()
        };
        let mut proxy = Proxy { child, address, _folder: folder };
        loop {
            if proxy.child.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(address).is_ok() {
                return Some(proxy);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One process, all of whose files are in a folder, and nothing about buffers.
fn configuration(folder: &Path, address: SocketAddr, server: SocketAddr) -> String {
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
        .concat();
    format!(
        "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\n\
         events {{ }}\n\
         http {{ access_log off; {paths}\n\
         server {{ listen {address}; location / {{ proxy_pass http://{server}; proxy_set_header Host $http_host; }} }} }}\n",
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
    let proxy = Proxy::start(&nginx, server.address());
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
