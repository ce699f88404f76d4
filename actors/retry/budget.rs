//! Calls and retries of the last ten seconds, and whether one more retry fits.
//!
//! A window rather than a bucket that fills: a night of calm must not buy a storm of retries in the morning, and
//! what was spent ten seconds ago is forgotten. It has ten stretches of a second, so what it holds is between
//! nine and ten seconds of calls, whatever their number.

use super::policy::Budget;
use crate::clock::Tick;

/// Seconds that are remembered.
const SECONDS: usize = 10;
const NANOS: u64 = 1_000_000_000;

/// What the last ten seconds hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// The second that each place stands for, and what happened in it.
    seconds: [Second; SECONDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    calls: u64,
    spent: u64,
}

impl Window {
    /// A first call was made.
    pub(super) const fn called(&mut self, now: Tick) {
        self.second(now).calls += 1;
    }

    /// Takes `cost` out of `budget`, if that much is left.
    pub(super) fn spend(&mut self, budget: Budget, cost: u64, now: Tick) -> bool {
        let fits = as_number(self.spent(now) + cost) <= self.allowed(budget, now);
        if fits {
            self.second(now).spent += cost;
        }
        fits
    }

    /// Retries that `budget` allows in the ten seconds that end now.
    fn allowed(&self, budget: Budget, now: Tick) -> f64 {
        let calls = self.live(now).map(|second| second.calls).sum();
        budget.ratio * as_number(calls) + budget.per_second * SECONDS as f64
    }

    fn spent(&self, now: Tick) -> u64 {
        self.live(now).map(|second| second.spent).sum()
    }

    fn live(&self, now: Tick) -> impl Iterator<Item = &Second> {
        let number = now.as_nanos() / NANOS;
        self.seconds.iter().filter(move |second| second.number + SECONDS as u64 > number)
    }

    const fn second(&mut self, now: Tick) -> &mut Second {
        let number = now.as_nanos() / NANOS;
        let second = &mut self.seconds[(number % SECONDS as u64) as usize];
        // A thread that was held up may come with an older moment: it is counted where it finds itself.
        if second.number < number {
            *second = Second { number, calls: 0, spent: 0 };
        }
        second
    }
}

#[expect(clippy::cast_precision_loss, reason = "ten seconds hold fewer than 2^53 calls")]
const fn as_number(count: u64) -> f64 {
    count as f64
}
