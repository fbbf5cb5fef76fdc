//! The files that are saved.

use super::*;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn saving(args: &[&str]) -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec!["--save", folder.path().to_str().unwrap()];
    all.extend(args);
    (start(&all), folder)
}

/// The contents of a folder, by name.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut files: Vec<_> = entries.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

fn named(files: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
}

/// Lost otherwise: the files. They are saved as they were sent, by the number of their connection.
#[test]
fn files_are_saved_by_number() {
    let (server, folder) = saving(&[]);
    let all_bytes: Vec<u8> = (0..=255).collect();
    let long = all_bytes.repeat(1000);
    for file in [&b""[..], &all_bytes, &long] {
        assert_eq!(upload(&server, file), file.len().to_string());
    }
    let files = named(&[("1.file", b""), ("2.file", &all_bytes), ("3.file", &long)]);
    assert!(content(folder.path()) == files, "three files as they were sent");
}

/// Lost otherwise: half files that pass for whole ones, and names that tell who failed.
#[test]
fn a_file_that_fails_holds_the_word_error() {
    let (server, folder) = saving(&["--parallel", "2"]);
    let mut part = confirmed(&server);
    part.send(&[b'x'; 100_000]);
    let mut wrong = connect(&server);
    wrong.send(b"?");
    assert_eq!(server.line(), "ERROR");
    assert!(content(folder.path()).iter().all(|(name, _)| name != "1.file"), "not before it is whole");
    part.reset();
    assert_eq!(server.line(), "ERROR");
    assert_eq!(upload(&server, b"whole"), "5");
    assert_eq!(content(folder.path()), named(&[("1.file", b"ERROR"), ("2.file", b"ERROR"), ("3.file", b"whole")]));
}

/// Lost otherwise: files that were received before the server was started again.
#[test]
fn files_that_are_there_are_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let others = ["4294967297.file", "2.file", "18446744073709551615.file"];
    others.iter().for_each(|name| fs::write(folder.path().join(name), "there").unwrap());
    fs::write(folder.path().join("note.file"), "a note").unwrap();
    let server = start(&["--save", folder.path().to_str().unwrap()]);
    assert_eq!(upload(&server, b"eight"), "5");
    fs::write(folder.path().join("4294967299.file"), "nine").unwrap(); // by another program, meanwhile
    assert_eq!(upload(&server, b"ten"), "3");
    let there: &[u8] = b"there";
    let new = [
        ("4294967298.file", &b"eight"[..]),
        ("4294967299.file", b"nine"),
        ("4294967300.file", b"ten"),
        ("note.file", b"a note"),
    ];
    let mut files: Vec<_> = others.map(|name| (name, there)).into_iter().chain(new).collect();
    files.sort();
    assert_eq!(content(folder.path()), named(&files));
}

/// Lost otherwise: the server, to the first file that does not fit. A limit on the size of files
/// stands for the full disk.
#[test]
fn a_full_disk_is_an_error_for_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let accio =
        command(env!("CARGO_BIN_EXE_accio"), &["0", "--timeout", "1h", "--save", folder.path().to_str().unwrap()]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -f 8; exec \"$0\" \"$@\""]).arg(accio.get_program());
    command.args(accio.get_args()).env_remove("RUST_LOG");
    let server = Server::spawn_on_stderr(command, 1);
    let mut client = confirmed(&server);
    client.send(&[b'x'; 5000]); // and it is silent: the server does not wait for it to be
    assert_eq!(server.line(), "ERROR");
    assert_eq!(upload(&server, b"small"), "5");
    assert_eq!(content(folder.path()), named(&[("1.file", b"ERROR"), ("2.file", b"small")]));
}

/// Lost otherwise: files, to another server that saves in the same folder.
#[test]
fn two_servers_on_one_folder_lose_nothing() {
    let (one, folder) = saving(&[]);
    let other = start(&["--save", folder.path().to_str().unwrap()]);
    for n in 0..10 {
        assert_eq!(upload(if n % 3 == 0 { &one } else { &other }, format!("file {n}").as_bytes()), "6");
    }
    let mut all: Vec<_> = content(folder.path()).into_iter().map(|(_, bytes)| bytes).collect();
    all.sort();
    assert_eq!(all, (0..10).map(|n| format!("file {n}").into_bytes()).collect::<Vec<_>>());
}

/// Lost otherwise: the next client's place, when the folder goes, and the files when it is back.
#[test]
fn a_folder_that_goes_is_an_error_for_as_long_as_it_is_gone() {
    let (server, folder) = saving(&["--timeout", "1h"]);
    assert_eq!(upload(&server, b"one"), "3");
    let moved = folder.path().with_extension("moved");
    fs::rename(folder.path(), &moved).unwrap();
    for _ in 0..2 {
        let _client = connect(&server);
        assert_eq!(server.line(), "ERROR");
    }
    fs::rename(&moved, folder.path()).unwrap();
    assert_eq!(upload(&server, b"four"), "4");
    assert_eq!(content(folder.path()), named(&[("1.file", b"one"), ("4.file", b"four")]));
}

/// Lost otherwise: files that only the server's user can read, whatever the umask says.
#[test]
fn files_have_the_usual_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let (server, folder) = saving(&[]);
    upload(&server, b"x");
    fs::write(folder.path().join("usual"), "x").unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("1.file"), mode("usual"));
}

/// Lost otherwise: a check that what came is what was sent.
#[test]
fn the_digest_is_printed_beside_the_count() {
    let server = start(&["--digest"]);
    let empty = "0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let abc = "3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(upload(&server, b""), empty);
    assert_eq!(upload(&server, b"abc"), abc);
    let mut client = confirmed(&server);
    b"abc".iter().for_each(|byte| client.send(&[*byte]));
    client.fin();
    assert_eq!(server.line(), abc);
}
