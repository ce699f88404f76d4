//! `/metrics`, in the text format of Prometheus.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use super::{error::Refused, state::State};

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is derived from the cells is brought up to date, and then all of it is shown.
pub(crate) fn show(state: &State) -> Response {
    match (state.render_metrics)(&(state.read)()) {
        Some(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        None => Refused::new(
            StatusCode::NOT_FOUND,
            "host_recorder",
            "metrics go to the recorder that the host has installed; scrape it where the host shows it",
        )
        .into_response(),
    }
}
