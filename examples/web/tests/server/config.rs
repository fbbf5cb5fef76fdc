//! The configuration: hosts, what is wrong with it, and when it is read again.

use super::*;

/// Lost otherwise: clients, at a restart by a service manager, which keeps the socket.
#[test]
fn a_socket_that_is_handed_over_is_used() {
    let folder = layout("host default www\n", &[("a.txt", b"handed over")]);
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::spawn(test_support::handed(&in_folder(&folder, &[]), &socket), 1);
    assert_eq!(server.address(), socket.local_addr().unwrap());
    let site = Site { folder, server };
    assert_eq!(site.get("/a.txt").text(), "handed over");
    let output = run(test_support::handed(&in_folder(&site.folder, &["--workers", "2"]), &socket));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "web: --workers 2: sockets that are handed over are for one worker\n");
}

/// Lost otherwise: one site's visitors, to another.
#[test]
fn hosts_are_told_apart_by_name() {
    let config = "# two of them\nhost default www\nhost A.example www/a # inside\n\thost  [::1]\twww/b\nhost 127.0.0.1 www/b\n\
        host Dotted.Example. www/b\nhost [0:0::2] www/b\n";
    let site = Site::with(config, &[("i.txt", b"default"), ("a/i.txt", b"a"), ("b/i.txt", b"b")]);
    for (host, text) in [
        ("a.example", "a"),
        ("A.EXAMPLE", "a"),
        ("a.example:8080", "a"),
        ("a.example.", "a"),
        ("a.example:", "a"),
        ("dotted.example", "b"),
        ("DOTTED.example.:80", "b"),
        ("[0:0:0:0:0:0:0:1]", "b"),
        ("[::2]", "b"),
        ("b.example", "default"),
        ("xa.example", "default"),
        ("", "default"),
        ("default", "default"),
        ("[::1]:80", "b"),
        ("127.0.0.1:1", "b"),
    ] {
        assert_eq!(site.get_with("/i.txt", &[("Host", host)]).text(), text, "{host}");
    }
    assert_eq!(site.get_with("http://a.example:80/i.txt", &[("Host", "b.example")]).text(), "a", "the target wins");
    let old = site.server.send(b"GET /i.txt HTTP/1.0\r\n\r\n").answer();
    assert_eq!(one(&old, "GET").text(), "default");
    let long = format!("{}.a.example", "x".repeat(300));
    assert_eq!(site.get_with("/i.txt", &[("Host", &long)]).text(), "default");
}

/// Lost otherwise: the border between two sites.
#[test]
fn without_a_default_other_hosts_are_not_found() {
    let site = Site::with("host a.example www\n", &[("i.txt", b"a")]);
    assert_eq!(site.get_with("/i.txt", &[("Host", "a.example")]).text(), "a");
    assert_eq!(site.get_with("/i.txt", &[("Host", "b.example")]).status, 404);
}

