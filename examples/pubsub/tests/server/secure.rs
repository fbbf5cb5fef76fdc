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
    let Some(answer) = curl(&publish, "/channels/c") else { return };
    let answer: Value = serde_json::from_str(&answer).expect("the page's own origin may publish");
    let before = answer["id"].as_u64().unwrap() - 1;
    assert!(curl(&[], &format!("/channels/c/poll?after={before}")).unwrap().contains("hello"));
    server.signal("HUP");
    assert!(curl(&[], "/").unwrap().contains("<html"), "it goes on");
}

/// Lost otherwise: the rooms of several servers, where the engine is only to be reached with TLS; be the server itself
/// on http or on https.
#[test]
fn nodes_share_their_channels_over_tls() {
    let Some(redis) = test_support::engine::Redis::encrypted() else { return };
    let url = format!("rediss://{}/rooms", redis.tls_address());
    let files = [file("ca.pem"), file("client.pem"), file("client-key.pem")];
    let [ca, cert, key] = files.each_ref().map(String::as_str);
    let args = ["--engine", &url, "--engine-ca", ca, "--engine-cert", cert, "--engine-key", key];
    let (one, two) = (start(&args), start(&args));
    let https = start(&[&args[..], &["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")]].concat());
    let mut stream = subscribe(&two, "");
    let (first, _) = publish(&one, "a");
    redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    wait_until("it is published", || {
        let reply = ask(&one, "POST", "/channels/c", &[("Content-Type", "text/plain")], b"b");
        (reply.status == 200).then_some(())
    });
    for (n, text) in ["a", "b"].into_iter().enumerate() {
        let event = stream.next().expect("an event");
        assert_eq!((event.id, event.data.as_str()), (first + n as u64, text));
    }
    let room = format!("https://localhost:{}/channels/c/poll?after={first}", https.address().port());
    let Some(output) = test_support::curl(&[], &room) else { return };
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"b\""), "{output:?}");
}
