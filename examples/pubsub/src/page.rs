//! The chat room: one page, with its style and its script in it.
//!
//! A browser is told to run that script and no other, to use that style, and to speak to this server
//! only: so messages stay text even if the page had a hole. Its permissions are named by its
//! SHA-256 (Content Security Policy, level 3).

use data_encoding::{BASE64, HEXLOWER};
use pollstack::http::{ExchangeId, Headers, Request, Responder, Status};
use sha2::{Digest, Sha256};
use std::rc::Rc;

const TEXT: &str = include_str!("page.html");

#[derive(Debug)]
pub(crate) struct Page {
    text: Rc<[u8]>,
    tag: String,
    headers: Headers,
}

impl Page {
    pub(crate) fn new() -> Page {
        let tag = format!("\"{}\"", &HEXLOWER.encode(&Sha256::digest(TEXT))[..32]);
        let headers = Headers::new()
            .with("Content-Security-Policy", policy())
            .with("X-Content-Type-Options", "nosniff")
            .with("Referrer-Policy", "no-referrer")
            .with("Cross-Origin-Opener-Policy", "same-origin")
            .with("Cross-Origin-Resource-Policy", "same-origin")
            .with("Cache-Control", "no-cache")
            .with("ETag", &tag);
        Page { text: TEXT.as_bytes().into(), tag, headers }
    }

    /// Answers a request for it.
    pub(crate) fn reply(&self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        match self.is_known(request) {
            true => http.respond(id, Status::NOT_MODIFIED).headers(&self.headers).empty(),
            false => {
                let reply = http.respond(id, Status::OK).headers(&self.headers);
                reply.header("Content-Type", "text/html; charset=utf-8").shared(&self.text);
            }
        }
    }

    /// Returns whether the client has this very page, perhaps from a proxy that has made the tag a weak one
    /// (RFC 9110, section 13.1.2).
    fn is_known(&self, request: &Request<'_>) -> bool {
        let is_ours = |tag: &[u8]| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == self.tag.as_bytes();
        let mut fields = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("If-None-Match"));
        fields.any(|(_, value)| value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(is_ours))
    }
}

/// The permissions of the page. The icon, which is empty, is an address with `data:`.
fn policy() -> String {
    let (script, style) = (hash("script"), hash("style"));
    format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

/// The hash of the text in the one element of a kind.
fn hash(element: &str) -> String {
    let (start, end) = (format!("<{element}>"), format!("</{element}>"));
    let inside = TEXT.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
    let (inside, _) = inside.unwrap_or_default();
    format!("'sha256-{}'", BASE64.encode(&Sha256::digest(inside)))
}
