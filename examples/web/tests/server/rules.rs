//! The specification, request by request.

use super::*;
use std::io::Read;

/// Lost otherwise: what a browser or a cache goes by.
#[test]
fn a_file_comes_with_all_that_is_said_of_it() {
    let site = Site::new(&[("page.html", b"<p>hello")]);
    let reply = site.get("/page.html");
    assert_eq!((reply.status, reply.text()), (200, "<p>hello"));
    assert_eq!(reply.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(reply.header("Content-Length"), Some("8"));
    assert_eq!(reply.header("Last-Modified"), Some(MODIFIED_DATE));
    assert_eq!(reply.header("Accept-Ranges"), Some("bytes"));
    assert_eq!(reply.header("Server"), Some("pollstack"));
    let etag = reply.header("ETag").unwrap();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2, "{etag}");
    let date = httpdate::parse_http_date(reply.header("Date").unwrap()).unwrap();
    assert!(date.elapsed().unwrap() < Duration::from_secs(60));
    assert_eq!((reply.header("Vary"), reply.header("Content-Encoding")), (None, None));

    let head = site.ask("HEAD", "/page.html", &[]);
    assert_eq!((head.status, &head.body[..]), (200, &b""[..]));
    let without_date = |reply: &Response| {
        let fields = reply.headers.iter().filter(|(name, _)| name != "Date");
        fields.cloned().collect::<Vec<_>>()
    };
    assert_eq!(without_date(&head), without_date(&reply), "a HEAD has the fields of a GET");
}

/// Lost otherwise: files of some length, to a boundary of a buffer.
#[test]
fn files_of_every_length_come_whole() {
    let content: Vec<u8> = (0..3_000_000).map(|n: u32| (n % 251) as u8).collect();
    let lengths = [0, 1, 1023, 1024, 1025, 32767, 32768, 32769, 65536, 262_143, 262_145, 3_000_000];
    let files: Vec<(String, &[u8])> = lengths.iter().map(|n| (format!("{n}.bin"), &content[..*n])).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), *content)).collect();
    let site = Site::new(&files);
    let targets: Vec<String> = files.iter().map(|(name, _)| format!("/{name}")).collect();
    // One after the other, and all in one go.
    for (target, (_, content)) in targets.iter().zip(&files) {
        assert!(site.get(target).body == *content, "{target}");
    }
    let requests: String = targets.iter().map(|target| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let mut client = site.server.send(requests.as_bytes());
    client.fin();
    let answer = client.answer();
    let (all, len) = replies(&answer, &vec!["GET"; targets.len()]).expect("all replies");
    assert_eq!(len, answer.len());
    for (reply, (name, content)) in all.iter().zip(&files) {
        assert!(reply.status == 200 && reply.body == *content, "{name}");
    }
}

/// Lost otherwise: what the browser does with a file.
#[test]
fn media_types_come_from_the_configuration_or_the_usual_table() {
    let names =
        ["a.html", "a.css", "a.js", "a.png", "a.tar.gz", "a.HTML", "a.own", "a.json", "noext", "a.what", ".html"];
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &b"x"[..])).collect();
    let config = "host default www\nmedia own application/x-own\nmedia JSON text/x-json;charset=latin1\n";
    let site = Site::with(config, &files);
    for (name, media) in [
        ("a.html", "text/html; charset=utf-8"),
        ("a.HTML", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.tar.gz", "application/gzip"),
        ("a.own", "application/x-own"),
        ("a.json", "text/x-json;charset=latin1"),
        ("noext", "text/plain; charset=utf-8"),
        ("a.what", "text/plain; charset=utf-8"),
    ] {
        assert_eq!(site.get(&format!("/{name}")).header("Content-Type"), Some(media), "{name}");
    }
}

/// Lost otherwise: pages, or the links on them.
#[test]
fn a_folder_is_its_index_behind_a_slash() {
    let files: &[(&str, &[u8])] =
        &[("index.html", b"root"), ("a/index.html", b"a"), ("b/c.txt", b"c"), ("index.html.txt", b"x")];
    let site = Site::new(files);
    for target in ["/", "/index.html", "/.", "/./", "//", "/?a=b", "http://x.example/", "http://x.example"] {
        assert_eq!(site.get(target).text(), "root", "{target}");
    }
    assert_eq!((site.get("/a/").text(), site.get("/a/.").text()), ("a", "a"));
    for (target, location) in [
        ("/a", "/a/"),
        ("/a?b=c", "/a/?b=c"),
        ("/b", "/b/"),
        ("/%61", "/%61/"),
        ("//a", "/a/"),
        ("///./a", "/./a/"),
        ("http://x.example/a", "/a/"),
    ] {
        let reply = site.get(target);
        assert_eq!((reply.status, reply.header("Location")), (301, Some(location)), "{target}");
    }
    for target in ["/b/", "/none", "/a/none", "/index.html/", "/index.html/x", "/b/c.txt/"] {
        assert_eq!(site.get(target).status, 404, "{target}");
    }
}

