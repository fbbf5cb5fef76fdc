//! The configuration: a directive a line.
//!
//! ```text
//! # comments begin with a number sign
//! host default www                  # who is not named below
//! host example.org /srv/example     # a path that is not absolute begins at the file's folder
//! media html text/html              # wins over the usual type of an extension
//! parameter timeout 60              # seconds
//! parameter dotfiles on             # serves names that begin with a dot, too
//! ```

use super::hosts::{Hosts, Root};
use super::media::Media;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The default path of the configuration.
const USUAL_FILE: &str = "web.conf";

/// The root that is served if there is no such file.
const USUAL: &str = "host default www";

/// How long a connection may be silent, unless the file says so: about as long as a reader stays
/// on a page.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Longer than a day is no timeout any more.
const MAX_TIMEOUT: u64 = 24 * 60 * 60;

/// The hosts that are served, and how.
#[derive(Debug)]
pub struct Config {
    pub(crate) hosts: Hosts,
    pub(crate) media: Media,
    pub(crate) timeout: Duration,
    /// Whether names that begin with a dot are served. `/.well-known/` is, in any case.
    pub(crate) dotfiles: bool,
    file: PathBuf,
}

/// The file that a configuration is read from, time and again.
#[derive(Clone, Debug)]
pub struct Source {
    /// `None` for the usual file, which may be missing.
    file: Option<PathBuf>,
    /// It has been there.
    found: Arc<AtomicBool>,
    /// How often it was to be read again.
    changes: Arc<AtomicUsize>,
}

/// A fault of a configuration, and its place.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    line: Option<usize>,
    reason: String,
}

impl Config {
    /// Returns how many folders hold what is served.
    pub fn roots(&self) -> usize {
        self.hosts.len()
    }

    /// Opens the roots.
    ///
    /// # Errors
    /// The first one that cannot be opened, and its line.
    pub fn open(mut self) -> Result<Config, ConfigError> {
        for root in self.hosts.roots() {
            root.open().map_err(|error| ConfigError {
                file: self.file.clone(),
                line: Some(root.line),
                reason: format!("the root {}: {error}", root.path.display()),
            })?;
        }
        Ok(self)
    }

    /// Parses the text of `file`.
    fn parse(text: &[u8], file: &Path) -> Result<Config, (Option<usize>, String)> {
        let base = file.parent().unwrap_or(Path::new(""));
        let mut draft =
            Draft { base, line: 0, hosts: Hosts::default(), media: Media::default(), timeout: None, dotfiles: None };
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text); // some editors begin with one
        for (n, line) in text.split(|byte| *byte == b'\n').enumerate() {
            draft.line = n + 1;
            let done = std::str::from_utf8(line).map_err(|_| "this is not UTF-8".to_owned());
            done.and_then(|line| draft.line(line)).map_err(|reason| (Some(n + 1), reason))?;
        }
        if draft.hosts.is_empty() {
            return Err((None, "it names no host; `host default PATH` would be one".to_owned()));
        }
        let (timeout, dotfiles) = (draft.timeout.unwrap_or(TIMEOUT), draft.dotfiles.unwrap_or(false));
        Ok(Config { hosts: draft.hosts, media: draft.media, timeout, dotfiles, file: file.to_owned() })
    }
}

impl Source {
    /// Reads from `file`, or from the usual one.
    pub fn new(file: Option<PathBuf>) -> Source {
        Source { file, found: Arc::default(), changes: Arc::default() }
    }

    /// Has all who read it read it again.
    pub fn change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Returns how often it was to be read again.
    pub fn changes(&self) -> usize {
        self.changes.load(Ordering::Acquire)
    }

    /// Reads the file. The roots are still to be [opened](Config::open).
    ///
    /// Without the usual file, it is as if that named the usual root. One that has been there and is gone is
    /// a fault.
    ///
    /// # Errors
    /// The fault, and its line.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let path = self.file.as_deref().unwrap_or(Path::new(USUAL_FILE));
        let error = |line, reason| ConfigError { file: path.to_owned(), line, reason };
        let needed = self.file.is_some() || self.found.load(Ordering::Relaxed);
        let text = match fs::read(path) {
            Err(missing) if missing.kind() == ErrorKind::NotFound && !needed => USUAL.as_bytes().to_vec(),
            read => {
                self.found.fetch_or(read.is_ok(), Ordering::Relaxed);
                read.map_err(|why| error(None, format!("it cannot be read: {why}")))?
            }
        };
        Config::parse(&text, path).map_err(|(line, reason)| error(line, reason))
    }
}

/// The part that has been read so far.
struct Draft<'a> {
    base: &'a Path,
    /// The number of the line that is being read.
    line: usize,
    hosts: Hosts,
    media: Media,
    timeout: Option<Duration>,
    dotfiles: Option<bool>,
}

impl Draft<'_> {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let line = without_comment(line).trim();
        if line.is_empty() {
            return Ok(());
        }
        let (directive, rest) = word(line);
        let (name, value) = word(rest);
        match directive {
            "host" | "media" | "parameter" if value.is_empty() => {
                Err(format!("`{directive}` needs a name and a value"))
            }
            "host" => self.host(name, value),
            "media" => self.media.add(name, value),
            "parameter" => self.parameter(name, value),
            _ => Err(format!("`{directive}` is no directive; there are host, media and parameter")),
        }
    }

    fn host(&mut self, name: &str, root: &str) -> Result<(), String> {
        self.hosts.add(name, Root::new(self.base.join(root), self.line))
    }

    fn parameter(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "timeout" => self.timeout(value),
            "dotfiles" => self.dotfiles(value),
            _ => Err(format!("`{name}` is no parameter; there are timeout and dotfiles")),
        }
    }

    fn dotfiles(&mut self, value: &str) -> Result<(), String> {
        let on = match value {
            "on" => true,
            "off" => false,
            _ => return Err(format!("`{value}` is neither on nor off")),
        };
        match self.dotfiles.replace(on) {
            None => Ok(()),
            Some(_) => Err("there is a line about dotfiles already".to_owned()),
        }
    }

    fn timeout(&mut self, value: &str) -> Result<(), String> {
        let seconds = value.parse().ok().filter(|seconds| (1..=MAX_TIMEOUT).contains(seconds));
        let seconds = seconds.ok_or_else(|| format!("`{value}` is no timeout; write seconds, 1 to {MAX_TIMEOUT}"))?;
        match self.timeout.replace(Duration::from_secs(seconds)) {
            None => Ok(()),
            Some(_) => Err("there is a timeout already".to_owned()),
        }
    }
}

/// A number sign at the start of a word begins a comment.
fn without_comment(line: &str) -> &str {
    let mut signs = line.match_indices('#').map(|(at, _)| at);
    let comment = signs.find(|at| line[..*at].chars().next_back().is_none_or(char::is_whitespace));
    comment.map_or(line, |at| &line[..at])
}

/// Returns the first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.reason)
    }
}

impl std::error::Error for ConfigError {}