/// Lost otherwise: an evening, to a mistake without a line.
#[test]
fn a_mistake_is_told_with_file_line_and_reason() {
    for (config, line, reason) in [
        ("host default none\n", ":1:", "none: No such file"),
        ("\n\nhost default secret.txt\n", ":3:", "Not a directory"),
        ("host default\n", ":1:", "`host` needs a name and a value"),
        ("host a.example:80 www\n", ":1:", "without a port"),
        ("host a/b www\n", ":1:", "is no host"),
        ("host default www\nhost default www\n", ":2:", "already"),
        ("host a www\nhost A www\n", ":2:", "already"),
        ("host default www\nhots a www\n", ":2:", "`hots` is no directive"),
        ("HOST default www\n", ":1:", "is no directive"),
        ("host default www\nmedia html\n", ":2:", "needs"),
        ("host default www\nmedia html html\n", ":2:", "no media type"),
        ("host default www\nmedia html text/ht ml\n", ":2:", "no media type"),
        ("host default www\nmedia html text/html;\u{7f}\n", ":2:", "no media type"),
        ("host default www\nmedia .html text/html\n", ":2:", "without the dot"),
        ("host default www\nmedia a a/b\nmedia A a/b\n", ":3:", "already"),
        ("host default www\nparameter timeout 0\n", ":2:", "`0` is no timeout"),
        ("host default www\nparameter timeout -1\n", ":2:", "no timeout"),
        ("host default www\nparameter timeout 1.5\n", ":2:", "no timeout"),
        ("host default www\nparameter timeout 99999999999999999999\n", ":2:", "no timeout"),
        ("host default www\nparameter timeout 1\nparameter timeout 1\n", ":3:", "already"),
        ("host default www\nparameter timeuot 1\n", ":2:", "no parameter"),
        ("# nothing\n", ":", "names no host"),
        ("", ":", "names no host"),
        ("host a. www\nhost A www\n", ":2:", "already"),
        ("host Default www\nhost default www\n", ":2:", "already"),
        ("host default www\nparameter dotfiles maybe\n", ":2:", "neither on nor off"),
    ] {
        let folder = layout(config, &[]);
        for args in [&["--check"][..], &[]] {
            let output = run(in_folder(&folder, args));
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{config}: {text}");
            let start = format!("web: {}{line} ", folder.path().join("web.conf").display());
            assert!(text.starts_with(&start) && text.contains(reason) && text.lines().count() == 1, "{config}: {text}");
            assert_eq!(output.stdout, b"");
        }
    }
}

/// Lost otherwise: a way to be sure before a reload.
#[test]
fn check_only_checks() {
    let folder = layout("host default www\r\nmedia x a/b # c\nparameter timeout 1\n#", &[]);
    let output = run(in_folder(&folder, &["--check"]));
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    let mut bad = layout("", &[]);
    fs::write(bad.path().join("web.conf"), b"host default www\n\xff\n").unwrap();
    let output = run(in_folder(&bad, &["--check"]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("web.conf:2: this is not UTF-8"), "{output:?}");
    bad.disable_cleanup(false);
}

/// Lost otherwise: a first try without reading anything.
#[test]
fn without_a_configuration_it_serves_www() {
    let folder = layout("", &[("a.txt", b"usual")]);
    let mut command = test_support::command(env!("CARGO_BIN_EXE_web"), &["--listen", "127.0.0.1:0"]);
    command.current_dir(folder.path());
    fs::write(folder.path().join("web.conf"), "host default www/..\n").unwrap();
    let there = Site { server: Server::spawn(command, 1), folder };
    assert_eq!(there.get("/www/a.txt").text(), "usual", "web.conf is read if it is there");
    fs::remove_file(there.folder.path().join("web.conf")).unwrap();
    let mut command = test_support::command(env!("CARGO_BIN_EXE_web"), &["--listen", "127.0.0.1:0"]);
    command.current_dir(there.folder.path());
    let site = Site { server: Server::spawn(command, 1), ..there };
    assert_eq!(site.get("/a.txt").text(), "usual");

    let empty = tempfile::tempdir().unwrap();
    let mut command = test_support::command(env!("CARGO_BIN_EXE_web"), &["-p", "0"]);
    command.current_dir(empty.path());
    let output = run(command);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && text.contains("www: No such file") && text.lines().count() == 1,
        "{text}"
    );
    let named = run(test_support::command(env!("CARGO_BIN_EXE_web"), &["--config", "/no/such/web.conf"]));
    let text = String::from_utf8(named.stderr).unwrap();
    assert!(text.starts_with("web: /no/such/web.conf: it cannot be read: No such file"), "{text}");
}

/// Lost otherwise: every host's files, to those of another folder.
#[test]
fn a_configuration_that_is_gone_is_a_mistake() {
    let folder = layout(
        "\u{feff}host Default www/new # behind a byte order mark\n",
        &[("new/a.txt", b"new"), ("a.txt", b"old")],
    );
    let log = folder.path().join("log");
    let mut command = test_support::command(env!("CARGO_BIN_EXE_web"), &["--listen", "127.0.0.1:0"]);
    command.current_dir(folder.path()).stderr(fs::File::create(&log).unwrap());
    let site = Site { server: Server::spawn(command, 1), folder };
    assert_eq!(site.get("/a.txt").text(), "new");
    fs::remove_file(site.folder.path().join("web.conf")).unwrap();
    site.server.signal("HUP");
    wait_until("it is logged", || {
        fs::read_to_string(&log).unwrap().contains("the old configuration stays").then_some(())
    });
    assert_eq!(site.get("/a.txt").text(), "new");
}

