//! Many clients, slow ones, and silent ones.

use super::*;
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::sync::mpsc::channel;
use std::time::Instant;

/// A client that holds next to nothing of what it does not read.
fn narrow(server: &Server) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address().into()).unwrap();
    Client::new(socket.into())
}

/// A site with a large file that takes no place on the disk.
fn with_large(config: &str, len: u64) -> Site {
    let site = Site::with(config, &[("small.txt", b"small")]);
    fs::File::create(site.path("large.bin")).unwrap().set_len(len).unwrap();
    site
}

/// Lost otherwise: the machine's memory; and the other clients' time.
#[test]
fn slow_readers_cost_no_memory_and_no_time() {
    let site = with_large("host default www\n", 1 << 30);
    let readers: Vec<Client> = (0..300)
        .map(|_| {
            let mut client = narrow(&site.server);
            client.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut some = [0; 1000];
            client.read_exact(&mut some).unwrap();
            client
        })
        .collect();
    for _ in 0..100 {
        assert_eq!(site.get("/small.txt").text(), "small");
    }
    assert!(site.server.peak_memory() < 32 << 20, "{} bytes were resident", site.server.peak_memory());
    let descriptors = site.server.descriptors();
    assert!(descriptors < readers.len() + 50, "one file for all of them: {descriptors}");
}

/// Lost otherwise: the end of a long file, or its middle.
#[test]
fn a_gibibyte_comes_whole_in_flat_memory() {
    let site = with_large("host default www\n", 1 << 30);
    let mut file = fs::File::options().write(true).open(site.path("large.bin")).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(-3)).unwrap();
    file.write_all(b"end").unwrap();
    let mut client = site.server.send(&request("GET", "/large.bin", &[]));
    let (mut buffer, mut len, mut last) = (vec![0; 1 << 20], 0, Vec::new());
    loop {
        match client.read(&mut buffer).unwrap() {
            0 => break,
            n => {
                len += n;
                last = [&last[..], &buffer[..n]].concat();
                last.drain(..last.len().saturating_sub(3));
            }
        }
    }
    assert!(len > 1 << 30 && len < (1 << 30) + 1000 && last == b"end", "{len} bytes");
    assert!(site.server.peak_memory() < 16 << 20, "{} bytes were resident", site.server.peak_memory());
    let beyond = site.get_with("/large.bin", &[("Range", "bytes=1073741821-")]);
    assert_eq!((beyond.status, beyond.text()), (206, "end"));
}

/// Lost otherwise: all clients, when a thousand come at once.
#[test]
fn a_thousand_at_once_are_served() {
    rlimit::increase_nofile_limit(4096).unwrap();
    let site = Site::new(&[("a.txt", b"a"), ("b.bin", &vec![7; 100_000])]);
    let mut clients: Vec<Client> = (0..1000).map(|_| site.server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&request("GET", if n % 2 == 0 { "/a.txt" } else { "/b.bin" }, &[]));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let reply = one(&client.answer(), "GET");
        assert_eq!((reply.status, reply.body.len()), (200, if n % 2 == 0 { 1 } else { 100_000 }), "client {n}");
    }
}

/// Lost otherwise: a reason, for the one too many.
#[test]
fn the_one_too_many_reads_a_503() {
    let folder = layout("host default www\n", &[("a.txt", b"a")]);
    let server = Server::spawn(in_folder(&folder, &["--max-clients", "2"]), 1);
    let site = Site { folder, server };
    let held = [site.server.send(b"GET"), site.server.send(b"GET")];
    wait_until("both are in", || (site.get("/a.txt").status == 503).then_some(()));
    assert_eq!(site.ask("HEAD", "/a.txt", &[]).status, 503, "whose response has no content");
    drop(held);
    wait_until("there is a place again", || (site.get("/a.txt").status == 200).then_some(()));
}

