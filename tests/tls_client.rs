//! TLS of connections that go out: our loop on one side, a server of rustls on the other.
#![cfg(unix)]

use pollstack::net::{Address, Mio, Net, SocketOptions};
use pollstack::tls::{Client, Tls};
use pollstack::{
    CloseReason, Closed, ConnId, Context, EofAction, EventLoop, Limits, ListenerConfig, ListenerId, Service,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use test_support::{TEST_TIMEOUT, tls_file};

fn file(name: &str) -> PathBuf {
    tls_file(name).into()
}

fn trusting(authority: &str) -> Client {
    Client::load(&file(authority), None).unwrap()
}

/// Connects, sends a request, and reads until it has so many bytes, or the connection closes.
struct Caller {
    outgoing: ListenerId,
    request: Vec<u8>,
    sent: usize,
    wanted: usize,
    finishes_at_once: bool,
    received: Vec<u8>,
    closed: Option<Closed>,
}

impl Caller {
    fn send(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let part = &self.request[self.sent..];
        let part = &part[..part.len().min(cx.send_capacity(id))];
        self.sent += part.len();
        cx.send(id, part).unwrap();
    }
}

impl Service for Caller {
    type Conn = ();

    fn on_open(&mut self, _: &mut Context<'_>, _: ConnId, listener: ListenerId) {
        assert_eq!(listener, self.outgoing);
    }

    fn on_drain(&mut self, cx: &mut Context<'_>, id: ConnId, (): &mut ()) {
        self.send(cx, id);
    }

    fn on_data(&mut self, cx: &mut Context<'_>, id: ConnId, (): &mut (), input: &[u8]) -> usize {
        self.received.extend(input);
        if self.received.len() >= self.wanted {
            cx.finish(id);
        }
        input.len()
    }

    fn on_eof(&mut self, _: &mut Context<'_>, _: ConnId, (): &mut ()) -> EofAction {
        EofAction::Finish
    }

    fn on_close(&mut self, cx: &mut Context<'_>, _: ConnId, (): (), closed: Closed) {
        self.closed = Some(closed);
        cx.stop(Duration::ZERO);
    }
}

impl Caller {
    fn new(request: &[u8], wanted: usize) -> Caller {
        let (outgoing, request, received) = (ListenerId::new(), request.to_vec(), Vec::new());
        Caller { outgoing, request, sent: 0, wanted, finishes_at_once: false, received, closed: None }
    }

    /// Runs until the connection has closed, or its time is over.
    fn call(self, client: Client, address: SocketAddr, time: Duration) -> Caller {
        let mut event_loop = EventLoop::with_net(Tls::new(Mio::new().unwrap()), self, Limits::default());
        event_loop.net_mut().set_client(Some(client));
        let outgoing = event_loop.service().outgoing;
        event_loop.listen(ListenerConfig::unbound().id(outgoing).max_conns(1)).unwrap();
        event_loop.call(|caller, cx| {
            let id = cx.connect(outgoing, Address::Tcp(address));
            cx.set_deadline(id, cx.now().checked_add(time));
            caller.send(cx, id);
            if caller.finishes_at_once {
                cx.finish(id);
            }
        });
        event_loop.run().unwrap();
        event_loop.call(|caller, _| std::mem::replace(caller, Caller::new(b"", 0)))
    }

    /// Returns why it has failed.
    fn failure(&self) -> String {
        match &self.closed {
            Some(Closed { reason: CloseReason::Failed(error), .. }) => error.to_string(),
            other => panic!("it has not failed: {other:?}"),
        }
    }
}

/// Keeps what comes over the wire, and takes so many bytes of it at once.
#[derive(Debug)]
struct Tapped(TcpStream, Vec<u8>, usize);

impl Read for Tapped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.2);
        let n = self.0.read(&mut buffer[..most])?;
        self.1.extend(&buffer[..n]);
        Ok(n)
    }
}

impl Write for Tapped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves one connection on a thread.
fn server<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
        serve(stream)
    };
    (address, thread::spawn(serve))
}

type Encrypted = StreamOwned<ServerConnection, Tapped>;

/// Serves one connection with TLS; with clients of `authority` only, if there is one.
fn tls_server<T: Send + 'static>(
    version: &'static SupportedProtocolVersion,
    authority: Option<&'static str>,
    serve: impl FnOnce(Encrypted) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    server(move |stream| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
        let config = match authority {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(file(authority)).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_file(file("cert.pem")).unwrap()];
        let config = config.with_single_cert(chain, PrivateKeyDer::from_pem_file(file("key.pem")).unwrap()).unwrap();
        let session = ServerConnection::new(Arc::new(config)).unwrap();
        serve(StreamOwned::new(session, Tapped(stream, Vec::new(), usize::MAX)))
    })
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// Returns whether bytes are in it that were meant to be secret.
fn has_in_clear(wire: &[u8], secret: &[u8]) -> bool {
    wire.windows(secret.len()).any(|part| part == secret)
}

