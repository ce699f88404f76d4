//! How a problem is written: a JSON body that a page can show and a program can act on.
//!
//! The body has the members that a plain `fetch` helper reads (`success`, `error`, `retryAfter`, `code`) and
//! those of RFC 9457 beside them. Its content type is `application/json`, because clients look for just that
//! (`"application/problem+json".includes("application/json")` is false); who asks for problem+json gets it.
//!
//! `Retry-After` and `retryAfter` are the same whole number of seconds, rounded up, at least 1, and spread by a
//! seeded jitter: a thousand callers refused in the same instant do not come back in the same instant. The
//! jitter only adds, so nobody is sent back before there is a reason to come.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{self, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    problem::{Code, Problem},
    request_id::{self, RequestId},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What callers are told to wait if nothing better is known.
pub(crate) const DEFAULT_RETRY: Duration = Duration::from_secs(1);
/// Nobody is sent away for longer, whatever a handler's own `Retry-After` says.
pub(crate) const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// Spreads the times at which refused callers come back. Seeded, so that a test can say what comes out.
#[derive(Debug)]
pub struct Jitter(Option<AtomicU64>);

impl Jitter {
    /// A spread that starts from `seed`.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(Some(AtomicU64::new(seed)))
    }

    /// No spread.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// `after` in whole seconds, rounded up, at least 1, and up to half as much (at least 1) more.
    #[must_use]
    pub fn seconds(&self, after: Duration) -> u64 {
        let whole = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
        let whole = whole.clamp(1, LONGEST_RETRY.as_secs());
        whole + self.below((whole / 2).max(1) + 1)
    }

    /// A number below `bound`, by SplitMix64.
    fn below(&self, bound: u64) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let Some(state) = &self.0 else { return 0 };
        let mut z = state.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a request says about how it wants to hear of a problem.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) id: RequestId,
    head: bool,
    problem_json: bool,
}

impl Manner {
    pub(crate) fn of(method: &Method, headers: &HeaderMap, id: RequestId) -> Self {
        Self { id, head: method == Method::HEAD, problem_json: asks_for_problem_json(headers) }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    success: bool,
    error: &'a str,
    code: &'a str,
    #[serde(rename = "retryAfter", skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(rename = "cachedData", skip_serializing_if = "Option::is_none")]
    cached_data: Option<&'a RawValue>,
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

/// The reply that tells `problem` in the caller's manner.
pub(crate) fn write(
    problem: &Problem,
    manner: &Manner,
    jitter: &Jitter,
    cached: Option<&RawValue>,
) -> Response {
    let retry_after =
        problem.code.is_temporary().then(|| jitter.seconds(problem.retry_after.unwrap_or(DEFAULT_RETRY)));
    let mut response = document(problem, retry_after, Some(&manner.id), cached);
    if manner.problem_json {
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
    }
    if manner.head {
        *response.body_mut() = Body::empty();
    }
    response
}

/// The same reply for where no request is known: an error type that is turned into a response by itself.
pub(crate) fn write_bare(problem: &Problem) -> Response {
    let retry_after = problem
        .code
        .is_temporary()
        .then(|| Jitter::off().seconds(problem.retry_after.unwrap_or(DEFAULT_RETRY)));
    document(problem, retry_after, None, None)
}

fn document(
    problem: &Problem,
    retry_after: Option<u64>,
    id: Option<&RequestId>,
    cached_data: Option<&RawValue>,
) -> Response {
    let document = Document {
        success: false,
        error: &problem.error,
        code: problem.code.name(),
        retry_after,
        cached_data,
        request_id: id.map(|id| &*id.0),
        r#type: format!("urn:selfheal:problem:{}", problem.code.name()),
        title: problem.status.canonical_reason().unwrap_or("Error"),
        status: problem.status.as_u16(),
        detail: problem.code.detail(),
        instance: id.map(|id| format!("urn:selfheal:request:{}", id.0)),
    };
    // Strings and numbers always serialise; the fallback keeps the promise without relying on it.
    let body = serde_json::to_vec(&document).unwrap_or_else(|_| br#"{"success":false}"#.to_vec());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = problem.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(id) = id {
        request_id::put(id, headers);
    }
    *response.body_mut() = Body::from(body);
    response
}

/// What says something about the body that was replaced, and would be wrong about the new one.
const ABOUT_THE_BODY: [HeaderName; 9] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    header::CONTENT_DISPOSITION,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::TRANSFER_ENCODING,
    header::ETAG,
    header::LAST_MODIFIED,
    header::CACHE_CONTROL,
];

/// Gives `reply` what the handler's headers said apart from its body: cookies, CORS, `Allow`, a challenge.
pub(crate) fn inherit(reply: &mut Response, mut theirs: HeaderMap) {
    for name in ABOUT_THE_BODY {
        theirs.remove(name);
    }
    let ours = std::mem::replace(reply.headers_mut(), theirs);
    for (name, value) in &ours {
        reply.headers_mut().insert(name, value.clone());
    }
}

/// `ours` in place of `theirs`, with what that has said apart from its body.
pub(crate) fn instead_of(mut ours: Response, theirs: Response) -> Response {
    let (parts, _) = theirs.into_parts();
    inherit(&mut ours, parts.headers);
    let extensions = std::mem::replace(ours.extensions_mut(), parts.extensions);
    ours.extensions_mut().extend(extensions);
    ours
}

/// A small JSON document in place of a success that was not JSON; and its body.
pub(crate) fn success(status: http::StatusCode, data: Option<&str>) -> (Response, Bytes) {
    let body = match data {
        Some(data) => serde_json::json!({ "success": true, "data": data }).to_string(),
        None => r#"{"success":true}"#.to_owned(),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let body = Bytes::from(body);
    *response.body_mut() = Body::from(body.clone());
    (response, body)
}

/// Whether the caller names problem+json and likes it at least as much as plain JSON.
fn asks_for_problem_json(headers: &HeaderMap) -> bool {
    let values = || headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    // Most callers do not, and that is soon seen.
    if !values().any(|value| value.contains('+')) {
        return false;
    }
    let (mut problem, mut plain) = (0.0_f32, 0.0_f32);
    for range in values().flat_map(|value| value.split(',')) {
        let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
        match kind.trim() {
            kind if kind.eq_ignore_ascii_case("application/problem+json") => problem = quality(parameters),
            kind if kind.eq_ignore_ascii_case("application/json") => plain = quality(parameters),
            _ => {}
        }
    }
    problem > 0.0 && problem >= plain
}

/// The weight among the parameters of a media range: 1 if there is none.
fn quality(parameters: &str) -> f32 {
    let weight = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
    weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0))
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::Value;

