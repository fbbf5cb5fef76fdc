//! The clients in doc/clients.md, as they stand there.
#![cfg(unix)]

use std::process::{Command, Output};
use test_support::{Server, leave_out, run};

/// The clients as they are told.
const DOCUMENT: &str = include_str!("../doc/clients.md");

fn server() -> Server {
    Server::start(env!("CARGO_BIN_EXE_pollstack"), &["--max-clients", "1"])
}

/// The code of the document in a language.
fn code(language: &str) -> &'static str {
    DOCUMENT.split(&format!("```{language}\n")).nth(1).unwrap().split("```").next().unwrap()
}

/// Runs a program if there is one of that name.
fn run_if_there(program: &str, args: &[&str]) -> Option<Output> {
    if Command::new(program).arg("--version").output().is_err() {
        leave_out(&format!("{program} is not installed"));
        return None;
    }
    let mut command = Command::new(program);
    command.args(args);
    Some(run(command))
}

fn check(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.trim(), "two one busy", "{output:?}");
}

/// Lost otherwise: an evening, to a client that was copied from the document.
#[test]
fn the_python_client_works() {
    let server = server();
    let calls = format!(
        "{}\na = ('127.0.0.1', {})\npush(a, b'one')\npush(a, b'two')\nout = [pop(a).decode(), pop(a).decode()]\n\
         held = socket.create_connection(a)\nheld.sendall(b'\\x80')\n\
         try: pop(a, 10)\nexcept BlockingIOError: out.append('busy')\nprint(*out)\n",
        code("python"),
        server.address().port()
    );
    if let Some(output) = run_if_there("python3", &["-c", &calls]) {
        check(&output);
    }
}

/// Lost otherwise: the same.
#[test]
fn the_node_client_works() {
    let server = server();
    let calls = format!(
        "{}\nconst at = [{}, '127.0.0.1'];\nawait push(...at, Buffer.from('one')); await push(...at, Buffer.from('two'));\n\
         const out = [String(await pop(...at)), String(await pop(...at))];\n\
         const held = createConnection(...at); held.write(Buffer.from([0x80]));\n\
         await new Promise(done => setTimeout(done, 200));\n\
         try {{ await pop(...at); }} catch {{ out.push('busy'); }}\nheld.destroy();\nconsole.log(...out);\n",
        code("javascript"),
        server.address().port()
    );
    let file = tempfile::Builder::new().suffix(".mjs").tempfile().unwrap();
    std::fs::write(file.path(), calls).unwrap();
    if let Some(output) = run_if_there("node", &[file.path().to_str().unwrap()]) {
        check(&output);
    }
}
