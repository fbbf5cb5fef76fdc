//! The chat server: its protocol rule by rule, over real sockets (`rules`), what happens when
//! a client does not read (`pressure`), and the service on a network in memory, for what must be
//! told to the byte and the nanosecond (`exact`).

mod exact;
mod pressure;
mod rules;

use chat::protocol;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use test_support::{Client, Server, TEST_TIMEOUT, command, run, wait_until};

/// A chat server on a free port.
fn start(args: &[&str]) -> Server {
    let mut all = vec!["--port", "0"];
    all.extend(args);
    Server::spawn(command(env!("CARGO_BIN_EXE_chat"), &all), 2)
}

/// A client that reads lines.
struct User(BufReader<Client>);

impl User {
    fn connect(server: &Server) -> User {
        User(BufReader::new(server.connect()))
    }

    fn client(&mut self) -> &mut Client {
        self.0.get_mut()
    }

    fn log_in(server: &Server, name: &str) -> User {
        let mut user = User::connect(server);
        user.ask(&format!("HELLO-FROM {name}"), &format!("HELLO {name}"));
        user
    }

    /// Sends a line.
    fn say(&mut self, line: impl AsRef<[u8]>) {
        self.client().send(&[line.as_ref(), b"\n"].concat());
    }

    /// The next line that the server sends.
    fn hear(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).expect("the server answers");
        assert_eq!(line.pop(), Some(b'\n'), "a whole line, not {}", line.escape_ascii());
        line
    }

    fn hears(&mut self, line: impl AsRef<[u8]>) {
        let heard = self.hear();
        assert_eq!(heard.escape_ascii().to_string(), line.as_ref().escape_ascii().to_string());
    }

    fn ask(&mut self, line: &str, answer: &str) {
        self.say(line);
        self.hears(answer);
    }

    /// Whether the stream ends here, in order.
    fn is_let_go(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("an orderly end");
        assert_eq!(rest.escape_ascii().to_string(), "", "nothing more comes");
    }
}

/// The names that a user sees.
fn list(user: &mut User) -> String {
    user.say("LIST");
    String::from_utf8(user.hear()).unwrap().strip_prefix("LIST-OK ").unwrap().to_owned()
}
