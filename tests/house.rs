//! The rules of the project that the compiler does not know: imports go downwards, files are short,
//! the network cannot cause a panic, and the prose keeps to the field's words.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The document with the tables that the imports are checked against.
const MAP: &str = include_str!("../doc/architecture.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all files under `folder`, by their paths there.
fn files(folder: &str, extension: &str) -> BTreeMap<String, String> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { collect(&path, found) } else { found.push(path) }
        }
    }
    let (folder, mut found) = (root().join(folder), Vec::new());
    collect(&folder, &mut found);
    found.retain(|path| path.extension().is_some_and(|other| other == extension));
    let name = |path: &Path| path.strip_prefix(&folder).unwrap().to_str().unwrap().replace('\\', "/");
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Returns the code of every file under `folder`: no comments, no tests.
fn sources(folder: &str) -> BTreeMap<String, String> {
    let sources: BTreeMap<_, _> = files(folder, "rs").into_iter().map(|(name, text)| (name, code(&text))).collect();
    assert!(!sources.is_empty(), "files are found in {folder}");
    sources
}

fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Returns the files under `src` whose code contains one of `words`.
fn naming(words: &[&str]) -> Vec<String> {
    naming_in("src", words)
}

/// Returns the files under `folder` whose code contains one of `words`.
fn naming_in(folder: &str, words: &[&str]) -> Vec<String> {
    let found = sources(folder).into_iter().filter(|(_, code)| words.iter().any(|word| code.contains(word)));
    found.map(|(name, _)| name).collect()
}

// ---- ranks ----------------------------------------------------------------------------------------

/// Returns the rows of the table in the map under `heading`: the first cell, and the names in
/// backticks in the second.
fn table(heading: &str) -> Vec<(&'static str, Vec<&'static str>)> {
    let section = MAP.split("\n## ").find(|section| section.starts_with(heading)).expect(heading);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let rows = rows.map(|(first, rest)| {
        let cell = rest.split(" |").next().unwrap();
        (first.trim_matches('`'), cell.split('`').skip(1).step_by(2).collect())
    });
    rows.filter(|(_, names): &(_, Vec<_>)| !names.is_empty()).collect()
}

/// Returns the first segments of the paths that begin with `prefix` (`crate::`, `super::`) in the code
/// of a file, those of re-exports aside.
fn imports(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at + prefix.len()].trim_end_matches('{').rsplit([';', '}', '{']).next().unwrap();
        if before.lines().last().is_some_and(|line| is_reexport(line.trim_start()))
            || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == ':')
        {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => drop(found.insert(segment(rest))),
            Some(group) => {
                let (mut depth, mut start) = (0, true);
                for (n, c) in group.char_indices() {
                    if start && !c.is_whitespace() {
                        found.insert(segment(&group[n..]));
                        start = false;
                    }
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ => {}
                    }
                }
            }
        }
    }
    found.remove("");
    found
}

fn is_reexport(line: &str) -> bool {
    line.strip_prefix("pub").is_some_and(|rest| rest.trim_start_matches(|c| c != ' ').starts_with(" use "))
}

