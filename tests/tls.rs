//! TLS between real sockets: the versions, the ends, and the rejections.
#![cfg(unix)]

use pollstack::tls::{Client, Identity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use test_support::{Server, TEST_TIMEOUT, example, tls_file};

fn file(name: &str) -> PathBuf {
    tls_file(name).into()
}

fn echo() -> Server {
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    Server::spawn(example("tls_echo", &["127.0.0.1:0", cert.to_str().unwrap(), key.to_str().unwrap()]), 1)
}

fn tcp(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream
}

fn client(version: &'static SupportedProtocolVersion) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// Lost otherwise: bytes, in either version, or the end that says that they were all.
#[test]
fn everything_comes_back_and_ends_with_close_notify() {
    let server = echo();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let data: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).take(3_000_000).collect();
        let mut stream = rustls::StreamOwned::new(client(version), tcp(&server));
        let mut received = vec![0; data.len()];
        for (chunk, back) in data.chunks(40_000).zip(received.chunks_mut(40_000)) {
            stream.write_all(chunk).unwrap();
            stream.read_exact(back).unwrap();
        }
        assert!(received == data);
        stream.conn.send_close_notify();
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
        // Without a close_notify this read would be an error.
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
}

/// Lost otherwise: transfers whose client does not read for a while.
#[test]
fn a_full_pipe_goes_on_when_it_is_read() {
    let server = echo();
    let mut stream = rustls::StreamOwned::new(client(&rustls::version::TLS13), tcp(&server));
    stream.write_all(b"begin").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    // More than the kernels and the server hold, before the first byte is read.
    let data: Vec<u8> = (0..12_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut sent, mut received) = (0, Vec::<u8>::new());
    stream.sock.set_nonblocking(true).unwrap();
    let (start, mut buffer) = (std::time::Instant::now(), vec![0; 64 * 1024]);
    while received.len() < data.len() {
        assert!(start.elapsed() < TEST_TIMEOUT, "{sent} sent, {} received", received.len());
        let mut waits = 0;
        for blocked in [
            stream.write(&data[sent..data.len().min(sent + 16_000)]).map(|n| sent += n),
            stream.read(&mut buffer).map(|n| received.extend(&buffer[..n])),
        ] {
            match blocked {
                Err(error) if error.kind() == ErrorKind::WouldBlock => waits += 1,
                result => result.unwrap(),
            }
        }
        if waits == 2 {
            thread::yield_now();
        }
    }
    assert!(received == data);
}

/// Lost otherwise: an explanation, to a browser that was told http.
#[test]
fn plain_http_is_told_so() {
    let server = echo();
    let mut stream = tcp(&server);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
    assert!(body.contains("https"), "{answer}");
}

/// Lost otherwise: the server, to garbage, half a handshake, or a handshake without end. The others are
/// served meanwhile.
#[test]
fn rejections_end_the_connection_and_no_other() {
    let server = echo();
    let mut garbage = tcp(&server);
    garbage.write_all(&[0x80; 2000]).unwrap();
    let _half = {
        let mut half = tcp(&server);
        let mut hello = Vec::new();
        client(&rustls::version::TLS13).write_tls(&mut hello).unwrap();
        half.write_all(&hello[..hello.len() / 2]).unwrap();
        half
    };
    let mut endless = tcp(&server);
    // Records of a handshake message that is said to be long.
    let record = |content: &[u8]| [&[22, 3, 1][..], &(content.len() as u16).to_be_bytes(), content].concat();
    let mut message = vec![1, 0x00, 0xFF, 0xF0];
    message.resize(16_000, 0);
    let mut result = endless.write_all(&record(&message));
    for _ in 0..100 {
        result = result.and_then(|()| endless.write_all(&record(&[0; 16_000])));
    }
    for mut stream in [garbage, endless] {
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(ended.is_ok() || ended.unwrap_err().kind() == ErrorKind::ConnectionReset);
        assert!(rest.is_empty() || rest[0] == 21, "an alert: {rest:?}");
    }
    let mut stream = rustls::StreamOwned::new(client(&rustls::version::TLS12), tcp(&server));
    stream.write_all(b"still").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
}

/// Lost otherwise: all clients, to one that goes on behind its end: no bytes are taken there, and none may be waited for.
#[test]
fn bytes_behind_the_end_hold_nothing_up() {
    let server = echo();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = rustls::StreamOwned::new(client(version), tcp(&server));
        stream.write_all(b"begin").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.conn.send_close_notify();
        let mut last = Vec::new();
        stream.conn.write_tls(&mut last).unwrap();
        last.extend([0xEE; 6000]); // in one read with the end
        stream.sock.write_all(&last).unwrap();
        let mut another = rustls::StreamOwned::new(client(version), tcp(&server));
        another.write_all(b"still").unwrap();
        another.read_exact(&mut [0; 5]).unwrap();
    }
}

