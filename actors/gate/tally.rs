//! What a gate has done so far, counted where it happens and read when somebody looks.

use crate::{gate::Reason, histogram::Histogram, level::Class};

/// Counts by class, in the order of [`Class::ALL`].
pub type ByClass<T> = [T; 4];

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
