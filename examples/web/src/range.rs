//! The part of a file that a request is about (RFC 9110, section 14).

/// The result of a `Range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    /// Everything: there is no range, more than one, or one that is not understood.
    Whole,
    /// So many bytes from this one on; at least one.
    Part { offset: u64, len: u64 },
    /// Something beyond the end.
    Beyond,
}

impl Range {
    /// Reads the range `value` for content of `len` bytes.
    pub(crate) fn of(value: &[u8], len: u64) -> Range {
        let Some((unit, range)) = std::str::from_utf8(value).ok().and_then(|text| text.split_once('=')) else {
            return Range::Whole;
        };
        // A list may have empty elements (RFC 9110, section 5.6.1).
        let mut ranges = range.split(',').map(str::trim).filter(|range| !range.is_empty());
        let (Some(range), None) = (ranges.next(), ranges.next()) else { return Range::Whole };
        let Some((first, last)) = range.split_once('-').filter(|_| unit.eq_ignore_ascii_case("bytes")) else {
            return Range::Whole;
        };
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => part(first, last, len),
            (Some(first), None) if last.is_empty() => part(first, u64::MAX, len),
            (None, Some(0)) if first.is_empty() => Range::Beyond,
            // There is no way to name a part of nothing.
            (None, Some(_)) if first.is_empty() && len == 0 => Range::Whole,
            (None, Some(n)) if first.is_empty() => part(len.saturating_sub(n), u64::MAX, len),
            _ => Range::Whole,
        }
    }
}

fn part(first: u64, last: u64, len: u64) -> Range {
    match first < len {
        true => Range::Part { offset: first, len: last.min(len - 1) - first + 1 },
        false => Range::Beyond,
    }
}

/// Parses digits and nothing else. A number that is too large becomes the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}
