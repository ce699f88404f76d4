//! How long chunks wait for their connection, lately.
//!
//! It is the longest wait, and what was learnt halves every five seconds: a wait is that of the moment. It must fade by
//! itself and not by shorter waits alone, because who is answered rather than begin a chunk learns of none.

use std::time::Duration;

use crate::clock::Tick;

/// In so much time what is known of waits counts half.
const HALF_LIFE: Duration = Duration::from_secs(5);

/// What is known of waits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queueing {
    longest: Duration,
    at: Tick,
}

impl Queueing {
    /// A chunk has waited so long.
    pub(super) fn learn(&mut self, waited: Duration, now: Tick) {
        if waited >= self.expected(now) {
            *self = Self { longest: waited, at: now };
        }
    }

    /// How long the next one waits.
    pub(super) fn expected(&self, now: Tick) -> Duration {
        let half_lives = now.since(self.at).div_duration_f64(HALF_LIFE);
        self.longest.mul_f64(0.5_f64.powf(half_lives))
    }
}
