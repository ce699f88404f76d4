//! When a level is entered and left, and what is done at it.

use std::{fmt, time::Duration};

/// The policy of one pool's monitor. Ratios are connections in use per connection that the pool may have.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Average use at which level Warning is entered. Default 0.85.
    pub warning: f64,
    /// Average use at which Warning is left; below `warning`. Default 0.80.
    pub warning_exit: f64,
    /// Average use at which level Critical is entered; not below `warning`. Default 0.92.
    pub critical: f64,
    /// Average use at which Critical is left; below `critical`. Default 0.88.
    pub critical_exit: f64,
    /// Time after which a change of use is 63 % visible in the average. Zero: the average is the use itself.
    /// Default 100 ms.
    pub smoothing: Duration,
    /// For how long pressure must hold, and where a waiter is needed one of them have waited, before a level is
    /// raised. Default 20 ms.
    pub up: Duration,
    /// For how long calm must hold before Warning is left. Default 2 s.
    pub down: Duration,
    /// For how long calm must hold before Critical is left. Default 250 ms.
    pub down_critical: Duration,
    /// Whether a level is entered only while someone waits. True (the default) where the gate reserves
    /// nothing: there a well-used pool is no trouble. False where thresholds are ceilings as well.
    pub needs_waiter: bool,
    /// A critical request that has waited for this long has a statement of work that can wait ended at the
    /// server. `None` (the default): nobody's statement is.
    pub cancel_after: Option<Duration>,
    /// After how long without a sample the monitor lifts what it forced. Default 30 s.
    pub blind_after: Duration,
    /// Items a batch at level normal. Default 10.
    pub batch: u32,
    /// Items a batch at level warning and above. Default 50.
    pub batch_under_pressure: u32,
    /// What each user is held to at level warning and above: requests in flight, and connections held.
    /// Default 5.
    pub user_limit: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            warning: 0.85,
            warning_exit: 0.80,
            critical: 0.92,
            critical_exit: 0.88,
            smoothing: Duration::from_millis(100),
            up: Duration::from_millis(20),
            down: Duration::from_secs(2),
            down_critical: Duration::from_millis(250),
            needs_waiter: true,
            cancel_after: None,
            blind_after: Duration::from_secs(30),
            batch: 10,
            batch_under_pressure: 50,
            user_limit: 5,
        }
    }
}

impl Policy {
    /// Whether this policy makes sense.
    ///
    /// # Errors
    /// The first rule that is broken. A [`Machine`](super::Machine) with such a policy is still safe (it
    /// stops, and it undoes what it does), but it flaps.
    pub fn check(&self) -> Result<(), Invalid> {
        let ratio = |r: f64| r > 0.0 && r <= 1.0;
        if !ratio(self.warning) || !ratio(self.critical) {
            return Err(Invalid::NoRatio);
        }
        if self.warning > self.critical {
            return Err(Invalid::CriticalBelowWarning);
        }
        // Negated, so that an exit which is not a number is refused as well.
        if !(self.warning_exit >= 0.0 && self.warning_exit < self.warning) {
            return Err(Invalid::WarningExit);
        }
        if !(self.critical_exit >= 0.0 && self.critical_exit < self.critical) {
            return Err(Invalid::CriticalExit);
        }
        if self.user_limit == 0 || self.batch == 0 || self.batch_under_pressure == 0 {
            return Err(Invalid::Nothing);
        }
        Ok(())
    }
}

/// Why a policy makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// An entry is not above 0 and at most 1.
    NoRatio,
    /// Critical would be entered before Warning.
    CriticalBelowWarning,
    /// Warning would be left at or above where it is entered.
    WarningExit,
    /// Critical would be left at or above where it is entered.
    CriticalExit,
    /// A limit or a batch of nothing.
    Nothing,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRatio => "a threshold must be above 0 and at most 1",
            Self::CriticalBelowWarning => "critical must not be below warning",
            Self::WarningExit => "warning_exit must be below warning",
            Self::CriticalExit => "critical_exit must be below critical",
            Self::Nothing => "a user limit and a batch must allow at least one",
        })
    }
}

impl std::error::Error for Invalid {}
