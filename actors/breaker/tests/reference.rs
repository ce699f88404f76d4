//! The same circuit, written down as plainly as possible: it remembers every call and counts anew each time.

use std::time::Duration;

use super::super::{
    AfterMaxWait, Counts, HalfOpen, Illegal, Order, Outcome, Pass, Policy, Reason, Rejection, Totals, Window,
};
use crate::{circuit::Circuit, clock::Tick};

/// A call that has ended: when, whether it failed, whether it was slow.
type Ended = (Tick, bool, bool);

/// A circuit without any cleverness. Its passes are its own.
pub(super) struct Reference {
    policy: Policy,
    now: Tick,
    open_until: Option<Tick>,
    half_open_since: Option<Tick>,
    pin: Option<(Circuit, Option<Tick>)>,
    shed: bool,
    epoch: u32,
    openings: u32,
    window: Vec<Ended>,
    probes: Vec<Ended>,
    leases: Vec<(u32, Tick)>,
    last_lease: u32,
    since_success: u64,
    pub(super) totals: Totals,
}

impl Reference {
    pub(super) fn new(policy: Policy) -> Self {
        assert_eq!(policy.open_jitter, 0.0, "it knows no chance");
        Self {
            policy,
            now: Tick::ZERO,
            open_until: None,
            half_open_since: None,
            pin: None,
            shed: false,
            epoch: 0,
            openings: 0,
            window: Vec::new(),
            probes: Vec::new(),
            leases: Vec::new(),
            last_lease: 0,
            since_success: 0,
            totals: Totals::default(),
        }
    }

    pub(super) fn shows(&self) -> Circuit {
        match (self.pin, self.shed, self.open_until, self.half_open_since) {
            (Some((shows, _)), ..) => shows,
            (None, true, ..) => Circuit::Shed,
            (None, false, Some(_), _) => Circuit::Open,
            (None, false, None, Some(_)) => Circuit::HalfOpen,
            (None, false, None, None) => Circuit::Closed,
        }
    }

    /// Time passes, one event after the other.
    pub(super) fn pass(&mut self, to: Tick) {
        loop {
            let due = match (self.pin, self.open_until, self.half_open_since, self.policy.half_open) {
                (Some((_, until)), ..) => until,
                (None, Some(until), ..) => Some(until).filter(|_| self.policy.half_open_automatically),
                (None, None, Some(since), HalfOpen::Rate { max_wait, .. }) => Some(since + max_wait),
                (None, None, ..) => None,
            };
            let Some(due) = due.filter(|&due| due <= to) else { break };
            let due = due.max(self.now);
            self.now = due;
            if self.pin.is_some() {
                self.set_pin(None, due);
            } else if self.open_until.is_some() {
                self.try_again(due);
            } else if let HalfOpen::Rate { after_max_wait: AfterMaxWait::Closed, .. } = self.policy.half_open
            {
                self.close();
            } else {
                self.open(due, None);
            }
        }
        self.now = to;
    }

    pub(super) fn admit(&mut self) -> Result<Pass, Rejection> {
        let now = self.now;
        if self.shows() == Circuit::Open && self.open_until.is_some_and(|until| until <= now) {
            self.try_again(now);
        }
        let pass = Pass { epoch: self.epoch, lease: 0 };
        let refused = match self.shows() {
            Circuit::Closed | Circuit::ForcedClosed | Circuit::MetricsOnly => return Ok(pass),
            Circuit::Disabled => return Ok(Pass::FREE),
            Circuit::ForcedOpen => Reason::ForcedOpen,
            Circuit::Shed => Reason::Shed,
            Circuit::Open => Reason::Open,
            Circuit::HalfOpen => {
                self.leases.retain(|&(_, until)| until > now);
                let free = match self.policy.half_open {
                    HalfOpen::Count { probes, .. } => self.leases.len() < probes as usize,
                    HalfOpen::Rate { probes, .. } => self.leases.len() + self.probes.len() < probes as usize,
                };
                if free {
                    let until = match (self.policy.half_open, self.half_open_since) {
                        (HalfOpen::Count { probe_timeout, .. }, _) => now + probe_timeout,
                        (HalfOpen::Rate { max_wait, .. }, since) => since.unwrap_or(now) + max_wait,
                    };
                    self.last_lease += 1;
                    self.leases.push((self.last_lease, until));
                    return Ok(Pass { lease: self.last_lease, ..pass });
                }
                Reason::HalfOpenFull
            }
        };
        self.totals.rejected += 1;
        Err(Rejection { reason: refused, retry_after: self.retry_after() })
    }

