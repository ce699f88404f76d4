//! What a gate has done so far, counted where it happens and read when somebody looks.

use std::time::Duration;

use crate::{gate::Reason, level::Class};

/// Counts by class, in the order of [`Class::ALL`].
pub type ByClass<T> = [T; 4];

/// How long something took, counted in fixed buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; Histogram::BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// The upper ends of the buckets, themselves included; one more bucket holds what is longer.
    pub const BOUNDS: [Duration; 14] = [
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2_500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_millis(2_500),
        Duration::from_secs(10),
        Duration::from_secs(30),
    ];

    /// Counts one that took `took`.
    pub fn record(&mut self, took: Duration) {
        let bucket = Self::BOUNDS.iter().position(|&bound| took <= bound).unwrap_or(Self::BOUNDS.len());
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// How many were counted in each bucket: one for each of [`Histogram::BOUNDS`], and one for the longer.
    #[must_use]
    pub const fn counts(&self) -> &[u64; Self::BOUNDS.len() + 1] {
        &self.counts
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all of them took together.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

/// Refusals by class and reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals(ByClass<[u64; Reason::ALL.len()]>);

impl Refusals {
    pub(super) const fn count(&mut self, class: Class, reason: Reason) {
        self.0[class.index()][reason.index()] += 1;
    }

    /// How many of `class` were refused for `reason`.
    #[must_use]
    pub const fn of(&self, class: Class, reason: Reason) -> u64 {
        self.0[class.index()][reason.index()]
    }

    /// How many of `class` were refused.
    #[must_use]
    pub fn of_class(&self, class: Class) -> u64 {
        self.0[class.index()].iter().sum()
    }

    /// How many were refused for `reason`.
    #[must_use]
    pub fn because(&self, reason: Reason) -> u64 {
        self.0.iter().map(|reasons| reasons[reason.index()]).sum()
    }

    /// How many were refused.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().flatten().sum()
    }
}

/// What a gate has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests and jobs that entered.
    pub entered: ByClass<u64>,
    /// Refusals: of requests and jobs, and of acquisitions.
    pub refused: Refusals,
    /// The wait of those that got a connection: one observation a grant.
    pub wait: ByClass<Histogram>,
    /// How long connections were held.
    pub hold: Histogram,
    /// Waiters whose caller went away.
    pub abandoned: u64,
    /// Invariants found broken. Any is a bug.
    pub violations: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_own_upper_end() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_millis(1));
        histogram.record(Duration::from_nanos(1_000_001));
        histogram.record(Duration::from_secs(3600));
        assert_eq!(histogram.counts()[1..3], [1, 1]);
        assert_eq!((histogram.counts()[14], histogram.count()), (1, 3));
        assert!(Histogram::BOUNDS.is_sorted());
    }
}
