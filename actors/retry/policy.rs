//! How often, and how long after.

use std::{fmt, sync::Arc, time::Duration};

use crate::backoff::Backoff;

/// The policy of an endpoint's retries.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How long to wait after each failed call. Default 1 s, 2 s, 4 s, 8 s.
    pub delays: Delays,
    /// How the waits are spread. Default full.
    pub jitter: Jitter,
    /// Calls in all, the first included. Default 5; 1 is no retry.
    pub attempts: u32,
    /// The same while a caller waits. Default 2; at most `attempts` count.
    pub inline_attempts: u32,
    /// How many retries there may be among all calls.
    pub budget: Budget,
}

/// The waits between calls.
#[derive(Clone, Debug, PartialEq)]
pub enum Delays {
    /// Each is longer than the one before it by a factor.
    Exponential(Backoff),
    /// `step`, twice that, three times that, and no longer than `max`.
    Linear {
        /// The first wait.
        step: Duration,
        /// The longest.
        max: Duration,
    },
    /// Always the same.
    Constant(Duration),
    /// These, one after the other; the last one again and again.
    Listed(Arc<[Duration]>),
}

/// How a wait of `d` is spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// Not: `d`.
    None,
    /// Over its second half, `[d/2, d]`: where a person is told to wait for `d`.
    Equal,
    /// Over all of it, `[0, d]`: those who failed together come back as far apart as can be.
    #[default]
    Full,
}

/// Retries per call, over ten seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Retries for each call. Default 0.1.
    pub ratio: f64,
    /// Retries a second besides, so that a quiet endpoint may retry at all. Default 1.
    pub per_second: f64,
}

/// A policy that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// There is no attempt at all.
    NoAttempt,
    /// A list of waits without a wait.
    NoDelay,
    /// A budget that is negative or not a number.
    Budget,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAttempt => "attempts and inline_attempts count the first call: they are at least 1",
            Self::NoDelay => "a list of delays has at least one",
            Self::Budget => "a budget is a number, and not below 0",
        })
    }
}

impl std::error::Error for Invalid {}

impl Policy {
    /// Nothing is ever tried again.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts: 1, inline_attempts: 1, ..Self::default() }
    }

    /// Whether this policy makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), Invalid> {
        let is_share = |share: f64| share.is_finite() && share >= 0.0;
        if self.attempts == 0 || self.inline_attempts == 0 {
            Err(Invalid::NoAttempt)
        } else if matches!(&self.delays, Delays::Listed(list) if list.is_empty()) {
            Err(Invalid::NoDelay)
        } else if !is_share(self.budget.ratio) || !is_share(self.budget.per_second) {
            Err(Invalid::Budget)
        } else {
            Ok(())
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        let (initial, max) = (Duration::from_secs(1), Duration::from_secs(8));
        Self {
            delays: Delays::Exponential(Backoff { initial, factor: 2.0, max }),
            jitter: Jitter::Full,
            attempts: 5,
            inline_attempts: 2,
            budget: Budget::default(),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { ratio: 0.1, per_second: 1.0 }
    }
}

impl Delays {
    /// The wait after the n-th failed call, counted from 1, before it is spread.
    #[must_use]
    pub fn after(&self, failed: u32) -> Duration {
        let n = failed.saturating_sub(1);
        match self {
            Self::Exponential(backoff) => backoff.delay(n),
            Self::Linear { step, max } => step.saturating_mul(failed.max(1)).min(*max),
            Self::Constant(delay) => *delay,
            Self::Listed(list) => {
                let last = list.len().saturating_sub(1);
                list.get(last.min(n as usize)).copied().unwrap_or_default()
            }
        }
    }
}

impl Jitter {
    /// `delay`, spread by `roll`, which is from 0 inclusive to 1 exclusive.
    #[must_use]
    pub fn spread(self, delay: Duration, roll: f64) -> Duration {
        match self {
            Self::None => delay,
            Self::Equal => delay / 2 + (delay - delay / 2).mul_f64(roll),
            Self::Full => delay.mul_f64(roll),
        }
    }
}
