//! When one connection breaks, others that have been idle since before are probably broken as well.
//!
//! A server that restarts takes every connection of the pool with it, and each of them would fail one more caller. So
//! after the first that broke, each one that has been idle since before is pinged before it is used, once: a round trip
//! for those that are sound, and a new connection in the place of those that are not.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use selfheal_actors::clock::{Clock, Tick};

/// Since when idle connections are in doubt.
#[derive(Debug)]
pub(super) struct Doubt {
    clock: Clock,
    /// Nanoseconds; 0 if no connection has ever broken.
    since: AtomicU64,
}

impl Doubt {
    pub(super) const fn new(clock: Clock) -> Self {
        Self { clock, since: AtomicU64::new(0) }
    }

    /// A connection has broken.
    pub(super) fn raise(&self) {
        self.since.fetch_max(self.clock.now().as_nanos(), Ordering::Relaxed);
    }

    /// Whether a connection that has been idle for so long is in doubt.
    pub(super) fn covers(&self, idle_for: Duration) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since > 0 && self.clock.now().since(Tick::from_nanos(since)) <= idle_for
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_in_doubt_if_it_has_been_idle_since_before_another_broke() {
        const SECOND: Duration = Duration::from_secs(1);
        let (clock, hand) = Clock::manual();
        let doubt = Doubt::new(clock);
        hand.advance(10 * SECOND);
        assert!(!doubt.covers(5 * SECOND));
        doubt.raise();
        hand.advance(2 * SECOND);
        assert!(doubt.covers(3 * SECOND));
        assert!(!doubt.covers(SECOND), "it was used after that, and was sound");
    }
}
