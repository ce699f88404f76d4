//! Growing delays: `initial · factor^n`, at most `max`.
//!
//! Overflow saturates, a cap below the start wins, and a start of zero stays zero.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the delay before the n-th try grows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// The first delay.
    pub initial: Duration,
    /// By how much each delay is longer than the one before it; at least 1.
    pub factor: f64,
    /// No delay is longer than this.
    pub max: Duration,
}

impl Backoff {
    /// No delay at all.
    pub const NONE: Self = Self { initial: Duration::ZERO, factor: 1.0, max: Duration::ZERO };

    /// The delay number `n`, counted from 0.
    #[must_use]
    pub fn delay(self, n: u32) -> Duration {
        let grown = self.initial.as_secs_f64() * self.factor.max(1.0).powf(f64::from(n));
        Duration::try_from_secs_f64(grown).unwrap_or(Duration::MAX).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn delays_grow_to_the_cap_and_stay_there() {
        let backoff = Backoff { initial: SECONDS(1), factor: 2.0, max: SECONDS(8) };
        let delays: Vec<_> = (0..6).map(|n| backoff.delay(n).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 8, 8]);
        assert_eq!(backoff.delay(u32::MAX), SECONDS(8));
    }

    #[test]
    fn a_cap_below_the_start_wins_and_zero_stays_zero() {
        let capped = Backoff { initial: SECONDS(5), factor: 2.0, max: SECONDS(2) };
        assert_eq!(capped.delay(0), SECONDS(2));
        assert_eq!(Backoff::NONE.delay(40), Duration::ZERO);
    }
}