/// Lost otherwise: newcomers, to connections that browsers keep for nothing; or requests under way, to newcomers.
#[test]
fn the_connection_that_waits_longest_gives_way() {
    let folder = layout("host default www\n", &[("a.txt", b"a")]);
    let server = Server::spawn(in_folder(&folder, &["--max-clients", "3"]), 1);
    let site = Site { folder, server };
    let mut ask = |client: &mut Client| {
        client.send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n");
        read_head(client);
        client.read_exact(&mut [0]).unwrap();
    };
    let mut kept: Vec<Client> = (0..2).map(|_| site.server.connect()).collect();
    kept.iter_mut().for_each(&mut ask);
    let mut busy = site.server.send(b"GET /a.txt HTTP/1.1\r\n");
    ask(&mut kept[0]); // so that the other one has waited longer
    assert_eq!(site.get("/a.txt").status, 200, "a newcomer is served");
    let mut rest = [0];
    assert!(kept[1].read(&mut rest).is_ok_and(|n| n == 0), "in the place of that one");
    ask(&mut kept[0]);
    busy.send(b"Host: a\r\nConnection: close\r\n\r\n");
    assert_eq!(one(&busy.answer(), "GET").text(), "a");
}

/// Lost otherwise: every place, to one address.
#[test]
fn an_address_has_its_share() {
    let folder = layout("host default www\n", &[("a.txt", b"a")]);
    let server = Server::spawn(in_folder(&folder, &["--max-per-address", "2"]), 1);
    let site = Site { folder, server };
    let held = [site.server.connect(), site.server.connect()];
    assert_eq!(site.get("/a.txt").status, 503);
    let from = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    from.bind(&std::net::SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    from.connect(&site.server.address().into()).unwrap();
    let mut other = Client::new(from.into());
    other.send(&request("GET", "/a.txt", &[]));
    assert_eq!(one(&other.answer(), "GET").status, 200, "another address has its own");
    drop(held);
    wait_until("there is a place again", || (site.get("/a.txt").status == 200).then_some(()));
}

/// Lost otherwise: every client, to a log that nothing reads; and the number of the lines that are missing from it.
#[test]
fn a_log_that_nothing_reads_holds_up_no_client() {
    let folder = layout("host default www\n", &[("a.txt", b"a")]);
    let mut command = in_folder(&folder, &["-d"]);
    command.stderr(std::process::Stdio::piped());
    let site = Site { server: Server::spawn(command, 1), folder };
    let long = format!("/a.txt?{}", "x".repeat(4000));
    for _ in 0..200 {
        assert_eq!(site.get(&long).status, 200);
    }
    let Site { mut server, .. } = site;
    let mut lines = BufReader::new(server.stderr()).lines().map_while(Result::ok);
    let (sender, counted) = channel();
    std::thread::spawn(move || {
        let _ = sender.send(lines.any(|line| line.ends_with("lines were dropped here: nothing read them)")));
        lines.for_each(drop);
    });
    assert_eq!(counted.recv_timeout(TEST_TIMEOUT), Ok(true), "they are counted");
    server.signal("TERM");
    assert!(server.wait().success());
}

/// Lost otherwise: the other clients' descriptors, to a few that ask for the same file under many names,
/// and do not read.
#[test]
fn a_client_that_pipelines_holds_one_file_at_a_time() {
    let site = with_large("host default www\n", 3 << 20);
    let before = site.server.descriptors();
    let clients: Vec<Client> = (0..5)
        .map(|_| {
            let mut client = narrow(&site.server);
            for n in 0..100 {
                let path = "./".repeat(n);
                client.send(format!("GET /{path}large.bin HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
            }
            client
        })
        .collect();
    assert_eq!(site.get("/small.txt").text(), "small", "behind all that they have sent");
    let held = site.server.descriptors() - before;
    assert!(held <= 3 * clients.len() + 5, "{held} descriptors");
}

/// Lost otherwise: places, to clients that say nothing.
#[test]
fn who_is_silent_is_harvested() {
    let site = with_large("host default www\nparameter timeout 1\n", 1 << 30);
    let start = Instant::now();
    let mut idle = site.server.connect();
    let mut kept = site.server.send(b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut begun = site.server.send(b"GET /small.txt HTTP/1.1\r\nHo");
    let mut body = site.server.send(b"GET /small.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx");
    let mut stalled = narrow(&site.server);
    stalled.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.answer(), b"", "quietly");
    assert_eq!(one(&kept.answer(), "GET").text(), "small");
    assert_eq!(one(&begun.answer(), "GET").status, 408);
    assert_eq!(one(&body.answer(), "GET").text(), "small");
    let quick = start.elapsed();
    // Not by reading: that would set the transfer going again.
    let reset = wait_until("the stalled one goes too", || stalled.stream().take_error().unwrap());
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset, "no part passes for the whole");
    assert!(quick >= Duration::from_secs(1) && quick < Duration::from_secs(20), "{quick:?}");
}

/// Lost otherwise: long downloads, and slow clients, to a short timeout.
#[test]
fn who_is_being_served_is_not_idle() {
    let site = with_large("host default www\nparameter timeout 3\n", 1 << 30);
    let mut slow = narrow(&site.server);
    slow.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut trickle = site.server.connect();
    let request = b"GET /small.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| {
            for part in request.chunks(8) {
                trickle.send(part);
                std::thread::sleep(Duration::from_millis(500)); // the slowness under test
            }
        });
        let mut buffer = vec![0; 1 << 18];
        while !sent.is_finished() {
            slow.read_exact(&mut buffer).expect("it goes on");
            std::thread::sleep(Duration::from_millis(400)); // the same
        }
    });
    assert_eq!(one(&trickle.answer(), "GET").text(), "small");
}

