//! The certificates of the tests, and a client that trusts them.

use std::process::{Command, Output, Stdio};

/// Returns the path of a file of the certificate authority of the tests: `ca.pem`, `cert.pem`, `key.pem`; or of a
/// client with an authority of its own: `client.pem`, `client-key.pem`.
pub fn tls_file(name: &str) -> String {
    format!("{}/../tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Asks for `url` with curl, which trusts that authority. Returns `None` where there is no curl: the test is left out.
pub fn curl(args: &[&str], url: &str) -> Option<Output> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "60", "--cacert", &tls_file("ca.pem")]).args(args);
    let output = curl.arg(url).stdin(Stdio::null()).output();
    output.map_err(|error| crate::leave_out(&format!("curl: {error}"))).ok()
}
