//! The header `Retry-After`.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, HeaderName, RETRY_AFTER};

/// How long the answer asks to wait: whole seconds, or a date.
///
/// Nothing where it is missing, malformed, zero, or a date that is past, so that the step's own
/// backoff decides. A very long wait is respected.
///
/// A date is of the clock of whoever sent it: it is measured against the `Date` of the same answer, and
/// only without one against `now`.
pub(crate) fn wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only the length can be at fault here: more seconds than fit are for ever.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let until = httpdate::parse_http_date(value).ok()?;
        let sent = date(headers, &DATE).unwrap_or(now);
        until.duration_since(sent).ok()?
    };
    Some(wait).filter(|wait| !wait.is_zero())
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1994-11-06 08:49:37 UTC, the date of the standard's examples.
    const NOW: Duration = Duration::from_secs(784_111_777);

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    fn asked(value: &str) -> Option<u64> {
        let headers = headers(&[(RETRY_AFTER, value)]);
        wait(&headers, SystemTime::UNIX_EPOCH + NOW).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds() {
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked(" 7 "), Some(7));
    }

    #[test]
    fn a_very_long_wait_is_respected() {
        assert_eq!(asked("31536000000"), Some(31_536_000_000));
        assert_eq!(asked("99999999999999999999999"), Some(u64::MAX));
    }

    #[test]
    fn a_date_in_each_of_its_three_forms() {
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(asked("Sunday, 06-Nov-94 08:50:37 GMT"), Some(60));
        assert_eq!(asked("Sun Nov  6 08:50:37 1994"), Some(60));
    }

    #[test]
    fn a_date_is_measured_by_the_senders_clock() {
        // The sender's clock is an hour ahead of ours: it asks for ten seconds, not for an hour.
        let headers = headers(&[
            (RETRY_AFTER, "Sun, 06 Nov 1994 09:49:47 GMT"),
            (DATE, "Sun, 06 Nov 1994 09:49:37 GMT"),
        ]);
        let wait = wait(&headers, SystemTime::UNIX_EPOCH + NOW);
        assert_eq!(wait, Some(Duration::from_secs(10)));
    }

    #[test]
    fn zero_negative_and_past_say_nothing() {
        for value in [
            "0",
            "000",
            "-5",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:36 GMT",
        ] {
            assert_eq!(asked(value), None, "{value}");
        }
    }

    #[test]
    fn the_malformed_says_nothing() {
        for value in [
            "",
            " ",
            "soon",
            "1.5",
            "+5",
            "5s",
            "1e3",
            "0x10",
            "12 seconds",
            "Sun, 06 Nov 1994",
            "Sun, 32 Nov 1994 08:50:37 GMT",
            "1994-11-06T08:50:37Z",
        ] {
            assert_eq!(asked(value), None, "{value}");
        }
        assert_eq!(wait(&HeaderMap::new(), SystemTime::UNIX_EPOCH), None);
    }
}
