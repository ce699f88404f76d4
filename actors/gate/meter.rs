//! How long somebody's work was kept waiting for connections.
//!
//! Whoever learns how long work takes must not take its wait for work: the wait is that of the moment, and says
//! nothing about the next piece. What counts is the time in which the work wanted a connection and had none. A
//! piece that does ten things at once and waits for an eleventh connection is at work meanwhile, so its waits are not
//! simply added up: they could come to more than it took.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::clock::Tick;

/// Counts the waits of everything that is done with one [`Ticket`](super::Ticket) and the clones of it. Clones are the
/// same meter.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Reading>>);

#[derive(Debug, Default)]
struct Reading {
    /// Connections that are waited for, and those that are had.
    waiting: u32,
    holding: u32,
    /// When one of the two changed last.
    since: Tick,
    waited: Duration,
}

impl Meter {
    /// For how long there was a wait and no connection, up to the last time that a wait ended.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.0.lock().waited
    }

    fn change(&self, now: Tick, change: impl FnOnce(&mut Reading)) {
        let mut reading = self.0.lock();
        if reading.waiting > 0 && reading.holding == 0 {
            let since = reading.since;
            reading.waited += now.since(since);
        }
        reading.since = now;
        change(&mut reading);
    }
}

/// What a meter knows of one acquisition, until [`end`](Self::end).
#[derive(Debug)]
pub(super) struct Metered {
    meter: Meter,
    holds: bool,
}

impl Metered {
    pub(super) fn waits(meter: &Meter, now: Tick) -> Self {
        meter.change(now, |reading| reading.waiting += 1);
        Self { meter: meter.clone(), holds: false }
    }

    pub(super) fn holds(meter: &Meter, now: Tick) -> Self {
        meter.change(now, |reading| reading.holding += 1);
        Self { meter: meter.clone(), holds: true }
    }

    /// Its wait is over.
    pub(super) fn granted(&mut self, now: Tick) {
        self.holds = true;
        self.meter.change(now, |reading| {
            reading.waiting -= 1;
            reading.holding += 1;
        });
    }

    pub(super) fn end(self, now: Tick) {
        let holds = self.holds;
        self.meter.change(now, |reading| {
            let counted = if holds { &mut reading.holding } else { &mut reading.waiting };
            *counted -= 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Tick = Tick::from_millis;

    #[test]
    fn waits_one_after_the_other_add_up() {
        let meter = Meter::default();
        for start in [0, 100] {
            let mut one = Metered::waits(&meter, AT(start));
            one.granted(AT(start + 30));
            one.end(AT(start + 90));
        }
        Metered::waits(&meter, AT(200)).end(AT(205));
        assert_eq!(meter.waited(), Duration::from_millis(65));
    }

    #[test]
    fn waits_at_once_count_once_and_not_beside_a_connection() {
        let meter = Meter::default();
        let [mut first, mut second] = [0, 10].map(|at| Metered::waits(&meter, AT(at)));
        first.granted(AT(20));
        second.granted(AT(500));
        let third = Metered::waits(&meter, AT(600));
        second.end(AT(700));
        first.end(AT(800));
        third.end(AT(830));
        assert_eq!(meter.waited(), Duration::from_millis(20 + 30));
    }
}
