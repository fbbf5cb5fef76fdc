//! A run of a benchmark: how it is described, and where its results go.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fs, io};

/// Returns the machine, the day and the command of this run of a benchmark.
pub fn run(bench: &str) -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut command = vec![format!("cargo bench --bench {bench}")];
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if !arguments.is_empty() {
        command.push("--".to_owned());
        command.extend(arguments);
    }
    format!("{}; {}; `{}`", test_support::machine::describe(), &now[..10], command.join(" "))
}

/// Makes the folder for the results of a benchmark, beside the one that cargo has for its `temporary` files.
///
/// # Errors
/// It cannot be made.
pub fn folder(temporary: &str, bench: &str) -> io::Result<PathBuf> {
    let folder = Path::new(temporary).join("..").join(bench);
    fs::create_dir_all(&folder)?;
    folder.canonicalize()
}
