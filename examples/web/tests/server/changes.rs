//! Files may change while they are served. A change is seen a second later at the most.

use super::*;
use std::io::Read;
use std::time::Instant;

/// Waits until `target` is answered so, and returns how long that took.
fn seen(site: &Site, target: &str, is: impl Fn(&Response) -> bool) -> Duration {
    let start = Instant::now();
    wait_until("the change is seen", || Some(site.get(target)).filter(|reply| is(reply)));
    start.elapsed()
}

/// Lost otherwise: every change, to a cache.
#[test]
fn changes_are_seen_within_a_second() {
    let large = vec![b'x'; 200_000];
    let site = Site::new(&[("a.txt", b"one"), ("b.txt", &large)]);
    std::thread::scope(|scope| {
        for target in ["/a.txt", "/b.txt"] {
            scope.spawn(|| is_seen_to_change(&site, target));
        }
    });
}

fn is_seen_to_change(site: &Site, target: &str) {
    let path = site.path(&target[1..]);
    let first = site.get(target);
    // Written to, and as long as before.
    write(&path, &first.body.to_ascii_uppercase());
    set_modified(&path, SystemTime::now());
    let mut times = vec![seen(site, target, |reply| reply.header("ETag") != first.header("ETag"))];
    assert_eq!(site.get(target).body, first.body.to_ascii_uppercase());
    // Replaced by one that claims to be as old.
    let other = path.with_extension("other");
    write(&other, b"other");
    fs::rename(other, &path).unwrap();
    times.push(seen(site, target, |reply| reply.text() == "other"));
    // Deleted, and there again.
    fs::remove_file(&path).unwrap();
    times.push(seen(site, target, |reply| reply.status == 404));
    write(&path, b"again");
    assert_eq!(site.get(target).text(), "again", "a missing file is not remembered");
    // Made a folder of.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    times.push(seen(site, target, |reply| reply.status == 301));
    // More than the second, for machines that are busy; far less than never.
    assert!(times.iter().all(|time| *time < Duration::from_secs(10)), "{times:?}");
}

/// Lost otherwise: a page, glued from two; or the old one, to a client that is told that it is the new one.
#[test]
fn files_of_the_same_size_and_time_have_different_etags() {
    let large = [vec![b'a'; 100_000], vec![b'b'; 100_000]];
    for [one_content, other_content] in [[&b"one"[..], b"two"], [&large[0], &large[1]]] {
        let site = Site::new(&[("a.bin", one_content), ("other.bin", other_content)]);
        let first = site.get("/a.bin");
        fs::rename(site.path("other.bin"), site.path("a.bin")).unwrap();
        seen(&site, "/a.bin", |reply| reply.body == other_content);
        let etag = first.header("ETag").unwrap();
        assert_eq!(first.header("Last-Modified"), site.get("/a.bin").header("Last-Modified"));
        assert_eq!(site.get_with("/a.bin", &[("If-None-Match", etag)]).status, 200);
        assert_eq!(site.get_with("/a.bin", &[("If-Range", etag), ("Range", "bytes=1-")]).status, 200, "all of it");
    }
}

/// Lost otherwise: a release that is put in place by the flip of a link, or of a folder.
#[test]
fn a_root_is_what_its_path_names_now() {
    let config = "host default current\n";
    let site = Site { folder: layout("", &[]), ..Site::new(&[]) };
    let (folder, old_server) = (site.folder, site.server);
    drop(old_server);
    let at = |name: &str| folder.path().join(name);
    for release in ["one", "two"] {
        write(&at(release).join("index.html"), release.as_bytes());
    }
    std::os::unix::fs::symlink("one", at("current")).unwrap();
    fs::write(at("web.conf"), config).unwrap();
    let server = Server::spawn(in_folder(&folder, &[]), 1);
    let site = Site { folder, server };
    let at = |name: &str| site.folder.path().join(name);
    assert_eq!(site.get("/").text(), "one");
    std::os::unix::fs::symlink("two", at("next")).unwrap();
    fs::rename(at("next"), at("current")).unwrap();
    seen(&site, "/", |reply| reply.text() == "two");
    fs::remove_dir_all(at("two")).unwrap();
    seen(&site, "/", |reply| reply.status == 404);
    assert_eq!(site.get("/").status, 404, "and no page that says that there is none");
    write(&at("two").join("index.html"), b"anew");
    seen(&site, "/", |reply| reply.text() == "anew");
    std::os::unix::fs::symlink(at("secret.txt"), at("two/link.txt")).unwrap();
    assert_eq!(site.get("/link.txt").status, 403, "confined all the same");
}

