//! One figure out of many.

use std::fmt;

use crate::Dice;

/// Resamples of an interval. With so many its ends move by less than what is printed of them.
const RESAMPLES: usize = 10_000;

/// The value below which a share of `q` of the `sorted` values lies (nearest rank). `None` without values.
#[must_use]
pub fn quantile<T: Copy>(sorted: &[T], q: f64) -> Option<T> {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().checked_sub(1)?)).copied()
}

/// What repeated runs gave: the median, between the least and the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`, `None` without any. Values that are not numbers are left out.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().filter(|value| !value.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        // Two that are infinite, "never", have no difference.
        let median = if low == high { low } else { low + (high - low) / 2.0 };
        Some(Self { min, median, max })
    }
}

/// `0.962 [0.957..0.963]`, with the precision asked for; the range only where there is one.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(3);
        let [min, median, max] = [self.min, self.median, self.max].map(|value| format!("{value:.digits$}"));
        if min == max { f.write_str(&median) } else { write!(f, "{median} [{min}..{max}]") }
    }
}

/// By how much one thing differs from another that was measured in the same circumstances, pair by pair: the median of the
/// differences, and the interval that it lies in 95 times in 100 (Efron's bootstrap, percentiles).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// The median difference.
    pub median: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// How many pairs there were.
    pub pairs: usize,
}

impl Paired {
    /// Fewer pairs than this say nothing: of four, one in eight intervals would miss.
    pub const LEAST: usize = 5;

    /// What these differences say; `None` of fewer than [`LEAST`](Self::LEAST). The same differences give the same
    /// interval. Differences that are not numbers are left out.
    #[must_use]
    pub fn of(differences: impl IntoIterator<Item = f64>) -> Option<Self> {
        let found: Vec<_> = differences.into_iter().filter(|value| value.is_finite()).collect();
        if found.len() < Self::LEAST {
            return None;
        }
        let mut dice = Dice::new(1);
        let mut draw = || found[dice.below(found.len() as u64) as usize];
        let mut medians: Vec<_> = (0..RESAMPLES)
            .filter_map(|_| Spread::of((0..found.len()).map(|_| draw())))
            .map(|spread| spread.median)
            .collect();
        medians.sort_by(f64::total_cmp);
        let median = Spread::of(found.iter().copied())?.median;
        let (low, high) = (quantile(&medians, 0.025)?, quantile(&medians, 0.975)?);
        Some(Self { median, low, high, pairs: found.len() })
    }

    /// Whether one of the two is ahead: the interval does not hold zero.
    #[must_use]
    pub fn decides(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// `+0.021 [+0.015..+0.024]`, with the precision asked for; `=` behind it if neither is ahead.
impl fmt::Display for Paired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(3);
        let Self { median, low, high, .. } = self;
        write!(f, "{median:+.digits$} [{low:+.digits$}..{high:+.digits$}]")?;
        if self.decides() { Ok(()) } else { f.write_str(" =") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_decide_only_if_they_agree() {
        let ahead = Paired::of((0..10).map(|n| 0.02 + f64::from(n) / 1_000.0)).expect("ten pairs");
        assert!(ahead.decides() && ahead.low >= 0.02 && ahead.high <= 0.029, "{ahead}");
        assert_eq!(format!("{ahead:.3}"), "+0.025 [+0.022..+0.027]");
        let level = Paired::of([-0.01, 0.012, -0.013, 0.01, 0.0, 0.001, -0.001]).expect("seven pairs");
        assert!(!level.decides() && format!("{level}").ends_with(" ="), "{level}");
        assert_eq!(Paired::of([1.0, 1.0, 1.0, 1.0, f64::NAN]), None);
    }

    #[test]
    fn an_interval_holds_the_truth_as_often_as_it_says() {
        let mut dice = Dice::new(7);
        let mut holds = 0;
        for _ in 0..200 {
            // Lognormal around 1: its median is e^(-σ²/2).
            let truth = (-0.5_f64 * 0.25).exp();
            let found = Paired::of((0..10).map(|_| dice.lognormal(1.0, 0.5) - truth)).expect("ten pairs");
            holds += u32::from(!found.decides());
        }
        assert!((180..=200).contains(&holds), "{holds} of 200");
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<_> = (1..=100).collect();
        assert_eq!(quantile(&values, 0.5), Some(50));
        assert_eq!(quantile(&values, 0.99), Some(99));
        assert_eq!(quantile(&values, 1.0), Some(100));
        assert_eq!(quantile(&values, 0.0), Some(1));
        assert_eq!(quantile::<u32>(&[], 0.5), None);
    }

    #[test]
    fn a_spread_shows_its_range_only_if_it_has_one() {
        let spread = Spread::of([3.0, 1.0, 2.0, f64::NAN]).expect("three values");
        assert_eq!(format!("{spread:.1}"), "2.0 [1.0..3.0]");
        assert_eq!(format!("{:.1}", Spread::of([2.0, 2.0]).expect("two values")), "2.0");
        assert_eq!(Spread::of([f64::INFINITY; 2]).map(|s| s.median), Some(f64::INFINITY));
        assert_eq!(Spread::of([]), None);
    }
}
