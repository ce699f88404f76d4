//! The queues of durable jobs and the jobs in them: how they are shown, and what an operator may ask of a queue.

use std::sync::Arc;

use axum::{
    extract::{Extension, Path, Query, Request, State as FromState, rejection::QueryRejection},
    response::Response,
};
use http::StatusCode;
use selfheal_actors::batch_executor::journal::{Job, State as JobState, Trouble};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    access::Caller,
    api::{audited, read, shown, told_why},
    error::Refused,
    state::{JobsWanted, NotOrdered, QueueAction, QueueOrder, State},
};
use crate::store::Queue;

/// `GET queues`
pub(super) async fn list(FromState(state): FromState<State>) -> Response {
    let reading = (state.read)();
    let queues: Vec<_> = reading.queues.iter().map(|(pool, queue)| view(pool, queue)).collect();
    shown(&json!({ "queues": queues }))
}

fn view(pool: &str, queue: &Queue) -> Value {
    json!({
        "name": &*queue.name,
        "pool": pool,
        "depth": queue.depth(),
        "pending": queue.pending,
        "leased": queue.leased,
        "oldest_age_seconds": queue.oldest.map(|age| age.as_secs_f64()),
        "accepted": queue.accepted,
        "done": queue.done,
        "dead": queue.dead,
        "paused": queue.paused,
    })
}

/// Jobs are shown if nobody says how many, and at most.
const JOBS: [u32; 2] = [50, 500];

/// `?queue=…&state=…&limit=…`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    queue: Option<String>,
    state: Option<String>,
    limit: Option<u32>,
}

/// `GET jobs`
pub(super) async fn jobs(
    FromState(state): FromState<State>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Refused> {
    let invalid = |error: String| Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", error);
    let Query(wanted) = wanted.map_err(|rejected| invalid(rejected.body_text()))?;
    let [usual, most] = JOBS;
    let known = |name: &str| JobState::ALL.iter().copied().find(|state| state.name() == name);
    let in_state =
        match &wanted.state {
            None => None,
            Some(name) => Some(known(name).ok_or_else(|| {
                invalid(format!("{name:?} is no state: pending, leased, done and dead are"))
            })?),
        };
    let limit = wanted.limit.unwrap_or(usual).min(most);
    let found =
        (state.jobs)(JobsWanted { queue: wanted.queue, state: in_state, limit }).await.map_err(away)?;
    let found: Vec<_> = found.iter().map(|(pool, job)| job_view(pool, job)).collect();
    Ok(shown(&json!({ "jobs": found })))
}

/// What is in a job is its caller's business: it is not shown.
fn job_view(pool: &str, job: &Job) -> Value {
    json!({
        "id": job.id.0,
        "pool": pool,
        "queue": &*job.queue,
        "state": job.state.name(),
        "class": job.class.name(),
        "key": job.key,
        "owner": job.owner,
        "total": job.counts.total,
        "done": job.counts.done,
        "blocked": job.counts.blocked,
        "failed": job.counts.failed,
        "failures": job.failures,
        "losses": job.losses,
        "error": job.error,
        "age_seconds": job.age.as_secs_f64(),
    })
}

fn away(trouble: Trouble) -> Refused {
    let error = format!("the database of durable work does not answer: {trouble}");
    Refused { retry_after: Some(1), ..Refused::new(StatusCode::SERVICE_UNAVAILABLE, "store_down", error) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToQueue {
    action: QueueAction,
    #[serde(default)]
    reason: String,
}

/// `POST queues/{*name}`
pub(super) async fn operate(
    FromState(state): FromState<State>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    audited("queue", &caller, async {
        let ToQueue { action, reason } = read(request.into_body()).await?;
        let paused = action == QueueAction::Pause;
        // What stays until somebody lifts it must say why it is there.
        let reason = if paused { told_why(&reason)? } else { reason.trim() };
        tracing::info!(target: "selfheal", queue = ?name, ?action, by = %caller.name, reason, "A queue is operated");
        let (queue, by) = (name.as_str().into(), Arc::clone(&caller.name));
        match (state.operate_queue)(QueueOrder { queue, action, by, reason: reason.into() }).await {
            Ok(()) => Ok(shown(&json!({ "success": true, "queue": name, "action": action, "paused": paused }))),
            Err(NotOrdered::Unknown) => Err(Refused::not_found("such queue")),
            Err(NotOrdered::Failed(trouble)) => Err(away(trouble)),
        }
    })
    .await
}
