//! Requests that are rejected because a proxy in front of the server could read them otherwise: the
//! cases that smuggle requests, each with its reason.

use super::*;

/// Requests that are answered 400 (or as said) and by a close.
const CASES: &[(u16, &str, &str)] = &[
    // Two lengths: the one in front takes the one, we the other.
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "CL.TE"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", "TE.CL"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "differing lengths"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", "repeated lengths"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", "a list of lengths"),
    // A length that parsers of numbers read differently.
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", "a signed length"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na", "a negative length"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na", "a hexadecimal length"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\na", "two numbers"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", "no number"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\na", "wraps around to 1"),
    // Transfer codings that only one of two understands.
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "almost chunked"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "chunked is not last"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", "gone since RFC 2616"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "chunked twice"),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        "two fields",
    ),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "quoted"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", "with a parameter"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", "with an empty item"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "a vertical tab"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", "no coding"),
    (400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "1.0 knows no codings"),
    (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "a coding we do not have"),
    // Names that only one of two takes for the field that counts.
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\na", "space before the colon"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", "tab before the colon"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", "an empty name"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", "no colon"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nb\x00: c\r\n\r\n", "NUL in a name"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nb(c): d\r\n\r\n", "a name that is no token"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n\u{e4}: d\r\n\r\n", "a name beyond ASCII"),
    // Lines that only one of two takes for one.
    (400, "GET / HTTP/1.1\r\nHost: a\r\nb: c\r\n d\r\n\r\n", "a folded line"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nb: c\r\n\td: e\r\n\r\n", "one folded with a tab"),
    (400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "space before the first field"),
    (400, "GET / HTTP/1.1\r\nHost: a\rb: c\r\n\r\n", "a bare CR in a value"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nb: c\r\r\n\r\n", "a CR too many"),
    (400, "GET / HTTP/1.1\rHost: a\r\n\r\n", "a bare CR behind the request line"),
    (400, "GET / HTTP/1.1\nHost: a\n\n", "bare LF everywhere"),
    (400, "GET / HTTP/1.1\r\nHost: a\nb: c\r\n\r\n", "a bare LF in a value"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n\n", "a bare LF at the end"),
    (400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "a bare LF in front"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nb: c\x00d\r\n\r\n", "NUL in a value"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nb: c\x7fd\r\n\r\n", "a control in a value"),
    // Hosts that lead two servers to two places.
    (400, "GET / HTTP/1.1\r\n\r\n", "no Host"),
    (400, "GET http://a/ HTTP/1.1\r\n\r\n", "no Host, even so"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "two Hosts"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n", "two Hosts, the same"),
    (400, "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "two Hosts in 1.0"),
    (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "a path in the Host"),
    (400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "a user in the Host"),
    (400, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "a list of Hosts"),
    (400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", "a port that is none"),
    (400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "a user in the target"),
    // Request lines.
    (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "two spaces"),
    (400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", "two spaces behind the target"),
    (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "a space at the end"),
    (400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a space in front"),
    (400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "a space in the target"),
    (400, "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", "tabs for spaces"),
    (400, "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", "NUL in the target"),
    (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n", "a relative target"),
    (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "the server's options are no page"),
    (400, "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", "a fragment is not sent"),
    (400, "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", "a method that is no token"),
    (400, "GET / http/1.1\r\nHost: a\r\n\r\n", "the version is case-sensitive"),
    (400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n", "a version has one digit and one digit"),
    (400, "GET /\r\n\r\n", "HTTP/0.9"),
    (505, "GET / HTTP/0.9\r\nHost: a\r\n\r\n", "another version"),
    (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 without asking"),
    // Chunks.
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", "a prefix"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n", "a sign"),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\na",
        "wraps around to 1",
    ),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\n0\n\n", "bare LF"),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\na\r\n0\r\n\r\n",
        "a bare LF in an extension",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "longer than it says",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\nc: d\r\n\r\n",
        "bare LF in a trailer",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
        "space behind a size",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\r\na\r\n0\r\n\r\n",
        "an extension without a name",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=[x\r\na\r\n0\r\n\r\n",
        "an extension that is no token",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\"b\r\na\r\n0\r\n\r\n",
        "a quote that is not closed",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\u{ff}\r\na\r\n0\r\n\r\n",
        "an extension beyond ASCII",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na\r\n\r\n",
        "a trailer field without a colon",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na : b\r\n\r\n",
        "space before the colon of a trailer field",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\r\n c\r\n\r\n",
        "a folded trailer field",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\x00\r\n\r\n",
        "NUL in a trailer field",
    ),
];

/// Bytes that would be a request of their own if the one before ended earlier, or later, than it does.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Lost otherwise: other clients' requests, to one that gets a second request past a proxy.
#[test]
fn what_can_be_read_in_two_ways_is_rejected() {
    for (status, request, why) in CASES {
        let bytes = answer(Tell, format!("{request}{SMUGGLED}").as_bytes());
        let reply = one(&bytes, "GET");
        assert_eq!((reply.status, reply.closes()), (*status, true), "{why}: {}", request.escape_debug());
    }
}

/// Adds a field with what it is told to every rejection.
struct Note;

impl Handler for Note {
    fn body(&mut self, _: &Request<'_>) -> Body {
        Body::Collect(3)
    }

    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, _: &Request<'_>) {
        http.respond(id, Status::OK).empty();
    }

    fn on_rejection(&mut self, http: &mut Responder<'_>, rejection: &RejectedRequest<'_>) -> Headers {
        let origin = String::from_utf8_lossy(rejection.header("Origin").unwrap_or(b"-")).into_owned();
        let (method, target) = (rejection.method().unwrap_or("-"), rejection.target().unwrap_or("-"));
        assert!(rejection.peer().is_some() && http.time() > UNIX_EPOCH);
        Headers::new().with("Note", format!("{method} {target} {origin} {}", rejection.status().code()))
    }
}

/// Lost otherwise: a line in the log for every rejection, and the reason to a page of another origin, which may
/// read it only with the fields that the handler adds.
#[test]
fn a_handler_is_told_of_every_rejection() {
    let long = "x".repeat(9000);
    for (request, note) in [
        ("GET /a HTTP/1.1\r\nOrigin: o\r\n\r\n".to_owned(), "GET /a o 400"),
        ("POST /a HTTP/1.1\r\nHost: a\r\nOrigin: o\r\nContent-Length: 4\r\n\r\n".to_owned(), "POST /a o 413"),
        (format!("{}4\r\nabcd", &CHUNKED.replace("Host", "Origin: o\r\nHost")), "POST / o 413"),
        (format!("{}x", &CHUNKED.replace("Host", "Origin: o\r\nHost")), "POST / o 400"),
        (format!("GET /a HTTP/1.1\r\nOrigin: o\r\n{}", format!("a: {long}\r\n").repeat(4)), "GET /a o 431"),
        (format!("GET /{long}"), "GET - - 414"),
        (long.clone(), "- - - 501"),
    ] {
        let bytes = answer(Note, request.as_bytes());
        assert_eq!(one(&bytes, "POST").header("Note"), Some(note), "{}", &request[..20]);
    }
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Lost otherwise: the same, through the real server.
#[test]
fn the_server_rejects_them_too() {
    let server = start();
    for (status, request, why) in CASES {
        let bytes = server.send(format!("{request}{SMUGGLED}").as_bytes()).answer();
        let reply = one(&bytes, "GET");
        assert_eq!((reply.status, reply.closes()), (*status, true), "{why}: {}", request.escape_debug());
    }
}

/// Lost otherwise: clients that are unusual, and clear.
#[test]
fn what_is_odd_but_clear_is_served() {
    for (request, told) in [
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / "),
        ("GET / HTTP/1.1\r\nHost:a\r\nb:\r\nc:\t d \t\r\n\r\n", "GET / "),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / "),
        ("GET /%00%0d%0a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET /%00%0d%0a "),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0001\r\n\r\nx", "GET / x"),
        ("P / HTTP/1.1\r\nHost: a\r\ntransfer-ENCODING: CHUNKED\r\n\r\n01;a=b\r\nx\r\n0;c\r\nd: e\r\n\r\n", "P / x"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{e4}\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "GET / "),
        ("GET //a\\b?c HTTP/1.1\r\nHost: a\r\n\r\n", "GET //a\\b?c "),
    ] {
        let reply = one(&answer(Tell, request.as_bytes()), "GET");
        assert_eq!((reply.status, reply.text()), (200, told), "{}", request.escape_debug());
    }
}

/// Lost otherwise: memory and time, to bodies that are all framing.
#[test]
fn framing_is_bounded() {
    let body = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "x".repeat(300);
    assert_eq!(one(&answer(Tell, format!("{body}1;{long}\r\n").as_bytes()), "").status, 400);
    let many = "1;xxxxxxxxx\r\na\r\n".repeat(500);
    assert_eq!(one(&answer(Tell, format!("{body}{many}").as_bytes()), "").status, 400);
    let trailer = "a: b\r\n".repeat(2000);
    assert_eq!(one(&answer(Tell, format!("{body}0\r\n{trailer}").as_bytes()), "").status, 431);
    assert_eq!(one(&answer(Tell, format!("{body}{:0>100}\r\n", 1).as_bytes()), "").status, 400);
}
