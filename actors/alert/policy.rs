//! When an incident is how bad, and when it is over.

use std::time::Duration;

/// The policy by which signals become incidents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For how long a pool must be at level warning until its incident is of severity Warning. Default zero:
    /// the level has a dwell of its own.
    pub warning_after: Duration,
    /// For how long a pool must be at level critical until its incident is of severity Critical. Default zero.
    pub critical_after: Duration,
    /// How many restarts of a supervisor's children, within its period, make a Warning. Default 2.
    pub restarts_warning: u32,
    /// How many of them make it Critical: half of what the supervisor allows. Default 3.
    pub restarts_critical: u32,
    /// How many blocked changes of status, in one incident, make a Warning. Default 5.
    pub blocked_warning: u64,
    /// For how long a cause must be gone until its incident is resolved. Default 1 s.
    pub quiet: Duration,
    /// The same for restarts and escalations: longer than the longest delay before a restart. Default 15 s.
    pub quiet_restarts: Duration,
    /// The same for blocked changes of status: while they go on they are told every second or two. Default 3 s.
    pub quiet_transitions: Duration,
    /// If the cause comes back within this time it is the same incident, reopened. Default 5 min.
    pub reopen_within: Duration,
    /// An incident that has been reopened this often is flapping, and is Critical. Default 3.
    pub flapping: u32,
    /// How many incidents are remembered. The oldest that is over makes room. Default 256.
    pub keep: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            warning_after: Duration::ZERO,
            critical_after: Duration::ZERO,
            restarts_warning: 2,
            restarts_critical: 3,
            blocked_warning: 5,
            quiet: Duration::from_secs(1),
            quiet_restarts: Duration::from_secs(15),
            quiet_transitions: Duration::from_secs(3),
            reopen_within: Duration::from_secs(300),
            flapping: 3,
            keep: 256,
        }
    }
}
