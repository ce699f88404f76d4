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
    number: u32,
    calls: u32,
    spent: u32,
}

impl Window {
    /// A first call was made.
    pub(super) const fn called(&mut self, now: Tick) {
        let second = self.second(now);
        second.calls = second.calls.saturating_add(1);
    }

    /// Takes `cost` out of `budget`, if that much is left.
    pub(super) fn spend(&mut self, budget: Budget, cost: u32, now: Tick) -> bool {
        let fits = as_number(self.spent(now) + u64::from(cost)) <= self.allowed(budget, now);
        if fits {
            let second = self.second(now);
            second.spent = second.spent.saturating_add(cost);
        }
        fits
    }

    /// Retries that `budget` allows in the ten seconds that end now.
    fn allowed(&self, budget: Budget, now: Tick) -> f64 {
        let calls = self.live(now).map(|second| u64::from(second.calls)).sum();
        budget.ratio * as_number(calls) + budget.per_second * SECONDS as f64
    }

    fn spent(&self, now: Tick) -> u64 {
        self.live(now).map(|second| u64::from(second.spent)).sum()
    }

    fn live(&self, now: Tick) -> impl Iterator<Item = &Second> {
        let number = number(now);
        self.seconds.iter().filter(move |second| number - second.number.min(number) < SECONDS as u32)
    }

    const fn second(&mut self, now: Tick) -> &mut Second {
        let number = number(now);
        let second = &mut self.seconds[number as usize % SECONDS];
        // A thread that was held up may come with an older moment: it is counted where it finds itself.
        if second.number < number {
            *second = Second { number, calls: 0, spent: 0 };
        }
        second
    }
}

/// Good for 136 years: half as much in memory, for each endpoint.
const fn number(at: Tick) -> u32 {
    (at.as_nanos() / NANOS) as u32
}

#[expect(clippy::cast_precision_loss, reason = "ten seconds hold fewer than 2^53 calls")]
const fn as_number(count: u64) -> f64 {
    count as f64
}
