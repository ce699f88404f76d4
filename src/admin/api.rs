//! The API: what is shown, and the few things that can be done.
//!
//! A GET reads and does nothing else. What can be done takes a reason where the reason is what somebody will
//! ask for at three in the morning, and each attempt is logged with who asked, and counted.

use axum::{
    Router,
    body::Body,
    extract::{Extension, Path, Request, State as FromState},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{StatusCode, header};
use selfheal_actors::level::Mode;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    access::Caller,
    breakers,
    error::Refused,
    guard::audit,
    queues,
    snapshot::HolderView,
    state::{ModeChange, NotRestarted, State},
};

/// No body is longer than this.
const LONGEST: usize = 64 << 10;
/// No reason is longer than this, in characters.
const LONGEST_REASON: usize = 500;

pub(crate) fn routes() -> Router<State> {
    Router::new()
        .route("/status", get(status))
        .route("/pools", get(pools))
        .route("/pools/{name}/holders", get(holders))
        .route("/breakers", get(breakers::list))
        .route("/breakers/{*name}", post(breakers::operate))
        .route("/queues", get(queues::list))
        .route("/queues/{*name}", post(queues::operate))
        .route("/jobs", get(queues::jobs))
        .route("/children", get(children))
        .route("/children/{*id}", post(restart))
        .route("/incidents", get(incidents))
        .route("/incidents/{id}", get(incident))
        .route("/config", get(config))
        .route("/mode", post(mode))
}

async fn status(FromState(state): FromState<State>) -> Response {
    shown(&(state.read)().status())
}

async fn pools(FromState(state): FromState<State>) -> Response {
    let reading = (state.read)();
    shown(&json!({ "pools": reading.pools.iter().map(|pool| pool.view()).collect::<Vec<_>>() }))
}

async fn holders(FromState(state): FromState<State>, Path(name): Path<String>) -> Result<Response, Refused> {
    let holders = (state.holders)(&name).ok_or_else(|| Refused::not_found("such pool"))?;
    let holders: Vec<_> = holders.iter().map(HolderView::from).collect();
    Ok(shown(&json!({ "pool": name, "holders": holders })))
}

async fn children(FromState(state): FromState<State>) -> Response {
    shown(&json!({ "children": (state.read)().children }))
}

async fn incidents(FromState(state): FromState<State>) -> Response {
    shown(&json!({ "incidents": (state.read)().incidents }))
}

async fn incident(FromState(state): FromState<State>, Path(id): Path<String>) -> Result<Response, Refused> {
    let reading = (state.read)();
    let found = reading.incidents.iter().find(|incident| *incident.id == *id);
    found.map(shown).ok_or_else(|| Refused::not_found("such incident"))
}

async fn config(FromState(state): FromState<State>) -> Response {
    shown(&(state.config)())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetMode {
    mode: Mode,
    reason: String,
}

async fn mode(
    FromState(state): FromState<State>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refused> {
    audited("mode", &caller, async {
        let SetMode { mode, reason } = read(request.into_body()).await?;
        let reason = told_why(&reason)?;
        let by = std::sync::Arc::clone(&caller.name);
        let before = (state.set_mode)(ModeChange { mode, by, reason: reason.into() });
        Ok(shown(&json!({ "success": true, "mode": mode, "before": before })))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToChild {
    action: ChildAction,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChildAction {
    Restart,
}

async fn restart(
    FromState(state): FromState<State>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    audited("restart_child", &caller, async {
        let ToChild { action: ChildAction::Restart } = read(request.into_body()).await?;
        tracing::info!(target: "selfheal", child = ?id, by = %caller.name, "A restart was asked for");
        match (state.restart_child)(id.as_str().into()).await {
            Ok(()) => Ok(shown(&json!({ "success": true, "child": id, "action": "restart" }))),
            Err(NotRestarted::Unknown) => Err(Refused::not_found("such child")),
            Err(NotRestarted::Refused(why)) => Err(Refused::new(StatusCode::CONFLICT, "not_restarted", why)),
        }
    })
    .await
}

/// The reason of an action that needs one.
pub(super) fn told_why(reason: &str) -> Result<&str, Refused> {
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > LONGEST_REASON {
        let error = format!("a reason is needed, of at most {LONGEST_REASON} characters");
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "no_reason", error));
    }
    Ok(reason)
}

/// Counts how an action came out.
pub(super) async fn audited(
    action: &'static str,
    caller: &Caller,
    done: impl Future<Output = Result<Response, Refused>>,
) -> Result<Response, Refused> {
    let result = done.await;
    audit(action, if result.is_ok() { "ok" } else { "refused" });
    if let Err(refused) = &result {
        tracing::info!(target: "selfheal", action, by = %caller.name, why = %refused.error, "An action was refused");
    }
    result
}

/// The body as JSON, whatever it is said to be; a form of a foreign page does not get here.
pub(super) async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Refused> {
    let too_long = |_| {
        let error = format!("the body is longer than {LONGEST} bytes");
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_long", error)
    };
    let body = axum::body::to_bytes(body, LONGEST).await.map_err(too_long)?;
    serde_json::from_slice(&body)
        .map_err(|error| Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", error.to_string()))
}

pub(super) fn shown(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!(target: "selfheal", %error, "A snapshot could not be shown");
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal server error")
                .into_response()
        }
    }
}

/// What there is not.
pub(crate) async fn nothing() -> Refused {
    Refused::not_found("such page")
}

/// What there is, and cannot be asked for so.
pub(crate) async fn not_so() -> Refused {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this method is not allowed here")
}
