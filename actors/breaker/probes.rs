//! The calls that try a half-open circuit.
//!
//! A place among them is *leased*: whoever holds it gives it back with an outcome, or without one when its call
//! is cancelled or says nothing; and a lease that has run out is taken over by the next caller. So probes that
//! never come back cannot keep a circuit half-open. What a call says whose place was taken over comes too late.

use super::{
    policy::{AfterMaxWait, HalfOpen, Policy},
    rule::judge_probes,
    window::Counts,
};
use crate::{circuit::Cause, clock::Tick};

/// The probes of one half-open phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    leases: Vec<Lease>,
    last: u32,
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    number: u32,
    until: Tick,
}

/// What the probes have decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Close(Cause),
    Reopen(Cause),
}

impl Probes {
    /// A place for one more call; `None` if there is none.
    pub(super) fn take(&mut self, policy: &Policy, since: Tick, now: Tick) -> Option<u32> {
        self.leases.retain(|lease| lease.until > now);
        let until = match policy.half_open {
            HalfOpen::Count { probes, probe_timeout, .. } => {
                (self.leases.len() < probes as usize).then_some(now + probe_timeout)
            }
            HalfOpen::Rate { probes, max_wait, .. } => {
                let admitted = self.counts.calls + self.leases.len() as u64;
                (admitted < u64::from(probes)).then_some(since + max_wait)
            }
        }?;
        // Never 0: that stands for a call that is no probe.
        self.last = self.last.wrapping_add(1).max(1);
        self.leases.push(Lease { number: self.last, until });
        Some(self.last)
    }

    /// Gives a place back; false if it was taken over.
    pub(super) fn give_back(&mut self, number: u32) -> bool {
        let place = self.leases.iter().position(|lease| lease.number == number);
        place.map(|place| self.leases.swap_remove(place)).is_some()
    }

    /// A probe is back.
    pub(super) fn settle(&mut self, policy: &Policy, failed: bool, slow: bool) -> Option<Decision> {
        let one = Counts::one(failed, slow);
        self.counts.calls += one.calls;
        self.counts.failures += one.failures;
        self.counts.slow += one.slow;
        match policy.half_open {
            HalfOpen::Count { successes, failures, .. } => {
                if self.counts.failures >= u64::from(failures.max(1)) {
                    Some(Decision::Reopen(Cause::ProbesFailed))
                } else if self.counts.successes() >= u64::from(successes.max(1)) {
                    Some(Decision::Close(Cause::ProbesSucceeded))
                } else {
                    None
                }
            }
            HalfOpen::Rate { probes, .. } => (self.counts.calls >= u64::from(probes)).then(|| {
                judge_probes(policy, self.counts)
                    .map_or(Decision::Close(Cause::ProbesSucceeded), Decision::Reopen)
            }),
        }
    }

    /// What they have said so far.
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// When the next place is free if nobody gives one back: when the first lease runs out, or when the circuit
    /// has waited for all probes for as long as it may. `None` if a place is free.
    pub(super) fn full_until(&self, policy: &Policy, since: Tick) -> Option<Tick> {
        match policy.half_open {
            HalfOpen::Count { probes, .. } => {
                let full = self.leases.len() >= probes as usize;
                self.leases.iter().map(|lease| lease.until).min().filter(|_| full)
            }
            HalfOpen::Rate { probes, max_wait, .. } => {
                let admitted = self.counts.calls + self.leases.len() as u64;
                (admitted >= u64::from(probes)).then_some(since + max_wait)
            }
        }
    }

    /// When the circuit decides without its probes, and how.
    pub(super) fn overdue(policy: &Policy, since: Tick) -> Option<(Tick, Decision)> {
        match policy.half_open {
            HalfOpen::Count { .. } => None,
            HalfOpen::Rate { max_wait, after_max_wait: AfterMaxWait::Open, .. } => {
                Some((since + max_wait, Decision::Reopen(Cause::ProbesOverdue)))
            }
            HalfOpen::Rate { max_wait, after_max_wait: AfterMaxWait::Closed, .. } => {
                Some((since + max_wait, Decision::Close(Cause::ProbesOverdue)))
            }
        }
    }
}
