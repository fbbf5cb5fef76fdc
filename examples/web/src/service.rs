//! The web service: what is answered to whom.

use super::access;
use super::cache::Cache;
use super::coding::Accepted;
use super::conditions::{Decision, Validators};
use super::config::Config;
use super::path::{Wanted, wanted};
use super::range::Range;
use super::resource::{Place, Resource};
use super::variant::{Content, Variant};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pollstack::ListenerId;
use pollstack::http::{
    BODY_TIME, Body, ExchangeId, HEAD_TIME, Handler, Headers, Limits, RejectedRequest, Request, Responder, SKIP_BYTES,
    Status,
};
use pollstack::operate::{Metrics, Text};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::SystemTime;

/// The index file of a folder.
const INDEX: &[u8] = b"index.html";

/// Methods that are known, and not for files. The layer knows of CONNECT.
const OTHER_METHODS: [&str; 6] = ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"];

/// How long an address may be to which a client is sent: the head of a response has 8 KiB.
const LOCATION_BYTES: usize = 7 * 1024;

/// Characters that an address has only in encoded form (RFC 3986, section 2).
const NOT_IN_URI: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// The page at `/` before there is one.
const PLACEHOLDER: &str = "<!DOCTYPE html>
<title>A web server</title>
<h1>It serves</h1>
<p>There is no page here yet. To install one, put a file <code>index.html</code> into the folder that the
<code>host</code> line of the configuration names.</p>
";

/// A server of files.
pub struct Web {
    config: Config,
    cache: Cache,
    /// The fields of responses that depend on `Accept-Encoding`.
    vary: Headers,
    /// Reads the configuration again.
    load: Option<Box<dyn FnMut() -> Option<Config>>>,
    /// How many responses there were with a status of 2xx, 3xx, 4xx and 5xx.
    responses: [u64; 4],
    /// The timer is set for what the cache forgets.
    expiring: bool,
    /// The listener whose requests are sent on to https, and the port of that.
    insecure: Option<(ListenerId, u16)>,
}

/// Where a request leads.
enum Target {
    File(Rc<Resource>),
    /// To a folder, without the slash behind it.
    Folder,
    /// To a root without a page.
    Empty,
    Nowhere(Status),
}

impl Web {
    /// An application that serves what `config` says, and holds so many files open.
    pub fn new(config: Config, open_files: usize) -> Web {
        Web {
            config,
            cache: Cache::new(open_files),
            responses: [0; 4],
            expiring: false,
            vary: Headers::new().with("Vary", "Accept-Encoding"),
            load: None,
            insecure: None,
        }
    }

    /// Whenever the loop is woken, serves what `load` returns, if that is something.
    pub fn reloading(mut self, load: impl FnMut() -> Option<Config> + 'static) -> Web {
        self.load = Some(Box::new(load));
        self
    }

    /// Sends the requests of a listener on to https, on `port` of the host that they ask for.
    pub fn redirect(&mut self, insecure: ListenerId, port: u16) {
        self.insecure = Some((insecure, port));
    }

    /// Serves something else from here on.
    pub fn configure(&mut self, config: Config) {
        self.config = config;
        self.cache.clear();
    }

    /// Returns the layer's limits for it.
    pub fn limits(config: &Config) -> Limits {
        let timeout = config.timeout;
        Limits::default()
            .head_time(timeout.max(HEAD_TIME))
            .read_time(timeout)
            .body_time(timeout.max(BODY_TIME))
            .idle_time(timeout)
            .stall_time(timeout)
    }

    fn count(&mut self, status: Status) {
        let class = usize::from(status.code() / 100).saturating_sub(2);
        self.responses.get_mut(class).into_iter().for_each(|count| *count += 1);
    }

    /// Answers, and returns how, and how many bytes of content were promised.
    fn answer(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) -> (Status, u64) {
        match request.method() {
            "GET" | "HEAD" => {}
            other => return reject(http, id, other),
        }
        if let Some((_, port)) = self.insecure.filter(|(listener, _)| http.listener(id) == Some(*listener)) {
            return to_https(http, id, request, port);
        }
        match self.find(http, request) {
            Target::File(resource) => self.send(http, id, request, &resource),
            Target::Folder => redirect(http, id, request),
            Target::Empty => {
                let reply = http.respond(id, Status::OK).header("Content-Type", "text/html; charset=utf-8");
                reply.header("Cache-Control", "no-store").body(PLACEHOLDER.as_bytes());
                (Status::OK, PLACEHOLDER.len() as u64)
            }
            Target::Nowhere(status) => page(http, id, status),
        }
    }