/// Lost otherwise: the way in, for who has just installed it.
#[test]
fn a_host_without_a_page_says_how_to_install_one() {
    let site = Site::new(&[("a.txt", b"a")]);
    for target in ["/", "//", "/?x"] {
        let reply = site.get(target);
        assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
        assert!(reply.text().contains("index.html"), "{target}: {}", reply.text());
        assert!(!reply.text().contains(site.folder.path().to_str().unwrap()), "and no more than that");
    }
    assert_eq!(site.ask("HEAD", "/", &[]).status, 200);
    assert_eq!(site.get("/index.html").status, 404, "that is a file's name");
    write(&site.path("index.html"), b"installed");
    assert_eq!(site.get("/").text(), "installed", "at once");
}

/// Lost otherwise: a folder, to a client that cannot follow; or the truth about what was sent.
#[test]
fn a_client_is_sent_to_an_address_that_is_one() {
    let site = Site::new(&[("\u{e4} \"b\"/index.html", b"a"), ("c/index.html", b"c")]);
    assert_eq!(site.get("/\u{e4}%20%22b%22").header("Location"), Some("/%C3%A4%20%22b%22/"));
    assert_eq!(site.get("/c?\u{e4}=\"<\\>").header("Location"), Some("/c/?%C3%A4=%22%3C%5C%3E"));
    let long = format!("/c?{}", "q".repeat(6000));
    assert_eq!(site.get(&long).header("Location"), Some(&*long.replace("/c?", "/c/?")));
    assert_eq!(site.get(&format!("/c?{}", "q".repeat(8000))).status, 414, "its head would be too long");
}

/// Lost otherwise: texts in an encoding that is not declared, or is another one; and files that a browser would
/// play, or keep.
#[test]
fn types_say_what_is_known() {
    let large = [&vec![b'a'; 65_535][..], "\u{e4}".as_bytes()].concat();
    let site = Site::new(&[
        ("utf8.txt", "\u{e4}".as_bytes()),
        ("latin1.txt", b"caf\xe9"),
        ("latin1.html", b"<meta charset=iso-8859-1>\xe9"),
        ("cut.txt", &large),
        ("a.ts", b"x"),
        ("a.zst", b"x"),
        ("a.sqlite", b"x"),
    ]);
    for (name, media) in [
        ("utf8.txt", "text/plain; charset=utf-8"),
        ("latin1.txt", "text/plain"),
        ("latin1.html", "text/html"),
        ("cut.txt", "text/plain; charset=utf-8"),
        ("a.ts", "video/mp2t"),
        ("a.zst", "application/zstd"),
        ("a.sqlite", "application/vnd.sqlite3"),
    ] {
        assert_eq!(site.get(&format!("/{name}")).header("Content-Type"), Some(media), "{name}");
    }
}

/// Lost otherwise: files with unusual names, or those of others.
#[test]
fn paths_are_decoded_once() {
    let files: &[(&str, &[u8])] =
        &[("a b.txt", b"space"), ("%41.txt", b"percent"), ("\u{e4}.txt", b"umlaut"), ("a+b.txt", b"plus"), ("~", b"~")];
    let site = Site::new(files);
    for (target, text) in [
        ("/a%20b.txt", "space"),
        ("/%2541.txt", "percent"),
        ("/%C3%A4.txt", "umlaut"),
        ("/%c3%a4.txt", "umlaut"),
        ("/\u{e4}.txt", "umlaut"),
        ("/a+b.txt", "plus"),
        ("/%61%2bb%2etxt", "plus"),
        ("/~", "~"),
        ("/%7E", "~"),
    ] {
        assert_eq!(site.get(target).text(), text, "{target}");
    }
    for (target, status) in
        [("/%41.txt", 404), ("/%", 400), ("/%4", 400), ("/%4g.txt", 400), ("/a%2", 400), ("/%+1", 400)]
    {
        assert_eq!(site.get(target).status, status, "{target}");
    }
    assert_eq!(site.get(&format!("/{}", "a".repeat(300))).status, 404, "too long for a name");
    assert_eq!(site.get(&format!("/{}", "a/".repeat(3000))).status, 404, "too long for a path");
}

