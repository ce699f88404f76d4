//! After a failover the old primary is a standby that refuses writes (SQLSTATE 25006), and the pool still holds
//! connections to it. Then they are closed, and new ones find the new primary.
//!
//! Whose error is seen: that of a statement run through the pool, and of a commit. What a caller does on a connection
//! that it holds is between the two of them; so when one comes back, the server is asked, once a second at most. That
//! alone proves nothing for a service that reads from a standby on purpose: there connections are closed only if the
//! pool has known a primary.
//!
//! A service may also write into a read-only transaction by mistake, every time; so an error is a reason to ask and
//! not to close. And new connections may lead to a standby again, because nobody is promoted yet: each time the pause
//! before the next look is twice as long, up to 30 seconds, so that the server is not stormed.

use std::time::Duration;

use parking_lot::Mutex;
use selfheal_actors::clock::{Clock, Tick};

/// The least time between two looks, and the most if there was a standby each time.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(30);

/// When it is looked, and what was found.
pub(super) struct Failover {
    clock: Clock,
    looks: Mutex<Looks>,
}

struct Looks {
    /// When it may be looked next without a reason, and after a refusal to write: the one must not use up the turn of
    /// the other.
    next: Tick,
    next_refused: Tick,
    pause: Duration,
    known_primary: bool,
}

impl Failover {
    pub(super) const fn new(clock: Clock) -> Self {
        Self {
            clock,
            looks: Mutex::new(Looks {
                next: Tick::ZERO,
                next_refused: Tick::ZERO,
                pause: SOONEST,
                known_primary: false,
            }),
        }
    }

    /// The clock by which it is paced.
    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether it is time to look, for no reason. Saying yes starts the time to the next look.
    pub(super) fn may_look(&self) -> bool {
        self.is_due(|looks| &mut looks.next)
    }

    /// The same, after the server has refused to write.
    pub(super) fn may_look_refused(&self) -> bool {
        self.is_due(|looks| &mut looks.next_refused)
    }

    fn is_due(&self, which: fn(&mut Looks) -> &mut Tick) -> bool {
        let now = self.clock.now();
        let mut looks = self.looks.lock();
        let pause = looks.pause;
        let next = which(&mut looks);
        let due = now >= *next;
        if due {
            *next = now + pause;
        }
        due
    }

    /// The server was found to be a standby or not, after it had `refused` to write or without a reason. Says whether
    /// connections to it are to be closed.
    pub(super) fn found(&self, standby: bool, refused: bool) -> bool {
        let now = self.clock.now();
        let mut looks = self.looks.lock();
        if !standby {
            (looks.pause, looks.known_primary) = (SOONEST, true);
            return false;
        }
        let close = refused || looks.known_primary;
        if close {
            (looks.next, looks.next_refused) = (now + looks.pause, now + looks.pause);
            looks.pause = (looks.pause * 2).min(LATEST);
        }
        close
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_looked_for_once_a_second_and_more_rarely_the_longer_there_is_one() {
        let (clock, hand) = Clock::manual();
        let failover = Failover::new(clock);
        assert!(failover.may_look(), "the first time, also at the clock's origin");
        hand.advance(Duration::from_millis(999));
        assert!(!failover.may_look());
        assert!(failover.may_look_refused(), "a refusal is a reason of its own");
        hand.advance(Duration::from_millis(1));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert!(failover.may_look());
            assert!(failover.found(true, true));
            let mut pause = 0;
            while !failover.may_look() {
                hand.advance(SOONEST);
                pause += 1;
            }
            pauses.push(pause);
            hand.advance(LATEST);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert!(!failover.found(false, true), "a primary that refuses is no failover");
        assert!(failover.may_look());
        hand.advance(SOONEST);
        assert!(failover.may_look(), "and the next one is looked for as soon as the first");
    }

    #[test]
    fn a_standby_that_was_never_anything_else_is_left_alone_unless_it_refuses_to_write() {
        let failover = Failover::new(Clock::manual().0);
        assert!(!failover.found(true, false));
        assert!(failover.found(true, true));
        assert!(!failover.found(false, false));
        assert!(failover.found(true, false), "there was a primary");
    }
}