/// Lost otherwise: the space of a file that was deleted, for as long as the server runs.
#[test]
fn a_file_that_is_not_asked_for_is_let_go() {
    let site = Site::new(&[("a.bin", &vec![b'x'; 200_000])]);
    let is_held = || {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", site.server.pid())).unwrap();
        let mut targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        targets.any(|target| target.to_string_lossy().contains("a.bin"))
    };
    wait_until("the next one to ask for it is served from it", || {
        site.get("/a.bin");
        is_held().then_some(())
    });
    fs::remove_file(site.path("a.bin")).unwrap();
    wait_until("it is let go", || (!is_held()).then_some(()));
    site.server.wait_until_asleep();
}

/// Lost otherwise: what changed a minute ago, to a clock that was wrong when it did.
#[test]
fn a_time_to_come_is_not_told_and_not_believed() {
    let site = Site::new(&[("a.txt", b"a")]);
    set_modified(&site.path("a.txt"), SystemTime::now() + Duration::from_secs(3600));
    let reply = site.get("/a.txt");
    let time = |name| httpdate::parse_http_date(reply.header(name).unwrap()).unwrap();
    assert!(time("Last-Modified") <= time("Date"), "{:?}", reply.headers);
    let since = reply.header("Last-Modified").unwrap();
    assert_eq!(site.get_with("/a.txt", &[("If-Modified-Since", since)]).status, 200);
}

/// Lost otherwise: system calls; and what is compressed beside a file, when it comes or goes.
#[test]
fn what_lies_beside_a_file_may_change_too() {
    let site = Site::new(&[("a.js", b"plain")]);
    let get = || site.get_with("/a.js", &[("Accept-Encoding", "gzip")]);
    assert_eq!(get().text(), "plain");
    write(&site.path("a.js.gz"), b"gzipped");
    wait_until("it is found", || Some(get()).filter(|reply| reply.text() == "gzipped"));
    fs::remove_file(site.path("a.js.gz")).unwrap();
    wait_until("it is gone", || Some(get()).filter(|reply| reply.text() == "plain" && reply.header("Vary").is_none()));
}

/// Lost otherwise: descriptors and memory, to a site with many files.
#[test]
fn the_cache_is_bounded() {
    let large = vec![b'x'; 40_000];
    let names: Vec<String> = (0..1500).map(|n| format!("{n}.bin")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &large[..])).collect();
    let site = Site::new(&files);
    let before = site.server.descriptors();
    for name in &names {
        assert_eq!(site.get(&format!("/{name}")).body.len(), large.len());
    }
    // It is fewer if a slow machine takes longer for them than they are held.
    let held = site.server.descriptors() - before;
    assert!(held <= 1030, "{held} files are held open");
    // The same file under ever another name.
    write(&site.path("small.txt"), &large[..30_000]);
    for n in 0..2000 {
        assert_eq!(site.get(&format!("/{}small.txt", "./".repeat(n))).status, 200);
    }
    assert!(site.server.peak_memory() < 64 << 20, "{} bytes were resident", site.server.peak_memory());
    assert!(site.server.descriptors() - before <= 1030);
}

/// Lost otherwise: a download that ends early and looks complete.
#[test]
fn a_file_that_shrinks_ends_in_a_reset() {
    let site = Site::new(&[("a.bin", &vec![7; 50 << 20])]);
    let mut client = site.server.send(&request("GET", "/a.bin", &[]));
    let mut some = [0; 1000];
    client.read_exact(&mut some).unwrap();
    fs::File::options().write(true).open(site.path("a.bin")).unwrap().set_len(1000).unwrap();
    let mut rest = Vec::new();
    let end = client.read_to_end(&mut rest);
    assert!(end.is_err() && rest.len() < 50 << 20, "{end:?}");
    // For the rest of the second, its old length is promised, and not kept.
    let reply = wait_until("the change is seen", || {
        let mut answer = Vec::new();
        let mut client = site.server.send(&request("GET", "/a.bin", &[]));
        client.read_to_end(&mut answer).is_ok().then(|| one(&answer, "GET"))
    });
    assert_eq!((reply.status, reply.body.len()), (200, 1000));
}