fn segment(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Lost otherwise: a loop that can be read from the bottom up, and a map that is true. Prints the
/// imports of every file.
#[test]
fn imports_go_down_the_ranks() {
    let rows = table("Ranks");
    let ranks: BTreeMap<&str, usize> =
        rows.iter().flat_map(|(rank, names)| names.iter().map(|name| (*name, rank.parse().expect("a rank")))).collect();
    let mut seen = BTreeSet::new();
    for (file, code) in sources("src") {
        let room = file.split(['/', '.']).next().unwrap();
        if room == "lib" {
            continue;
        }
        let rank = ranks.get(room).unwrap_or_else(|| panic!("src/{file} has no rank in doc/architecture.md"));
        seen.insert(room.to_owned());
        let mut targets = imports(&code, "crate::");
        if ["main", "cli", "commands", "data"].contains(&room) {
            targets.extend(imports(&code, "pollstack::").into_iter().filter(|name| ranks.contains_key(&**name)));
        }
        targets.remove(room);
        println!("{rank} {file}: {}", targets.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
        for target in targets {
            let below =
                ranks.get(&*target).unwrap_or_else(|| panic!("src/{file} names crate::{target}, not its module"));
            assert!(below < rank, "src/{file} (rank {rank}) imports {target} (rank {below})");
        }
    }
    let listed: BTreeSet<String> = ranks.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(listed, seen, "doc/architecture.md lists the rooms that there are");
}

/// Returns the folders whose files are modules of one crate, and more than one.
fn folders_of_modules() -> Vec<String> {
    let within = |folder: &str| {
        let all = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        all.map(|name| format!("{folder}/{}", name.to_str().unwrap())).collect::<Vec<_>>()
    };
    let packages = within("examples").into_iter().map(|package| format!("{package}/src"));
    let packages: Vec<String> = packages.filter(|package| root().join(package).join("lib.rs").is_file()).collect();
    let inner = packages.iter().map(String::as_str).chain(["src"]).flat_map(within);
    let benches = ["benches/floods", "benches/http", "benches/instrument/src"].map(str::to_owned);
    let all = inner.chain(packages.clone()).chain(benches);
    all.filter(|folder| root().join(folder).is_dir() && files(folder, "rs").len() > 1).collect()
}

/// Lost otherwise: folders without circles of files. Each row of the map's second table names the files
/// of a folder, the lowest first; `mod` is the folder's own file.
#[test]
fn imports_go_down_inside_a_folder() {
    let rows = table("Inside the folders");
    for folder in folders_of_modules() {
        assert!(rows.iter().any(|(listed, _)| *listed == folder), "{folder} has a row in doc/architecture.md");
    }
    for (folder, order) in rows {
        let rank = |name: &str| order.iter().position(|other| *other == name);
        let parent = root().join(format!("{folder}.rs"));
        let mut files = sources(folder);
        if parent.is_file() {
            files.insert("mod.rs".to_owned(), code(&fs::read_to_string(parent).unwrap()));
        }
        let is_crate = files.contains_key("main.rs");
        let module = folder.rsplit('/').next().unwrap();
        files.retain(|file, _| !["main.rs", "lib.rs"].contains(&&**file));
        for (file, code) in files {
            let name = file.split(['/', '.']).next().unwrap();
            let own = rank(name).unwrap_or_else(|| panic!("{folder}/{file} is not in doc/architecture.md"));
            let mut targets = imports(&code, "super::");
            if name == "mod" {
                targets = imports(&code, "self::");
                let modules = imports(&code, "use ").into_iter().filter(|target| rank(target).is_some());
                targets.extend(modules);
            } else if is_crate {
                targets.extend(imports(&code, "crate::"));
            } else {
                targets.extend(imports(&code, &format!("crate::{module}::")));
            }
            println!("{folder}/{file}: {}", targets.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
            for target in targets.into_iter().filter(|target| target != name && target != "super") {
                // Items of the folder's own file, or of the file itself, in a module inside it.
                let at = if target.starts_with(char::is_lowercase) { rank(&target) } else { rank("mod") };
                if let Some(at) = at.filter(|at| *at != own) {
                    assert!(at < own, "{folder}/{file} imports {target}, which is above it in doc/architecture.md");
                }
            }
        }
    }
}

/// Lost otherwise: the seam that another network can be put behind.
#[test]
fn only_listed_files_name_mio_or_read_the_clock() {
    assert_eq!(naming(&[" mio::", "(mio::", "<mio::", "&mio::"]), ["net/mio.rs", "run.rs", "signals.rs"]);
    // A simulated clock has to start somewhere; the date of responses is the wall clock's, for servers that ask
    // for it; the last wait for a reader of the log is not the loop's, nor are clients that block, nor the
    // pause between two commits of the thread that writes the data.
    let clocks = ["durable.rs", "http/clock.rs", "net/mio.rs", "sim.rs", "writer.rs"];
    let mut found = naming(&["Instant::now", "SystemTime::now"]);
    found.retain(|name| !["client.rs", "commands.rs", "engine/session.rs", "main.rs"].contains(&name.as_str()));
    assert_eq!(found, clocks);
}

// ---- code -----------------------------------------------------------------------------------------

/// Lost otherwise: a server that the network cannot bring down. Indexing is by keys that the loop has
/// just seen; nothing else may panic.
#[test]
fn nothing_unwraps() {
    let panics =
        [".unwrap()", ".expect(\"", "panic!", "unreachable!", "todo!", "unimplemented!", "assert!(", "assert_eq!("];
    let mut found = naming(&panics);
    // One has a debug_assert, about what services return; one an index, which panics as that of a slice
    // does, for services; the simulator panics for tests.
    found.retain(|name| name != "event_loop/serve.rs" && name != "conn_map.rs" && !name.starts_with("sim"));
    assert_eq!(found, [""; 0]);
    for server in ["accio", "chat", "pubsub", "web"] {
        assert_eq!(naming_in(&format!("examples/{server}/src"), &panics), [""; 0], "{server}");
    }
}

/// Lost otherwise: a package that cannot be made, or that lacks a file that was renamed.
#[test]
fn the_files_of_the_package_exist() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let assets = manifest.split("assets = [").nth(1).and_then(|rest| rest.split("\n]").next()).unwrap();
    let paths: Vec<&str> = assets.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert!(paths.len() > 4, "{paths:?}");
    for path in paths.into_iter().filter(|path| !path.starts_with("target/")) {
        let path = path.replace("*.md", "operations.md");
        assert!(root().join(&path).is_file(), "{path}");
    }
}

/// Lost otherwise: files that can be read in one sitting.
#[test]
fn files_are_short() {
    for folder in ["src", "examples", "benches/floods", "benches/http", "benches/instrument/src", "tests"] {
        for (file, text) in files(folder, "rs") {
            let lines = code(&text).lines().count();
            assert!(lines <= 550 || file.ends_with("handlers.rs"), "{folder}/{file} has {lines} lines");
        }
    }
}

// ---- words ----------------------------------------------------------------------------------------

/// Returns all code and prose of the project, apart from this file.
fn texts() -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let benches = ["floods", "http", "instrument/src", "micro", "peers/src"].map(|folder| format!("benches/{folder}"));
    for folder in ["src", "examples", "tests"].into_iter().chain(benches.iter().map(String::as_str)) {
        texts.extend(files(folder, "rs").into_iter().map(|(name, text)| (format!("{folder}/{name}"), text)));
    }
    texts.extend(files("doc", "md").into_iter().map(|(name, text)| (format!("doc/{name}"), text)));
    for name in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"] {
        texts.insert(name.to_owned(), fs::read_to_string(root().join(name)).unwrap());
    }
    texts.remove("tests/house.rs");
    texts
}

