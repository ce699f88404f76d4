//! What stands in front of every admin route that is not a probe.
//!
//! Outside in: headers that keep a browser from doing anything with a reply but show it; [`Access`], which says
//! who may look and who may act; and for what acts, same origin. Basic credentials are ambient, a browser sends
//! them along with a form of any page, so a token alone would not stop a foreign page from acting.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use selfheal_actors::telemetry;
use tower_http::csrf::{CsrfLayer, ProtectionError};

use super::{access::Access, error::Refused};

const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Puts the guard in front of all routes of `router`, its fallback included.
pub(crate) fn guarded<S: Clone + Send + Sync + 'static>(router: Router<S>, access: Arc<Access>) -> Router<S> {
    router
        .layer(CsrfLayer::new().with_rejection_response(foreign))
        .layer(middleware::from_fn_with_state(access, admit))
        .layer(middleware::map_response(harden))
}

async fn admit(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match access.admit(&parts) {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refused) => {
            denied(&parts.method);
            tracing::debug!(target: "selfheal", path = parts.uri.path(), why = %refused.error, "An admin request was denied");
            refused.into_response()
        }
    }
}

fn foreign(_: ProtectionError) -> Response {
    denied(&http::Method::POST);
    Refused::new(StatusCode::FORBIDDEN, "cross_origin", "an action must come from this service's own pages")
        .into_response()
}

fn denied(method: &http::Method) {
    let action = if method.is_safe() { "look" } else { "act" };
    audit(action, "denied");
}

/// Counts what somebody asked for. Both words come from closed sets.
pub(crate) fn audit(action: &'static str, outcome: &'static str) {
    let metric = telemetry::OPERATOR_ACTIONS_TOTAL.name;
    metrics::counter!(metric, "action" => action, "outcome" => outcome).increment(1);
}

async fn harden(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
