//! A limit that says which side its own value is on.
//!
//! Libraries disagree whether 5 failures of 10 trip a rule of 50 %: some compare with `>`, some with `>=`,
//! and few say which. Here a threshold is written `{ above = 0.5 }` or `{ at_least = 0.5 }`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A limit on a count or a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// Holds for values strictly above the limit.
    Above(f64),
    /// Holds for the limit itself and for values above it.
    AtLeast(f64),
}

impl Threshold {
    /// Whether `value` has reached the limit. A value that is not a number has not.
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::Above(limit) => value > limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Above(limit) => write!(f, "above {limit}"),
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_decided_by_the_word() {
        assert!(!Threshold::Above(0.5).holds(0.5));
        assert!(Threshold::AtLeast(0.5).holds(0.5));
        assert!(!Threshold::AtLeast(0.5).holds(f64::NAN));
    }
}