    pub(super) fn settle(&mut self, pass: Pass, outcome: Outcome, slow: bool) {
        if pass.is_free() {
            return;
        }
        let failed = outcome == Outcome::Failure;
        let place = self.leases.iter().position(|&(lease, _)| lease == pass.lease);
        let place = place.filter(|_| pass.epoch == self.epoch);
        if let Some(place) = place {
            self.leases.remove(place);
        }
        if outcome == Outcome::Ignored {
            self.totals.ignored += 1;
            return;
        }
        if pass.epoch != self.epoch || pass.lease != 0 && place.is_none() {
            self.totals.stale += 1;
            return;
        }
        self.totals.successes += u64::from(!failed);
        self.totals.failures += u64::from(failed);
        self.since_success = if failed { self.since_success + 1 } else { 0 };
        if pass.lease == 0 {
            self.window.push((self.now, failed, slow));
            if self.pin.is_none() && self.rule_holds() {
                self.open(self.now, None);
            }
        } else {
            self.probes.push((self.now, failed, slow));
            self.judge_probes();
        }
    }

    pub(super) fn cancel(&mut self, pass: Pass) {
        if !pass.is_free() {
            self.totals.cancelled += 1;
            if pass.epoch == self.epoch {
                self.leases.retain(|&(lease, _)| lease != pass.lease);
            }
        }
    }

    pub(super) fn operate(&mut self, order: Order, lasts: Option<Duration>) -> Result<(), Illegal> {
        let now = self.now;
        if let Some(shows) = order.pins() {
            self.set_pin(Some((shows, lasts.map(|lasts| now + lasts))), now);
            return Ok(());
        }
        if let Some((shows, _)) = self.pin {
            if order != Order::Auto {
                return Err(Illegal::Pinned(shows));
            }
            self.set_pin(None, now);
            return Ok(());
        }
        match order {
            Order::Trip => self.open(now, lasts),
            Order::Reset => self.close(),
            Order::Probe if self.open_until.is_some() => self.try_again(now),
            Order::Probe if self.half_open_since.is_none() => return Err(Illegal::ProbeOfClosed),
            Order::Probe
            | Order::Auto
            | Order::ForceOpen
            | Order::ForceClosed
            | Order::Disabled
            | Order::MetricsOnly => {}
        }
        Ok(())
    }

    pub(super) fn shed(&mut self, on: bool) {
        self.shed = on;
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        let until = match self.shows() {
            Circuit::Open => self.open_until,
            Circuit::ForcedOpen => self.pin.and_then(|(_, until)| until),
            Circuit::Shed => return Some(Duration::from_secs(2)),
            Circuit::HalfOpen => match (self.policy.half_open, self.half_open_since) {
                (HalfOpen::Count { probes, .. }, _) if self.leases.len() >= probes as usize => {
                    self.leases.iter().map(|&(_, until)| until).min()
                }
                (HalfOpen::Rate { probes, max_wait, .. }, Some(since))
                    if self.leases.len() + self.probes.len() >= probes as usize =>
                {
                    Some(since + max_wait)
                }
                _ => None,
            },
            Circuit::Closed | Circuit::ForcedClosed | Circuit::Disabled | Circuit::MetricsOnly => None,
        };
        until.map(|until| until.since(self.now))
    }

    /// What is looked at, counted call by call.
    pub(super) fn counts(&self) -> Counts {
        let shows = self.shows();
        let by_probes = shows == Circuit::HalfOpen || shows == Circuit::Open && !self.probes.is_empty();
        if by_probes { count(&self.probes) } else { self.in_window() }
    }