/// Lost otherwise: sentences that a stranger reads once. Connections, clients and peers are named, and
/// a sentence begins with its actor.
#[test]
fn prose_names_its_actors() {
    let mut found = Vec::new();
    for (name, text) in texts() {
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !names_its_actor(line)) {
            found.push(format!("{name}:{}: {}", n + 1, line.trim()));
        }
    }
    assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
}

fn names_its_actor(line: &str) -> bool {
    let lower = line.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_alphanumeric());
    // A user in the tests of chat is called so.
    let vague = !line.contains("SEND nobody")
        && words.any(|word| ["whoever", "somebody", "nobody", "anybody", "everybody"].contains(&word));
    let starts = ["Who ", "What "].iter().any(|word| {
        line.match_indices(word).any(|(at, _)| {
            let before = &line[..at];
            before.trim().is_empty() && before.is_empty()
                || [". ", "; ", "/// ", "//! "].iter().any(|end| before.ends_with(end))
        })
    });
    !vague && !starts
}

/// Lost otherwise: one word for one thing. These are names that were given up.
#[test]
fn old_names_stay_out() {
    let old = [
        "turned away",
        "turn_away",
        "Refusal",
        "contestant",
        "talkers",
        "tongue",
        "Wish",
        "Admission",
        "Verdict",
        "struct Newcomer",
        "LastCall",
        "stay_behind",
        "doomed",
        "patience:",
        "SHORT_MEANS_DRAINED",
        "FOREIGN_TOKENS",
        "last_taken:",
        "TooMany)",
        "with_floor",
        "rumour",
    ];
    for (file, text) in texts().into_iter().filter(|(file, _)| file != "doc/results.md") {
        let found = old.iter().find(|name| text.contains(**name));
        assert_eq!(found, None, "{file}");
    }
}