    /// Finds what a path leads to, in the cache or beneath the root.
    fn find(&mut self, http: &mut Responder<'_>, request: &Request<'_>) -> Target {
        let Config { hosts, media, dotfiles, .. } = &mut self.config;
        let Some((host, root)) = hosts.find(request.host()) else { return Target::Nowhere(Status::NOT_FOUND) };
        let now = http.now();
        if root.refresh(now) {
            self.cache.clear();
        }
        let mut missing = Target::Nowhere(Status::NOT_FOUND);
        let found = self.cache.find(host, request.path(), now, |known| {
            let folder = root.folder()?;
            let Some(Wanted { path, is_folder, is_hidden }) = wanted(request.path()) else {
                missing = Target::Nowhere(Status::BAD_REQUEST);
                return Err(ErrorKind::NotFound.into());
            };
            if is_hidden && !*dotfiles {
                return Err(ErrorKind::NotFound.into());
            }
            if path.is_empty() {
                missing = Target::Empty;
            }
            let path = if is_folder { index_of(path) } else { path };
            Resource::open(folder, &path, media, http.time(), known)
        });
        match found {
            Ok(Place::File(resource)) => Target::File(resource),
            Ok(Place::Folder) if !request.path().ends_with('/') => Target::Folder,
            Ok(Place::Folder | Place::Other) => Target::Nowhere(Status::FORBIDDEN),
            Err(error) => match status(&error) {
                Status::NOT_FOUND => missing,
                Status::INTERNAL_SERVER_ERROR => {
                    log::error!("{}: {error}", request.path().escape_debug());
                    Target::Nowhere(Status::INTERNAL_SERVER_ERROR)
                }
                status => Target::Nowhere(status),
            },
        }
    }

    /// Sends a file, or what the request's conditions and its range make of it.
    fn send(
        &self,
        http: &mut Responder<'_>,
        id: ExchangeId,
        request: &Request<'_>,
        resource: &Resource,
    ) -> (Status, u64) {
        let variant = resource.best(|| Accepted::of(request));
        let validators = Validators::of(variant);
        let empty = Headers::new();
        let vary = if resource.varies() { &self.vary } else { &empty };
        match validators.judge(request) {
            Decision::Send => {}
            Decision::NotModified => {
                http.respond(id, Status::NOT_MODIFIED).headers(&variant.unchanged).headers(vary).empty();
                return (Status::NOT_MODIFIED, 0);
            }
            Decision::Failed => return page(http, id, Status::PRECONDITION_FAILED),
        }
        match range(request, &validators, variant, || http.time()) {
            Range::Whole => send_whole(http, id, variant, vary),
            Range::Part { offset, len } => send_part(http, id, variant, vary, offset, len),
            Range::Beyond => {
                let reply = http.respond(id, Status::RANGE_NOT_SATISFIABLE);
                reply.header("Content-Range", format!("bytes */{}", variant.len)).headers(vary).error_page();
                (Status::RANGE_NOT_SATISFIABLE, 0)
            }
        }
    }
}

impl Metrics for Web {
    fn metrics(&self, text: &mut Text) {
        text.family("responses_total", "counter", "Responses, by the class of their status.");
        for (class, count) in (2..).zip(self.responses) {
            text.value(&format!("responses_total{{status=\"{class}xx\"}}"), count);
        }
    }
}

impl Handler for Web {
    fn on_wake(&mut self, http: &mut Responder<'_>) {
        if let Some(config) = self.load.as_mut().and_then(|load| load()) {
            http.set_limits(Web::limits(&config));
            self.configure(config);
        }
    }

    /// Skips bodies. One that is too long to be read past is rejected.
    fn body(&mut self, request: &Request<'_>) -> Body {
        let length = request.header("Content-Length").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        match length {
            Some(SKIP_BYTES..) => Body::Reject(Status::CONTENT_TOO_LARGE),
            _ => Body::Skip,
        }
    }

    fn on_request(&mut self, http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) {
        let line = access::begin(http, id, request);
        let (status, bytes) = self.answer(http, id, request);
        self.count(status);
        if let Some(line) = line {
            access::end(&line, status, if request.method() == "HEAD" { 0 } else { bytes });
        }
        if !self.expiring {
            self.on_timer(http);
        }
    }

    fn on_rejection(&mut self, http: &mut Responder<'_>, rejection: &RejectedRequest<'_>) -> Headers {
        access::rejected(http, rejection);
        self.count(rejection.status());
        Headers::new()
    }

