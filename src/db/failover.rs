//! After a failover the old primary is a standby that refuses writes (SQLSTATE 25006), and the pool still holds
//! connections to it. Then they are closed, and new ones find the new primary.
//!
//! A service may also write into a read-only transaction by mistake, every time. So the server is asked whether
//! it is a standby, and at most every 30 seconds, which also paces the reconnecting if the new connections lead
//! to the standby again.

use std::time::Duration;

use parking_lot::Mutex;
use selfheal_actors::clock::{Clock, Tick};

/// The least time between two looks.
const PACE: Duration = Duration::from_secs(30);

/// When it was last looked.
pub(super) struct Failover {
    clock: Clock,
    last: Mutex<Option<Tick>>,
}

impl Failover {
    pub(super) const fn new(clock: Clock) -> Self {
        Self { clock, last: Mutex::new(None) }
    }

    /// The clock by which it is paced.
    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether it is time to look. Saying yes starts the time to the next look.
    pub(super) fn may_look(&self) -> bool {
        let now = self.clock.now();
        let mut last = self.last.lock();
        let due = last.is_none_or(|last| now.since(last) >= PACE);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_looked_for_at_most_every_thirty_seconds() {
        let (clock, hand) = Clock::manual();
        let failover = Failover::new(clock);
        assert!(failover.may_look(), "the first time, also at the clock's origin");
        hand.advance(PACE - Duration::from_millis(1));
        assert!(!failover.may_look());
        hand.advance(Duration::from_millis(1));
        assert!(failover.may_look());
    }
}