/// Lost otherwise: a start, or a reload, with more hosts than descriptors; or a small server, to what a large one
/// would need.
#[test]
#[cfg(target_os = "linux")]
fn descriptors_are_reserved_before_the_roots_are_opened() {
    let hosts = |n: usize| (0..n).map(|n| format!("host h{n}.example www\n")).collect::<String>();
    let folder = layout(&hosts(1030), &[("a.txt", b"a")]);
    let log = folder.path().join("log");
    let limited = |soft: &str, hard: &str, args: &[&str]| {
        let web = in_folder(&folder, args);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$@\""), "sh"]);
        command.arg(web.get_program()).args(web.get_args()).env_remove("RUST_LOG").stdin(std::process::Stdio::null());
        command
    };
    let mut command = limited("1024", "20000", &[]);
    command.stderr(fs::File::create(&log).unwrap());
    let server = Server::spawn(command, 1);
    let ask = |host| one(&server.send(&request("GET", "/a.txt", &[("Host", host)])).answer(), "GET").status;
    assert_eq!((ask("h1029.example"), ask("h1030.example")), (200, 404));
    fs::write(folder.path().join("web.conf"), hosts(4000)).unwrap();
    server.signal("HUP");
    wait_until("the new hosts are there", || (ask("h3999.example") == 200).then_some(()));
    assert_eq!(fs::read_to_string(&log).unwrap(), "");

    fs::write(folder.path().join("web.conf"), hosts(1)).unwrap();
    let small = Server::spawn(limited("256", "256", &["--max-clients", "1"]), 1);
    assert_eq!(one(&small.send(&request("GET", "/a.txt", &[("Host", "h0.example")])).answer(), "GET").status, 200);
}

/// Lost otherwise: scripts, and operators who mistype.
#[test]
fn bad_arguments_are_usage_errors() {
    let site = Site::new(&[]);
    let address = site.server.address().to_string();
    let config = site.folder.path().join("web.conf");
    for (args, status, names) in [
        (&["-p", "x"][..], 2, "'x'"),
        (&["-p", "65536"], 2, "65536"),
        (&["--listen", "localhost:1"], 2, "IP:PORT"),
        (&["what"], 2, "'what'"),
        (&["--max-clients", "0"], 2, "'0'"),
        (&["--max-clients", "99999999", "--config", config.to_str().unwrap()], 1, "--max-clients"),
        (&["--listen", &address, "--config", config.to_str().unwrap()], 1, "is another server running there?"),
    ] {
        let output = run(test_support::command(env!("CARGO_BIN_EXE_web"), args));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
        assert!(text.contains(names), "{args:?}: {text}");
    }
}

/// Lost otherwise: addresses.
#[test]
fn it_listens_where_it_is_told() {
    let folder = layout("host default www\n", &[("a.txt", b"a")]);
    let socket = format!("unix:{}", folder.path().join("web.sock").display());
    let config = folder.path().join("web.conf");
    let args = ["-p", "0", "--listen", "[::1]:0", "--listen", &socket, "--config", config.to_str().unwrap()];
    let server = Server::spawn(command(env!("CARGO_BIN_EXE_web"), &args), 3);
    assert!(server.ready[0].starts_with("listening on 0.0.0.0:"), "{:?}", server.ready);
    assert!(server.ready[1].starts_with("listening on [::1]:"), "{:?}", server.ready);
    let mut stream = std::os::unix::net::UnixStream::connect(folder.path().join("web.sock")).unwrap();
    std::io::Write::write_all(&mut stream, &request("GET", "/a.txt", &[])).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    assert_eq!(one(&answer, "GET").text(), "a");
}

