//! A request that is made again with the same `Idempotency-Key` is answered again, not done again.
//!
//! As the draft *The Idempotency-Key HTTP Header Field* (draft-ietf-httpapi-idempotency-key-header) has it: the reply
//! to a POST or PATCH with a key is kept and given to whoever comes with the same key and the same body; while the
//! first one is under way others are told so (409); another body under the same key is a mistake (422), and so is a
//! key that is none (400). A key is its caller's own: of the same principal, method and path.
//!
//! Kept is what the handler has decided: its 2xx, 3xx and 4xx. A refusal or a failure is not kept, so that the next
//! try is a real one. For the same reason the work goes on when its caller has gone away: what was done is then known
//! when the caller asks again.
//!
//! Bounded: [`ENTRIES`] replies and [`BYTES`], each for [`KEPT_FOR`]. Not protected: several replicas (each remembers
//! its own), a restart, bodies over 64 KiB and replies over 1 MiB or streamed. Where these matter the handler writes
//! the key into its own transaction.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use moka::sync::Cache;
use parking_lot::Mutex;
use selfheal_actors::{clock::Tick, signal::Name};

use super::{
    principal::{Digests, Principal},
    problem::Code,
};

/// The header that bears the key.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that a reply is not new.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Replies that are kept at most.
const ENTRIES: u64 = 10_000;
/// Bytes that they take at most.
const BYTES: u64 = 32 << 20;
/// How long a reply is kept.
const KEPT_FOR: Duration = Duration::from_secs(86_400);
/// Requests with a key that are under way at once; more are told to come back.
const UNDER_WAY: usize = 10_000;
/// The longest key.
const LONGEST: usize = 255;

/// A key in its scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(Arc<Scoped>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Scoped {
    principal: Option<Principal>,
    method: Method,
    path: Box<str>,
    key: Box<str>,
}

/// All keys and their replies.
pub(crate) struct Keys {
    kept: Cache<Key, Arc<Kept>>,
    under_way: Arc<Mutex<HashSet<Key>>>,
    digests: Digests,
}

struct Kept {
    body_was: [u64; 2],
    at: Tick,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// What becomes of a request with a key.
pub(crate) enum Claimed {
    /// It is the first.
    First(Claim),
    /// It was answered before.
    Answered(Response),
    /// It is a mistake, or too early.
    No(Code),
}

/// The right to answer for a key. Dropped without a reply the key is free again.
#[derive(Debug)]
pub(crate) struct Claim {
    key: Key,
    body_was: [u64; 2],
    under_way: Arc<Mutex<HashSet<Key>>>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let weigh = |key: &Key, kept: &Arc<Kept>| {
            let bytes = key.0.path.len() + key.0.key.len() + kept.body.len() + kept.headers.len() * 64;
            u32::try_from((bytes as u64).max(BYTES / ENTRIES)).unwrap_or(u32::MAX)
        };
        Self {
            kept: Cache::builder().max_capacity(BYTES).weigher(weigh).build(),
            under_way: Arc::default(),
            digests: Digests::default(),
        }
    }

    /// The key of a request, if it has one; `user` is its caller.
    ///
    /// # Errors
    /// [`Code::KeyInvalid`].
    pub(crate) fn of(&self, asked: &Parts, user: Option<Name>) -> Result<Option<Key>, Code> {
        if !matches!(asked.method, Method::POST | Method::PATCH) {
            return Ok(None);
        }
        let Some(value) = asked.headers.get(HEADER) else { return Ok(None) };
        let key = parse(value).ok_or(Code::KeyInvalid)?.into();
        let principal = Principal::of(user, &asked.headers, &self.digests);
        let path = asked.uri.path_and_query().map_or("/", |uri| uri.as_str()).into();
        Ok(Some(Key(Arc::new(Scoped { principal, method: asked.method.clone(), path, key }))))
    }

    /// Claims `key` for a request with `body`.
    pub(crate) fn claim(&self, key: Key, body: &[u8], now: Tick) -> Claimed {
        let body_was = self.digests.of([body].into_iter());
        // Whoever finishes keeps the reply before the key is free, so it is looked for after that.
        {
            let mut under_way = self.under_way.lock();
            if under_way.contains(&key) || under_way.len() >= UNDER_WAY {
                return Claimed::No(Code::KeyInUse);
            }
            under_way.insert(key.clone());
        }
        let claim = Claim { key, body_was, under_way: Arc::clone(&self.under_way) };
        let kept = self.kept.get(&claim.key).filter(|kept| now.since(kept.at) < KEPT_FOR);
        match kept {
            None => Claimed::First(claim),
            Some(kept) if kept.body_was == body_was => Claimed::Answered(kept.again()),
            Some(_) => Claimed::No(Code::KeyReused),
        }
    }

    /// Keeps the reply to the request that has `claim`.
    pub(crate) fn keep(&self, claim: &Claim, reply: (StatusCode, &HeaderMap, Bytes), now: Tick) {
        let (status, headers, body) = reply;
        let kept = Kept { body_was: claim.body_was, at: now, status, headers: headers.clone(), body };
        self.kept.insert(claim.key.clone(), Arc::new(kept));
    }
}

impl Kept {
    fn again(&self) -> Response {
        let mut reply = Response::new(Body::from(self.body.clone()));
        *reply.status_mut() = self.status;
        *reply.headers_mut() = self.headers.clone();
        // Its length is the body's, which says so itself.
        reply.headers_mut().remove(header::CONTENT_LENGTH);
        reply.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        reply
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.key);
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("kept", &self.kept.entry_count()).finish_non_exhaustive()
    }
}

/// A string of RFC 8941, `"8e03978e-40d5-43dd-bc93-6894a57f9324"`; many clients leave the quotes out.
fn parse(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?.trim();
    let inner = match text.strip_prefix('"') {
        Some(rest) => unescape(rest.strip_suffix('"')?)?,
        None => text.to_owned(),
    };
    let is_sound = (1..=LONGEST).contains(&inner.len()) && inner.bytes().all(|b| (b' '..=b'~').contains(&b));
    is_sound.then_some(inner)
}

/// Only a quote and a backslash are escaped, and neither stands without.
fn unescape(text: &str) -> Option<String> {
    let mut letters = text.chars();
    let mut inner = String::with_capacity(text.len());
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => inner.push(letters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            '"' => return None,
            _ => inner.push(letter),
        }
    }
    Some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_quoted_string_and_may_lack_its_quotes() {
        let of = |text: &str| parse(&HeaderValue::from_str(text).expect("a header"));
        assert_eq!(of("\"8e03978e-40d5\"").as_deref(), Some("8e03978e-40d5"));
        assert_eq!(of("8e03978e-40d5").as_deref(), Some("8e03978e-40d5"));
        assert_eq!(of(r#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
        for bad in ["", "\"\"", "\"a", "\"a\"b\"", r#""a\b""#, &"x".repeat(256)] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
