//! Replies as a strict client reads them.

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "one {name} at the most");
        value
    }

    pub fn closes(&self) -> bool {
        self.header("Connection").is_some_and(|value| value.split(',').any(|option| option.trim() == "close"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Returns the replies to requests with these methods, and how many bytes they take. `None` if they are
/// not complete.
pub fn replies(mut bytes: &[u8], methods: &[&str]) -> Option<(Vec<Response>, usize)> {
    let (mut replies, len) = (Vec::new(), bytes.len());
    for method in methods {
        loop {
            let (reply, rest) = reply(bytes, method)?;
            bytes = rest;
            replies.push(reply);
            if replies.last()?.status != 100 {
                break;
            }
        }
    }
    Some((replies, len - bytes.len()))
}

/// Returns the one reply that `bytes` are, and nothing else.
pub fn one(bytes: &[u8], method: &str) -> Response {
    match replies(bytes, &[method]) {
        Some((mut replies, len)) if len == bytes.len() && replies.len() == 1 => replies.remove(0),
        other => panic!("one reply, not {other:?}: {}", bytes.escape_ascii()),
    }
}

fn reply<'a>(bytes: &'a [u8], method: &str) -> Option<(Response, &'a [u8])> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ").expect("a status line").split(' ').next()?.parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").expect("a field"));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut reply = Response { status, headers, body: Vec::new() };
    if method == "HEAD" || matches!(status, 100..200 | 204 | 304) {
        return Some((reply, rest));
    }
    match (reply.header("Content-Length"), reply.header("Transfer-Encoding")) {
        (Some(length), None) => {
            let length: usize = length.parse().unwrap();
            reply.body = rest.get(..length)?.to_vec();
            rest = &rest[length..];
        }
        (None, Some("chunked")) => loop {
            let line = memchr::memmem::find(rest, b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            let chunk = rest.get(line + 2..line + 2 + size + 2)?;
            assert_eq!(chunk[size..], *b"\r\n");
            reply.body.extend(&chunk[..size]);
            rest = &rest[line + 2 + size + 2..];
            if size == 0 {
                break;
            }
        },
        (None, None) => reply.body = std::mem::take(&mut rest).to_vec(),
        both => panic!("framed twice: {both:?}"),
    }
    Some((reply, rest))
}
