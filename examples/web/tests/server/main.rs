//! The web server over real sockets: what is answered to whom (`rules`), that nothing outside a root
//! can be had (`outside`), conditions and ranges against a model (`parts`), what has been compressed
//! before (`codings`), its configuration (`config`), that files may change (`changes`), and many
//! clients, slow ones, and silent ones (`crowds`); https (`secure`).

mod changes;
mod codings;
mod config;
mod crowds;
mod outside;
mod parts;
mod rules;
mod secure;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use test_support::replies::{Response, one, replies};
use test_support::{Client, Server, SettableClock, TEST_TIMEOUT, command, run, wait_until};

/// When the files that a site begins with were changed last.
const MODIFIED: u64 = 784_111_777;
const MODIFIED_DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A text that no client may ever see.
const SECRET: &str = "the secret";

/// A server, and a folder of its own: `www` with files, `web.conf`, and a secret beside them.
struct Site {
    folder: tempfile::TempDir,
    server: Server,
}

/// A folder as a site has it, without a server.
fn layout(config: &str, files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("www")).unwrap();
    fs::write(folder.path().join("secret.txt"), SECRET).unwrap();
    fs::write(folder.path().join("web.conf"), config).unwrap();
    for (name, content) in files {
        write(&folder.path().join("www").join(name), content);
    }
    folder
}

/// Writes a file that is old.
fn write(path: &std::path::Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    set_modified(path, UNIX_EPOCH + Duration::from_secs(MODIFIED));
}

fn set_modified(path: &std::path::Path, time: SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// The command of a server for a folder.
fn in_folder(folder: &tempfile::TempDir, args: &[&str]) -> Command {
    let config = folder.path().join("web.conf");
    let mut all = vec!["--listen", "127.0.0.1:0", "--config", config.to_str().unwrap()];
    all.extend(args);
    command(env!("CARGO_BIN_EXE_web"), &all)
}

impl Site {
    /// A server of `files` for every host.
    fn new(files: &[(&str, &[u8])]) -> Site {
        Site::with("host default www\n", files)
    }

    fn with(config: &str, files: &[(&str, &[u8])]) -> Site {
        let folder = layout(config, files);
        let server = Server::spawn(in_folder(&folder, &[]), 1);
        Site { folder, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("www").join(name)
    }

    /// The reply to one request.
    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        let mut client = self.server.send(&request(method, target, headers));
        let reply = one(&client.answer(), method);
        assert!(reply.closes(), "as it was asked to");
        reply
    }

    fn get(&self, target: &str) -> Response {
        self.ask("GET", target, &[])
    }

    fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        self.ask("GET", target, headers)
    }
}

/// A request behind which the connection ends.
fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let host = if headers.iter().any(|(name, _)| *name == "Host") { "" } else { "Host: any.example\r\n" };
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{fields}\r\n").into_bytes()
}
