//! One figure out of many.

use std::fmt;

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

#[cfg(test)]
mod tests {
    use super::*;

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
