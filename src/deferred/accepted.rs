//! What a caller is told whose work will be done later.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::LOCATION};
use selfheal_actors::batch_executor::journal::State;
use serde_json::json;

/// Where callers ask about their jobs: `GET /api/jobs/{id}`.
pub const PATH: &str = "/api/jobs";

/// A job that is written down, and will be done. As a reply it is a 202 with the place to ask about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "only by its name can its caller ask about the job"]
pub struct Accepted {
    id: String,
}

impl Accepted {
    pub(super) const fn new(id: String) -> Self {
        Self { id }
    }

    /// Its name for its caller, which nobody else can guess: 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where its caller asks about it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{PATH}/{}", self.id)
    }
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let url = self.url();
        let location = HeaderValue::try_from(&url);
        let body = json!({ "success": true, "job": self.id, "url": url, "state": State::Pending.name() });
        let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
        if let Ok(location) = location {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

/// 128 bits of the system's randomness.
pub(super) fn name() -> Result<String, getrandom::Error> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

/// Whether it can be the name of a job at all.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_like_no_other_and_is_known_as_one() {
        let names: std::collections::BTreeSet<_> = (0..1_000).map(|_| name().expect("it is drawn")).collect();
        assert_eq!(names.len(), 1_000);
        assert!(names.iter().all(|name| is_name(name)), "{names:?}");
        for other in ["", "7", "../../etc", &"A".repeat(32), &"0".repeat(33)] {
            assert!(!is_name(other), "{other}");
        }
    }
}
