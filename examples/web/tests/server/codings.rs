//! Files that have been compressed before.

use super::*;

/// A site with a file that there is in three forms.
fn compressed() -> Site {
    Site::new(&[
        ("a.js", b"plain"),
        ("a.js.gz", b"gzipped"),
        ("a.js.br", b"brotli"),
        ("b.js", b"b"),
        ("b.js.gz", b"gz"),
    ])
}

/// Lost otherwise: what `pigz -k` or `brotli -k` have made, whose copies of a time lack the part below a second.
#[test]
fn a_form_whose_time_was_cut_is_as_old_as_its_file() {
    let at = |seconds, nanos| UNIX_EPOCH + Duration::new(MODIFIED + seconds, nanos);
    for (plain, beside, sent) in [
        (at(0, 123_456_789), at(0, 0), "gzipped"),
        (at(0, 123_456_789), at(0, 123_456_000), "gzipped"),
        (at(0, 123_456_789), at(0, 123_456_788), "plain"),
        (at(0, 123_456_789), at(0, 122_000_000), "plain"),
        (at(1, 0), at(0, 0), "plain"),
    ] {
        let site = Site::new(&[("a.js", b"plain"), ("a.js.gz", b"gzipped")]);
        set_modified(&site.path("a.js"), plain);
        set_modified(&site.path("a.js.gz"), beside);
        let reply = site.get_with("/a.js", &[("Accept-Encoding", "gzip")]);
        assert_eq!((reply.text(), reply.header("Vary").is_some()), (sent, sent == "gzipped"), "{plain:?} {beside:?}");
    }
}

/// Lost otherwise: bandwidth; or the content, to who does not understand a coding.
#[test]
fn a_client_gets_the_best_of_what_it_accepts() {
    let site = compressed();
    for (accepts, coding) in [
        ("gzip, deflate, br", Some("br")),
        ("gzip", Some("gzip")),
        ("GZIP", Some("gzip")),
        ("x-gzip", Some("gzip")),
        ("br;q=0.5, gzip;q=0.8", Some("gzip")),
        ("br;q=0.8,gzip;q=0.8", Some("br")),
        ("br;q=0, gzip;q=0.001", Some("gzip")),
        ("br;q=0, gzip;q=0.000", None),
        ("*", Some("br")),
        ("*;q=0.1, br;q=0", Some("gzip")),
        ("*;q=0", None),
        ("identity", None),
        ("gzip;q=0.5, identity", None),
        ("gzip, identity;q=0.5", Some("gzip")),
        ("gzip ; q=1.000", Some("gzip")),
        ("gzip;q=nonsense", None),
        ("gzip;q=-1, br;q=0.1234", None),
        ("deflate, compress, zstd, gzipped", None),
        ("", None),
        (",,;", None),
    ] {
        let reply = site.get_with("/a.js", &[("Accept-Encoding", accepts)]);
        let content = coding.map_or("plain", |coding| if coding == "br" { "brotli" } else { "gzipped" });
        assert_eq!((reply.header("Content-Encoding"), reply.text()), (coding, content), "{accepts}");
        assert_eq!(reply.header("Vary"), Some("Accept-Encoding"), "{accepts}");
        assert_eq!(reply.header("Content-Type"), Some("text/javascript; charset=utf-8"));
    }
    let reply = site.get_with("/a.js", &[("Accept-Encoding", "br;q=0"), ("accept-encoding", "gzip")]);
    assert_eq!(reply.header("Content-Encoding"), Some("gzip"), "two fields are one list");
    let reply = site.get_with("/b.js", &[("Accept-Encoding", "gzip;q=0.1, br")]);
    assert_eq!(reply.text(), "gz", "the best of what there is");
    assert_eq!(site.get("/a.js").text(), "plain");
    let itself = site.get_with("/a.js.gz", &[("Accept-Encoding", "br")]);
    assert_eq!((itself.text(), itself.header("Content-Encoding"), itself.header("Vary")), ("gzipped", None, None));
    assert_eq!(itself.header("Content-Type"), Some("application/gzip"));
}

/// Lost otherwise: a cache that takes one form for another.
#[test]
fn every_form_has_an_etag_of_its_own() {
    let site = compressed();
    let etag = |accepts| {
        let reply = site.get_with("/a.js", &[("Accept-Encoding", accepts)]);
        reply.header("ETag").unwrap().to_owned()
    };
    let (plain, gzip, brotli) = (etag("identity"), etag("gzip"), etag("br"));
    assert!(plain != gzip && gzip != brotli && plain != brotli);
    let ask = |tag: &str| site.get_with("/a.js", &[("Accept-Encoding", "gzip"), ("If-None-Match", tag)]);
    let reply = ask(&gzip);
    assert_eq!(
        (reply.status, reply.header("Vary"), reply.header("ETag")),
        (304, Some("Accept-Encoding"), Some(&gzip[..]))
    );
    assert_eq!(ask(&plain).status, 200);
    let range = [("Accept-Encoding", "gzip"), ("Range", "bytes=1-3")];
    assert_eq!(site.get_with("/a.js", &range).text(), "zip", "a part of what is sent");
}

/// Lost otherwise: the new content, for as long as the old one lies compressed beside it.
#[test]
fn a_form_that_is_older_is_not_sent() {
    let site = Site::new(&[("a.js", b"new"), ("a.js.gz", b"old")]);
    set_modified(&site.path("a.js"), UNIX_EPOCH + Duration::from_secs(MODIFIED + 1));
    let reply = site.get_with("/a.js", &[("Accept-Encoding", "gzip")]);
    assert_eq!((reply.text(), reply.header("Content-Encoding"), reply.header("Vary")), ("new", None, None));
    assert_eq!(site.get("/none.js").status, 404);
    write(&site.path("none.js.gz"), b"nothing beside it");
    assert_eq!(site.get_with("/none.js", &[("Accept-Encoding", "gzip")]).status, 404);
}
