//! That nothing outside a root can be read, whatever is asked for and whatever is moved meanwhile.

use super::*;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use web::Folder;

/// Ways to write `..`, and what follows it.
const UPWARDS: &[&str] =
    &["..", "%2e%2e", "%2E%2e", ".%2e", "%2e.", "%252e%252e", "%c0%ae%c0%ae", "..%00", "%2e%2e%2f..", "...", "..;"];
const SLASHES: &[&str] = &["/", "%2f", "%2F", "\\", "%5c", "%5C", "//", "/./", "%252f", "%255c", "%c0%af"];

/// Lost otherwise: every file of the machine.
#[test]
fn no_path_leads_out() {
    let site = Site::new(&[("a/b/c.txt", b"c"), ("index.html", b"root")]);
    let absolute = site.folder.path().join("secret.txt");
    let absolute = absolute.to_str().unwrap();
    let mut targets = vec![format!("/{absolute}"), format!("//{absolute}"), absolute.replace('/', "%2f")];
    for (up, slash) in UPWARDS.iter().flat_map(|up| SLASHES.iter().map(move |slash| (up, slash))) {
        for depth in 1..4 {
            let steps = format!("{up}{slash}").repeat(depth);
            targets.push(format!("/{steps}secret.txt"));
            targets.push(format!("/a/b{slash}{steps}{steps}secret.txt"));
            targets.push(format!("http://any.example/{steps}secret.txt"));
        }
    }
    targets.extend(["/..", "/../", "/a/..", "/a/../", "/../www/a/b/c.txt", "/a/../a/b/c.txt"].map(String::from));
    for target in targets {
        let target = if target.starts_with('%') { format!("/{target}") } else { target };
        let reply = site.get(&target);
        assert!(matches!(reply.status, 400 | 403 | 404), "{target}: {}", reply.status);
        assert!(!reply.text().contains(SECRET), "{target}");
    }
    for target in ["/a/b/c.txt%00", "/a%00/b/c.txt", "/a%2fb/c.txt", "/a%5cb", "/a\\b", "/a/../index.html"] {
        assert_eq!(site.get(target).status, 400, "{target}");
    }
}

/// Lost otherwise: the same, to a user who can make a link beneath a root, or to a client that chooses a Host.
#[test]
fn no_link_leads_out() {
    let config = "host default www\nparameter dotfiles on\n"; // the folder for tests has a dot in its name
    let site = Site::with(config, &[("a/b.txt", b"inside"), ("index.html", b"root")]);
    let outside = site.folder.path();
    let secret = outside.join("secret.txt");
    for (link, to) in [
        ("absolute.txt", secret.as_path()),
        ("relative.txt", Path::new("../secret.txt")),
        ("folder", outside),
        ("up", Path::new("..")),
        ("chain.txt", Path::new("relative.txt")),
        ("a/deep.txt", Path::new("../../secret.txt")),
        ("a/inside.txt", Path::new("../a/b.txt")),
        ("inside", Path::new("a")),
        ("absolute_inside", site.path("a").as_path()),
        ("a/out_and_in.txt", Path::new("../../www/a/b.txt")),
        ("proc", Path::new("/proc/self/root")),
        ("nowhere.txt", Path::new("none")),
        ("loop.txt", Path::new("loop.txt")),
    ] {
        symlink(to, site.path(link)).unwrap();
    }
    let up = secret.strip_prefix("/").unwrap().to_str().unwrap();
    for (target, status) in [
        ("/absolute.txt", 403),
        ("/relative.txt", 403),
        ("/folder/secret.txt", 403),
        ("/folder", 403),
        ("/folder/", 403),
        ("/up/secret.txt", 403),
        ("/up/www/index.html", 403),
        ("/chain.txt", 403),
        ("/a/deep.txt", 403),
        ("/inside/deep.txt", 403),
        (&format!("/proc/{up}"), 403),
        ("/nowhere.txt", 404),
        ("/loop.txt", 403),
    ] {
        let reply = site.get(target);
        assert_eq!((reply.status, reply.text().contains(SECRET)), (status, false), "{target}");
    }
    // Those that lead somewhere beneath the root may.
    for target in ["/a/inside.txt", "/inside/b.txt", "/absolute_inside/b.txt", "/a/out_and_in.txt"] {
        assert_eq!(site.get(target).text(), "inside", "{target}");
    }
    assert_eq!(site.get("/absolute_inside").status, 301);
    for host in ["..", "../secret.txt", "%2e%2e", "/"] {
        let reply = site.get_with("/secret.txt", &[("Host", host)]);
        assert!(matches!(reply.status, 400 | 404) && !reply.text().contains(SECRET), "{host}");
    }
}