/// Lost otherwise: bytes, in either version, their secrecy, or the end that says that they were all.
#[test]
fn a_connection_that_goes_out_is_encrypted() {
    for version in VERSIONS {
        let (address, served) = tls_server(version, None, |mut stream| {
            let mut buffer = vec![0; 10_000];
            let mut total = 0;
            loop {
                // Without a close_notify this read would be an error.
                let n = stream.read(&mut buffer).unwrap();
                if n == 0 {
                    return (total, stream.sock.1);
                }
                total += n;
                stream.write_all(&buffer[..n]).unwrap();
            }
        });
        let request = b"a secret of the client, ".repeat(50_000);
        let caller = Caller::new(&request, request.len()).call(trusting("ca.pem"), address, TEST_TIMEOUT);
        assert!(matches!(caller.closed.as_ref().unwrap().reason, CloseReason::Finished), "{:?}", caller.closed);
        assert!(caller.received == request);
        let (total, wire) = served.join().unwrap();
        assert_eq!((total, wire[0]), (request.len(), 22), "the first record is of the handshake");
        assert!(!has_in_clear(&wire, b"secret"));
    }
}

/// Lost otherwise: a request that is sent before the handshake is complete, or its end; and the greeting of a server to
/// a client that is silent.
#[test]
fn each_side_may_be_the_first_and_the_last() {
    for version in VERSIONS {
        let (address, served) = tls_server(version, None, |mut stream| {
            let mut request = String::new();
            stream.read_to_string(&mut request).unwrap();
            request
        });
        let caller = Caller { finishes_at_once: true, ..Caller::new(b"that was all", 1) };
        let caller = caller.call(trusting("ca.pem"), address, TEST_TIMEOUT);
        assert_eq!(served.join().unwrap(), "that was all");
        assert_eq!(caller.closed.unwrap().unsent, 0);

        let (address, served) = tls_server(version, None, |mut stream| {
            stream.write_all(b"welcome").unwrap();
            stream.conn.send_close_notify();
            stream.conn.complete_io(&mut stream.sock).unwrap();
            stream.read(&mut [0; 1]).unwrap()
        });
        let caller = Caller::new(b"", usize::MAX).call(trusting("ca.pem"), address, TEST_TIMEOUT);
        assert_eq!(caller.received, b"welcome");
        assert!(matches!(caller.closed.unwrap().reason, CloseReason::Finished));
        assert_eq!(served.join().unwrap(), 0);
    }
}

/// Lost otherwise: a secret, to a server that is not the one that was meant.
#[test]
fn a_server_that_is_not_verified_is_told_nothing() {
    for (authority, name, reason) in [
        ("client.pem", None, "UnknownIssuer"),
        ("ca.pem", Some("example.org"), "example.org"),
        ("ca.pem", Some("127.0.0.2"), "127.0.0.2"),
    ] {
        let (address, served) = tls_server(&rustls::version::TLS13, None, |mut stream| {
            let result = stream.read(&mut [0; 100]);
            (result, stream.sock.1)
        });
        let client = trusting(authority);
        client.set_names(name.map(|name| (Address::Tcp(address), name))).unwrap();
        let caller = Caller::new(b"a secret", 1).call(client, address, TEST_TIMEOUT);
        assert!(caller.failure().contains(reason), "{}", caller.failure());
        let (result, wire) = served.join().unwrap();
        assert!(result.unwrap_err().to_string().contains("alert"), "the server reads why");
        assert!(!has_in_clear(&wire, b"secret"));
    }
    let address = Address::Tcp(([127, 0, 0, 1], 1).into());
    let rejected = trusting("ca.pem").set_names([(address, "no name")]);
    assert!(rejected.is_err_and(|error| error.to_string().contains("no name")));
}

