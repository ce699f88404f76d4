//! How a gate decides.

use std::{fmt, time::Duration};

use crate::{signal::Name, user_limit};

/// Whether connections are kept back from work that is not critical.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reserve {
    /// None are: whoever is more important goes first, and no connection idles while anybody waits.
    #[default]
    Auto,
    /// Normal work may use `critical` of the limit, sheddable and background work `warning` of it.
    Static,
}

/// The policy of one gate. Shares are of the gate's limit, from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether connections are kept back. Default: none are.
    pub reserve: Reserve,
    /// The share at which a pool is in Warning: with a static reserve, the ceiling of sheddable and background
    /// work. Crossing it wakes the monitor. Default 0.85.
    pub warning: f64,
    /// The share at which a pool is in Critical: with a static reserve, the ceiling of normal work. Crossing
    /// it wakes the monitor. Default 0.92.
    pub critical: f64,
    /// The share at which Critical is left: with a static reserve, the most that work which is not critical
    /// may use while only critical work may grow. Default 0.88.
    pub critical_exit: f64,
    /// The share that operations known to hold long may use together. Default 0.85.
    pub long_share: f64,
    /// An operation is known to hold long when a tenth of its last holds were longer. Default 125 ms.
    pub long_hold: Duration,
    /// Operations that hold long from the first time on, without having been seen to. Default none.
    pub long_operations: Vec<Name>,
    /// How long an acquisition that no request or job stands behind waits at most, if that is more than a
    /// tenth of its time to its deadline. Default 100 ms.
    pub queue_wait: Duration,
    /// A queue that was never empty for this long serves the newest first. Default 100 ms.
    pub standing: Duration,
    /// Waiters that a queue may have, as a multiple of the limit. Default 2.
    pub queue_factor: u32,
    /// The deadline of work that names none, from its arrival on. Default 30 s, as in sqlx.
    pub patience: Duration,
    /// The share of a job's time over which its queries are spread. Default 0.8.
    pub pace: f64,
    /// Connections beyond the limit for whoever holds one already and needs another. Default 2.
    pub nested_reserve: u32,
    /// How long such a holder waits at most. Default 1 s.
    pub nested_wait: Duration,
    /// How long the ceiling of Critical takes to rise by one connection, once it is lifted. Default 50 ms.
    pub undo_step: Duration,
    /// A connection held for longer is told as leaked. Default 30 s.
    pub leak_after: Duration,
    /// The most that a refused caller is asked to wait. Default 30 s.
    pub retry_after_max: Duration,
    /// Whether what a refused caller is asked to wait is spread at random. Default true.
    pub retry_jitter: bool,
    /// Items in a batch while nothing is published. Default 10.
    pub batch: u32,
    /// What a user may have at once.
    pub users: user_limit::Policy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            reserve: Reserve::Auto,
            warning: 0.85,
            critical: 0.92,
            critical_exit: 0.88,
            long_share: 0.85,
            long_hold: Duration::from_millis(125),
            long_operations: Vec::new(),
            queue_wait: Duration::from_millis(100),
            standing: Duration::from_millis(100),
            queue_factor: 2,
            patience: Duration::from_secs(30),
            pace: 0.8,
            nested_reserve: 2,
            nested_wait: Duration::from_secs(1),
            undo_step: Duration::from_millis(50),
            leak_after: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(30),
            retry_jitter: true,
            batch: 10,
            users: user_limit::Policy::default(),
        }
    }
}

impl Policy {
    /// Whether this policy makes sense.
    ///
    /// # Errors
    /// The first rule that is broken. A gate with such a policy still lets somebody through and still refuses
    /// nobody critical, but not as anybody would expect.
    pub fn check(&self) -> Result<(), Invalid> {
        let shares = [self.warning, self.critical, self.critical_exit, self.long_share, self.pace];
        if !shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err(Invalid::NoShare);
        }
        if self.warning > self.critical {
            return Err(Invalid::CriticalBelowWarning);
        }
        let times = [self.queue_wait, self.patience, self.nested_wait, self.undo_step, self.leak_after];
        if times.iter().any(Duration::is_zero) || self.queue_factor == 0 || self.batch == 0 {
            return Err(Invalid::Nothing);
        }
        Ok(())
    }
}

/// Why a policy makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A share is not from 0 to 1.
    NoShare,
    /// Critical is entered below Warning.
    CriticalBelowWarning,
    /// A time, a queue or a batch of nothing.
    Nothing,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoShare => "a share must be from 0 to 1",
            Self::CriticalBelowWarning => "critical must not be below warning",
            Self::Nothing => "times, queues and batches must not be zero",
        })
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense_and_nonsense_is_named() {
        let policy = Policy::default();
        assert_eq!(policy.check(), Ok(()));
        let with = |change: fn(&mut Policy)| {
            let mut policy = Policy::default();
            change(&mut policy);
            policy.check()
        };
        assert_eq!(with(|policy| policy.long_share = f64::NAN), Err(Invalid::NoShare));
        assert_eq!(with(|policy| policy.warning = 0.95), Err(Invalid::CriticalBelowWarning));
        assert_eq!(with(|policy| policy.queue_wait = Duration::ZERO), Err(Invalid::Nothing));
    }
}
