//! A page in a browser, as far as the drill needs one.
//!
//! Without healing it makes one call, as most pages do, and reads what comes back as JSON. With healing it does what
//! the frontend's helper (`desk/fetch.js`) does: it waits when it is told to, and calls again, at most four times.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method};
use selfheal::clock::{Clock, Tick};
use serde::Serialize;
use serde_json::Value;

use super::api::ms;
use crate::web::{Answer, Web};

/// Calls of the helper at most.
const CALLS: usize = 4;
/// A page gives up on a call after this long.
const PATIENCE: Duration = Duration::from_secs(4);

/// Who calls what.
pub(super) struct Caller {
    pub(super) web: Web,
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) user: String,
    pub(super) healed: bool,
    pub(super) clock: Clock,
    pub(super) start: Tick,
}

/// What a caller saw, in milliseconds from the start of the run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Called {
    pub(crate) user: String,
    pub(crate) from_ms: i64,
    pub(crate) replies: Vec<Reply>,
    /// When there was data to show.
    pub(crate) data_ms: Option<i64>,
    /// What the page shows instead.
    pub(crate) error: Option<String>,
}

/// One reply.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reply {
    pub(crate) at_ms: i64,
    /// None if there was no reply at all.
    pub(crate) status: Option<u16>,
    pub(crate) json: bool,
    pub(crate) cached: bool,
    pub(crate) code: Option<String>,
    pub(crate) retry_after: Option<u64>,
}

impl Caller {
    /// Calls, until there is data or no reason to call again.
    pub(super) async fn call(self) -> Called {
        let mut called = Called {
            user: self.user.clone(),
            from_ms: self.now(),
            replies: Vec::new(),
            data_ms: None,
            error: None,
        };
        for _ in 0..if self.healed { CALLS } else { 1 } {
            let (reply, shown) = self.once().await;
            let (wait, at) = (reply.retry_after, reply.at_ms);
            called.replies.push(reply);
            match shown {
                Ok(()) => {
                    (called.data_ms, called.error) = (Some(at), None);
                    return called;
                }
                Err(error) => called.error = Some(error),
            }
            let Some(seconds) = wait else { break };
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
        called
    }

    async fn once(&self) -> (Reply, Result<(), String>) {
        let user = HeaderValue::from_str(&self.user).ok();
        let headers: Vec<_> =
            user.into_iter().map(|user| (HeaderName::from_static("x-user-id"), user)).collect();
        let sent = self.web.send(self.method.clone(), &self.url, &headers, None);
        let answer = tokio::time::timeout(PATIENCE, sent).await;
        let at_ms = self.now();
        match answer {
            Ok(Ok(answer)) => read(&answer, at_ms),
            Ok(Err(_)) | Err(_) => {
                let none =
                    Reply { at_ms, status: None, json: false, cached: false, code: None, retry_after: None };
                (none, Err("Network request failed".to_owned()))
            }
        }
    }

    fn now(&self) -> i64 {
        ms(self.clock.now().since(self.start))
    }
}

/// As a page reads a reply: `await response.json()`, and then it looks at the status.
fn read(answer: &Answer, at_ms: i64) -> (Reply, Result<(), String>) {
    let parsed: Result<Value, _> = serde_json::from_slice(&answer.body);
    let text = |name: &str| parsed.as_ref().ok().and_then(|json| json[name].as_str()).map(str::to_owned);
    let reply = Reply {
        at_ms,
        status: Some(answer.status.as_u16()),
        json: parsed.is_ok(),
        cached: parsed.as_ref().is_ok_and(|json| json["cached"] == true),
        code: text("code"),
        retry_after: parsed.as_ref().ok().and_then(|json| json["retryAfter"].as_u64()),
    };
    let shown = match &parsed {
        Ok(_) if answer.status.is_success() => Ok(()),
        Ok(_) => Err(text("error").unwrap_or_else(|| answer.status.to_string())),
        Err(_) => Err(syntax_error(&answer.body)),
    };
    (reply, shown)
}

/// What the browser's parser says.
fn syntax_error(body: &[u8]) -> String {
    let start: String = String::from_utf8_lossy(body).chars().take(10).collect();
    match start.chars().next() {
        None => "SyntaxError: Unexpected end of JSON input".to_owned(),
        Some(first) => format!("SyntaxError: Unexpected token '{first}', \"{start}\"... is not valid JSON"),
    }
}
