//! The programs that these tests need, and the message where one is missing.

use crate::tools::leave_out_unless_required;
use std::env;
use std::path::PathBuf;

/// Folders of programs that are often not in the path.
const MORE_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Returns the first of `names` that is installed. If none is, or no browser was asked for, the test is
/// left out: it says so, unless `BROWSER=required` is set, which makes it fail.
pub fn tool(names: &[&str]) -> Option<PathBuf> {
    if env::var_os("BROWSER").is_none() {
        leave_out("it runs with BROWSER=required in the environment");
        return None;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from)).collect();
    let found = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = { found }.find(|path| path.is_file());
    if found.is_none() {
        leave_out(&format!("{} is not installed", names[0]));
    }
    found
}

/// Says that the test which runs is left out, and why.
pub(super) fn leave_out(why: &str) {
    leave_out_unless_required("BROWSER", why);
}
