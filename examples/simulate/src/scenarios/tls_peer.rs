//! The other end of a connection with TLS, driven by hand: it says and hears as much of its ciphertext at a time as the
//! world wants.

use super::chaos::count;
use super::report::{Check, require};
use fastrand::Rng;
use pollstack::sim::Client;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use rustls::{SupportedProtocolVersion, version};
use std::error::Error;
use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};
use test_support::tls_file;

/// The answer to plain HTTP begins so.
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 ";

/// How a peer behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// It does as TLS says.
    Right,
    /// It is silent after so many bytes, most of them in the middle of the handshake.
    Stalls(usize),
    /// It sends bytes that are not of TLS.
    Plain,
    /// It asks with plain HTTP.
    Http,
    /// Its handshake has no end.
    Endless,
}

pub(super) struct Peer {
    pub(super) wire: Client,
    pub(super) manner: Manner,
    tls: Option<Connection>,
    /// Ciphertext that is still to be sent.
    outgoing: Vec<u8>,
    /// How many bytes of ciphertext it has sent.
    said: usize,
    /// How many it has read.
    heard: usize,
    /// How many of its bytes our side has read.
    pub(super) taken: usize,
    /// How many bytes of plaintext it has sent and read. Both count on from 0.
    pub(super) sent: u64,
    pub(super) read: u64,
    /// It has said that it sends no more, and has ended its half of the stream.
    pub(super) notified: bool,
    pub(super) ended: bool,
    pub(super) aborted: bool,
    /// The other side has said that it sends no more.
    pub(super) heard_notify: bool,
    /// Our side has ended its half of the stream.
    pub(super) has_end: bool,
    /// Its session has failed.
    pub(super) failed: Option<String>,
    /// The bytes that it has read from the wire; with TLS, the last of them.
    raw: Vec<u8>,
}

impl Peer {
    /// Makes a client of our server.
    pub(super) fn client(wire: Client, manner: Manner, random: &mut Rng) -> Result<Peer, Box<dyn Error>> {
        let mut outgoing = Vec::new();
        let tls = match manner {
            Manner::Right | Manner::Stalls(_) => {
                let config = Arc::clone(&configs()?.clients[random.usize(..2)]);
                Some(ClientConnection::new(config, ServerName::try_from("localhost")?)?.into())
            }
            Manner::Plain => {
                outgoing = (0..random.usize(1..100)).map(|_| random.u8(..)).collect();
                None
            }
            Manner::Http => {
                outgoing = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
                None
            }
            Manner::Endless => {
                outgoing = endless(random);
                None
            }
        };
        Ok(Peer::new(wire, manner, tls, outgoing))
    }

    /// Makes a server that ours has connected to.
    pub(super) fn server(wire: Client, manner: Manner, random: &mut Rng) -> Result<Peer, Box<dyn Error>> {
        let config = Arc::clone(&configs()?.servers[random.usize(..2)]);
        Ok(Peer::new(wire, manner, Some(ServerConnection::new(config)?.into()), Vec::new()))
    }

    fn new(wire: Client, manner: Manner, tls: Option<Connection>, outgoing: Vec<u8>) -> Peer {
        let (read, sent, said, heard, taken, raw) = (0, 0, 0, 0, 0, Vec::new());
        let (notified, ended, aborted, heard_notify, has_end, failed) = (false, false, false, false, false, None);
        Peer {
            wire,
            manner,
            tls,
            outgoing,
            said,
            heard,
            taken,
            sent,
            read,
            notified,
            ended,
            aborted,
            heard_notify,
            has_end,
            failed,
            raw,
        }
    }

    /// Returns whether all that was promised to it has to hold: it behaves, and has not left.
    pub(super) fn is_right(&self) -> bool {
        self.manner == Manner::Right && !self.aborted && (self.notified || !self.ended)
    }

    /// Returns whether it has ended its stream without saying so first.
    pub(super) fn has_cut(&self) -> bool {
        self.manner == Manner::Right && !self.aborted && self.ended && !self.notified
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Encrypts so many bytes.
    pub(super) fn send(&mut self, n: usize) {
        let Some(tls) = self.tls.as_mut().filter(|_| !self.notified && !self.ended) else { return };
        self.sent += tls.writer().write(&count(self.sent, n)).map_or(0, |n| n as u64);
    }

    /// Says that it sends no more.
    pub(super) fn notify(&mut self) {
        if let Some(tls) = self.tls.as_mut().filter(|tls| !self.ended && !tls.is_handshaking()) {
            tls.send_close_notify();
            self.notified = true;
        }
    }

    /// Says something behind its end, which is nothing of TLS.
    pub(super) fn rave(&mut self) {
        if self.notified && !self.ended {
            self.say(0);
            self.outgoing.extend([0xEE; 6000]);
        }
    }

    /// Ends its half of the stream, behind all that it has encrypted.
    pub(super) fn end(&mut self) {
        self.say(usize::MAX);
        self.ended = true;
        self.wire.end();
    }

    pub(super) fn abort(&mut self) {
        self.aborted = true;
        self.wire.abort();
    }

    /// Sends at most `most` bytes of its ciphertext.
    pub(super) fn say(&mut self, most: usize) {
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            if tls.write_tls(&mut self.outgoing).is_err() {
                return;
            }
        }
        let left = match self.manner {
            Manner::Stalls(at) => at.saturating_sub(self.said),
            _ => usize::MAX,
        };
        let n = most.min(self.outgoing.len()).min(left);
        if n > 0 && !self.ended {
            self.wire.send(&self.outgoing[..n]);
            self.outgoing.drain(..n);
            self.said += n;
        }
    }