    fn on_timer(&mut self, http: &mut Responder<'_>) {
        let expires = self.cache.expire(http.now());
        self.expiring = expires.is_some();
        http.set_timer(expires);
    }
}

fn index_of(mut folder: Vec<u8>) -> Vec<u8> {
    if !folder.is_empty() {
        folder.push(b'/');
    }
    folder.extend_from_slice(INDEX);
    folder
}

/// Returns the range that is to be sent. There is none of a HEAD (RFC 9110, section 14.2).
fn range(
    request: &Request<'_>,
    validators: &Validators<'_>,
    variant: &Variant,
    now: impl FnOnce() -> SystemTime,
) -> Range {
    match request.header("Range") {
        Some(range) if request.method() == "GET" && validators.allow_range(request, now()) => {
            Range::of(range, variant.len)
        }
        _ => Range::Whole,
    }
}

fn send_whole(http: &mut Responder<'_>, id: ExchangeId, variant: &Variant, vary: &Headers) -> (Status, u64) {
    let reply = http.respond(id, Status::OK).headers(&variant.headers).headers(vary);
    match variant.content() {
        Content::Memory(bytes) => reply.shared(bytes),
        Content::File(file) => reply.file(file, 0, variant.len),
    }
    (Status::OK, variant.len)
}

fn send_part(
    http: &mut Responder<'_>,
    id: ExchangeId,
    variant: &Variant,
    vary: &Headers,
    offset: u64,
    len: u64,
) -> (Status, u64) {
    let range = format!("bytes {offset}-{}/{}", offset + len - 1, variant.len);
    let reply = http.respond(id, Status::PARTIAL_CONTENT).headers(&variant.headers).headers(vary);
    let reply = reply.header("Content-Range", range);
    match variant.content() {
        // It is small, so the numbers fit.
        Content::Memory(bytes) => reply.body(bytes.get(offset as usize..(offset + len) as usize).unwrap_or_default()),
        Content::File(file) => reply.file(file, offset, len),
    }
    (Status::PARTIAL_CONTENT, len)
}

/// Sends a client on to the same page over https.
fn to_https(http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>, port: u16) -> (Status, u64) {
    let host = match request.host().rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => request.host(),
    };
    if host.is_empty() {
        return page(http, id, Status::BAD_REQUEST);
    }
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    moved(http, id, &format!("https://{host}{port}"), request.path(), request)
}

/// A folder's links are relative to it only if there is a slash behind its name.
fn redirect(http: &mut Responder<'_>, id: ExchangeId, request: &Request<'_>) -> (Status, u64) {
    // With two slashes in front it would lead to another host.
    let path = request.path().trim_start_matches('/');
    moved(http, id, "/", &format!("{path}/"), request)
}

/// Sends a client to another address, with the query of its request. One that is longer than the head of a
/// response can hold is rejected, as the request for it would be.
fn moved(http: &mut Responder<'_>, id: ExchangeId, start: &str, path: &str, request: &Request<'_>) -> (Status, u64) {
    let query = request.query().map_or_else(String::new, |query| format!("?{query}"));
    let location =
        format!("{start}{}{}", utf8_percent_encode(path, NOT_IN_URI), utf8_percent_encode(&query, NOT_IN_URI));
    if location.len() > LOCATION_BYTES {
        return page(http, id, Status::URI_TOO_LONG);
    }
    http.respond(id, Status::MOVED_PERMANENTLY).header("Location", location).error_page();
    (Status::MOVED_PERMANENTLY, 0)
}

fn reject(http: &mut Responder<'_>, id: ExchangeId, method: &str) -> (Status, u64) {
    if !OTHER_METHODS.contains(&method) {
        return page(http, id, Status::NOT_IMPLEMENTED);
    }
    http.respond(id, Status::METHOD_NOT_ALLOWED).header("Allow", "GET, HEAD").error_page();
    (Status::METHOD_NOT_ALLOWED, 0)
}

fn page(http: &mut Responder<'_>, id: ExchangeId, status: Status) -> (Status, u64) {
    http.respond(id, status).error_page();
    (status, 0)
}

/// Returns the status for an open that has failed.
fn status(error: &io::Error) -> Status {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL) => Status::NOT_FOUND,
        // It leads out of the root, or nowhere, or is a socket or the like.
        Some(Errno::XDEV | Errno::LOOP | Errno::ACCESS | Errno::PERM | Errno::NXIO) => Status::FORBIDDEN,
        None if error.kind() == ErrorKind::NotFound => Status::NOT_FOUND,
        _ => Status::INTERNAL_SERVER_ERROR,
    }
}
