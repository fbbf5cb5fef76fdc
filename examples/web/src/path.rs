//! The path of a request as one beneath a root.

use percent_encoding::percent_decode_str;

/// Where in a root a request leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Names with single slashes between them; empty for the root itself.
    pub(crate) path: Vec<u8>,
    /// It ended in a slash: what is wanted is a folder.
    pub(crate) is_folder: bool,
    /// A name begins with a dot, apart from `/.well-known/` (RFC 8615): what tools leave in a folder that is
    /// not for others, `.git` for example.
    pub(crate) is_hidden: bool,
}

/// Decodes a path, once. `None` if it cannot be that of a file here: what upward steps, backslashes
/// and slashes in disguise are good for is getting out of a root, and no name has a NUL.
///
/// A file has to be beneath the root all the same, whatever the path; this only keeps what
/// is nonsense from getting that far.
pub(crate) fn wanted(target: &str) -> Option<Wanted> {
    let mut path = Vec::with_capacity(target.len());
    let (mut is_folder, mut is_hidden) = (true, false);
    for segment in target.split('/') {
        let start = path.len();
        if !is_encoded(segment) {
            return None;
        }
        path.extend(percent_decode_str(segment));
        let name = path.get(start..).unwrap_or_default();
        if name == b".." || name.iter().any(|byte| matches!(byte, 0 | b'/' | b'\\')) {
            return None;
        }
        is_folder = matches!(name, b"" | b".");
        is_hidden |= !is_folder && name.starts_with(b".") && !(start == 0 && name == b".well-known");
        match is_folder {
            true => path.truncate(start),
            false => path.push(b'/'),
        }
    }
    if path.last() == Some(&b'/') {
        path.pop();
    }
    Some(Wanted { path, is_folder, is_hidden })
}

/// Returns whether every percent sign begins the code of a byte.
fn is_encoded(segment: &str) -> bool {
    let code = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    segment.split('%').skip(1).all(code)
}
