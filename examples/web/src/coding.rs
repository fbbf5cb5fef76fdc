//! Content codings: which of those that lie beside a file a client wants.

use pollstack::http::Request;

/// How content is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Plain,
    Gzip,
    Brotli,
}

/// A client's preference for each: 0 is not acceptable, 1000 the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) gzip: u16,
    pub(crate) brotli: u16,
    pub(crate) plain: u16,
}

impl Coding {
    /// The suffix of a file that is stored so.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Coding::Plain => "",
            Coding::Gzip => ".gz",
            Coding::Brotli => ".br",
        }
    }

    /// The name in a header field.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Coding::Plain => None,
            Coding::Gzip => Some("gzip"),
            Coding::Brotli => Some("br"),
        }
    }
}

impl Accepted {
    /// Parses the request's `Accept-Encoding` (RFC 9110, section 12.5.3). Content as it is will
    /// do for all clients, if nothing better does.
    pub(crate) fn of(request: &Request<'_>) -> Accepted {
        let (mut gzip, mut brotli, mut plain, mut rest) = (None, None, None, None);
        let fields = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("accept-encoding"));
        for item in fields.flat_map(|(_, value)| value.split(|byte| *byte == b',')) {
            let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let quality = parts.find_map(quality).unwrap_or(1000);
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            let place = match name {
                _ if is("gzip") || is("x-gzip") => &mut gzip,
                _ if is("br") => &mut brotli,
                _ if is("identity") => &mut plain,
                b"*" => &mut rest,
                _ => continue,
            };
            place.get_or_insert(quality);
        }
        let or_rest = |quality: Option<u16>| quality.or(rest).unwrap_or(0);
        Accepted { gzip: or_rest(gzip), brotli: or_rest(brotli), plain: plain.unwrap_or(0) }
    }
}

/// `q=0.5` in thousandths; `None` if it is not one.
fn quality(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', number @ ..] = parameter else { return None };
    let digits = match number {
        [b'0'] | [b'0', b'.'] => return Some(0),
        [b'1', ..] => return Some(1000),
        [b'0', b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return Some(0),
    };
    let value = digits.iter().fold(0, |value, digit| 10 * value + u16::from(digit - b'0'));
    Some(value * 10u16.pow(3 - digits.len() as u32))
}