/// Lost otherwise: what tools leave in a folder, to a stranger; or a certificate, whose issuer looks there.
#[test]
fn names_with_a_dot_are_not_served_unless_they_are_allowed() {
    let files: &[(&str, &[u8])] =
        &[(".git/config", b"x"), (".env", b"x"), ("a/.b", b"x"), (".well-known/c", b"c"), (".well-known/.d", b"x")];
    let closed = Site::new(files);
    for target in ["/.git/config", "/.git", "/.git/", "/.env", "/%2eenv", "/a/.b", "/.well-known/.d", "/./.env"] {
        assert_eq!(closed.get(target).status, 404, "{target}");
    }
    assert_eq!(closed.get("/.well-known/c").text(), "c");
    let open = Site::with("host default www\nparameter dotfiles on\n", files);
    for (target, status) in [("/.git/config", 200), ("/.git", 301), ("/a/.b", 200), ("/..", 400)] {
        assert_eq!(open.get(target).status, status, "{target}");
    }
}

/// Lost otherwise: the writer of a pipe that is not for the web, which would find its reader gone.
#[test]
fn a_pipe_is_never_opened() {
    let site = Site::new(&[]);
    let path = site.path("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (sender, opened) = std::sync::mpsc::channel();
    let writer = path.clone();
    std::thread::spawn(move || sender.send(fs::File::options().write(true).open(writer).is_ok()));
    for _ in 0..20 {
        assert_eq!(site.get("/pipe").status, 403);
        assert!(opened.try_recv().is_err(), "the writer still waits");
    }
    fs::File::open(&path).unwrap();
    assert_eq!(opened.recv(), Ok(true));
}

/// Lost otherwise: the same, where the kernel cannot open beneath a folder.
#[test]
fn nor_where_the_path_is_walked() {
    let files = layout("", &[("a/b.txt", b"inside")]);
    let root = files.path().join("www");
    symlink("../secret.txt", root.join("link.txt")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("a", root.join("inside")).unwrap();
    let folder = Folder::open(&root).unwrap().walking();
    let read = |path: &str| {
        let mut text = String::new();
        folder.file(path.as_bytes())?.read_to_string(&mut text).map(|_| text)
    };
    assert_eq!(read("a/b.txt").unwrap(), "inside");
    for path in
        ["link.txt", "up/secret.txt", "inside/b.txt", "../secret.txt", "a/../../secret.txt", "..", "/etc/passwd"]
    {
        assert!(read(path).is_err(), "{path}");
    }
}

/// Swaps two names, in one step, over and over for as long as `work` runs.
fn while_swapped(one: &Path, other: &Path, work: impl FnOnce()) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        work();
        done.store(true, Ordering::Relaxed);
    });
}

/// Lost otherwise: the same, to a user who swaps a file for a link between a check and an open.
#[test]
fn a_link_at_the_wrong_moment_changes_nothing() {
    let site = Site::new(&[("place.txt", b"inside"), ("place/secret.txt", b"inside")]);
    let outside = site.folder.path();
    symlink("../secret.txt", outside.join("link.txt")).unwrap();
    symlink("..", outside.join("link")).unwrap();
    let walking = Folder::open(&site.path("")).unwrap().walking();
    for (place, link, path) in [("place.txt", "link.txt", "place.txt"), ("place", "link", "place/secret.txt")] {
        let mut served = 0;
        while_swapped(&site.path(place), &outside.join(link), || {
            for n in 0..500 {
                // A name of its own each time, so that the cache does not know it.
                let reply = site.get(&format!("/{}{path}", "./".repeat(n)));
                assert!(!reply.text().contains(SECRET), "request {n}");
                assert!(matches!((reply.status, reply.text()), (200, "inside") | (403 | 404, _)), "{reply:?}");
                served += usize::from(reply.status == 200);
                let mut text = String::new();
                if let Ok(mut file) = walking.file(path.as_bytes()) {
                    file.read_to_string(&mut text).unwrap();
                }
                assert!(text.is_empty() || text == "inside", "walked: {text}");
            }
        });
        assert!(served > 0, "{path} was there now and then");
    }
}

/// Lost otherwise: the server, to a pipe, or something else that is no file.
#[test]
fn only_files_are_served() {
    let site = Site::new(&[("closed.txt", b"x")]);
    let pipe = site.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(site.path("socket")).unwrap();
    assert_eq!((site.get("/pipe").status, site.get("/socket").status), (403, 403));
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(site.path("closed.txt"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(site.path("closed.txt")).is_err() {
        assert_eq!(site.get("/closed.txt").status, 403); // nothing is closed to a superuser
    }
}
