//! Programs that tests need, and the message where one is missing.

use std::io::{self, Write};
use std::{env, thread};

/// Says that the test which runs is left out, and why. With `TOOLS=required` in the environment, it fails instead. Not a
/// macro, whose words are only shown if the test fails.
pub fn leave_out(why: &str) {
    leave_out_unless_required("TOOLS", why);
}

/// The same; it fails with `required` in this variable.
pub(crate) fn leave_out_unless_required(variable: &str, why: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(env::var_os(variable).is_none_or(|value| value != "required"), "{test} is required, but {why}");
    let _ = writeln!(io::stderr(), "left out: {test}: {why}");
}
