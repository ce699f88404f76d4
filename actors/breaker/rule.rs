//! Whether what the window holds opens the circuit. Pure arithmetic, with nothing to remember.

use super::{policy::Policy, window::Counts};
use crate::circuit::Cause;

/// What the rule says about what the window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Why the circuit opens, if it does.
    pub(super) opens: Option<Cause>,
    /// Whether one more call that succeeds in time could open it: only the number of calls is missing.
    pub(super) a_success_may_open: bool,
}

/// Judges a closed circuit.
pub(super) fn judge(policy: &Policy, counts: Counts, consecutive_failures: u64) -> Verdict {
    let failures = too_many_failures(policy, counts) && policy.failures.holds(counts.failures as f64);
    let slow = too_many_slow(policy, counts);
    let streak = policy.consecutive_failures.is_some_and(|most| most.holds(consecutive_failures as f64));
    let enough = policy.enough(counts.calls);
    let opens = if failures && enough {
        Some(Cause::FailureRate)
    } else if streak {
        Some(Cause::ConsecutiveFailures)
    } else if slow && enough {
        Some(Cause::SlowRate)
    } else {
        None
    };
    // A success lowers both rates. So where there are enough calls it opens nothing, and where there are not, it
    // could only if the rates still held with it.
    let next = Counts { calls: counts.calls + 1, ..counts };
    let failures = too_many_failures(policy, next) && policy.failures.holds(next.failures as f64);
    Verdict { opens, a_success_may_open: !enough && (failures || too_many_slow(policy, next)) }
}

/// Judges the probes of a half-open circuit together: why it opens again, if it does.
pub(super) fn judge_probes(policy: &Policy, counts: Counts) -> Option<Cause> {
    if too_many_failures(policy, counts) {
        Some(Cause::FailureRate)
    } else if too_many_slow(policy, counts) {
        Some(Cause::SlowRate)
    } else {
        None
    }
}

fn too_many_failures(policy: &Policy, counts: Counts) -> bool {
    counts.rate(counts.failures).is_some_and(|rate| policy.failure_rate.holds(rate))
}

fn too_many_slow(policy: &Policy, counts: Counts) -> bool {
    let limit = policy.slow_rate.zip(counts.rate(counts.slow));
    limit.is_some_and(|(limit, rate)| limit.holds(rate))
}
