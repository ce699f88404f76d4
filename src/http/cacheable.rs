//! What a reply says about being kept, in the words of RFC 9111 and RFC 5861.
//!
//! What is kept here is given out only when a fresh reply cannot be had, so a reply that forbids that
//! (`no-store`, `no-cache`, `must-revalidate`, `Vary: *`) is not kept at all, and neither is one that sets
//! cookies. `private` is for one caller: it is kept for its principal, and never under `public = true`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What a `Cache-Control` says, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// It must not be given out without asking again.
    pub(crate) forbids: bool,
    /// It is one caller's.
    pub(crate) private: bool,
    /// It may be given to anybody.
    pub(crate) public: bool,
    /// For how long it may stand in for a failure.
    pub(crate) stale_if_error: Option<Duration>,
}

impl Control {
    /// What `headers` say.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        for directive in values.flat_map(|value| value.split(',')) {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" | "must-revalidate" => control.forbids = true,
                "private" => control.private = true,
                "public" => control.public = true,
                "stale-if-error" => {
                    let seconds = argument.trim().trim_matches('"').parse().ok();
                    control.stale_if_error = seconds.map(Duration::from_secs);
                }
                _ => {}
            }
        }
        control
    }
}

/// The request headers on which a reply depends, each with its value; `None` if it depends on everything.
pub(crate) type Vary = Vec<(HeaderName, Option<HeaderValue>)>;

/// What a reply with `theirs` depends on, in a request with `asked`.
pub(crate) fn vary(theirs: &HeaderMap, asked: &HeaderMap) -> Option<Vary> {
    let mut vary = Vary::new();
    for value in theirs.get_all(header::VARY) {
        for name in value.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            // `*` is no name of a header.
            let name: HeaderName = name.parse().ok().filter(|_| name != "*")?;
            let value = asked.get(&name).cloned();
            vary.push((name, value));
        }
    }
    Some(vary)
}

/// Whether a request with `asked` is answered by a reply that depends on `vary`.
pub(crate) fn answers(vary: &Vary, asked: &HeaderMap) -> bool {
    vary.iter().all(|(name, value)| asked.get(name) == value.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_cache_control_is_read_in_any_case_and_over_several_headers() {
        let of = |value| Control::of(&headers(&[("cache-control", value)]));
        for forbids in ["no-store", "max-age=3, No-Cache", "public,must-revalidate"] {
            assert!(of(forbids).forbids, "{forbids}");
        }
        assert!(!of("max-age=60").forbids && of("Private").private && of("public").public);
        assert_eq!(of("stale-if-error=90").stale_if_error, Some(Duration::from_secs(90)));
        assert_eq!(of("stale-if-error=soon").stale_if_error, None);
        let two = Control::of(&headers(&[("cache-control", "private"), ("cache-control", "no-store")]));
        assert!(two.private && two.forbids);
    }

    #[test]
    fn a_reply_answers_only_requests_that_agree_in_what_it_depends_on() {
        let german = headers(&[("accept-language", "de")]);
        let depends = vary(&headers(&[("vary", "Accept-Language, x-tenant")]), &german).expect("two headers");
        assert!(answers(&depends, &german));
        assert!(!answers(&depends, &headers(&[("accept-language", "en")])));
        assert!(!answers(&depends, &headers(&[])));
        assert!(!answers(&depends, &headers(&[("accept-language", "de"), ("x-tenant", "a")])));
        assert_eq!(vary(&headers(&[("vary", "*")]), &german), None);
        assert_eq!(vary(&headers(&[]), &german), Some(Vec::new()));
    }
}
