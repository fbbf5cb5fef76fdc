//! The commands for a data file that no server uses.

use pollstack::durable::{DataFile, SyncPolicy};
use pollstack::stack::wire::{Item, MAX_ITEM};
use serde_json::{Value, json};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufWriter, Write};
use std::path::Path;

type Done = Result<(), Box<dyn Error>>;

pub(crate) fn inspect(path: &Path, shown: usize) -> Done {
    let items = DataFile::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let bytes: usize = items.iter().map(|(_, item)| item.payload().len()).sum();
    let mut text = format!("items  {}\nbytes  {bytes}\nfile   {} bytes\n", items.len(), std::fs::metadata(path)?.len());
    for (n, (_, item)) in items.iter().rev().take(shown).enumerate() {
        let place = if n == 0 { "top" } else { "" };
        writeln!(text, "{place:<6} {:>3}  {}", item.payload().len(), item.payload().escape_ascii())?;
    }
    let left = items.len().saturating_sub(shown);
    if left > 0 && shown > 0 {
        writeln!(text, "       and {left} below")?;
    }
    Ok(io::stdout().write_all(text.as_bytes())?)
}

pub(crate) fn export(path: &Path) -> Done {
    let items = DataFile::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut stdout = BufWriter::new(io::stdout().lock());
    for (_, item) in &items {
        let line = match std::str::from_utf8(item.payload()) {
            Ok(text) => json!({ "text": text }),
            Err(_) => json!({ "hex": hex(item.payload()) }),
        };
        writeln!(stdout, "{line}")?;
    }
    Ok(stdout.flush()?)
}

pub(crate) fn import(path: &Path) -> Done {
    let mut items = Vec::new();
    for (n, line) in io::stdin().lock().lines().enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            items.push(item(&line).map_err(|error| format!("line {}: {error}", n + 1))?);
        }
    }
    let name = |error: String| format!("{}: {error}", path.display());
    let (mut file, kept) = DataFile::open(path, SyncPolicy::Always, usize::MAX).map_err(name)?;
    let count = items.len();
    file.append(&kept, items).map_err(name)?;
    Ok(writeln!(io::stdout(), "{count} items on top of {}", kept.len())?)
}

/// Reads a line as export prints it.
fn item(line: &str) -> Result<Item, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let bytes = match (value["text"].as_str(), value["hex"].as_str()) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(hex)) => unhex(hex).ok_or("the digits of \"hex\" are not pairs of 0 to 9, a to f")?,
        _ => return Err("write {\"text\": \"...\"} or {\"hex\": \"...\"}".to_owned()),
    };
    Item::new(&bytes).ok_or_else(|| format!("an item has 1 to {MAX_ITEM} bytes, not {}", bytes.len()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok())
        .collect()
}
