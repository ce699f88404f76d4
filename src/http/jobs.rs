//! Where callers ask about their deferred work.
//!
//! A job has a name that nobody can guess who does not know its key, and only its caller may ask about it; to everybody
//! else, and from when the time is over for which it is kept, there is no such job, in the very same words. Of what has
//! failed its class is told, not its text: that is for people.
//!
//! Nothing here takes a connection of a guarded pool, so it answers while the pool is exhausted.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Request, State as FromState},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_core::future::BoxFuture;
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, RETRY_AFTER},
};
use selfheal_actors::{
    batch_executor::journal::{Job, JournalError, State},
    error_class::ErrorClass,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    failure::Failure,
    identity::Identity,
    problem::{Code, Problem},
};
use crate::deferred::{PATH, is_name};

/// Whoever asks about what is not over yet comes back after a quarter of the time that it has waited, but not before …
const SOONEST: u64 = 1;
/// … and not after so many seconds.
const LATEST: u64 = 30;

/// Looks a job up by its name.
type Find = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Option<Job>, JournalError>> + Send + Sync>;

#[derive(Clone)]
struct Asked {
    identity: Identity,
    find: Find,
}

/// `GET /api/jobs/{id}`
pub(crate) fn jobs(identity: Identity, find: Find) -> Router {
    Router::new().route(&format!("{PATH}/{{id}}"), get(show)).with_state(Asked { identity, find })
}

async fn show(
    FromState(asked): FromState<Asked>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, _) = request.into_parts();
    let caller = asked.identity.of(&parts).filter(|_| is_name(&id)).ok_or_else(no_such_job)?;
    let found = (asked.find)(id.clone()).await?;
    let job = found.filter(|job| job.owner.as_deref() == Some(&*caller)).ok_or_else(no_such_job)?;
    Ok(view(&id, &job))
}

fn no_such_job() -> Failure {
    let none = Problem::new(Code::Rejected).with_status(StatusCode::NOT_FOUND);
    Failure::new(none.saying("There is no such job".to_owned()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    success: bool,
    job: &'a str,
    operation: &'a str,
    state: &'static str,
    /// Those that have failed, and those whose process ended.
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

fn view(id: &str, job: &Job) -> Response {
    let done = job.cursor.as_deref().filter(|_| job.state == State::Done);
    let retry_after = (!job.state.is_over()).then(|| later(job.age));
    let shown = Shown {
        success: true,
        job: id,
        operation: &job.queue,
        state: job.state.name(),
        attempts: job.failures.saturating_add(job.losses),
        result: done.and_then(|result| serde_json::from_slice(result).ok()),
        error_class: (job.state == State::Dead).then(|| class(job.error.as_deref()).name()),
        retry_after,
    };
    let mut response = Json(shown).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn later(age: Duration) -> u64 {
    (age.as_secs() / 4).clamp(SOONEST, LATEST)
}

/// The class stands before the error's text; what was ended by others than its handler has none.
fn class(error: Option<&str>) -> ErrorClass {
    let named = error.and_then(|error| error.split_once(": ")).map(|(class, _)| class);
    let known = ErrorClass::ALL.iter().copied().find(|class| Some(class.name()) == named);
    known.unwrap_or(ErrorClass::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_error_its_class_is_told() {
        assert_eq!(class(Some("permanent: no such column: x")), ErrorClass::Permanent);
        assert_eq!(class(Some("transient: it passes")), ErrorClass::Transient);
        for other in [None, Some("cancelled"), Some("secret: of the house")] {
            assert_eq!(class(other), ErrorClass::Unknown);
        }
    }

    #[test]
    fn who_has_waited_longer_comes_back_later() {
        let after = [0, 3, 8, 60, 86_400].map(|secs| later(Duration::from_secs(secs)));
        assert_eq!(after, [1, 1, 2, 15, 30]);
    }
}
