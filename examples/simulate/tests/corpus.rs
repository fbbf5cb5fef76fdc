//! Everything that fuzzing has found worth keeping, replayed. See `simulate::oracles` for what has to
//! hold, and `doc/testing.md` for how to look for more.

use simulate::oracles;
use std::fs;
use std::path::Path;

fn replay(name: &str, oracle: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 10, "a corpus in {}", folder.display());
    for path in files {
        println!("{}", path.display());
        oracle(&fs::read(path).unwrap());
    }
}

/// Lost otherwise: clients whose requests the network cuts in an unforeseen way.
#[test]
fn the_stack_server_answers_the_same_to_all_pieces() {
    replay("stack", oracles::stack);
}

/// Lost otherwise: the same, for users who chat.
#[test]
fn the_chat_server_answers_the_same_to_all_pieces() {
    replay("chat", oracles::chat);
}

/// Lost otherwise: the same, for files.
#[test]
fn the_accio_server_counts_the_same_in_all_pieces() {
    replay("accio", oracles::accio);
}

/// Lost otherwise: the same, for requests of HTTP. Were it to fail, a proxy in front could be made to
/// see other requests than the server does.
#[test]
fn an_http_server_understands_the_same_in_all_pieces() {
    replay("http", oracles::http);
}
