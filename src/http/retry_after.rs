//! When a reply wants its caller to come back: seconds, or a date (RFC 9110, 10.2.3).
//!
//! A date is compared with the reply's own `Date`, so that it does not matter whether the clocks of both sides agree;
//! only a reply without one is read by our wall clock. Whatever it says, nobody is sent away for longer than
//! [`LONGEST_RETRY`], and a date that has passed says at once.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, HeaderName,
    header::{DATE, RETRY_AFTER},
};

use super::reply::LONGEST_RETRY;

/// After what time a reply with `headers` wants its caller to come back; `None` if it does not say.
pub(crate) fn of(headers: &HeaderMap, wall: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let after = match said.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) if !said.is_empty() && said.bytes().all(|digit| digit.is_ascii_digit()) => LONGEST_RETRY,
        Err(_) => {
            let then = httpdate::parse_http_date(said).ok()?;
            let now = date(headers, DATE).unwrap_or_else(wall);
            then.duration_since(now).unwrap_or_default()
        }
    };
    Some(after.min(LONGEST_RETRY))
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NOON: &str = "Tue, 24 Nov 2026 12:00:00 GMT";

    fn said(after: &'static str, date: Option<&'static str>, wall: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(after));
        if let Some(date) = date {
            headers.insert(DATE, HeaderValue::from_static(date));
        }
        of(&headers, || httpdate::parse_http_date(wall).expect("a date")).map(|after| after.as_secs())
    }

    #[test]
    fn it_is_seconds_or_a_date_and_an_hour_at_most() {
        for (after, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999999", Some(3_600)),
            ("99999999999999999999999", Some(3_600)),
            ("Tue, 24 Nov 2026 12:00:09 GMT", Some(9)),
            ("Tuesday, 24-Nov-26 12:00:09 GMT", Some(9)),
            ("Tue Nov 24 12:00:09 2026", Some(9)),
            ("Wed, 25 Nov 2026 12:00:00 GMT", Some(3_600)),
            ("Tue, 24 Nov 2026 11:59:00 GMT", Some(0)),
            ("-7", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
            ("Tue, 24 Nov 2026 12:00:09 CET", None),
        ] {
            assert_eq!(said(after, None, NOON), expected, "{after}");
        }
    }

    #[test]
    fn a_date_is_read_by_the_clock_that_wrote_it() {
        let (after, ours) = ("Thu, 01 Jan 1970 00:01:00 GMT", NOON);
        assert_eq!(said(after, Some("Thu, 01 Jan 1970 00:00:30 GMT"), ours), Some(30));
        assert_eq!(said(after, Some("yesterday"), ours), Some(0), "by ours, if it is no date");
    }
}
