//! `/livez` and `/readyz`, as Kubernetes knows them.
//!
//! Alive means that the control plane's heart beats; the database is not asked, because restarting a process
//! does not mend a database. Ready means started and not draining; it is never a matter of severity: a service
//! that sheds load is doing what it should, and taking it out of rotation would make its neighbours' load worse.
//! Probes are open to everybody, and say no more than that.

use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri, header};

/// What the probes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The control plane's heart beats.
    pub alive: bool,
    /// The runtime has started.
    pub started: bool,
    /// The service is going down and should get no new requests.
    pub draining: bool,
}

pub(crate) fn livez(health: Health, uri: &Uri) -> Response {
    told("livez", &[("control-plane", health.alive)], uri)
}

pub(crate) fn readyz(health: Health, uri: &Uri) -> Response {
    told("readyz", &[("started", health.started), ("not-draining", !health.draining)], uri)
}

fn told(probe: &str, checks: &[(&str, bool)], uri: &Uri) -> Response {
    let passed = checks.iter().all(|(_, passed)| *passed);
    let is_verbose = |parameter: &str| parameter == "verbose" || parameter.starts_with("verbose=");
    let verbose = uri.query().is_some_and(|query| query.split('&').any(is_verbose));
    let status = if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache, private"),
    ];
    let text = if passed && !verbose { "ok".to_owned() } else { lines(probe, checks, passed) };
    (status, headers, text).into_response()
}

fn lines(probe: &str, checks: &[(&str, bool)], passed: bool) -> String {
    let mut text = String::new();
    for (check, passed) in checks {
        let _ = writeln!(
            text,
            "{}",
            if *passed { format!("[+]{check} ok") } else { format!("[-]{check} failed") }
        );
    }
    let _ = writeln!(text, "{probe} check {}", if passed { "passed" } else { "failed" });
    text
}
