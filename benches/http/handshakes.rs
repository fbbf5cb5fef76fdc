//! A connection over TLS for each request: what a full handshake costs the server, and one that resumes a session.

use crate::contender::{Contender, SIZES, Site, order};
use instrument::{Cell, Row, Table, quartiles};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;
use test_support::machine::{Placement, place_clients};
use test_support::{TEST_TIMEOUT, tls_file};

/// The clients take one suite each: with AES of 128 bits, which no server prefers of itself.
const CASES: [(&str, &SupportedProtocolVersion, CipherSuite); 2] = [
    ("TLS 1.3", &rustls::version::TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS 1.2", &rustls::version::TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
];

pub(crate) fn measure(site: &Site, pairs: usize, quick: bool) -> Result<Table, String> {
    place_clients(Placement::Apart);
    let contenders: Vec<Contender> =
        [Contender::secure_web(site), Contender::secure_nginx(site, true)].into_iter().flatten().collect();
    contenders.iter().for_each(Contender::place);
    let what = format!(
        "One client, which asks for {} bytes on a connection of its own each time; one suite is offered ({} or {}). A \
         session is resumed by a ticket, with a key exchange where the version has one. The ratio is that of connections \
         for a second of processor time: above 1 is ahead.",
        SIZES[0].1,
        CASES[0].2.as_str().unwrap_or_default(),
        CASES[1].2.as_str().unwrap_or_default(),
    );
    let base = contenders.get(1).map_or("", |base| base.name);
    let mut table = Table::new("tls, connections", what, &["connections/s", "CPU us", &format!("times {base}")]);
    table.case = "handshake".to_owned();
    let count = if quick { 100 } else { 200 };
    for (name, version, suite) in CASES {
        for resumes in [false, true] {
            let case = format!("{name}, {}", if resumes { "resumed" } else { "full" });
            let mut turns = vec![Vec::new(); contenders.len()];
            for pair in 0..2 * pairs {
                for one in order(contenders.len(), pair) {
                    let turn = turn(&contenders[one], &config(version, suite, resumes)?, count, resumes);
                    turns[one].push(turn.map_err(|error| format!("{}: {case}: {error}", contenders[one].name))?);
                }
            }
            table.rows.extend(contenders.iter().zip(&turns).map(|(one, own)| row(one, &case, own, turns.get(1))));
            eprintln!("{case}: measured");
        }
    }
    Ok(table)
}

fn config(
    version: &'static SupportedProtocolVersion,
    suite: CipherSuite,
    resumes: bool,
) -> Result<Arc<ClientConfig>, String> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|one| one.suite() == suite);
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(tls_file("ca.pem")).map_err(|error| error.to_string())?;
    roots.add(certificate).map_err(|error| error.to_string())?;
    let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]);
    let config = config.map_err(|error| error.to_string())?.with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.resumption = if resumes { Resumption::in_memory_sessions(32) } else { Resumption::disabled() };
    Ok(Arc::new(config))
}

/// Connects so often; returns the processor time of the server for a connection, in microseconds, and how many it were
/// in a second.
fn turn(contender: &Contender, config: &Arc<ClientConfig>, count: usize, resumes: bool) -> io::Result<(f64, f64)> {
    ask(contender.address, config)?; // it brings the first ticket
    let (before, start, mut resumed) = (contender.cpu(), Instant::now(), 0);
    for _ in 0..count {
        resumed += usize::from(ask(contender.address, config)? == Some(HandshakeKind::Resumed));
    }
    let cpu = contender.cpu().saturating_sub(before);
    if resumed != if resumes { count } else { 0 } {
        return Err(io::Error::other(format!("{resumed} of {count} sessions were resumed")));
    }
    Ok((cpu.as_secs_f64() * 1e6 / count as f64, count as f64 / start.elapsed().as_secs_f64()))
}

/// Asks for a file, and reads it to the end of the connection.
fn ask(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Option<HandshakeKind>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, stream);
    let (file, len) = SIZES[0];
    write!(stream, "GET /{file} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    match reply.starts_with(b"HTTP/1.1 200") && reply.len() as u64 > len {
        true => Ok(stream.conn.handshake_kind()),
        false => Err(io::Error::other("the file is not what it should be")),
    }
}

fn row(contender: &Contender, case: &str, own: &[(f64, f64)], base: Option<&Vec<(f64, f64)>>) -> Row {
    let ratio = base.map(|base| quartiles(base.iter().zip(own).map(|(base, own)| base.0 / own.0).collect()));
    let (cpu, rate): (Vec<f64>, Vec<f64>) = own.iter().copied().unzip();
    let [cpu, rate] = [cpu, rate].map(|figures| quartiles(figures)[1]);
    Row::new(contender.name, vec![Cell::Number(rate, 0), Cell::Number(cpu, 1), Cell::quartiles(ratio, 2)]).case(case)
}
