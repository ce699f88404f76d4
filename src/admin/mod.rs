//! How people and machines look at the runtime, and act on it.
//!
//! - **It works when nothing else does.** Everything shown is read from memory; no route takes a connection of a
//!   guarded pool, or waits for an actor.
//! - **Closed by default.** Every route but the probes (and `/metrics`, if it is left open) stands behind the
//!   guard: without a token only this machine gets in, and only directly. The guard is put around the router, so
//!   a route that is added later stands behind it too.
//! - **Looking changes nothing, acting leaves a trace.** A GET reads; a POST needs the right to act and the same
//!   origin, and is logged and counted whether it was done or not.
//!
//! What it does not do: it does not encrypt. On anything but the loopback put it behind TLS, because a token in
//! the clear is everybody's.

mod access;
mod api;
mod breakers;
mod error;
mod failures;
mod guard;
mod kernel;
mod metrics_route;
mod probes;
mod queues;
mod secret;
mod snapshot;
mod state;

use axum::{Router, extract::State as FromState, routing::get};
use http::Uri;

pub use access::Access;
pub use probes::Health;
pub use secret::{Token, Unfit};
pub use snapshot::{
    Attempts, Batch, Child, Deed, Edge, Incident, Mail, Noticed, Peak, Pool, Reading, Server, Transition,
};
pub use state::{
    JobsWanted, ModeChange, NotOperated, NotOrdered, NotRestarted, QueueAction, QueueOrder, State,
};

/// Where the page, and the API below it, are found.
pub const ROOT: &str = "/admin/self-healing";

/// The admin surface, to be merged into a host's router or served by itself.
///
/// It must know its peers: serve it with `into_make_service_with_connect_info::<SocketAddr>()`. Otherwise nobody
/// gets in without a token, and the refusal says so.
pub fn router(state: State) -> Router {
    let access = std::sync::Arc::clone(&state.access);
    let api = Router::new().nest("/api/v1", api::routes()).fallback(api::nothing);
    let inside = guard::guarded(api.method_not_allowed_fallback(api::not_so), std::sync::Arc::clone(&access));
    let mut metrics = Router::new().route("/metrics", get(show_metrics));
    if state.guard_metrics {
        metrics = guard::guarded(metrics, access);
    }
    Router::new().nest(ROOT, inside).merge(metrics).merge(probes()).with_state(state)
}

fn probes() -> Router<State> {
    Router::new()
        .route(
            "/livez",
            get(|FromState(state): FromState<State>, uri: Uri| async move {
                probes::livez((state.health)(), &uri)
            }),
        )
        .route(
            "/readyz",
            get(|FromState(state): FromState<State>, uri: Uri| async move {
                probes::readyz((state.health)(), &uri)
            }),
        )
}

async fn show_metrics(FromState(state): FromState<State>) -> axum::response::Response {
    metrics_route::show(&state)
}
