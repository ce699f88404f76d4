//! What is remembered of an endpoint.

use std::sync::atomic::{AtomicU64, Ordering};

use selfheal_actors::{breaker::Breaker, clock::Tick, retry::Retries};

/// The state of one endpoint. It stands in the registry, so that however often the layer is applied there is one.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) retries: Retries,
    pub(crate) circuit: Option<Breaker>,
    /// The second after the last one in which a failure was told in the log.
    told: AtomicU64,
}

impl State {
    pub(crate) const fn new(retries: Retries) -> Self {
        Self { retries, circuit: None, told: AtomicU64::new(0) }
    }

    /// Whether a failure may be told in the log at length: one a second and endpoint. A thousand callers who fail
    /// in the same second tell the same story.
    pub(crate) fn may_tell(&self, now: Tick) -> bool {
        let second = now.as_millis() / 1_000 + 1;
        self.told.fetch_max(second, Ordering::Relaxed) < second
    }
}