/// Lost otherwise: the reason why a server that asks for certificates does not serve us.
#[test]
fn a_client_shows_its_certificate() {
    let serve = |mut stream: Encrypted| {
        let mut buffer = [0; 2];
        stream.read_exact(&mut buffer).and_then(|()| stream.write_all(&buffer))
    };
    let own = (file("client.pem"), file("client-key.pem"));
    for version in VERSIONS {
        let (address, served) = tls_server(version, Some("client.pem"), serve);
        let client = Client::load(&file("ca.pem"), Some((&own.0, &own.1))).unwrap();
        let caller = Caller::new(b"hi", 2).call(client, address, TEST_TIMEOUT);
        assert_eq!(caller.received, b"hi", "{:?}", caller.closed);
        served.join().unwrap().unwrap();

        // It closes over bytes that it has not read: a reset follows its alert.
        let (address, served) = tls_server(version, Some("client.pem"), move |mut stream| {
            stream.sock.2 = 16;
            serve(stream)
        });
        let caller = Caller::new(b"hi", 2).call(trusting("ca.pem"), address, TEST_TIMEOUT);
        assert!(served.join().unwrap().is_err());
        let reason = caller.failure();
        let alert = if version.version == rustls::ProtocolVersion::TLSv1_3 { "CertificateRequired" } else { "alert" };
        assert!(reason.contains(alert), "{reason}");
    }
}

/// Lost otherwise: the reason why a server does not serve us, if its reset is noticed by a file or by the end.
#[test]
fn an_alert_explains_the_reset_of_any_write() {
    type Write<'a> = &'a dyn Fn(&mut Tls<Mio>, &mut <Tls<Mio> as Net>::Stream) -> io::Result<()>;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"hello").unwrap();
    let writes: [Write<'_>; 4] = [
        &|net, stream| net.write(stream, &[IoSlice::new(b"hello")]).map(drop),
        &|net, stream| net.write_more(stream, &[IoSlice::new(b"hello")]).map(drop),
        &|net, stream| net.send_file(stream, &file, 0, 5).map(drop),
        &|net, stream| net.shutdown_write(stream),
    ];
    for write in writes {
        // It asks for a certificate, and closes over bytes that it has not read: a reset follows its alert.
        let (address, served) = tls_server(&rustls::version::TLS13, Some("client.pem"), |mut stream| {
            stream.sock.2 = 16;
            stream.read(&mut [0; 2]).map(drop)
        });
        let mut net = Tls::new(Mio::new().unwrap());
        net.set_client(Some(trusting("ca.pem")));
        let mut stream = net.connect(&Address::Tcp(address), &SocketOptions::default()).unwrap();
        let start = Instant::now();
        let patiently = |call: &mut dyn FnMut() -> io::Result<()>| {
            while call().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                assert!(start.elapsed() < TEST_TIMEOUT);
                thread::yield_now();
            }
        };
        patiently(&mut || net.check_connecting(&mut stream));
        patiently(&mut || net.write(&mut stream, &[IoSlice::new(b"hi")]).map(drop));
        assert!(served.join().unwrap().is_err());
        let error = write(&mut net, &mut stream).unwrap_err();
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
    }
}

/// Lost otherwise: a client that waits for a server which accepts, and says nothing.
#[test]
fn a_handshake_that_stalls_ends_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // On a slow machine a short time may be over before anything is sent.
    let wire = [300, 3_000, 20_000].into_iter().map(Duration::from_millis).find_map(|time| {
        let caller = Caller::new(b"a secret", 1).call(trusting("ca.pem"), address, time);
        let closed = caller.closed.unwrap();
        assert!(matches!(closed.reason, CloseReason::Aborted), "{closed:?}");
        assert_eq!(closed.unsent, 8);
        let mut wire = Vec::new();
        let _ = listener.accept().unwrap().0.read_to_end(&mut wire);
        (!wire.is_empty()).then_some(wire)
    });
    let wire = wire.expect("the handshake begins");
    assert!(wire[0] == 22 && !has_in_clear(&wire, b"secret"));
}

/// Lost otherwise: the client, to a server that does not speak TLS, or not to an end.
#[test]
fn garbage_instead_of_a_handshake_is_an_error() {
    // Records of a handshake message that is said to be long.
    let record = |content: &[u8]| [&[22, 3, 3][..], &(content.len() as u16).to_be_bytes(), content].concat();
    let mut endless = record(&[2, 0x00, 0xFF, 0xF0]);
    (0..100).for_each(|_| endless.extend(record(&[0; 16_000])));
    for answer in [&b"-ERR unknown command\r\n"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0x80; 2000], &endless, b""]
    {
        let answer = answer.to_vec();
        let (address, served) = server(move |mut stream| {
            stream.read_exact(&mut [0; 5]).unwrap();
            let _ = stream.write_all(&answer);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            rest
        });
        let caller = Caller::new(b"a secret", 1).call(trusting("ca.pem"), address, TEST_TIMEOUT);
        assert!(!caller.failure().is_empty());
        assert!(caller.received.is_empty());
        let rest = served.join().unwrap();
        assert!(!has_in_clear(&rest, b"secret") && !has_in_clear(&rest, b"https"), "{rest:?}");
    }
}
