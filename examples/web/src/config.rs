//! The configuration: a directive a line.
//!
//! ```text
//! # comments begin with a number sign
//! host default www                  # who is not named below
//! host example.org /srv/example     # a path that is not absolute begins at the file's folder
//! media html text/html              # wins over the usual type of an extension
//! parameter timeout 60              # seconds
//! ```

use super::folder::Folder;
use super::hosts::Hosts;
use super::media::Media;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
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

    /// Reads `file`, or else the usual one; without that, it is as if the usual one named the
    /// usual root.
    ///
    /// # Errors
    /// The fault, and its line.
    pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
        let path = file.unwrap_or(Path::new(USUAL_FILE));
        let error = |line, reason| ConfigError { file: path.to_owned(), line, reason };
        let text = match fs::read(path) {
            Err(missing) if missing.kind() == ErrorKind::NotFound && file.is_none() => USUAL.as_bytes().to_vec(),
            read => read.map_err(|why| error(None, format!("it cannot be read: {why}")))?,
        };
        let base = path.parent().unwrap_or(Path::new(""));
        Config::parse(&text, base).map_err(|(line, reason)| error(line, reason))
    }

    /// Parses the text of a file in the folder `base`.
    pub fn parse(text: &[u8], base: &Path) -> Result<Config, (Option<usize>, String)> {
        let mut draft = Draft { base, hosts: Hosts::default(), media: Media::default(), timeout: None };
        for (n, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let done = std::str::from_utf8(line).map_err(|_| "this is not UTF-8".to_owned());
            done.and_then(|line| draft.line(line)).map_err(|reason| (Some(n + 1), reason))?;
        }
        if draft.hosts.is_empty() {
            return Err((None, "it names no host; `host default PATH` would be one".to_owned()));
        }
        Ok(Config { hosts: draft.hosts, media: draft.media, timeout: draft.timeout.unwrap_or(TIMEOUT) })
    }
}

/// The part that has been read so far.
struct Draft<'a> {
    base: &'a Path,
    hosts: Hosts,
    media: Media,
    timeout: Option<Duration>,
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
        let path = self.base.join(root);
        let folder = Folder::open(&path).map_err(|error| format!("the root {}: {error}", path.display()))?;
        self.hosts.add(name, folder)
    }

    fn parameter(&mut self, name: &str, value: &str) -> Result<(), String> {
        if name != "timeout" {
            return Err(format!("`{name}` is no parameter; there is timeout"));
        }
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
