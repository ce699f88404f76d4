//! How much goes together.

/// How many keys one query may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// At most so many; never less than 1. A gate publishes it: 10 in calm times, 50 under pressure.
    pub most: u32,
}

impl Policy {
    /// The bound as a count of keys.
    #[must_use]
    pub fn keys(self) -> usize {
        usize::try_from(self.most).unwrap_or(usize::MAX).max(1)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { most: 10 }
    }
}
