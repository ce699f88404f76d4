//! What a caller is told whose work will be done later.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::LOCATION};
use selfheal_actors::batch_executor::journal::State;
use serde_json::json;
use sha2::{Digest as _, Sha256};

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

    /// Its name for its caller: 32 hexadecimal digits. Nobody else can guess it, unless it comes of a
    /// [key](super::Deferred::key) that they know; and they are told nothing even then.
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
    Ok(digits(bits))
}

/// The name that this caller's job has under a key: the same in every process, and no other caller's, whatever they
/// choose as their own and as their keys.
pub(super) fn name_of(operation: &str, caller: Option<&str>, key: &str) -> String {
    let mut digest = Sha256::new();
    digest.update([u8::from(caller.is_some())]);
    for part in [operation, caller.unwrap_or_default(), key] {
        // With its length, so that no two triples are the same bytes.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let (mut bits, whole) = ([0; 16], digest.finalize());
    bits.copy_from_slice(&whole[..16]);
    digits(bits)
}

fn digits(bits: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bits))
}

/// Whether it can be the name of a job at all.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_a_key_a_name_is_the_same_each_time_and_no_other_callers() {
        let of = |operation, caller, key| name_of(operation, caller, key);
        assert!(is_name(&of("report", Some("ann"), "2026-11")));
        assert_eq!(of("report", Some("ann"), "2026-11"), "dd62295d07a895c208a04c923aac327d");
        let all = [
            of("report", Some("ann"), "2026-11"),
            of("report", Some("bob"), "2026-11"),
            of("report", Some("ann2"), "026-11"),
            of("reporta", Some("nn"), "2026-11"),
            of("report", Some(""), "2026-11"),
            of("report", None, "2026-11"),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
    }

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