/// Lost otherwise: clients' idea of what they may do.
#[test]
fn only_get_and_head_are_for_files() {
    let site = Site::new(&[("a.txt", b"a")]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] {
        let reply = site.ask(method, "/a.txt", &[]);
        assert_eq!((reply.status, reply.header("Allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(site.ask("OPTIONS", "*", &[]).status, 405);
    for method in ["BREW", "get", "PROPFIND"] {
        let reply = site.ask(method, "/a.txt", &[]);
        assert_eq!((reply.status, reply.header("Allow")), (501, None), "{method}");
    }
    assert_eq!(site.ask("CONNECT", "a.example:80", &[]).status, 501);
}

/// Lost otherwise: the next request of a client that has sent a body.
#[test]
fn bodies_are_read_past() {
    let site = Site::new(&[("a.txt", b"a"), ("b.txt", b"b")]);
    let mut bytes = b"POST /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nGET / HTT".to_vec();
    bytes.extend(b"GET /a.txt HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    bytes.extend(request("GET", "/b.txt", &[]));
    let answer = site.server.send(&bytes).answer();
    let (replies, _) = replies(&answer, &["POST", "GET", "GET"]).expect("three replies");
    let told: Vec<(u16, &str)> = replies[1..].iter().map(|reply| (reply.status, reply.text())).collect();
    assert_eq!((replies[0].status, told), (405, vec![(200, "a"), (200, "b")]));

    let reply = site.ask("POST", "/a.txt", &[("Content-Length", "10000000000")]);
    assert_eq!(reply.status, 413);
}

/// Lost otherwise: old clients, and the connections of new ones.
#[test]
fn connections_are_kept_as_the_version_says() {
    let site = Site::new(&[("a.txt", b"a")]);
    let mut client = site.server.send(b"GET /a.txt HTTP/1.0\r\n\r\n");
    assert_eq!(one(&client.answer(), "GET").text(), "a");
    let mut client = site.server.send(b"GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let mut first = [0; 17];
    client.read_exact(&mut first).unwrap();
    client.send(b"GET /a.txt HTTP/1.0\r\n\r\n");
    let answer = [&first[..], &client.answer()].concat();
    let (replies, _) = replies(&answer, &["GET", "GET"]).expect("two replies");
    assert_eq!((replies[0].header("Connection"), replies[1].closes()), (Some("keep-alive"), true));
}

/// Lost otherwise: a reason, for who gets a request wrong. Each of these is readable.
#[test]
fn what_is_no_request_is_told_so() {
    let site = Site::new(&[("a.txt", b"a")]);
    let long = "x".repeat(9000);
    for (status, bytes) in [
        (400, "GET /a.txt HTTP/1.1\r\n\r\n".to_owned()),
        (400, "GET /a.txt HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned()),
        (400, "GET /a.txt HTTP/1.1\r\nHost: a/../b\r\n\r\n".to_owned()),
        (414, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", format!("a: {long}\r\n").repeat(4))),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(200))),
        (505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned()),
        (501, format!("{long} / HTTP/1.1\r\nHost: a\r\n\r\n")),
        (501, format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", &long[..40])),
        (501, long.clone()),
    ] {
        let reply = one(&site.server.send(bytes.as_bytes()).answer(), "GET");
        assert_eq!((reply.status, reply.closes()), (status, true), "{}", &bytes[..20]);
    }
}

/// Lost otherwise: who asked for what.
#[test]
fn with_d_requests_are_logged_in_the_common_format() {
    let folder = layout("host default www\n", &[("a.txt", b"four")]);
    let log = folder.path().join("log");
    let mut command = in_folder(&folder, &["-d"]);
    command.stderr(fs::File::create(&log).unwrap());
    let site = Site { server: Server::spawn(command, 1), folder };
    site.get("/a.txt?q=%22\"");
    site.ask("HEAD", "/a.txt", &[]);
    site.get("/none");
    site.server.send(b"GET /a.txt HTTP/1.0\r\n\r\n").answer();
    let text = wait_until("four lines are logged", || {
        let text = fs::read_to_string(&log).unwrap();
        (text.matches(" - - [").count() == 4 && text.ends_with('\n')).then_some(text)
    });
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" - - [")).collect();
    let ends = [
        r#" +0000] "GET /a.txt?q=%22\" HTTP/1.1" 200 4"#,
        r#" +0000] "HEAD /a.txt HTTP/1.1" 200 -"#,
        r#" +0000] "GET /none HTTP/1.1" 404 -"#,
        r#" +0000] "GET /a.txt HTTP/1.0" 200 4"#,
    ];
    for (line, end) in lines.iter().zip(ends) {
        assert!(line.starts_with("127.0.0.1 - - [") && line.ends_with(end), "{line}");
        let date = &line["127.0.0.1 - - [".len()..line.len() - end.len()];
        assert!(date.len() == 20 && date.matches('/').count() == 2 && date.matches(':').count() == 3, "{date}");
    }
}

/// Lost otherwise: who sent what was rejected.
#[test]
fn with_d_rejections_are_logged_too() {
    let folder = layout("host default www\n", &[("a.txt", b"four")]);
    let log = folder.path().join("log");
    let mut command = in_folder(&folder, &["-d"]);
    command.stderr(fs::File::create(&log).unwrap());
    let site = Site { server: Server::spawn(command, 1), folder };
    let long = "x".repeat(9000);
    let rejections = [
        ("GET /a HTTP/1.1\r\n\r\n".to_owned(), "\"GET /a\" 400 "),
        ("nonsense\r\n\r\n".to_owned(), "\"-\" 400 "),
        ("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n".to_owned(), "\"POST /p\" 413 "),
        (format!("GET /{long}"), "\"GET -\" 414 "),
        ("GET /e HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n".to_owned(), "\"GET /e\" 417 "),
        (format!("{long} /"), "\"-\" 501 "),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "\"CONNECT a:1\" 501 "),
        ("HEAD /v HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), "\"HEAD /v\" 505 -"),
    ];
    for (n, (bytes, line)) in rejections.iter().enumerate() {
        let answer = site.server.send(bytes.as_bytes()).answer();
        let status = format!("HTTP/1.1 {}", line.rsplit("\" ").next().unwrap().get(..3).unwrap());
        assert!(answer.starts_with(status.as_bytes()), "{line}: {}", String::from_utf8_lossy(&answer));
        wait_until("a line is logged", || {
            let text = fs::read_to_string(&log).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| line.contains(" - - [")).collect();
            (lines.len() == n + 1 && lines[n].contains(line)).then_some(())
        });
    }
}

/// Lost otherwise: caches that keep responses too long, and changes that are answered 304, after the clock of a machine
/// was set.
#[test]
fn the_date_follows_a_clock_that_is_set() {
    let folder = layout("host default www\n", &[("a.txt", b"old")]);
    let mut command = in_folder(&folder, &[]);
    let Some(clock) = SettableClock::of(&mut command) else { return };
    let site = Site { server: Server::spawn(command, 1), folder };
    let date = |reply: &Response| httpdate::parse_http_date(reply.header("Date").unwrap()).unwrap();
    for hours in [24, -24] {
        clock.set(hours * 3600);
        let hour = Duration::from_secs(3600);
        wait_until("the new date is told", || {
            let (told, now) = (date(&site.get("/a.txt")), SystemTime::now());
            let off = if hours > 0 { told.duration_since(now) } else { now.duration_since(told) };
            off.is_ok_and(|off| off > 23 * hour && off < 25 * hour).then_some(())
        });
    }
    // A file of a time that is to come, by the server's clock.
    fs::write(site.path("new.txt"), "new").unwrap();
    let reply = site.get("/new.txt");
    let told = reply.header("Last-Modified").unwrap();
    assert!(httpdate::parse_http_date(told).unwrap() <= date(&reply), "no date is in the future");
    assert_eq!(site.ask("GET", "/new.txt", &[("If-Modified-Since", told)]).status, 200, "it may have changed since");
}

/// Lost otherwise: a way to see what a server would do, and its man page.
#[test]
fn the_command_line_explains_itself() {
    test_support::check_command_line(env!("CARGO_BIN_EXE_web"), "web", &[], "# --metrics  # not given");
}

/// Lost otherwise: the operator's view of it.
#[test]
fn it_tells_its_metrics() {
    let folder = layout("host default www\n", &[]);
    let server = Server::spawn(in_folder(&folder, &["--metrics", "127.0.0.1:0"]), 2);
    assert!(server.ready[0].starts_with("listening on "), "the first line is that: {:?}", server.ready);
    test_support::check_metrics(&server, "web", "web_responses_total{status=\"2xx\"} 0");
    let elsewhere = Server::spawn(in_folder(&folder, &["--metrics", "0.0.0.0:0"]), 2);
    test_support::check_metrics_elsewhere(&elsewhere);
}