/// Lost otherwise: downloads, to a restart.
#[test]
fn a_stop_lets_downloads_come_to_their_end() {
    let folder = layout("host default www\n", &[("small.txt", b"small")]);
    fs::File::create(folder.path().join("www/large.bin")).unwrap().set_len(20 << 20).unwrap();
    let server = Server::spawn(in_folder(&folder, &["--grace", "60s"]), 1);
    let mut site = Site { folder, server };
    let mut download = site.server.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut idle = site.server.send(b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut some = [0; 100];
    download.read_exact(&mut some).unwrap();
    idle.read_exact(&mut some).unwrap();
    site.server.signal("TERM");
    assert!(idle.answer().ends_with(b"small"));
    let rest = download.answer();
    let answer = [&some[..], &rest].concat();
    assert_eq!(one(&answer, "GET").body.len(), 20 << 20);
    assert_eq!(site.server.wait().code(), Some(0));
}

/// Reads to the end, at most 1500 KB a second, and calls `between` before every piece.
fn read_slowly(client: &mut Client, len: usize, mut between: impl FnMut(&Client)) -> Vec<u8> {
    let (mut text, mut buffer) = (Vec::new(), vec![0; 30_000]);
    while text.len() < len {
        between(client);
        let wanted = buffer.len().min(len - text.len());
        match client.read(&mut buffer[..wanted]) {
            Ok(0) => break,
            Ok(n) => text.extend(&buffer[..n]),
            Err(error) => panic!("{error}, behind {} bytes", text.len()),
        }
        std::thread::sleep(Duration::from_millis(20)); // that is how slow it is
    }
    text
}

/// Lost otherwise: megabytes that the kernel still held when the server closed. One stray line end of
/// the client's makes such a close a reset.
#[test]
fn a_stray_line_end_does_not_cut_a_reply() {
    let site = with_large("host default www\n", 1_500_000);
    fs::File::create(site.path("medium.bin")).unwrap().set_len(400_000).unwrap();
    let read = |mut client: Client, name: &str, len: usize| {
        client.send(&request("GET", name, &[]));
        let mut strays = 0;
        // Into the reply, and again when the server has long written the last of it.
        let text = read_slowly(&mut client, usize::MAX, |client| {
            strays += 1;
            if strays % 5 == 1 {
                client.stream().write_all(b"\r\n").unwrap();
            }
        });
        let reply = one(&text, "GET");
        assert_eq!((reply.status, reply.body.len()), (200, len));
    };
    std::thread::scope(|scope| {
        for (name, len) in [("/medium.bin", 400_000), ("/large.bin", 1_500_000)] {
            for client in [narrow(&site.server), site.server.connect()] {
                scope.spawn(move || read(client, name, len));
            }
        }
    });
}

/// Lost otherwise: the rest of a reply, to a client that reads slowly and asks for the next page: it
/// is not idle while the kernel holds what it has not read.
#[test]
fn a_slow_reader_of_a_kept_connection_is_not_idle() {
    let site = with_large("host default www\nparameter timeout 2\n", 600_000);
    let mut client = narrow(&site.server);
    for _ in 0..2 {
        client.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = read_head(&mut client);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(read_slowly(&mut client, 600_000, |_| {}).len(), 600_000);
    }
}

/// Reads a reply's head, and nothing behind it.
fn read_head(client: &mut Client) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}