/// Lost otherwise: an hour, to the wrong file.
#[test]
fn a_wrong_file_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| match name {
        "cert.pem" | "key.pem" | "ca.pem" => file(name),
        _ => folder.path().join(name),
    };
    let write = |name: &str, text: &[u8]| std::fs::write(at(name), text).unwrap();
    let section = |label: &str, text: &str| format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| std::fs::read_to_string(file(name)).unwrap());
    write("empty.pem", b"\n");
    write("binary.pem", &[0x30, 0x82, 0xFF, 0x00]);
    write("cut.pem", &key.as_bytes()[..key.len() - 10]);
    write("damaged.pem", section("CERTIFICATE", "?").as_bytes());
    write("false.pem", section("CERTIFICATE", "AAAA").as_bytes());
    write("no-key.pem", section("PRIVATE KEY", "AAAA").as_bytes());
    write("secret.pem", section("ENCRYPTED PRIVATE KEY", "AAAA").as_bytes());
    write("old-secret.pem", section("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\n\nAAAA").as_bytes());
    write("both.pem", (cert + &key).as_bytes());
    std::fs::create_dir(at("folder.pem")).unwrap();
    let other = file("client-key.pem");
    std::fs::copy(&other, at("other-key.pem")).unwrap();

    let cases = [
        ("missing.pem", "key.pem", "cannot read missing.pem: No such file or directory (os error 2)"),
        ("folder.pem", "key.pem", "cannot read folder.pem: Is a directory (os error 21)"),
        ("cert.pem", "missing.pem", "cannot read missing.pem: No such file or directory (os error 2)"),
        (
            "empty.pem",
            "key.pem",
            "a certificate from empty.pem: it is empty; give a PEM file with `-----BEGIN CERTIFICATE-----`",
        ),
        ("binary.pem", "key.pem", "a certificate from binary.pem: it is not PEM; give a PEM file with"),
        ("damaged.pem", "key.pem", "a certificate from damaged.pem: it is damaged or cut off; give"),
        ("key.pem", "key.pem", "a certificate from key.pem: it holds a PRIVATE KEY; give"),
        (
            "false.pem",
            "key.pem",
            "cannot use false.pem: invalid peer certificate: BadEncoding; give another certificate",
        ),
        (
            "cert.pem",
            "cert.pem",
            "a private key from cert.pem: it holds a CERTIFICATE; give a PEM file with `-----BEGIN PRIVATE KEY",
        ),
        ("cert.pem", "empty.pem", "a private key from empty.pem: it is empty; give"),
        ("cert.pem", "cut.pem", "a private key from cut.pem: it is damaged or cut off; give"),
        (
            "cert.pem",
            "secret.pem",
            "the key in secret.pem: it is encrypted; decrypt it: openssl pkey -in secret.pem -out",
        ),
        ("cert.pem", "old-secret.pem", "the key in old-secret.pem: it is encrypted; decrypt it"),
        ("cert.pem", "no-key.pem", "cannot use no-key.pem: "),
        (
            "cert.pem",
            "other-key.pem",
            "cannot use other-key.pem: it is not the key of the first certificate in cert.pem; give",
        ),
    ];
    let shown = |error: io::Error| {
        let text = error.to_string().replace(&format!("{}/", folder.path().display()), "");
        text.replace(file("").to_str().unwrap(), "")
    };
    let identity = Identity::load(&file("cert.pem"), &file("key.pem")).unwrap();
    for (certificates, key, text) in cases {
        let (certificates, key) = (at(certificates), at(key));
        let error = shown(Identity::load(&certificates, &key).unwrap_err());
        assert!(error.contains(text), "{error}");
        assert_eq!(error, shown(identity.reload(&certificates, &key).unwrap_err()));
        assert_eq!(error, shown(Client::load(&file("ca.pem"), Some((&certificates, &key))).unwrap_err()));
        if certificates != file("cert.pem") {
            assert_eq!(error, shown(Client::load(&certificates, None).unwrap_err()));
        }
    }
    identity.reload(&at("both.pem"), &at("both.pem")).unwrap();
}