/// Lost otherwise: the site, to a slip of the pen; or every connection, to a change.
#[test]
fn a_reload_takes_what_is_right_and_keeps_what_was() {
    let folder = layout("host default www\n", &[("a.txt", b"old"), ("new/a.txt", b"new")]);
    let log = folder.path().join("log");
    let mut command = in_folder(&folder, &[]);
    command.stderr(fs::File::create(&log).unwrap());
    let site = Site { server: Server::spawn(command, 1), folder };
    let config = site.folder.path().join("web.conf");
    let mut kept = site.server.connect();
    let mut ask = || {
        kept.send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut bytes = Vec::new();
        loop {
            let mut some = [0; 4096];
            let n = std::io::Read::read(&mut kept, &mut some).unwrap();
            assert!(n > 0, "the connection is kept");
            bytes.extend(&some[..n]);
            if let Some((mut all, _)) = replies(&bytes, &["GET"]) {
                return all.remove(0);
            }
        }
    };
    assert_eq!(ask().text(), "old");
    for (n, bad) in ["host default none\n", "nonsense\n"].into_iter().enumerate() {
        fs::write(&config, bad).unwrap();
        site.server.signal("HUP");
        let text = wait_until("the mistake is logged", || {
            let text = fs::read_to_string(&log).unwrap();
            (text.matches("the old configuration stays\n").count() == n + 1).then_some(text)
        });
        assert!(text.contains("web.conf:1: "), "{text}");
        assert_eq!(ask().text(), "old");
    }
    fs::write(&config, "host default www/new\nmedia txt text/x-new\n").unwrap();
    site.server.signal("HUP");
    let reply = wait_until("the new one is served", || Some(ask()).filter(|reply| reply.text() == "new"));
    assert_eq!(reply.header("Content-Type"), Some("text/x-new; charset=utf-8"));
    fs::remove_file(&config).unwrap();
    site.server.signal("HUP");
    wait_until("the missing file is logged", || {
        fs::read_to_string(&log).unwrap().contains("it cannot be read").then_some(())
    });
    assert_eq!(ask().text(), "new");
}

/// Lost otherwise: all cores but one; and the new configuration, or a drain, on some of them.
#[test]
#[cfg(target_os = "linux")]
fn workers_share_the_port_the_reload_and_the_stop() {
    let folder = layout("host default www/old\n", &[("old/a.txt", b"old"), ("new/a.txt", b"new")]);
    let options = ["--workers", "3", "--max-clients", "40", "--metrics", "127.0.0.1:0"];
    let server = Server::spawn(in_folder(&folder, &options), 2);
    let mut site = Site { server, folder };
    let mut clients: Vec<Client> = (0..60).map(|_| site.server.connect()).collect();
    let served = clients.iter_mut().filter_map(|client| {
        client.send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut status = [0; 12];
        std::io::Read::read_exact(client, &mut status).unwrap();
        (status == *b"HTTP/1.1 200").then_some(())
    });
    assert!(served.count() > 40, "one worker alone admits 40");
    drop(clients);
    let served = 60 - test_support::metric(&site.server, "web_rejected_total");
    assert_eq!(test_support::metric(&site.server, "web_responses_total{status=\"2xx\"}"), served, "of all workers");
    fs::write(site.folder.path().join("web.conf"), "host default www/new\n").unwrap();
    site.server.signal("HUP");
    wait_until("every worker serves the new one", || (0..30).all(|_| site.get("/a.txt").text() == "new").then_some(()));
    site.server.signal("TERM");
    assert!(site.server.wait().success());
}

/// Lost otherwise: an hour, to a number that was taken for another.
#[test]
fn the_number_of_workers_has_to_be_one() {
    for wrong in ["0", "1.5", "many"] {
        let output = run(in_folder(&layout("host default www\n", &[]), &["--workers", wrong]));
        assert!(
            !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("--workers"),
            "{output:?}"
        );
    }
}
