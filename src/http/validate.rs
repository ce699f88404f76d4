//! On a JSON route every reply parses.
//!
//! A page that expects JSON and gets an HTML error page fails with *Unexpected token '<'*, and with an empty
//! body with *Unexpected end of JSON input*: the caller then knows neither what happened nor when to come
//! back. So a reply is judged before it leaves. Judging is pure: the head, then the body, in; a verdict out.
//!
//! What cannot be judged, or is not meant to be parsed, passes untouched: replies without a body (HEAD, 1xx,
//! 204, 205, 304), streams, encoded and upgraded ones. What is longer than [`LONGEST`] is not held in memory:
//! declared as JSON and no error it passes, else it is replaced. A handler keeps its 4xx, and its text is
//! wrapped; a page, and whatever a bug says about itself, is for the log, and shown only where the endpoint
//! says so.

use http::{HeaderMap, Method, StatusCode, header};
use serde::de::IgnoredAny;

use super::{
    policy::{Endpoint, Replies},
    problem::{Code, Problem},
};

/// Bodies up to this length are read and judged.
pub(crate) const LONGEST: usize = 1 << 20;
/// How much of a handler's text a caller is shown.
const SHOWN: usize = 200;
/// Where in an HTML page its title is looked for.
const LOOKED_AT: usize = 16 << 10;

/// What is wrong with a reply; the label of the metric that counts repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// There is none, where one is needed.
    Empty,
    /// It is a web page.
    Html,
    /// It is a plain text.
    Text,
    /// It is said to be JSON and does not parse.
    InvalidJson,
    /// It is JSON and said to be something else, or it is something else altogether.
    ContentType,
    /// It is too long to be judged.
    Oversize,
    /// It broke off.
    Broken,
    /// The handler panicked.
    Panic,
}

impl Fault {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Html => "html",
            Self::Text => "text",
            Self::InvalidJson => "invalid_json",
            Self::ContentType => "content_type",
            Self::Oversize => "oversize",
            Self::Broken => "broken",
            Self::Panic => "panic",
        }
    }
}

/// What the head of a reply decides.
#[derive(Debug, PartialEq)]
pub(crate) enum Head {
    /// It passes.
    Pass,
    /// Its body decides.
    Read,
    /// It does not pass, whatever its body says.
    Replace(Repair),
}

/// What the body of a reply decides.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It passes.
    Pass,
    /// It passes once it is called what it is.
    CallItJson,
    /// It does not pass.
    Replace(Repair),
}

/// How a reply that does not parse is made good.
#[derive(Debug, PartialEq)]
pub(crate) struct Repair {
    pub(crate) fault: Fault,
    pub(crate) instead: Instead,
    /// What the handler said, for the log.
    pub(crate) said: Option<String>,
}

/// What takes the place of a reply.
#[derive(Debug, PartialEq)]
pub(crate) enum Instead {
    Problem(Problem),
    Success { status: StatusCode, data: Option<String> },
}

/// What a body says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Stream,
    Html,
    Text,
    Other,
    Unsaid,
}

