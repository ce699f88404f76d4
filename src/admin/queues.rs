//! The queues of durable jobs: how they are shown, and what an operator may ask of one.

use std::sync::Arc;

use axum::{
    extract::{Extension, Path, Request, State as FromState},
    response::Response,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    access::Caller,
    api::{audited, read, shown, told_why},
    error::Refused,
    state::{NotPaused, QueuePause, State},
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToQueue {
    action: Action,
    #[serde(default)]
    reason: String,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Action {
    Pause,
    Resume,
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
        let paused = action == Action::Pause;
        // What stays until somebody lifts it must say why it is there.
        let reason = if paused { told_why(&reason)? } else { reason.trim() };
        tracing::info!(target: "selfheal", queue = ?name, paused, by = %caller.name, reason, "A queue is operated");
        let (queue, by) = (name.as_str().into(), Arc::clone(&caller.name));
        match (state.pause)(QueuePause { queue, paused, by, reason: reason.into() }).await {
            Ok(()) => Ok(shown(&json!({ "success": true, "queue": name, "paused": paused }))),
            Err(NotPaused::Unknown) => Err(Refused::not_found("such queue")),
            Err(NotPaused::Failed(trouble)) => {
                let error = format!("its database did not take it: {trouble}");
                Err(Refused { retry_after: Some(1), ..Refused::new(StatusCode::SERVICE_UNAVAILABLE, "store_down", error) })
            }
        }
    })
    .await
}
