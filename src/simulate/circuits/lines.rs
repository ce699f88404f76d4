//! The lines about circuits, as they are read and written.

use std::time::Duration;

use selfheal_actors::{
    breaker::{Illegal, Order, Outcome, View},
    circuit::{Cause, Circuit},
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    pub(super) call: String,
    pub(super) outcome: How,
    #[serde(default)]
    pub(super) latency_ms: u64,
    #[serde(default, rename = "error")]
    _error: Option<String>,
    pub(super) user: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdmitLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    pub(super) admit: String,
    pub(super) id: String,
    pub(super) user: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    pub(super) settle: String,
    pub(super) outcome: How,
    #[serde(default)]
    pub(super) latency_ms: u64,
    #[serde(default, rename = "error")]
    _error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    pub(super) cancel: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperatorLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    pub(super) operator: String,
    pub(super) state: Order,
    pub(super) for_ms: Option<u64>,
    #[serde(default)]
    pub(super) reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    pub(super) expect: String,
}

/// How a call ends.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    Success,
    Failure,
    Ignored,
    Cancelled,
    /// A call that panics has failed.
    Panic,
}

impl How {
    /// `None`: without an outcome.
    pub(super) const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Success => Some(Outcome::Success),
            Self::Failure | Self::Panic => Some(Outcome::Failure),
            Self::Ignored => Some(Outcome::Ignored),
            Self::Cancelled => None,
        }
    }
}

/// The answer to a call or an admission, under the line's own keys.
#[derive(Serialize)]
pub(super) struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) call: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) admit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    pub(super) admitted: bool,
    #[serde(flatten)]
    pub(super) refusal: Option<Refusal>,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    /// `null`: nobody knows.
    pub(super) retry_after_ms: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Operated<'a> {
    operator: &'a str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

impl<'a> Operated<'a> {
    pub(super) fn of(operator: &'a str, done: Result<(), Illegal>) -> Self {
        let error = done.err().map(|illegal| match illegal {
            Illegal::Pinned(_) => "pinned",
            Illegal::ProbeOfClosed => "closed",
        });
        Self { operator, ok: error.is_none(), error }
    }
}

#[derive(Serialize)]
pub(super) struct Expected<'a> {
    endpoint: &'a str,
    state: Circuit,
    calls: u64,
    successes: u64,
    failures: u64,
    slow: u64,
    consecutive_failures: u64,
    failure_rate: Option<f64>,
    slow_rate: Option<f64>,
    rejected: u64,
    retry_after_ms: Option<u64>,
}

impl<'a> Expected<'a> {
    pub(super) fn of(endpoint: &'a str, view: &View) -> Self {
        Self {
            endpoint,
            state: view.shows,
            calls: view.counts.calls,
            successes: view.counts.successes(),
            failures: view.counts.failures,
            slow: view.counts.slow,
            consecutive_failures: view.consecutive_failures,
            failure_rate: view.failure_rate,
            slow_rate: view.slow_rate,
            rejected: view.totals.rejected,
            retry_after_ms: in_ms(view.retry_after),
        }
    }
}

/// A circuit changed what it shows; or, with `would`, only would have.
#[derive(Serialize)]
pub(super) struct Changed<'a> {
    pub(super) event: &'static str,
    pub(super) endpoint: &'a str,
    pub(super) from: Circuit,
    pub(super) to: Circuit,
    #[serde(serialize_with = "name")]
    pub(super) reason: Cause,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) would: bool,
}

fn name<S: serde::Serializer>(cause: &Cause, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cause.name())
}

/// Whole milliseconds, of which the last has been waited for.
pub(super) fn in_ms(wait: Option<Duration>) -> Option<u64> {
    wait.map(|wait| u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}
