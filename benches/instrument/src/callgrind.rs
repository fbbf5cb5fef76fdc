//! The instructions of a process, by the functions of the source: what the compiler has inlined still counts for the
//! function that it was written in.

use crate::table::{Cell, Row, Table};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The functions of the C library that Rust asks for memory.
const ALLOCATE: [&str; 5] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

/// A program that runs under `callgrind`.
#[derive(Debug)]
pub struct Callgrind {
    output: NamedTempFile,
    file: String,
}

impl Callgrind {
    /// Makes the file that a run is written to.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Callgrind> {
        let output = NamedTempFile::new()?;
        let file = format!("--callgrind-out-file={}", output.path().display());
        Ok(Callgrind { output, file })
    }

    /// Returns the command that the program and its arguments follow.
    pub fn wrapper(&self) -> [&str; 6] {
        let [log, strings, positions] = OPTIONS;
        ["valgrind", "--tool=callgrind", &self.file, log, strings, positions]
    }

    /// Reads what the program has done, once it has exited. Lines of files under `root` are counted for the
    /// function they stand in, those of others for their file.
    ///
    /// # Errors
    /// The system's, if the file cannot be read.
    pub fn read(&self, root: &Path) -> io::Result<Instructions> {
        Ok(Instructions::read(&fs::read_to_string(self.output.path())?, root))
    }
}

/// The options of `callgrind` that make its file one that can be read here.
const OPTIONS: [&str; 3] = ["--log-file=/dev/null", "--compress-strings=no", "--compress-pos=no"];

/// Instructions by function, and allocations.
#[derive(Clone, Debug, Default)]
pub struct Instructions {
    by_function: BTreeMap<String, f64>,
    /// How often memory was asked for.
    allocations: f64,
}

impl Instructions {
    fn read(text: &str, root: &Path) -> Instructions {
        let (mut found, mut sources) =
            (Instructions::default(), Sources { root: root.to_owned(), files: BTreeMap::new() });
        let (mut file, mut is_call, mut allocates) = (String::new(), false, false);
        for line in text.lines() {
            if let Some(name) = ["fl=", "fi=", "fe="].iter().find_map(|key| line.strip_prefix(key)) {
                name.clone_into(&mut file);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                allocates = ALLOCATE.contains(&name);
            } else if let Some(count) = line.strip_prefix("calls=") {
                is_call = true; // the next line is of what is called, with all that it calls
                let count = count.split(' ').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
                found.allocations += if allocates { count as f64 } else { 0.0 };
            } else if line.starts_with(|c: char| c.is_ascii_digit()) {
                let mut numbers = line.split(' ').map(|number| number.parse::<u64>().unwrap_or(0));
                if let (Some(at), Some(count), false) = (numbers.next(), numbers.next(), is_call) {
                    *found.by_function.entry(sources.function(&file, at)).or_default() += count as f64;
                }
                is_call = false;
            }
        }
        found
    }

    /// Returns the sum.
    pub fn total(&self) -> f64 {
        self.by_function.values().sum()
    }

    /// Returns the difference to a shorter run of the same, for each of so many requests more.
    pub fn since(mut self, short: &Instructions, requests: usize) -> Instructions {
        for (name, count) in &short.by_function {
            *self.by_function.entry(name.clone()).or_default() -= count;
        }
        self.by_function.values_mut().for_each(|count| *count /= requests as f64);
        self.allocations = (self.allocations - short.allocations) / requests as f64;
        self
    }

    /// Returns how often memory was asked for.
    pub fn allocations(&self) -> f64 {
        self.allocations
    }

    /// Returns a table of the functions, the most expensive first, for the program `name`.
    pub fn table(&self, name: &str) -> Table {
        const SHOWN: usize = 40;
        let (all, total) = (self.by_function(), self.total());
        let what = format!(
            "{total:.0} instructions a request (callgrind), by the function of the source that they were written in, also \
             where the compiler has inlined it. Files of libraries count as one."
        );
        let columns = ["instructions a request", "% of all"];
        let mut table = Table::new(format!("{name}, instructions"), what, &columns).about("function");
        let others: f64 = all.iter().skip(SHOWN).map(|(_, count)| count).sum();
        let cells = |count| vec![Cell::Number(count, 1), Cell::Number(100.0 * count / total, 1)];
        let rows = all.into_iter().take(SHOWN).chain([("all others", others)]);
        table.rows = rows.map(|(name, count)| Row::new(name, cells(count))).collect();
        table
    }

    /// Returns the functions, the most expensive first.
    pub fn by_function(&self) -> Vec<(&str, f64)> {
        let mut all: Vec<_> = self.by_function.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        all.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        all
    }
}

/// The functions of the source files, by the lines where they begin.
struct Sources {
    root: PathBuf,
    files: BTreeMap<String, Vec<(u64, String)>>,
}

impl Sources {
    fn function(&mut self, file: &str, line: u64) -> String {
        let root = self.root.clone();
        let functions = self.files.entry(file.to_owned()).or_insert_with(|| {
            let path = Path::new(file);
            let own = if path.is_absolute() { path.starts_with(&root) } else { root.join(path).is_file() };
            let text = if own { fs::read_to_string(root.join(path)).unwrap_or_default() } else { String::new() };
            text.lines().zip(1..).filter_map(|(text, n)| Some((n, function_name(text)?.to_owned()))).collect()
        });
        let function = functions.iter().rev().find(|(begin, _)| *begin <= line);
        let short = file.strip_prefix(&format!("{}/", self.root.display())).unwrap_or(file);
        match function {
            Some((_, name)) => format!("{short}: {name}"),
            None if functions.is_empty() => short_name(short).to_owned(),
            None => short.to_owned(), // of no line, as the compiler says
        }
    }
}

/// Returns a file of a library without what is the machine's.
fn short_name(file: &str) -> &str {
    let marks = ["/library/", "/registry/src/"];
    let found = marks.iter().find_map(|mark| file.find(mark).map(|at| &file[at + mark.len()..]));
    match found {
        Some(rest) => {
            rest.split_once('/').filter(|(host, _)| host.starts_with("index.")).map_or(rest, |(_, rest)| rest)
        }
        None => file.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("unknown"),
    }
}

/// Returns the name of the function that begins on a line of Rust.
fn function_name(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let is_head = before.split_whitespace().all(|word| word.starts_with("pub") || ["const", "unsafe"].contains(&word));
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    Some(&rest[..end]).filter(|name| is_head && !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost otherwise: instructions told of the wrong function, or those of a callee counted twice.
    #[test]
    fn instructions_are_told_by_the_function_of_the_source() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.rs"), "\npub(crate) fn one<T>() {\n}\n    fn two(x: u8) {\n  fn_call()\n}\n")
            .unwrap();
        let file = root.path().join("a.rs");
        let text = format!(
            "fl={0}\nfn=one\n3 10\ncfn=malloc\ncalls=4 7\n3 999\ncfn=free\ncalls=4 7\n3 999\nfi=/rustc/abc/library/core/src/cell.rs\n7 5\nfe={0}\n5 20\n",
            file.display()
        );
        let found = Instructions::read(&text, root.path());
        assert_eq!(found.by_function(), [("a.rs: two", 20.0), ("a.rs: one", 10.0), ("core/src/cell.rs", 5.0)]);
        assert_eq!(found.allocations(), 4.0);
        assert_eq!(found.clone().since(&Instructions::default(), 5).total(), 7.0);
        let registry = "/home/x/.cargo/registry/src/index.crates.io-1/mio-1.0/src/poll.rs";
        assert_eq!(short_name(registry), "mio-1.0/src/poll.rs");
    }
}