/// Judges a reply to a `method` request by its head. `length` is its body's length, if it is known.
pub(crate) fn head(
    endpoint: &Endpoint,
    method: &Method,
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Head {
    let kind = kind(headers);
    if endpoint.replies == Replies::Any
        || has_no_body(method, status)
        || is_opaque(headers)
        || kind == Kind::Stream
    {
        return Head::Pass;
    }
    let is_error = status.as_u16() >= 400;
    if endpoint.replies == Replies::Errors && !is_error && kind != Kind::Json {
        return Head::Pass;
    }
    match length {
        Some(0) => match empty(status, kind) {
            Some(repair) => Head::Replace(repair),
            None => Head::Pass,
        },
        Some(length) if length > LONGEST as u64 => match oversize(status, headers) {
            Some(repair) => Head::Replace(repair),
            None => Head::Pass,
        },
        Some(_) | None => Head::Read,
    }
}

/// Judges a reply whose head left it open by its body.
pub(crate) fn body(endpoint: &Endpoint, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
    let kind = kind(headers);
    if body.is_empty() {
        return empty(status, kind).map_or(Verdict::Pass, Verdict::Replace);
    }
    let text = std::str::from_utf8(body).ok();
    let parses = text.is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    if parses && kind == Kind::Json {
        return Verdict::Pass;
    }
    let is_document = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
    if parses && is_document {
        return Verdict::CallItJson;
    }
    let is_html = kind == Kind::Html || (kind != Kind::Json && looks_like_html(body));
    let said = if is_html { title(body) } else { Some(plain(&String::from_utf8_lossy(cut(body)))) };
    let fault = match kind {
        Kind::Json => Fault::InvalidJson,
        Kind::Html | Kind::Text | Kind::Stream | Kind::Other | Kind::Unsaid if is_html => Fault::Html,
        Kind::Text => Fault::Text,
        Kind::Unsaid if text.is_some() => Fault::Text,
        Kind::Html | Kind::Stream | Kind::Other | Kind::Unsaid => Fault::ContentType,
    };
    let instead = match (status.as_u16(), fault) {
        (..400, Fault::Text) => {
            Instead::Success { status, data: Some(String::from_utf8_lossy(body).into_owned()) }
        }
        _ => {
            let theirs = fault == Fault::Text && status.is_client_error();
            let may_show = theirs || (is_words(fault) && endpoint.expose_upstream);
            instead_of(status, said.clone().filter(|_| may_show))
        }
    };
    Verdict::Replace(Repair { fault, instead, said })
}

/// Whether what was said can be read by a person.
const fn is_words(fault: Fault) -> bool {
    matches!(fault, Fault::Html | Fault::Text)
}

/// Judges a reply whose body turned out longer than [`LONGEST`]; `None` if it passes.
pub(crate) fn oversize(status: StatusCode, headers: &HeaderMap) -> Option<Repair> {
    let passes = kind(headers) == Kind::Json && status.as_u16() < 400;
    (!passes).then(|| Repair { fault: Fault::Oversize, instead: instead_of(status, None), said: None })
}

/// What takes the place of a reply whose body broke off before its head was sent.
pub(crate) fn broken(status: StatusCode, error: &dyn std::fmt::Display) -> Repair {
    Repair { fault: Fault::Broken, instead: instead_of(status, None), said: Some(plain(&error.to_string())) }
}

fn has_no_body(method: &Method, status: StatusCode) -> bool {
    let tunnel = method == Method::CONNECT && status.is_success();
    method == Method::HEAD
        || tunnel
        || status.is_informational()
        || matches!(status.as_u16(), 204 | 205 | 304)
}

/// Whether the body's bytes are not what they stand for.
fn is_opaque(headers: &HeaderMap) -> bool {
    let encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    encoded || headers.contains_key(header::UPGRADE)
}

fn kind(headers: &HeaderMap) -> Kind {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Kind::Unsaid };
    if value == "application/json" {
        return Kind::Json;
    }
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let known = KINDS.iter().find(|(name, _)| essence.eq_ignore_ascii_case(name));
    let is_json = || essence.len() >= 5 && essence[essence.len() - 5..].eq_ignore_ascii_case("+json");
    match known {
        Some((_, kind)) => *kind,
        None if is_json() => Kind::Json,
        None => Kind::Other,
    }
}

/// What types of content are by name; `…+json` is JSON, too.
const KINDS: [(&str, Kind); 11] = [
    ("", Kind::Unsaid),
    ("application/json", Kind::Json),
    ("text/html", Kind::Html),
    ("application/xhtml+xml", Kind::Html),
    ("text/plain", Kind::Text),
    ("text/event-stream", Kind::Stream),
    ("application/x-ndjson", Kind::Stream),
    ("application/ndjson", Kind::Stream),
    ("application/jsonl", Kind::Stream),
    ("application/json-seq", Kind::Stream),
    ("multipart/x-mixed-replace", Kind::Stream),
];

