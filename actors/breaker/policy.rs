//! When a circuit opens, for how long, and what closes it again.

use std::{fmt, time::Duration};

use crate::threshold::Threshold;

/// The policy of one circuit.
///
/// A closed circuit opens when `failure_rate`, `failures` and `calls` hold together, or when
/// `consecutive_failures` holds, or when `slow_rate` and `calls` hold together.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Which calls are looked at. Default: those of the last 10 s, in 10 buckets.
    pub window: Window,
    /// The share of the calls that failed. Default: above 0.5.
    pub failure_rate: Threshold,
    /// How many calls failed. Default: above 5.
    pub failures: Threshold,
    /// How many calls there were; below, neither rate is defined. A window of fewer calls lowers it to its own
    /// size. Default: at least 1.
    pub calls: Threshold,
    /// How many calls failed since the last success. Default: none.
    pub consecutive_failures: Option<Threshold>,
    /// A call that takes strictly longer is slow. Default: none is.
    pub slow_call: Option<Duration>,
    /// The share of the calls that were slow, successes among them. Default: none.
    pub slow_rate: Option<Threshold>,
    /// How long it stays open the first time. Default 30 s.
    pub open_for: Duration,
    /// By how much it stays open longer each time that it opens without having been closed. Default 1.0.
    pub open_growth: f64,
    /// It never stays open for longer; applied last. Default 5 min.
    pub open_max: Duration,
    /// The time is made shorter or longer by up to this share, at random. Default 0.0.
    pub open_jitter: f64,
    /// Whether it half-opens when the time has come, and not only when somebody calls. Default: no.
    pub half_open_automatically: bool,
    /// What decides while it is half-open.
    pub half_open: HalfOpen,
}

/// Which calls are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many calls; at most [`Window::MOST_CALLS`].
    Calls(u32),
    /// The calls of the last while. They leave the window a bucket at a time.
    Time {
        /// How far back.
        last: Duration,
        /// In how many steps; at most [`Window::MOST_BUCKETS`].
        buckets: u32,
    },
}

impl Window {
    /// A window of calls takes a byte a call.
    pub const MOST_CALLS: u32 = 10_000;
    /// A window of time takes 12 bytes a bucket.
    pub const MOST_BUCKETS: u32 = 1_000;
}

/// What decides while a circuit is half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfOpen {
    /// Each probe counts: so many successes close the circuit, so many failures open it again.
    Count {
        /// Calls admitted at a time. Default 1.
        probes: u32,
        /// It closes after so many successes. Default 1.
        successes: u32,
        /// It opens again after so many failures. Default 1.
        failures: u32,
        /// A probe that is not back after this is written off when the next caller wants its place. Default 10 s.
        probe_timeout: Duration,
    },
    /// A fixed number of probes, judged together by `failure_rate` and `slow_rate` when all are back.
    Rate {
        /// Calls admitted in all.
        probes: u32,
        /// They must be back within this time.
        max_wait: Duration,
        /// What happens if they are not.
        after_max_wait: AfterMaxWait,
    },
}

/// What becomes of a half-open circuit whose probes are not back in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterMaxWait {
    /// It opens again.
    #[default]
    Open,
    /// It closes.
    Closed,
}

impl Default for HalfOpen {
    fn default() -> Self {
        Self::Count { probes: 1, successes: 1, failures: 1, probe_timeout: Duration::from_secs(10) }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            window: Window::Time { last: Duration::from_secs(10), buckets: 10 },
            failure_rate: Threshold::Above(0.5),
            failures: Threshold::Above(5.0),
            calls: Threshold::AtLeast(1.0),
            consecutive_failures: None,
            slow_call: None,
            slow_rate: None,
            open_for: Duration::from_secs(30),
            open_growth: 1.0,
            open_max: Duration::from_secs(300),
            open_jitter: 0.0,
            half_open_automatically: false,
            half_open: HalfOpen::default(),
        }
    }
}

impl Policy {
    /// Whether this policy makes sense.
    ///
    /// # Errors
    /// The first rule that is broken. A [`Machine`](super::Machine) with such a policy is still safe, but it may
    /// never open, or never close.
    pub fn check(&self) -> Result<(), Invalid> {
        let empty = match self.window {
            Window::Calls(calls) => calls == 0 || calls > Window::MOST_CALLS,
            Window::Time { last, buckets } => {
                last.is_zero() || buckets == 0 || buckets > Window::MOST_BUCKETS
            }
        };
        if empty {
            return Err(Invalid::Window);
        }
        let half_open = match self.half_open {
            HalfOpen::Count { probes, successes, failures, probe_timeout } => {
                probes > 0 && successes > 0 && failures > 0 && !probe_timeout.is_zero()
            }
            HalfOpen::Rate { probes, max_wait, .. } => probes > 0 && !max_wait.is_zero(),
        };
        if !half_open {
            return Err(Invalid::HalfOpen);
        }
        if self.slow_rate.is_some() && self.slow_call.is_none() {
            return Err(Invalid::NothingIsSlow);
        }
        // Negated, so that what is not a number is refused as well.
        if !(self.open_growth >= 1.0 && (0.0..=1.0).contains(&self.open_jitter)) || self.open_for.is_zero() {
            return Err(Invalid::Open);
        }
        Ok(())
    }

    /// How long a call may take; a longer one is slow.
    pub(super) fn slow_after(&self) -> u64 {
        self.slow_call.map_or(u64::MAX, |span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Whether there were enough calls for a rate to mean something.
    pub(super) fn enough(&self, calls: u64) -> bool {
        let calls = calls as f64;
        match self.window {
            Window::Calls(size) => calls >= f64::from(size) || self.calls.holds(calls),
            Window::Time { .. } => self.calls.holds(calls),
        }
    }

    /// How long the `n`-th opening in a row lasts, given a random number from 0 to 1.
    pub(super) fn open_length(&self, n: u32, random: f64) -> Duration {
        let grown =
            self.open_for.as_secs_f64() * self.open_growth.max(1.0).powf(f64::from(n.saturating_sub(1)));
        let spread = 1.0 + self.open_jitter.clamp(0.0, 1.0) * (2.0 * random - 1.0);
        Duration::try_from_secs_f64(grown * spread).unwrap_or(Duration::MAX).min(self.open_max)
    }
}

/// Why a policy makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// The window holds nothing, or too much.
    Window,
    /// A half-open circuit would never decide.
    HalfOpen,
    /// There is a `slow_rate` and no `slow_call`.
    NothingIsSlow,
    /// Growth below 1, jitter outside 0 to 1, or no time at all.
    Open,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Window => "a window must hold something, and not more than its bound",
            Self::HalfOpen => "a half-open circuit must be able to decide",
            Self::NothingIsSlow => "slow_rate needs slow_call",
            Self::Open => "open_growth must be at least 1, open_jitter from 0 to 1, and open_for above 0",
        })
    }
}

impl std::error::Error for Invalid {}
