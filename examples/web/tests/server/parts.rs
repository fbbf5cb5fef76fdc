//! Conditional requests and ranges, against naive models.

use super::*;
use proptest::prelude::*;
use std::cmp::Ordering;
use std::os::unix::fs::MetadataExt;

/// Files of these lengths.
const LENGTHS: [usize; 4] = [0, 1, 10, 100_000];

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 253) as u8).collect()
}

fn site() -> Site {
    let files: Vec<(String, Vec<u8>)> = LENGTHS.iter().map(|len| (len.to_string(), content(*len))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), &content[..])).collect();
    let site = Site::new(&files);
    // Until then, the tag of a large file is a weak one.
    wait_until("the files are settled", || {
        let changed = fs::metadata(site.path("100000")).unwrap().ctime();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        (now > changed as u64 + 2).then_some(())
    });
    site
}

/// A value of a field, with ETAG for the file's, and what it means.
type Case<T> = Option<(&'static str, T)>;

fn tags() -> impl Strategy<Value = Case<(bool, bool)>> {
    prop::sample::select(vec![
        None,
        // The results of a strong comparison, and of a weak one.
        Some(("*", (true, true))),
        Some(("ETAG", (true, true))),
        Some(("W/ETAG", (false, true))),
        Some(("\"x\"", (false, false))),
        Some(("\"x, y\" , W/\"z\",\"\", ETAG", (true, true))),
        Some(("\"x\", W/ETAG", (false, true))),
        Some(("nonsense", (false, false))),
        Some(("\"", (false, false))),
        Some(("", (false, false))),
    ])
}

/// Dates, and how the file's compares: it is later, the same or earlier.
fn dates() -> impl Strategy<Value = Case<Option<Ordering>>> {
    use Ordering::{Equal, Greater, Less};
    prop::sample::select(vec![
        None,
        Some((MODIFIED_DATE, Some(Equal))),
        Some(("Sunday, 06-Nov-94 08:49:37 GMT", Some(Equal))),
        Some(("Sun Nov  6 08:49:37 1994", Some(Equal))),
        Some(("Sun, 06 Nov 1994 08:49:36 GMT", Some(Greater))),
        Some(("Sun, 06 Nov 1994 08:49:38 GMT", Some(Less))),
        Some(("nonsense", None)),
        Some(("Sun, 06 Nov 10994 08:49:38 GMT", None)),
    ])
}

fn if_ranges() -> impl Strategy<Value = Case<bool>> {
    prop::sample::select(vec![
        None,
        Some(("ETAG", true)),
        Some(("W/ETAG", false)),
        Some(("\"x\"", false)),
        Some((MODIFIED_DATE, true)),
        Some(("Sun, 06 Nov 1994 08:49:38 GMT", false)),
        Some(("nonsense", false)),
    ])
}

fn ranges() -> impl Strategy<Value = Option<String>> {
    let number = || {
        let text = |n: u64| n.to_string();
        let huge = Just("99999999999999999999999".to_owned());
        prop_oneof![4 => Just(String::new()), 8 => (0..12u64).prop_map(text), 1 => (99_990..100_010u64).prop_map(text), 1 => huge]
    };
    let valid = (number(), number()).prop_map(|(first, last)| Some(format!("bytes={first}-{last}")));
    let odd = prop::sample::select(vec![
        "bytes=0-1,3-4",
        "bytes=",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=1--2",
        "items=0-1",
        "bytes 0-1",
        "",
        "bytes=0 - 1",
        "bytes=0-0,",
        "bytes=, ,1-2 ,",
        "bytes=,",
    ]);
    prop_oneof![1 => Just(None), 6 => valid, 1 => odd.prop_map(|text| Some(text.to_owned())), 1 => Just(Some("BYTES=0-0".to_owned()))]
}

/// The bytes that a range is, one by one; `None` if it is no range.
fn naive_range(text: &str, len: usize) -> Option<Vec<usize>> {
    let range = text.to_ascii_lowercase();
    // Nothing, between commas, is nothing.
    let (first, last) = range.strip_prefix("bytes=")?.trim_matches([',', ' ']).split_once('-')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(first) || !is_number(last) || first.len() + last.len() == 0 {
        return None;
    }
    let number = |text: &str| text.parse::<u128>().unwrap_or(u128::MAX);
    let within = |n: &usize| match (first, last) {
        ("", n_last) => *n as u128 + number(n_last) >= len as u128,
        (first, "") => *n as u128 >= number(first),
        (first, last) => (number(first)..=number(last)).contains(&(*n as u128)),
    };
    let backwards = !first.is_empty() && !last.is_empty() && number(first) > number(last);
    // There is no way to name the last bytes of nothing.
    let nothing = len == 0 && first.is_empty() && number(last) > 0;
    (!backwards && !nothing).then(|| (0..len).filter(within).collect())
}

/// The conditions and the range of a request.
#[derive(Debug)]
struct Asked {
    len: usize,
    head: bool,
    if_match: Case<(bool, bool)>,
    if_none_match: Case<(bool, bool)>,
    if_unmodified: Case<Option<Ordering>>,
    if_modified: Case<Option<Ordering>>,
    if_range: Case<bool>,
    range: Option<String>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let what = (prop::sample::select(LENGTHS.to_vec()), prop::bool::weighted(0.2));
    // With all of them at once there is hardly ever anything left to send.
    (what, (tags(), tags()), (dates(), dates()), (if_ranges(), ranges()), 0..3).prop_map(
        |((len, head), (if_match, if_none_match), (if_unmodified, if_modified), (if_range, range), few)| Asked {
            len,
            head,
            if_match: if_match.filter(|_| few == 0),
            if_unmodified: if_unmodified.filter(|_| few == 0),
            if_none_match: if_none_match.filter(|_| few < 2),
            if_modified: if_modified.filter(|_| few < 2),
            if_range,
            range,
        },
    )
}

impl Asked {
    fn fields(&self, etag: &str) -> Vec<(&'static str, String)> {
        let fields = [
            ("If-Match", self.if_match.map(|case| case.0)),
            ("If-None-Match", self.if_none_match.map(|case| case.0)),
            ("If-Unmodified-Since", self.if_unmodified.map(|case| case.0)),
            ("If-Modified-Since", self.if_modified.map(|case| case.0)),
            ("If-Range", self.if_range.map(|case| case.0)),
            ("Range", self.range.as_deref()),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?.replace("ETAG", etag)))).collect()
    }

    /// The status, `Content-Range` and content of the reply (section 13.2.2 of RFC 9110).
    fn expected(&self) -> (u16, Option<String>, Vec<u8>) {
        let failed = match (self.if_match, self.if_unmodified) {
            (Some((_, (strong, _))), _) => !strong,
            (None, Some((_, order))) => order == Some(Ordering::Greater),
            (None, None) => false,
        };
        let unchanged = match (self.if_none_match, self.if_modified) {
            (Some((_, (_, weak))), _) => weak,
            (None, Some((_, order))) => order.is_some_and(|order| order != Ordering::Greater),
            (None, None) => false,
        };
        let (len, whole) = (self.len, if self.head { vec![] } else { content(self.len) });
        let range = self.range.as_deref().filter(|_| !self.head && self.if_range.is_none_or(|case| case.1));
        match range.and_then(|range| naive_range(range, len)) {
            _ if failed => (412, None, vec![]),
            _ if unchanged => (304, None, vec![]),
            None => (200, None, whole),
            Some(part) => match (part.first(), part.last()) {
                (Some(first), Some(last)) => {
                    let bytes = part.iter().map(|n| whole[*n]).collect();
                    (206, Some(format!("bytes {first}-{last}/{len}")), bytes)
                }
                _ => (416, Some(format!("bytes */{len}")), vec![]),
            },
        }
    }
}

