//! The desk's routes.
//!
//! The caller is whoever the header `x-user-id` names. Nothing here knows of pressure: the dashboard says
//! which of its queries are optional, and that is all the help that healing asks of a handler.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, Query, State},
    http::{StatusCode, header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use selfheal::{deferred::Accepted, gate::Ticket, http::Failure};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::{
    FIRST_OPTIONAL_PANEL, PANELS,
    ask::{self, Count},
    capture::Captured,
    store::{Desk, Error},
};

/// What an error becomes.
pub(crate) trait Reply: From<Error> + IntoResponse + Send + 'static {}

/// Behind the runtime: a refusal is a reply that says when to come back.
impl Reply for Failure {}

/// As most hosts reply it: status 500 and its text.
pub(crate) struct Verbatim(Error);

impl From<Error> for Verbatim {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Verbatim {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("Error: {}", self.0)).into_response()
    }
}

impl Reply for Verbatim {}

/// The routes, with errors replied as `R`.
pub(crate) fn router<R: Reply>(desk: Desk) -> Router {
    Router::new()
        .route("/api/auth/login", post(login::<R>))
        .route("/api/tasks/assign", post(assign::<R>))
        .route("/api/dashboard", get(dashboard::<R>))
        .route("/api/manager/assistance", get(assistance::<R>))
        .route("/api/reports", get(reports::<R>))
        .route("/api/analytics", get(analytics::<R>))
        .route("/api/spam/capture", post(capture::<R>))
        .route("/api/messages/{id}/status", post(change_status::<R>))
        .route("/fetch.js", get(fetch_helper))
        .with_state(desk)
}

/// What only the runtime can do: a report that is made later. Everything else is answered by both desks.
pub(crate) fn later(desk: Desk) -> Router {
    Router::new().route("/api/reports", post(report_later)).with_state(desk)
}

async fn report_later(State(desk): State<Desk>, User(user): User) -> Result<Accepted, Failure> {
    Ok(desk.report_later(&user).await?)
}

/// The frontend's half of healing: forty lines that honour `retryAfter`.
async fn fetch_helper() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("fetch.js"))
}

/// Who calls.
struct User(String);

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let id = parts.headers.get("x-user-id").and_then(|value| value.to_str().ok());
        Ok(Self(id.unwrap_or("anonymous").to_owned()))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignedIn {
    success: bool,
    user: String,
    open_tasks: i64,
}

async fn login<R: Reply>(State(desk): State<Desk>, User(user): User) -> Result<Json<SignedIn>, R> {
    let open_tasks = desk.number(ask::login(&user)).await?;
    Ok(Json(SignedIn { success: true, user, open_tasks }))
}

/// What to assign; all of it may be left out.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Assignment {
    /// The first message that is ready, if it is not named.
    message_id: Option<i64>,
    /// Written to the task.
    request_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Assigned {
    success: bool,
    task_id: i64,
    assignee: String,
}

async fn assign<R: Reply>(
    State(desk): State<Desk>,
    User(assignee): User,
    wanted: Option<Json<Assignment>>,
) -> Result<Json<Assigned>, R> {
    let wanted = wanted.map(|Json(wanted)| wanted).unwrap_or_default();
    let request = wanted.request_id.unwrap_or_default();
    let task_id = desk.number(ask::assign(wanted.message_id, &assignee, &request)).await?;
    Ok(Json(Assigned { success: true, task_id, assignee }))
}

#[derive(Serialize)]
struct Dashboard {
    success: bool,
    panels: BTreeMap<String, i64>,
    omitted: Vec<String>,
}

/// What a message is to become.
#[derive(Deserialize)]
struct Wanted {
    to: String,
}

#[derive(Serialize)]
struct Changed {
    success: bool,
    id: i64,
    status: String,
}

async fn change_status<R: Reply>(
    State(desk): State<Desk>,
    Path(id): Path<i64>,
    Json(Wanted { to }): Json<Wanted>,
) -> Result<Response, R> {
    if desk.change_status(id, &to).await? {
        Ok(Json(Changed { success: true, id, status: to }).into_response())
    } else {
        Ok((StatusCode::NOT_FOUND, "There is no such message").into_response())
    }
}

/// What to scan.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scan {
    /// What may be captured.
    #[default]
    Ready,
    /// All messages: the incident's bug.
    All,
}

#[derive(Default, Deserialize)]
struct Scanned {
    #[serde(default)]
    scan: Scan,
}

async fn capture<R: Reply>(
    State(desk): State<Desk>,
    User(user): User,
    Query(Scanned { scan }): Query<Scanned>,
) -> Result<Json<Captured>, R> {
    Ok(Json(desk.capture(&user, matches!(scan, Scan::All)).await?))
}

/// 160 questions at once, as the incident had them. The first one that fails takes the dashboard with it.
async fn dashboard<R: Reply>(State(desk): State<Desk>) -> Result<Json<Dashboard>, R> {
    let mut queries = JoinSet::new();
    // A task does not inherit the ticket: without it the query would be nobody's.
    let ticket = Ticket::current();
    for channel in 0..PANELS {
        let query = panel(desk.clone(), channel);
        match ticket.clone() {
            Some(ticket) => queries.spawn(ticket.scope(query)),
            None => queries.spawn(query),
        };
    }
    let (mut panels, mut omitted) = (BTreeMap::new(), Vec::new());
    while let Some(query) = queries.join_next().await {
        let (channel, count) = query.map_err(Error::Task)??;
        let name = format!("channel-{channel:03}");
        match count {
            Some(count) => drop(panels.insert(name, count)),
            None => omitted.push(name),
        }
    }
    omitted.sort();
    Ok(Json(Dashboard { success: true, panels, omitted }))
}

/// One panel of the dashboard; without a number if it was left out.
async fn panel(desk: Desk, channel: i64) -> Result<(i64, Option<i64>), Error> {
    let count = desk.panel(channel);
    let count =
        if channel < FIRST_OPTIONAL_PANEL { Some(count.await?) } else { desk.optional(count).await? };
    Ok((channel, count))
}

#[derive(Serialize)]
struct Listed {
    success: bool,
    rows: BTreeMap<String, i64>,
}

impl From<Vec<Count>> for Listed {
    fn from(rows: Vec<Count>) -> Self {
        Self { success: true, rows: rows.into_iter().collect() }
    }
}

async fn assistance<R: Reply>(State(desk): State<Desk>) -> Result<Json<Listed>, R> {
    Ok(Json(desk.ask(ask::assistance()).await?.into()))
}

async fn reports<R: Reply>(State(desk): State<Desk>) -> Result<Json<Listed>, R> {
    Ok(Json(desk.ask(ask::reports()).await?.into()))
}

async fn analytics<R: Reply>(State(desk): State<Desk>) -> Result<Json<Listed>, R> {
    Ok(Json(desk.ask(ask::analytics()).await?.into()))
}
