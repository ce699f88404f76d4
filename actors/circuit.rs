//! What a circuit shows, and why it changed: the words of breakers, for everybody who hears or tells of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::level::closed_set;

/// The state that a circuit shows. The first three are moved by its own rule; the next four are pinned by an
/// operator, and `Shed` is put on by a pool's level. A pin hides a shed, and both hide the rule's own state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// Calls pass and are counted.
    #[default]
    Closed,
    /// Calls are refused for a while, because too many failed.
    Open,
    /// A few calls are tried, and decide.
    HalfOpen,
    /// An operator refuses all calls.
    ForcedOpen,
    /// An operator lets all calls pass; they are counted, and the rule is not asked.
    ForcedClosed,
    /// All calls pass and nothing is counted.
    Disabled,
    /// All calls pass and are counted; that the rule would have opened the circuit is told once.
    MetricsOnly,
    /// The endpoint is sheddable and a pool is under pressure.
    Shed,
}

closed_set!(Circuit {
    Closed = "closed",
    Open = "open",
    HalfOpen = "half_open",
    ForcedOpen = "forced_open",
    ForcedClosed = "forced_closed",
    Disabled = "disabled",
    MetricsOnly = "metrics_only",
    Shed = "shed",
});

/// Why a circuit changed what it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Too large a share of the calls failed.
    FailureRate,
    /// Too large a share of the calls was slow.
    SlowRate,
    /// Too many calls failed one after another.
    ConsecutiveFailures,
    /// It had been open for as long as it was to be.
    Elapsed,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// Too many probes failed.
    ProbesFailed,
    /// The probes were not back in time.
    ProbesOverdue,
    /// An operator asked for it.
    Operator,
    /// What an operator had asked for was to last until now.
    Expired,
    /// A pool is under pressure.
    Pressure,
    /// The pressure is over.
    Calm,
}

closed_set!(Cause {
    FailureRate = "failure_rate",
    SlowRate = "slow_rate",
    ConsecutiveFailures = "consecutive_failures",
    Elapsed = "open_elapsed",
    ProbesSucceeded = "probes_succeeded",
    ProbesFailed = "probes_failed",
    ProbesOverdue = "probes_overdue",
    Operator = "operator",
    Expired = "expired",
    Pressure = "pressure",
    Calm = "calm",
});
