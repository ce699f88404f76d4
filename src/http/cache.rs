//! The last good replies, for when a new one cannot be had.
//!
//! Not a cache that saves work: every request asks the handler, and what is kept here is given only in place of
//! a failure (RFC 5861, stale-if-error), marked as such. Kept are whole 200 replies in JSON to a GET of an endpoint
//! with a fallback, each for its [`Principal`]. What gives way first, when [`ENTRIES`] or [`BYTES`] are reached,
//! is the store's affair: what is asked for often stays.
//!
//! **Requests in flight are not joined.** Two equal GETs at once are two calls of the handler. Whoever arrived second
//! would be given an answer from before it asked: it could miss what its own caller wrote in between, and it would
//! share the first one's fate (its deadline, its panic, its place in the gate's queue) without having chosen it. A
//! healthy handler is thus never answered for; what a burst of equal requests may cost is bounded by the gate and
//! the users' limits. Joined is what nobody has asked for itself, the refresh after a failure; and equal *keys* of
//! queries, where the host says so ([`HealPool::lookup`](crate::db::HealPool::lookup)).
//!
//! After a failure the reply is asked for again in the background, once for all who want the same
//! ([`Replies::refresh`]).

use std::{
    collections::HashSet,
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use http::{HeaderMap, StatusCode, header, request::Parts, uri::PathAndQuery};
use moka::sync::Cache;
use parking_lot::Mutex;
use selfheal_actors::{clock::Tick, signal::Name};

use super::{
    cacheable::{self, Control, Vary},
    policy::{Endpoint, Fallback},
    principal::{Digests, Principal},
};

/// Replies that are kept at most.
const ENTRIES: u64 = 10_000;
/// Bytes that they take at most.
const BYTES: u64 = 64 << 20;
/// A longer path and query is not kept.
const LONGEST_URI: usize = 2 << 10;
/// A reply older than this is forgotten, whatever anybody says.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(86_400);
/// Replies that are asked for again in the background at once; the next failure asks anew.
const REFRESHES: usize = 64;

/// Which reply it is. Made of parts of the request, so that looking allocates nothing.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    principal: Principal,
    uri: PathAndQuery,
}

/// A reply that was good.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// When it was last given, in nanoseconds: the same again only moves this on.
    at: AtomicU64,
    stale_for: Duration,
    vary: Vary,
}

/// A reply that was good, as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Stale {
    pub(crate) kept: Arc<Kept>,
    pub(crate) age: Duration,
}

/// All replies that are kept.
pub(crate) struct Replies {
    kept: Cache<Key, Arc<Kept>>,
    refreshing: Arc<Mutex<HashSet<Key>>>,
    digests: Digests,
}

/// The right to ask for a reply again. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Refresh {
    key: Key,
    all: Arc<Mutex<HashSet<Key>>>,
}

impl Replies {
    pub(crate) fn new() -> Self {
        // A short reply weighs as if it were of the average length, so that one bound holds both.
        let weigh = |key: &Key, kept: &Arc<Kept>| {
            let bytes = key.len() + kept.body.len() + kept.headers.len() * 64;
            u32::try_from((bytes as u64).max(BYTES / ENTRIES)).unwrap_or(u32::MAX)
        };
        Self {
            kept: Cache::builder().max_capacity(BYTES).weigher(weigh).build(),
            refreshing: Arc::default(),
            digests: Digests::default(),
        }
    }

    /// Which reply a GET asks for; `None` if it is not to be kept. `user` is who shows an identity of its own.
    pub(crate) fn key(&self, fallback: Fallback, user: Option<Name>, asked: &Parts) -> Option<Key> {
        let root = || PathAndQuery::from_static("/");
        let uri = asked.uri.path_and_query().cloned().unwrap_or_else(root);
        let principal = match fallback.public {
            true => Principal::ANYBODY,
            false => Principal::of(user, &asked.headers, &self.digests)?,
        };
        (uri.as_str().len() <= LONGEST_URI).then_some(Key { principal, uri })
    }

    /// Keeps a reply, if it may be kept. `asked` are the headers of the request.
    pub(crate) fn keep(
        &self,
        key: &Key,
        of: &Endpoint,
        asked: &HeaderMap,
        reply: (StatusCode, &HeaderMap, Bytes),
        now: Tick,
    ) {
        let (status, headers, body) = reply;
        let Some(fallback) = of.fallback else { return };
        let known = self.kept.get(key).filter(|_| status == StatusCode::OK);
        let same = known.filter(|kept| kept.is(headers, &body, asked));
        if let Some(kept) = same.as_ref().filter(|_| !fallback.public) {
            kept.at.fetch_max(now.as_nanos(), Ordering::AcqRel);
            return;
        }
        let control = Control::of(headers);
        let is_private = control.private || (asked.contains_key(header::AUTHORIZATION) && !control.public);
        let is_ours = status == StatusCode::OK && !headers.contains_key(header::SET_COOKIE);
        if !is_ours || control.forbids || (fallback.public && is_private) {
            return;
        }
        let Some(vary) = cacheable::vary(headers, asked) else { return };
        if let Some(kept) = same {
            kept.at.fetch_max(now.as_nanos(), Ordering::AcqRel);
            return;
        }
        let stale_for = control.stale_if_error.unwrap_or(fallback.stale_for);
        let at = AtomicU64::new(now.as_nanos());
        let kept = Kept { headers: headers.clone(), body, at, stale_for, vary };
        self.kept.insert(key.kept(), Arc::new(kept));
    }

    /// The last good reply to such a request.
    pub(crate) fn find(&self, key: &Key, asked: &HeaderMap, now: Tick) -> Option<Stale> {
        let kept = self.kept.get(key)?;
        let age = now.since(Tick::from_nanos(kept.at.load(Ordering::Acquire)));
        (age < FORGOTTEN_AFTER && cacheable::answers(&kept.vary, asked)).then_some(Stale { kept, age })
    }

    /// The right to ask for it again, unless somebody does already or too many are asked for.
    pub(crate) fn refresh(&self, key: &Key) -> Option<Refresh> {
        let mut refreshing = self.refreshing.lock();
        let is_first = refreshing.len() < REFRESHES && refreshing.insert(key.clone());
        is_first.then(|| Refresh { key: key.clone(), all: Arc::clone(&self.refreshing) })
    }
}

impl Kept {
    /// Whether it says the same to the same question. Most replies do: that is found out at a third of the price of
    /// keeping them anew. What may be done with a reply stands in its headers; only where it is kept for everybody
    /// it matters as well who asked.
    fn is(&self, headers: &HeaderMap, body: &Bytes, asked: &HeaderMap) -> bool {
        self.body == body && self.headers == *headers && cacheable::answers(&self.vary, asked)
    }
}

impl Stale {
    /// Whether it is young enough to be given as the reply.
    pub(crate) fn may_stand_in(&self) -> bool {
        self.age <= self.kept.stale_for
    }
}

impl Key {
    fn len(&self) -> usize {
        self.principal.len() + self.uri.as_str().len() + size_of::<Kept>()
    }

    /// The same, in memory of its own: a part of a request keeps all of that in memory.
    fn kept(&self) -> Self {
        let copied = PathAndQuery::try_from(self.uri.as_str());
        Self { principal: self.principal.clone(), uri: copied.unwrap_or_else(|_| self.uri.clone()) }
    }
}

/// No path and `/` are the same.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.principal == other.principal && self.uri.as_str() == other.uri.as_str()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.principal.hash(hasher);
        self.uri.as_str().hash(hasher);
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.all.lock().remove(&self.key);
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("kept", &self.kept.entry_count()).finish_non_exhaustive()
    }
}
