//! How long something took, counted in fixed buckets: the same ones wherever times are counted, so that they can be
//! compared and shown alike.

use std::time::Duration;

/// How long something took, counted in fixed buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; Histogram::BUCKETS],
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

    /// How many buckets there are.
    pub(crate) const BUCKETS: usize = Self::BOUNDS.len() + 1;

    /// [`Histogram::BOUNDS`] in nanoseconds.
    const NANOS: [u64; Self::BOUNDS.len()] = {
        let mut nanos = [0; Self::BOUNDS.len()];
        let mut at = 0;
        while at < nanos.len() {
            nanos[at] = Self::BOUNDS[at].as_nanos() as u64;
            at += 1;
        }
        nanos
    };

    /// The bucket of `took`.
    pub(crate) fn bucket(took: Duration) -> usize {
        Self::bucket_of_nanos(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The bucket of what took so many nanoseconds.
    #[inline]
    pub(crate) fn bucket_of_nanos(nanos: u64) -> usize {
        Self::NANOS.iter().position(|&bound| nanos <= bound).unwrap_or(Self::NANOS.len())
    }

    /// Counts one that took `took`.
    pub fn record(&mut self, took: Duration) {
        self.counts[Self::bucket(took)] += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// Adds what was counted elsewhere: `counts` in the buckets, which took `sum` together.
    pub(crate) fn add(&mut self, counts: impl Iterator<Item = u64>, sum: Duration) {
        self.counts.iter_mut().zip(counts).for_each(|(count, more)| *count += more);
        self.sum = self.sum.saturating_add(sum);
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
