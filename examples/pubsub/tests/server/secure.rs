//! https: with a client that is not ours.

use super::*;
use test_support::tls_file as file;

/// Lost otherwise: the room, to everyone whose browser insists on https; and the certificate that was renewed.
#[test]
fn a_room_is_served_over_https() {
    let server = start(&["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")]);
    let origin = format!("https://localhost:{}", server.address().port());
    let curl = |args: &[&str], path: &str| {
        let output = test_support::curl(args, &format!("{origin}{path}"))?;
        assert!(output.status.success(), "{output:?}");
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let header = format!("Origin: {origin}");
    let publish = ["--header", &header, "--data", "message=hello"];
    let Some(answer) = curl(&publish, "/channels/c") else { return eprintln!("left out: curl is not installed") };
    let answer: Value = serde_json::from_str(&answer).expect("the page's own origin may publish");
    let before = answer["id"].as_u64().unwrap() - 1;
    assert!(curl(&[], &format!("/channels/c/poll?after={before}")).unwrap().contains("hello"));
    server.signal("HUP");
    assert!(curl(&[], "/").unwrap().contains("<html"), "it goes on");
}
