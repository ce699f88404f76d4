//! The circuits: how they are shown, and what an operator may ask of one.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Extension, Path, Request, State as FromState},
    response::Response,
};
use http::StatusCode;
use selfheal_actors::{
    breaker::{Command, Order, View},
    circuit::Circuit,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    access::Caller,
    api::{audited, read, shown, told_why},
    error::Refused,
    state::{NotOperated, State},
};

/// A circuit as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    state: Circuit,
    calls: u64,
    successes: u64,
    failures: u64,
    slow: u64,
    consecutive_failures: u64,
    failure_rate: Option<f64>,
    slow_rate: Option<f64>,
    retry_after_seconds: Option<f64>,
    pinned_by: Option<&'a str>,
    pinned_because: Option<&'a str>,
    total: Totals,
}

/// Since the start.
#[derive(Serialize)]
struct Totals {
    success: u64,
    failure: u64,
    rejected: u64,
    ignored: u64,
    cancelled: u64,
    stale: u64,
    would_reject: u64,
}

impl<'a> From<&'a View> for Shown<'a> {
    fn from(view: &'a View) -> Self {
        let pin = view.pin.as_ref();
        Self {
            name: &view.name,
            state: view.shows,
            calls: view.counts.calls,
            successes: view.counts.successes(),
            failures: view.counts.failures,
            slow: view.counts.slow,
            consecutive_failures: view.consecutive_failures,
            failure_rate: view.failure_rate,
            slow_rate: view.slow_rate,
            retry_after_seconds: view.retry_after.map(|span| span.as_secs_f64()),
            pinned_by: pin.map(|pin| &*pin.by),
            pinned_because: pin.map(|pin| &*pin.reason),
            total: Totals {
                success: view.totals.successes,
                failure: view.totals.failures,
                rejected: view.totals.rejected,
                ignored: view.totals.ignored,
                cancelled: view.totals.cancelled,
                stale: view.totals.stale,
                would_reject: view.would_reject,
            },
        }
    }
}

/// `GET breakers`
pub(super) async fn list(FromState(state): FromState<State>) -> Response {
    let reading = (state.read)();
    shown(&json!({ "breakers": reading.breakers.iter().map(Shown::from).collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: Order,
    /// For how long, as "15m".
    r#for: Option<String>,
    #[serde(default)]
    reason: String,
}

/// `POST breakers/{*name}`
pub(super) async fn operate(
    FromState(state): FromState<State>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    audited("breaker", &caller, async {
        let Wanted { state: order, r#for, reason } = read(request.into_body()).await?;
        // What stays until somebody lifts it must say why it is there.
        let reason = if order.is_lasting() { told_why(&reason)? } else { reason.trim() };
        let lasts = r#for.as_deref().map(span).transpose()?;
        let command = Command { lasts, ..Command::new(order, Arc::clone(&caller.name), reason) };
        tracing::info!(target: "selfheal", endpoint = ?name, %order, by = %caller.name, reason, "A circuit is operated");
        match (state.operate)((name.as_str().into(), command)) {
            Ok(now) => Ok(shown(&json!({ "success": true, "breaker": name, "state": now }))),
            Err(NotOperated::Unknown) => Err(Refused::not_found("such circuit")),
            Err(NotOperated::Illegal(illegal)) => {
                Err(Refused::new(StatusCode::CONFLICT, "illegal", illegal.to_string()))
            }
        }
    })
    .await
}

fn span(text: &str) -> Result<Duration, Refused> {
    let span = humantime::parse_duration(text).ok().filter(|span| !span.is_zero());
    span.ok_or_else(|| {
        let error = format!("\"for\" is {text:?}: write a duration with its unit, as \"15m\"");
        Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", error)
    })
}