    pub(super) const fn consecutive_failures(&self) -> u64 {
        self.since_success
    }

    fn in_window(&self) -> Counts {
        match self.policy.window {
            Window::Calls(size) => {
                let old = self.window.len().saturating_sub(size as usize);
                count(&self.window[old..])
            }
            Window::Time { last, buckets } => {
                let width = last.as_nanos() as u64 / u64::from(buckets);
                let bucket = |at: Tick| at.as_nanos() / width;
                let within =
                    self.window.iter().filter(|(at, ..)| bucket(*at) + u64::from(buckets) > bucket(self.now));
                count(&within.copied().collect::<Vec<_>>())
            }
        }
    }

    fn rule_holds(&self) -> bool {
        let counts = self.in_window();
        let (calls, policy) = (counts.calls as f64, &self.policy);
        let enough = policy.calls.holds(calls)
            || matches!(policy.window, Window::Calls(size) if counts.calls == u64::from(size));
        let failures = policy.failure_rate.holds(counts.failures as f64 / calls)
            && policy.failures.holds(counts.failures as f64);
        let slow = policy.slow_rate.is_some_and(|rate| rate.holds(counts.slow as f64 / calls));
        let streak = policy.consecutive_failures.is_some_and(|most| most.holds(self.since_success as f64));
        enough && (failures || slow) || streak
    }

    fn judge_probes(&mut self) {
        let counts = count(&self.probes);
        let good = match self.policy.half_open {
            HalfOpen::Count { failures, .. } if counts.failures >= u64::from(failures) => false,
            HalfOpen::Count { successes, .. } if counts.successes() >= u64::from(successes) => true,
            HalfOpen::Rate { probes, .. } if counts.calls >= u64::from(probes) => {
                let rate = |part: u64| part as f64 / counts.calls as f64;
                let slow = self.policy.slow_rate.is_some_and(|limit| limit.holds(rate(counts.slow)));
                !self.policy.failure_rate.holds(rate(counts.failures)) && !slow
            }
            HalfOpen::Count { .. } | HalfOpen::Rate { .. } => return,
        };
        if good { self.close() } else { self.open(self.now, None) }
    }

    fn open(&mut self, at: Tick, lasts: Option<Duration>) {
        let grown = self.policy.open_growth.powi(self.openings as i32);
        let grown = Duration::try_from_secs_f64(self.policy.open_for.as_secs_f64() * grown);
        let lasts = lasts.unwrap_or_else(|| grown.unwrap_or(Duration::MAX).min(self.policy.open_max));
        self.openings += 1;
        (self.open_until, self.half_open_since) = (Some(at + lasts), None);
        self.epoch += 1;
    }

    fn try_again(&mut self, at: Tick) {
        (self.open_until, self.half_open_since) = (None, Some(at));
        self.probes.clear();
        self.leases.clear();
        self.last_lease = 0;
        self.since_success = 0;
        self.epoch += 1;
    }

    fn close(&mut self) {
        (self.open_until, self.half_open_since) = (None, None);
        self.probes.clear();
        self.leases.clear();
        self.last_lease = 0;
        self.window.clear();
        (self.since_success, self.openings) = (0, 0);
        self.epoch += 1;
    }

    fn set_pin(&mut self, pin: Option<(Circuit, Option<Tick>)>, at: Tick) {
        if self.pin.map(|(shows, _)| shows) != pin.map(|(shows, _)| shows) {
            self.epoch += 1;
            if self.half_open_since.is_some() {
                self.half_open_since = Some(at);
                self.probes.clear();
                self.leases.clear();
                self.last_lease = 0;
            }
        }
        self.pin = pin;
    }
}

fn count(calls: &[Ended]) -> Counts {
    let of = |part: fn(&Ended) -> bool| calls.iter().filter(|&call| part(call)).count() as u64;
    Counts { calls: calls.len() as u64, failures: of(|call| call.1), slow: of(|call| call.2) }
}
