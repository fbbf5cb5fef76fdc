//! The rules of the house that the compiler does not know. They keep the picture in the crate's
//! documentation true.

use std::fs;
use std::path::{Path, PathBuf};

/// The code of every file under `src`, by its path there: no comments, no tests.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 15, "all files are found: {files:?}");
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
    files.iter().map(|path| (name(path), code(&fs::read_to_string(path).unwrap()))).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The files whose code contains one of `words`.
fn naming(words: &[&str]) -> Vec<String> {
    let files = sources().into_iter().filter(|(_, code)| words.iter().any(|word| code.contains(word)));
    let mut names: Vec<String> = files.map(|(name, _)| name).collect();
    names.sort();
    names
}

/// Lost otherwise: the seam that another network can be put behind.
#[test]
fn only_one_file_names_mio_and_reads_the_clock() {
    assert_eq!(naming(&[" mio::", "(mio::", "<mio::", "&mio::"]), ["net/mio.rs"]);
    // A simulated clock has to start somewhere, no matter where.
    assert_eq!(naming(&["Instant::now", "SystemTime::now"]), ["net/mio.rs", "sim.rs"]);
}

/// Lost otherwise: a protocol that can be read without the loop, and a loop without any protocol.
#[test]
fn arrows_point_one_way() {
    let forbidden = [
        ("stack/", &["crate::event_loop", "crate::connection", "crate::net", "crate::output"][..]),
        ("http", &["crate::event_loop", "crate::connection", "crate::output", "crate::stack", "Net,", "Net<", "Net;"]),
        ("event_loop", &["crate::http", "crate::stack", "crate::client", "crate::signals"]),
        ("connection.rs", &["crate::event_loop", "crate::http", "crate::stack"]),
        ("service.rs", &["crate::event_loop", "crate::http", "crate::stack"]),
        ("net", &["crate::http", "crate::stack", "crate::connection", "crate::output"]),
        ("queue.rs", &["crate::"]),
        ("deadline.rs", &["crate::"]),
        ("stack/wire.rs", &["crate::"]),
    ];
    for (name, code) in sources() {
        for (place, words) in forbidden {
            let found = words.iter().find(|word| name.starts_with(place) && code.contains(**word));
            assert_eq!(found, None, "{name} points the wrong way");
        }
    }
}

/// Lost otherwise: a server that the network cannot bring down. Indexing is by slab keys that the
/// loop has just seen; nothing else may panic.
#[test]
fn nothing_unwraps() {
    let panics =
        [".unwrap()", ".expect(\"", "panic!", "unreachable!", "todo!", "unimplemented!", "assert!(", "assert_eq!("];
    let mut found = naming(&panics);
    // The one has a debug_assert, about what services return; the other panics for tests.
    found.retain(|name| name != "event_loop/serve.rs" && name != "sim.rs");
    assert_eq!(found, [""; 0]);
}

/// Lost otherwise: files that can be read in one sitting.
#[test]
fn files_are_short() {
    let long: Vec<(String, usize)> = sources().into_iter().map(|(name, code)| (name, code.lines().count())).collect();
    let long: Vec<_> = long.into_iter().filter(|(_, lines)| *lines > 500).collect();
    assert_eq!(long, []);
}