/// What to make of a reply without a body. A bare success is one; a bare redirect needs none.
fn empty(status: StatusCode, kind: Kind) -> Option<Repair> {
    let instead = match status.as_u16() {
        300..400 => return None,
        ..300 if kind != Kind::Json => Instead::Success { status, data: None },
        _ => instead_of(status, None),
    };
    Some(Repair { fault: Fault::Empty, instead, said: None })
}

/// The reply that keeps of a handler's what can be kept: an error's status.
fn instead_of(status: StatusCode, shown: Option<String>) -> Instead {
    let problem = match status.as_u16() {
        400..500 => Problem::new(Code::Rejected).with_status(status),
        502..=504 => Problem::new(Code::UpstreamInvalid).with_status(status),
        500.. => Problem::new(Code::Internal).with_status(status),
        300..400 => return Instead::Success { status, data: None },
        _ => Problem::new(Code::UpstreamInvalid),
    };
    Instead::Problem(match shown {
        Some(text) if !text.is_empty() => problem.saying(text),
        _ => problem,
    })
}

fn looks_like_html(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    start.first() == Some(&b'<') && start.get(1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'!')
}

/// The title or first heading of a page, else its text.
fn title(body: &[u8]) -> Option<String> {
    let page = String::from_utf8_lossy(cut(body));
    let text = between(&page, "title").or_else(|| between(&page, "h1")).unwrap_or(&page);
    Some(plain(&without_tags(text))).filter(|text| !text.is_empty())
}

/// What stands in the first element called `name`, which is in lower case.
fn between<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let lower = page.to_ascii_lowercase();
    let open = lower.find(&format!("<{name}"))?;
    let from = open + lower[open..].find('>')? + 1;
    let to = from + lower[from..].find(&format!("</{name}"))?;
    page.get(from..to)
}

fn without_tags(text: &str) -> String {
    let mut inside = false;
    text.chars()
        .map(|c| {
            let is_tag = inside || c == '<';
            inside = is_tag && c != '>';
            if is_tag { ' ' } else { c }
        })
        .collect()
}

/// One line without control characters, of at most [`SHOWN`] characters.
fn plain(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > 4 * SHOWN {
            break;
        }
    }
    line.chars().take(SHOWN).collect()
}

