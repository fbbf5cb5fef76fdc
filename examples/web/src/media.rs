//! Media types, by the extension of a file's name.

use super::variant::is_utf8;
use std::collections::HashMap;
use std::fs::File;
use std::rc::Rc;

/// The type of a file with an unknown extension.
const PLAIN: &str = "text/plain";

/// Types that the table of [`mime_guess`] lacks, or has for something that servers are seldom asked for.
const MORE: [(&str, &str); 4] = [
    ("ts", "video/mp2t"), // RFC 8216, section 3.1; sources of TypeScript are not for browsers
    ("zst", "application/zstd"),
    ("sqlite", "application/vnd.sqlite3"),
    ("sqlite3", "application/vnd.sqlite3"),
];

/// The types that the configuration names; for the others there are the usual ones.
#[derive(Debug, Default)]
pub(crate) struct Media(HashMap<String, String>);

impl Media {
    pub(crate) fn add(&mut self, extension: &str, media: &str) -> Result<(), String> {
        if extension.is_empty() || extension.contains(['.', '/']) {
            return Err(format!("`{extension}` is no extension; write it without the dot"));
        }
        if !is_media(media) {
            return Err(format!("`{media}` is no media type; write TYPE/SUBTYPE"));
        }
        match self.0.insert(extension.to_ascii_lowercase(), media.to_owned()) {
            None => Ok(()),
            Some(_) => Err(format!("there is a type for {extension} already")),
        }
    }

    /// Returns the type of a file, with the encoding of a text that shows it.
    pub(crate) fn of(&self, path: &[u8], file: &File) -> Rc<str> {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let extension = name.iter().rposition(|byte| *byte == b'.').and_then(|at| name.get(at + 1..));
        let extension = extension.and_then(|extension| std::str::from_utf8(extension).ok()).unwrap_or_default();
        let extension = extension.to_ascii_lowercase();
        let named = self.0.get(&extension).map(String::as_str);
        let more = || MORE.iter().find(|(other, _)| *other == extension).map(|(_, media)| *media);
        let usual = || more().or_else(|| mime_guess::from_ext(&extension).first_raw());
        let media = named.or_else(usual).unwrap_or(PLAIN);
        match media.starts_with("text/") && !media.contains(';') && is_utf8(file) {
            true => format!("{media}; charset=utf-8").into(),
            false => media.into(),
        }
    }
}

/// Two tokens and a slash, and perhaps parameters (RFC 9110, section 8.3.1).
fn is_media(text: &str) -> bool {
    let (media, parameters) = text.split_once(';').unwrap_or((text, ""));
    let special = |byte| b"!#$&^_.+-".contains(&byte);
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || special(byte));
    let names = media.trim_end().split_once('/').is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype));
    names && parameters.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}
