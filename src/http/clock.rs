//! The wall-clock time, for the `Date` of responses.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a date is: `Fri, 20 Nov 2026 20:47:28 GMT`.
const DATE_BYTES: usize = 29;

/// The last second that a date can be written for: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// Wall-clock time, told by the loop's clock: an instant, and what time it was then.
///
/// A service reads no clock. The main function does, once:
///
/// ```
/// use pollstack::http::Clock;
/// use std::time::{Instant, SystemTime};
///
/// let clock = Clock::new(Instant::now(), SystemTime::now());
/// ```
///
/// A wall clock that is set meanwhile is not noticed. A server that stays up for months should
/// [set](super::Http::set_clock) its clock now and then.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Clock {
    /// A clock by which it is `time` at `instant`.
    pub fn new(instant: Instant, time: SystemTime) -> Clock {
        Clock { instant, time }
    }

    /// Returns the wall-clock time at `now`.
    pub fn time(&self, now: Instant) -> SystemTime {
        let later = self.time.checked_add(now.saturating_duration_since(self.instant));
        let time = later.and_then(|time| time.checked_sub(self.instant.saturating_duration_since(now)));
        time.unwrap_or(self.time)
    }
}

/// The date as it is written in a response; it is worked out once a second.
#[derive(Debug)]
pub(super) struct Date {
    clock: Clock,
    text: [u8; DATE_BYTES],
    /// The second that `text` is about begins and ends then.
    valid: Option<(Instant, Instant)>,
}

impl Date {
    pub(super) fn new(clock: Clock) -> Date {
        Date { clock, text: [b' '; DATE_BYTES], valid: None }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Returns the date at `now`.
    pub(super) fn text(&mut self, now: Instant) -> &[u8] {
        if !self.valid.is_some_and(|(from, until)| from <= now && now < until) {
            self.write(now);
        }
        &self.text
    }

    fn write(&mut self, now: Instant) {
        let age = self.clock.time(now).duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = Duration::from_secs(age.as_secs().min(LAST_SECOND));
        let text = httpdate::fmt_http_date(UNIX_EPOCH + second);
        if text.len() == DATE_BYTES {
            self.text.copy_from_slice(text.as_bytes());
        }
        let gone = Duration::from_nanos(age.subsec_nanos().into());
        let begin = now.checked_sub(gone).unwrap_or(now);
        self.valid = Some((begin, begin + Duration::from_secs(1)));
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