fn cut(body: &[u8]) -> &[u8] {
    &body[..body.len().min(LOOKED_AT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    fn judged(status: u16, content_type: &'static str, text: &[u8]) -> Verdict {
        let status = StatusCode::from_u16(status).expect("a status");
        let headers = if content_type.is_empty() {
            HeaderMap::new()
        } else {
            headers(&[("content-type", content_type)])
        };
        body(&Endpoint::new("/a"), status, &headers, text)
    }

    fn problem(verdict: Verdict) -> (Fault, Problem) {
        match verdict {
            Verdict::Replace(Repair { fault, instead: Instead::Problem(problem), .. }) => (fault, problem),
            other @ (Verdict::Pass | Verdict::CallItJson | Verdict::Replace(_)) => {
                panic!("{other:?} is no problem")
            }
        }
    }

    #[test]
    fn json_passes_and_json_under_another_name_is_called_json() {
        assert_eq!(judged(200, "application/json", b" {\"a\":1}"), Verdict::Pass);
        assert_eq!(judged(422, "application/problem+json; charset=utf-8", b"{}"), Verdict::Pass);
        assert_eq!(judged(200, "application/json", b"7"), Verdict::Pass);
        assert_eq!(judged(200, "text/plain; charset=utf-8", b"[1]"), Verdict::CallItJson);
        assert_eq!(judged(500, "text/html", b"{}"), Verdict::CallItJson);
    }

    #[test]
    fn a_handlers_own_refusal_keeps_its_status_and_its_text() {
        let (fault, said) = problem(judged(404, "text/plain", b"no such\r\n task\x1b[31m"));
        assert_eq!((fault, said.status.as_u16(), &*said.error), (Fault::Text, 404, "no such task [31m"));
        assert_eq!(said.code, Code::Rejected);
    }

    #[test]
    fn a_page_is_for_the_log() {
        let page = b"<HTML><HEAD><TITLE>Bad <b>Gateway</b></TITLE></HEAD><h1>x</h1>";
        let Verdict::Replace(repair) = judged(502, "text/html", page) else { panic!("it is a page") };
        assert_eq!(repair.said.as_deref(), Some("Bad Gateway"));
        let (fault, told) = problem(Verdict::Replace(repair));
        assert_eq!((fault, told.status.as_u16(), told.code), (Fault::Html, 502, Code::UpstreamInvalid));
        assert!(!told.error.contains("Gateway"));

        let open = Endpoint { expose_upstream: true, ..Endpoint::new("/a") };
        let seen = body(&open, StatusCode::BAD_GATEWAY, &headers(&[("content-type", "text/html")]), page);
        assert_eq!(problem(seen).1.error, "Bad Gateway");
    }

    #[test]
    fn a_bug_stays_a_500_and_its_text_stays_here() {
        let (_, told) = problem(judged(500, "text/plain", b"SELECT secret FROM users failed"));
        assert_eq!((told.status.as_u16(), told.code), (500, Code::Internal));
        assert!(!told.error.contains("secret"), "{}", told.error);
    }

    #[test]
    fn a_success_that_does_not_parse_is_none() {
        for (kind, text) in [
            ("application/json", &b"{\"a\":"[..]),
            ("application/json", b"{\"a\":\"\xff\"}"),
            ("text/html", b"<p>hi</p>"),
            ("application/octet-stream", b"\x00\x01"),
        ] {
            let (_, told) = problem(judged(200, kind, text));
            assert_eq!((told.status.as_u16(), told.code), (503, Code::UpstreamInvalid), "{kind}");
        }
    }

    #[test]
    fn a_bare_success_and_a_word_are_successes() {
        let instead = |verdict| match verdict {
            Verdict::Replace(Repair { instead: Instead::Success { status, data }, .. }) => {
                (status.as_u16(), data)
            }
            other @ (Verdict::Pass | Verdict::CallItJson | Verdict::Replace(_)) => panic!("{other:?}"),
        };
        assert_eq!(instead(judged(201, "", b"")), (201, None));
        assert_eq!(instead(judged(200, "text/plain", b"OK")), (200, Some("OK".to_owned())));
        assert_eq!(judged(303, "", b""), Verdict::Pass);
        assert_eq!(problem(judged(200, "application/json", b"")).1.code, Code::UpstreamInvalid);
        assert_eq!(problem(judged(401, "", b"")).1.status.as_u16(), 401);
    }

    #[test]
    fn what_is_not_meant_to_be_parsed_passes_by_its_head() {
        let at = |method: Method, status: u16, list: &[(&'static str, &'static str)], length| {
            let status = StatusCode::from_u16(status).expect("a status");
            head(&Endpoint::new("/a"), &method, status, &headers(list), length)
        };
        assert_eq!(at(Method::HEAD, 500, &[("content-type", "text/html")], Some(9)), Head::Pass);
        assert_eq!(at(Method::GET, 204, &[], Some(0)), Head::Pass);
        assert_eq!(at(Method::GET, 304, &[], Some(0)), Head::Pass);
        assert_eq!(at(Method::GET, 101, &[("upgrade", "websocket")], Some(0)), Head::Pass);
        assert_eq!(at(Method::GET, 200, &[("content-type", "text/event-stream")], None), Head::Pass);
        assert_eq!(at(Method::GET, 500, &[("content-encoding", "gzip")], Some(9)), Head::Pass);
        assert_eq!(at(Method::GET, 200, &[("content-type", "application/json")], Some(1 << 21)), Head::Pass);
        assert_ne!(at(Method::GET, 400, &[("content-type", "application/json")], Some(1 << 21)), Head::Pass);
        assert_eq!(at(Method::GET, 200, &[("content-type", "application/json")], None), Head::Read);
    }

    #[test]
    fn an_unlisted_page_passes_and_an_unlisted_error_does_not() {
        let page = headers(&[("content-type", "text/html")]);
        let at = |status| head(&Endpoint::unlisted(), &Method::GET, status, &page, Some(9));
        assert_eq!(at(StatusCode::OK), Head::Pass);
        assert_eq!(at(StatusCode::NOT_FOUND), Head::Read);
    }
}