    use super::*;

    fn manner(method: &Method, accept: Option<&str>) -> Manner {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, accept.parse().expect("a header"));
        }
        Manner::of(method, &headers, RequestId("r-1".into()))
    }

    async fn told(problem: &Problem, manner: &Manner, jitter: &Jitter) -> (Response<()>, Value) {
        let (parts, body) = write(problem, manner, jitter, None).into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        (Response::from_parts(parts, ()), serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_refusal_says_when_to_come_back_in_header_and_body_alike() {
        let jitter = Jitter::seeded(7);
        let refused = Problem::new(Code::Shed).after(Some(Duration::from_millis(1_200)));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let (head, body) = told(&refused, &manner(&Method::GET, None), &jitter).await;
            let seconds = body["retryAfter"].as_u64().expect("whole seconds");
            assert_eq!(head.headers()[RETRY_AFTER], seconds.to_string());
            assert_eq!(head.status(), 503);
            assert_eq!(head.headers()[CONTENT_TYPE], "application/json");
            seen.insert(seconds);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [2, 3], "1.2 s is 2, and up to half as much more");
    }

    #[tokio::test]
    async fn the_body_is_the_clients_and_rfc_9457s() {
        let (_, body) = told(&Code::UserLimit.into(), &manner(&Method::GET, None), &Jitter::off()).await;
        assert_eq!(
            body,
            serde_json::json!({
                "success": false, "error": "Service temporarily unavailable", "retryAfter": 1, "code": "user_limit",
                "requestId": "r-1", "type": "urn:selfheal:problem:user_limit", "title": "Too Many Requests",
                "status": 429, "detail": "Too many requests of yours are in progress.",
                "instance": "urn:selfheal:request:r-1",
            })
        );
    }

    #[tokio::test]
    async fn a_bug_says_neither_when_to_come_back_nor_what_it_is() {
        let (head, body) =
            told(&Code::Internal.into(), &manner(&Method::GET, None), &Jitter::seeded(1)).await;
        assert_eq!((head.status().as_u16(), &body["code"]), (500, &Value::from("internal")));
        assert!(body.get("retryAfter").is_none() && body.get("detail").is_none());
        assert!(!head.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn problem_json_is_for_those_who_ask_for_it() {
        let asks = |accept: &str| manner(&Method::GET, Some(accept)).problem_json;
        assert!(asks("application/problem+json"));
        assert!(asks("application/json, application/problem+json"));
        assert!(asks("application/json;q=0.5, Application/Problem+JSON;q=0.9"));
        assert!(!asks("application/json, application/problem+json;q=0.5"));
        assert!(!asks("application/problem+json;q=0"));
        assert!(!asks("*/*") && !asks("application/*") && !asks("text/html"));
    }

    #[tokio::test]
    async fn a_head_request_gets_the_head_alone() {
        let reply = write(&Code::Shed.into(), &manner(&Method::HEAD, None), &Jitter::off(), None);
        assert_ne!(reply.headers()[CONTENT_LENGTH], "0");
        assert!(to_bytes(reply.into_body(), 1).await.expect("a body").is_empty());
    }

    #[test]
    fn no_time_is_below_a_second_or_beyond_an_hour_and_a_half() {
        let jitter = Jitter::seeded(42);
        for after in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(3), Duration::MAX] {
            let seconds = jitter.seconds(after);
            assert!((1..=5_400).contains(&seconds) && seconds >= after.as_secs().min(3_600), "{after:?}");
        }
    }

    #[test]
    fn what_a_handler_said_apart_from_its_body_is_kept() {
        let mut theirs = HeaderMap::new();
        theirs.append(header::SET_COOKIE, HeaderValue::from_static("a=1"));
        theirs.append(header::SET_COOKIE, HeaderValue::from_static("b=2"));
        theirs.insert(header::ETAG, HeaderValue::from_static("\"x\""));
        theirs.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        let mut reply = write_bare(&Code::Internal.into());
        inherit(&mut reply, theirs);
        assert_eq!(reply.headers().get_all(header::SET_COOKIE).iter().count(), 2);
        assert_eq!(reply.headers()[CONTENT_TYPE], "application/json");
        assert!(!reply.headers().contains_key(header::ETAG));
    }
}