/// Lost otherwise: downloads that are resumed, caches that are asked to make sure, edits of two
/// people at once.
#[test]
fn conditions_and_ranges_are_as_the_model_says() {
    let site = site();
    proptest!(ProptestConfig::with_cases(500), |(asked in asked())| {
        let target = format!("/{}", asked.len);
        let etag = site.get(&target).header("ETag").unwrap().to_owned();
        let fields = asked.fields(&etag);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = site.ask(if asked.head { "HEAD" } else { "GET" }, &target, &fields);
        let (status, range, bytes) = asked.expected();
        prop_assert_eq!((reply.status, reply.header("Content-Range")), (status, range.as_deref()));
        if let 200 | 206 | 304 = status {
            prop_assert_eq!(reply.header("ETag"), Some(&etag[..]));
            prop_assert_eq!(reply.header("Last-Modified"), Some(MODIFIED_DATE));
            prop_assert!(reply.body == bytes, "the bytes");
        }
        if let 200 = status {
            prop_assert_eq!(reply.header("Content-Length"), Some(&asked.len.to_string()[..]));
        }
    });
}

/// Lost otherwise: a part of the old file and a part of the new in one download, when it was changed
/// twice within a second.
#[test]
fn a_date_that_has_just_been_is_no_proof() {
    let site = Site::new(&[]);
    fs::write(site.path("new.txt"), "just now").unwrap();
    set_modified(&site.path("new.txt"), SystemTime::now() + Duration::from_secs(3600));
    let reply = site.get("/new.txt");
    let date = reply.header("Last-Modified").unwrap();
    let shown = httpdate::parse_http_date(date).unwrap();
    assert!(shown <= httpdate::parse_http_date(reply.header("Date").unwrap()).unwrap(), "no date is to come");
    let part = site.get_with("/new.txt", &[("Range", "bytes=0-0"), ("If-Range", date)]);
    let sent = httpdate::parse_http_date(part.header("Date").unwrap()).unwrap();
    assert!(part.status == 200 || sent > shown, "{part:?}");
}

/// Lost otherwise: constant memory, to lists without an end.
#[test]
fn a_thousand_ranges_are_the_whole() {
    let ranges: Vec<String> = (0..1000).map(|n| format!("{n}-{n}")).collect();
    let site = site();
    let reply = site.get_with("/100000", &[("Range", &format!("bytes={}", ranges.join(",")))]);
    assert_eq!((reply.status, reply.body.len()), (200, 100_000));
    let etags = vec!["\"x\""; 3000].join(", ");
    assert_eq!(site.get_with("/10", &[("If-None-Match", &etags)]).status, 200);
}
