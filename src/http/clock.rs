//! The wall-clock time, for the `Date` of responses.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a date is: `Fri, 20 Nov 2026 20:47:28 GMT`.
const DATE_BYTES: usize = 29;

/// The last second that a date can be written for: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// Wall-clock time: the system's, or, for tests and simulations, one that goes with the loop's clock.
///
/// ```
/// use pollstack::http::Clock;
///
/// let clock = Clock::system();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// An instant, and the time then; `None` for the system's clock.
    fixed: Option<(Instant, SystemTime)>,
}

impl Clock {
    /// The system's clock. If it is set, responses tell the new time within a second.
    pub fn system() -> Clock {
        Clock { fixed: None }
    }

    /// A clock by which it is `time` at `instant`. It never reads the system's.
    pub fn new(instant: Instant, time: SystemTime) -> Clock {
        Clock { fixed: Some((instant, time)) }
    }

    /// Returns the wall-clock time at `now`; the system's clock tells that of the call.
    pub fn time(&self, now: Instant) -> SystemTime {
        let Some((instant, time)) = self.fixed else { return SystemTime::now() };
        let later = time.checked_add(now.saturating_duration_since(instant));
        later.and_then(|time| time.checked_sub(instant.saturating_duration_since(now))).unwrap_or(time)
    }
}

/// The date as it is written in a response; it is worked out once a second.
#[derive(Debug)]
pub(super) struct Date {
    clock: Clock,
    text: [u8; DATE_BYTES],
    /// The second that `text` is about, from 1970 on, and when it begins and ends.
    second: Option<(u64, Instant, Instant)>,
}

impl Date {
    pub(super) fn new(clock: Clock) -> Date {
        Date { clock, text: [b' '; DATE_BYTES], second: None }
    }

    /// Returns the wall-clock time at `now`. No text of this instant or of a later one tells an earlier second.
    pub(super) fn time(&mut self, now: Instant) -> SystemTime {
        let time = self.clock.time(now);
        self.set(now, time);
        time
    }

    /// Returns the date at `now`.
    pub(super) fn text(&mut self, now: Instant) -> &[u8] {
        if !self.second.is_some_and(|(_, begin, end)| begin <= now && now < end) {
            self.set(now, self.clock.time(now));
        }
        &self.text
    }

    /// Makes the text that of the second of `time`, which it is at `now`.
    fn set(&mut self, now: Instant, time: SystemTime) {
        let age = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = age.as_secs().min(LAST_SECOND);
        if self.second.is_none_or(|(known, ..)| known != second) {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            if text.len() == DATE_BYTES {
                self.text.copy_from_slice(text.as_bytes());
            }
        }
        let gone = Duration::from_nanos(age.subsec_nanos().into());
        let begin = now.checked_sub(gone).unwrap_or(now);
        self.second = Some((second, begin, begin + Duration::from_secs(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Were this to fail, responses would carry a date that is not that of their second.
    #[test]
    fn the_date_is_that_of_the_second() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut date = Date::new(Clock::new(start, UNIX_EPOCH + Duration::from_millis(784_111_777_900)));
        assert_eq!(date.text(start), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.text(start + Duration::from_millis(99)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.text(start + Duration::from_millis(100)), b"Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(date.text(start - Duration::from_secs(1)), b"Sun, 06 Nov 1994 08:49:36 GMT");
        assert_eq!(date.text(start + Duration::from_secs(60)), b"Sun, 06 Nov 1994 08:50:37 GMT");
    }

    /// Were this to fail, a response could call a file newer than the response, which caches do not believe.
    #[test]
    fn no_date_is_before_a_time_that_was_told() {
        let mut date = Date::new(Clock::system());
        let turn = Instant::now();
        // The text is that of an earlier second, and the turn has not noticed.
        date.set(turn, UNIX_EPOCH);
        assert_eq!(date.text(turn), b"Thu, 01 Jan 1970 00:00:00 GMT");
        let time = date.time(turn);
        let text = httpdate::parse_http_date(str::from_utf8(date.text(turn)).unwrap()).unwrap();
        assert!(text <= time && time < text + Duration::from_secs(1), "{text:?}, {time:?}");
    }

    /// Were this to fail, a machine whose clock is badly set would bring the server down.
    #[test]
    fn any_time_has_a_date() {
        let now = Instant::now();
        for (time, text) in [
            (UNIX_EPOCH - Duration::from_secs(10), b"Thu, 01 Jan 1970 00:00:00 GMT"),
            (UNIX_EPOCH + Duration::from_secs(1 << 40), b"Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(Date::new(Clock::new(now, time)).text(now), text);
        }
    }
}