    /// Reads at most `most` bytes of ciphertext.
    pub(super) fn hear(&mut self, most: usize) -> Check {
        let fresh = self.wire.read_at_most(most);
        self.raw.extend(&fresh);
        self.heard += fresh.len();
        let number = self.wire.number();
        require(!is_in_clear(&self.raw), || format!("client {number} can be read on the wire"))?;
        if self.tls.is_none() {
            return Ok(());
        }
        self.raw.drain(..self.raw.len().saturating_sub(CLEAR - 1));
        let mut rest = &fresh[..];
        while !rest.is_empty() && self.failed.is_none() {
            self.take(&mut rest)?;
        }
        Ok(())
    }

    fn take(&mut self, bytes: &mut &[u8]) -> Check {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        tls.read_tls(bytes)?;
        match tls.process_new_packets() {
            Ok(state) => self.heard_notify |= state.peer_has_closed(),
            Err(error) => {
                self.failed = Some(error.to_string());
                return Ok(());
            }
        }
        let mut plain = [0; 4096];
        while let Ok(n) = tls.reader().read(&mut plain) {
            if n == 0 {
                break;
            }
            let (number, right) = (self.wire.number(), plain[..n] == count(self.read, n));
            require(right, || format!("client {number} reads other bytes than were sent to it"))?;
            self.read += n as u64;
        }
        Ok(())
    }

    /// Returns whether a client that speaks plain HTTP has been told about TLS.
    pub(super) fn was_told_of_tls(&self) -> bool {
        self.raw.starts_with(BAD_REQUEST) && self.raw.ends_with(b"instead\n")
    }

    /// Returns how many bytes of ciphertext it has sent and read.
    pub(super) fn moved(&self) -> usize {
        self.said + self.heard
    }
}

/// How many bytes that count on show that plaintext is on the wire.
const CLEAR: usize = 9;

fn is_in_clear(raw: &[u8]) -> bool {
    raw.windows(CLEAR).any(|part| part.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)))
}

/// Returns a handshake that is longer than any may be: one message, or records without one.
fn endless(random: &mut Rng) -> Vec<u8> {
    let record = |content: &[u8]| [&[22, 3, 1][..], &(content.len() as u16).to_be_bytes(), content].concat();
    match random.bool() {
        true => record(&[]).repeat(20_000),
        false => {
            let part = vec![0; [10, 1000][random.usize(..2)]];
            [record(&[1, 0x00, 0xFF, 0xF0]), record(&part).repeat(100_000 / part.len())].concat()
        }
    }
}

/// The configurations of all worlds. Their key makes signatures of one length, so that a seed decides how long
/// everything is.
pub(super) struct Configs {
    /// For TLS 1.2 and 1.3.
    clients: [Arc<ClientConfig>; 2],
    servers: [Arc<ServerConfig>; 2],
    /// For our side.
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

pub(super) fn configs() -> Result<&'static Configs, Box<dyn Error>> {
    static CONFIGS: OnceLock<Result<Configs, String>> = OnceLock::new();
    let configs = CONFIGS.get_or_init(|| Configs::load().map_err(|error| error.to_string()));
    configs.as_ref().map_err(|error| error.clone().into())
}

type Versions<'a> = &'a [&'static SupportedProtocolVersion];

impl Configs {
    fn load() -> Result<Configs, Box<dyn Error>> {
        let versions = [&version::TLS12, &version::TLS13];
        let clients = [client(&versions[..1])?, client(&versions[1..])?];
        let servers = [server(&versions[..1])?, server(&versions[1..])?];
        Ok(Configs { clients, servers, client: client(&versions)?, server: server(&versions)? })
    }
}

/// Returns a client that remembers nothing from one world to the next.
fn client(versions: Versions<'_>) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tls_file("sim.pem"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn server(versions: Versions<'_>) -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?.with_no_client_auth();
    let chain = vec![CertificateDer::from_pem_file(tls_file("sim.pem"))?];
    Ok(Arc::new(config.with_single_cert(chain, PrivateKeyDer::from_pem_file(tls_file("sim-key.pem"))?)?))
}
