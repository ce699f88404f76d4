//! The decision: again, and after how long; or not, and why.

use std::{fmt, sync::Arc, time::Duration};

use super::{budget::Window, policy::Policy};
use crate::{
    clock::Tick,
    dice::Dice,
    error_class::ErrorClass,
    level::{Class, Level},
};

/// A timeout costs the budget this much: it has held something all the while.
const COST_OF_TIMEOUT: u32 = 2;

/// A call that has failed.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// How many calls have failed, this one included.
    pub attempt: u32,
    /// What its error means.
    pub error: ErrorClass,
    /// Whether it may be done again.
    pub repeatable: Repeatable,
    /// Whether its caller waits.
    pub inline: bool,
    /// Whose work it is.
    pub class: Class,
    /// The level of the pool behind it.
    pub level: Level,
    /// How long its caller still waits; `None` is for ever.
    pub left: Option<Duration>,
    /// When the one that failed wants to be asked again. It is taken at its word: clamp what a stranger says.
    pub retry_after: Option<Duration>,
}

/// Whether a call may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repeatable {
    /// Made twice is made once: a GET, a PUT.
    Always,
    /// If it is certain that nothing has been done: a POST with an idempotency key.
    UnlessDone,
    /// Not at all: a POST.
    Never,
}

/// What to do about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Make it again.
    Again {
        /// After this long.
        after: Duration,
    },
    /// Do not.
    GiveUp(GiveUp),
}

/// Why a call is not made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// It was made as often as it may be.
    Attempts,
    /// It would fail again, or must not be made twice.
    Permanent,
    /// Too many are being made again already.
    Budget,
    /// It would come too late.
    Deadline,
}

impl GiveUp {
    /// The reason's name, as in traces and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Permanent => "permanent",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
        }
    }
}

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The retries of one endpoint.
#[derive(Clone, Debug)]
pub struct Machine {
    policy: Arc<Policy>,
    window: Window,
    dice: Dice,
}

impl Machine {
    /// Retries under `policy`, spread by what follows from `seed`.
    #[must_use]
    pub fn new(policy: impl Into<Arc<Policy>>, seed: u64) -> Self {
        Self { policy: policy.into(), window: Window::default(), dice: Dice::seeded(seed) }
    }

    /// A call was made for the first time.
    pub const fn called(&mut self, now: Tick) {
        self.window.called(now);
    }

    /// A call has failed. If it is to be made again the budget has paid for it.
    pub fn failed(&mut self, failed: &Failed, now: Tick) -> Verdict {
        if !may_repeat(failed) {
            return Verdict::GiveUp(GiveUp::Permanent);
        }
        if failed.attempt >= self.attempts(failed.inline) {
            return Verdict::GiveUp(GiveUp::Attempts);
        }
        let after = self.wait(failed);
        if failed.left.is_some_and(|left| after >= left) {
            return Verdict::GiveUp(GiveUp::Deadline);
        }
        let cost = if failed.error == ErrorClass::Timeout { COST_OF_TIMEOUT } else { 1 };
        let yields = failed.level == Level::Critical && failed.class != Class::Critical;
        if yields || !self.window.spend(self.policy.budget, cost, now) {
            return Verdict::GiveUp(GiveUp::Budget);
        }
        Verdict::Again { after }
    }

    fn attempts(&self, inline: bool) -> u32 {
        let Policy { attempts, inline_attempts, .. } = *self.policy;
        if inline { attempts.min(inline_attempts) } else { attempts }
    }

    /// Our own wait, or the server's if that is longer: nobody is asked before the time it has named.
    fn wait(&mut self, failed: &Failed) -> Duration {
        let delay = self.policy.delays.after(failed.attempt);
        let spread = self.policy.jitter.spread(delay, self.dice.roll());
        spread.max(failed.retry_after.unwrap_or_default())
    }
}

fn may_repeat(failed: &Failed) -> bool {
    let can_succeed = match failed.error {
        ErrorClass::Permanent | ErrorClass::Shutdown => false,
        ErrorClass::Transient
        | ErrorClass::Interrupted
        | ErrorClass::Timeout
        | ErrorClass::Overload
        | ErrorClass::Unknown => true,
    };
    can_succeed
        && match failed.repeatable {
            Repeatable::Always => true,
            Repeatable::UnlessDone => failed.error.nothing_was_done(),
            Repeatable::Never => false,
        }
}
