//! https: with a client that is not ours, beside a plain listener.

use super::*;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Output;
use test_support::tls_file as file;

/// A site over https, a plain listener beside it, and the address of https.
fn site(args: &[&str]) -> (Site, SocketAddr) {
    let folder = layout("host default www\n", &[("a.txt", b"over tls"), ("large.bin", &[b'x'; 3_000_000])]);
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let mut all = vec!["--tls-listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key];
    all.extend(args);
    let server = Server::spawn(in_folder(&folder, &all), 1);
    let secure = server.line().rsplit(' ').next().unwrap().parse().unwrap();
    (Site { folder, server }, secure)
}

fn curl(args: &[&str], address: SocketAddr, path: &str) -> Option<Output> {
    test_support::curl(args, &format!("https://localhost:{}{path}", address.port()))
}

/// Lost otherwise: every page, in either version of TLS, and large files.
#[test]
fn files_come_over_https() {
    let (site, secure) = site(&[]);
    for version in [&["--tlsv1.3"][..], &["--tlsv1.2", "--tls-max", "1.2"]] {
        let Some(page) = curl(version, secure, "/a.txt") else { return };
        assert_eq!((page.stdout, page.stderr), (b"over tls".to_vec(), Vec::new()));
        let large = curl(version, secure, "/large.bin").unwrap();
        assert!(large.stdout == [b'x'; 3_000_000], "{:?}", String::from_utf8_lossy(&large.stderr));
    }
    let old = curl(&["--tls-max", "1.1"], secure, "/a.txt").unwrap();
    assert!(!old.status.success() && old.stdout.is_empty(), "old versions are rejected");
    assert_eq!(site.get("/a.txt").text(), "over tls", "and the plain listener serves, too");
}

/// Lost otherwise: the reason, to a browser that is rejected. It has to shake hands first.
#[test]
fn the_one_too_many_reads_a_503_over_https() {
    let (_site, secure) = site(&["--max-clients", "1"]);
    // One that is being served, slowly; one that waits for nothing would give way.
    let url = format!("https://localhost:{}/large.bin", secure.port());
    let mut slow = Command::new("curl");
    slow.args(["--silent", "--insecure", "--limit-rate", "10k", &url]).stdout(std::process::Stdio::piped());
    let Ok(mut slow) = slow.spawn() else { return test_support::leave_out("curl is not installed") };
    slow.stdout.as_mut().unwrap().read_exact(&mut [0; 1000]).unwrap();
    let Some(page) = curl(&["--write-out", "%{http_code}"], secure, "/a.txt") else { return };
    let _ = slow.kill();
    let _ = slow.wait();
    assert!(page.stdout.ends_with(b"503"), "{page:?}");
}

/// Lost otherwise: a browser that was told http, on either port.
#[test]
fn plain_requests_are_sent_on_or_told() {
    let (site, secure) = site(&["--redirect"]);
    let reply = site.ask("GET", "/a.txt?b=c", &[("Host", "example.org:8080")]);
    assert_eq!(reply.status, 301);
    assert_eq!(reply.header("Location"), Some(&*format!("https://example.org:{}/a.txt?b=c", secure.port())));
    let mut stream = TcpStream::connect(secure).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https"), "{answer}");
}

/// Lost otherwise: the site, to half of the options, or to a certificate that was renewed wrongly.
#[test]
fn wrong_certificates_are_told() {
    let folder = layout("host default www\n", &[]);
    let key = file("key.pem");
    for wrong in [
        &["--tls-listen", "127.0.0.1:0"][..],
        &["--tls-cert", &file("cert.pem"), "--tls-key", &key],
        &["--tls-listen", "127.0.0.1:0", "--tls-cert", &key, "--tls-key", &key],
        &["--redirect"],
    ] {
        let output = run(in_folder(&folder, wrong));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && (text.contains("--tls") || text.contains("key.pem")), "{text}");
    }
}

/// Lost otherwise: a full handshake for nearly every connection, as soon as there is more than one worker.
#[test]
#[cfg(target_os = "linux")]
fn a_session_is_resumed_by_whichever_worker_gets_the_connection() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

    let (_site, address) = site(&["--workers", "3"]);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = std::sync::Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let kinds = (0..20).map(|_| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(test_support::TEST_TIMEOUT)).unwrap();
        let session = ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut stream = StreamOwned::new(session, stream);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        stream.conn.handshake_kind().unwrap()
    });
    let kinds: Vec<HandshakeKind> = kinds.collect();
    assert!(kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{kinds:?}");
}
