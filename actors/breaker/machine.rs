//! The circuit as a machine: what happened and when in, what to do out.
//!
//! Three things decide what it shows, each kept apart so that lifting one leaves the others as they are: its
//! *phase*, which the rule moves; a *shed*, which a pool's level puts on; and a *pin*, which an operator sets.
//!
//! An *epoch* begins whenever the phase or the pin changes. A call belongs to the epoch that admitted it; what it
//! says after that is counted as stale and changes nothing.
//!
//! Timers need nobody to run them: whatever is asked of the machine, what was due before is done first, at the
//! time it was due. So a machine whose timers run late, or never, decides the same.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    order::{Command, Illegal, Order, Pin},
    outcome::{Outcome, Reason, Rejection},
    policy::Policy,
    probes::{Decision, Probes},
    rule::judge,
    window::{Counts, Log},
};
use crate::{
    circuit::{Cause, Circuit},
    clock::Tick,
};

/// How soon a shed caller may come again: what the pool's level has to be calm for before it is lowered.
pub(super) const SHED_FOR: Duration = Duration::from_secs(2);
/// Changes that may wait to be told; the oldest is dropped first, and its number is missing then.
const UNTOLD: usize = 64;
/// After so many timers in a row that were due in the past (an idle circuit that half-opens and opens again by itself,
/// for hours), the next is taken as due now.
const CATCH_UP: u32 = 1024;

/// Epochs are counted in 24 bits: a call would have to last for 16 million of them to be taken for a later one.
pub(super) const EPOCHS: u32 = 0xff_ffff;

/// What an admitted call brings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    pub(super) epoch: u32,
    /// Its place among the probes; 0 if it is none.
    pub(super) lease: u32,
}

impl Pass {
    /// Of a call about which nothing is counted.
    pub(super) const FREE: Self = Self { epoch: u32::MAX, lease: 0 };

    pub(super) const fn is_free(self) -> bool {
        self.epoch == u32::MAX
    }

    pub(super) const fn is_probe(self) -> bool {
        self.lease != 0
    }
}

/// A change of what a circuit shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number, counted from 1 without a gap.
    pub number: u64,
    /// When it was due.
    pub at: Tick,
    /// What was shown before.
    pub from: Circuit,
    /// What is shown now.
    pub to: Circuit,
    /// Why.
    pub cause: Cause,
    /// True if it was only to be told: the rule would have opened a circuit whose operator said `metrics_only`.
    pub would: bool,
}

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls that were not admitted.
    pub rejected: u64,
    /// Calls that say nothing.
    pub ignored: u64,
    /// Calls without an outcome.
    pub cancelled: u64,
    /// Calls that came back after the circuit had changed, or after their place as a probe had been taken over.
    pub stale: u64,
}

/// The rule's own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Open { until: Tick },
    HalfOpen { since: Tick },
}

/// One circuit. Nothing in it reads a clock, and chance is a number it was given.
#[derive(Clone, Debug)]
pub struct Machine {
    policy: Arc<Policy>,
    /// The latest moment that it was told of.
    seen: Tick,
    phase: Phase,
    epoch: u32,
    window: Log,
    streak: u64,
    /// Whether the next success must be judged: it could open the circuit, or time has passed since the last one.
    must_judge: bool,
    probes: Probes,
    /// How often it opened since it was last closed.
    openings: u32,
    shed: bool,
    pin: Option<Box<Pin>>,
    /// Whether it has been told what `metrics_only` is to tell.
    told: bool,
    changes: u64,
    untold: VecDeque<Change>,
    random: u64,
    totals: Totals,
}

impl Machine {
    /// A closed circuit that has seen nothing. `seed` is where its jitter comes from.
    #[must_use]
    pub fn new(policy: Arc<Policy>, seed: u64) -> Self {
        Self {
            window: Log::new(policy.window),
            policy,
            seen: Tick::ZERO,
            phase: Phase::Closed,
            epoch: 0,
            streak: 0,
            must_judge: true,
            probes: Probes::default(),
            openings: 0,
            shed: false,
            pin: None,
            told: false,
            changes: 0,
            untold: VecDeque::new(),
            random: seed,
            totals: Totals::default(),
        }
    }

    /// May a call begin?
    ///
    /// # Errors
    /// [`Rejection`]: it must not.
    pub fn admit(&mut self, now: Tick) -> Result<Pass, Rejection> {
        self.tick(now);
        let admitted = match self.shows() {
            Circuit::Disabled => Ok(Pass::FREE),
            Circuit::Closed | Circuit::ForcedClosed | Circuit::MetricsOnly => Ok(self.pass(0)),
            Circuit::ForcedOpen => {
                let until = self.pin.as_ref().and_then(|pin| pin.until);
                Err((Reason::ForcedOpen, until.map(|until| until.since(now))))
            }
            Circuit::Shed => Err((Reason::Shed, Some(SHED_FOR))),
            Circuit::Open | Circuit::HalfOpen => self.try_it(now),
        };
        admitted.map_err(|(reason, retry_after)| {
            self.totals.rejected += 1;
            Rejection { reason, retry_after }
        })
    }

    /// An admitted call has an outcome; `slow` if it took strictly longer than `slow_call`.
    pub fn settle(&mut self, pass: Pass, outcome: Outcome, slow: bool, now: Tick) {
        if pass.is_free() {
            return;
        }
        self.tick(now);
        let failed = match outcome {
            Outcome::Success => false,
            Outcome::Failure => true,
            Outcome::Ignored => {
                self.totals.ignored += 1;
                self.give_back(pass);
                return;
            }
        };
        if pass.epoch != self.epoch || pass.lease != 0 && !self.probes.give_back(pass.lease) {
            self.totals.stale += 1;
            return;
        }
        if failed {
            self.totals.failures += 1;
            self.streak += 1;
        } else {
            self.totals.successes += 1;
            self.streak = 0;
        }
        match (self.phase, pass.lease) {
            (Phase::HalfOpen { .. }, 1..) => self.probed(failed, slow, now),
            (Phase::Closed | Phase::Open { .. } | Phase::HalfOpen { .. }, _) => {
                self.window.push(now, failed, slow);
                self.judge(now);
            }
        }
    }

    /// An admitted call ends without an outcome.
    pub fn cancel(&mut self, pass: Pass) {
        if !pass.is_free() {
            self.totals.cancelled += 1;
            self.give_back(pass);
        }
    }

    /// Does what is due by `now`, each at its time, but none before what has happened already. Whoever asks anything
    /// of the machine does so anyway.
    pub fn tick(&mut self, now: Tick) {
        let mut fired = 0;
        while let Some(due) = self.next_timer().filter(|&due| due <= now) {
            self.seen = if fired < CATCH_UP { self.seen.max(due) } else { now };
            self.fire(self.seen);
            fired += 1;
        }
        self.seen = self.seen.max(now);
    }

    /// When it next does something by itself.
    #[must_use]
    pub fn next_timer(&self) -> Option<Tick> {
        if let Some(pin) = &self.pin {
            return pin.until;
        }
        match self.phase {
            Phase::Closed => None,
            Phase::Open { until } => Some(until).filter(|_| self.policy.half_open_automatically),
            Phase::HalfOpen { since } => Probes::overdue(&self.policy, since).map(|(due, _)| due),
        }
    }

    /// Does what an operator asks for.
    ///
    /// # Errors
    /// [`Illegal`], if it makes no sense as things are; then nothing was changed.
    pub fn operate(&mut self, command: &Command, now: Tick) -> Result<(), Illegal> {
        self.tick(now);
        if let Some(shows) = command.order.pins() {
            self.set_pin(shows, command, now);
            return Ok(());
        }
        match (&self.pin, command.order) {
            (Some(_), Order::Auto) => self.unpin(Cause::Operator, now),
            (Some(pin), _) => return Err(Illegal::Pinned(pin.shows)),
            (None, Order::Trip) => self.open(command.lasts, Cause::Operator, now),
            (None, Order::Probe) => match self.phase {
                Phase::Closed => return Err(Illegal::ProbeOfClosed),
                Phase::Open { .. } => self.half_open(Cause::Operator, now),
                Phase::HalfOpen { .. } => {}
            },
            (None, Order::Reset) => self.close(Cause::Operator, now),
            // The others pin, and `auto` has nothing to release.
            (
                None,
                Order::Auto | Order::ForceOpen | Order::ForceClosed | Order::Disabled | Order::MetricsOnly,
            ) => {}
        }
        Ok(())
    }

    /// Refuses all calls because of a pool's level, or no longer. Doing either twice changes nothing.
    pub fn shed(&mut self, on: bool, now: Tick) {
        self.tick(now);
        let cause = if on { Cause::Pressure } else { Cause::Calm };
        self.change(cause, false, now, |machine| machine.shed = on);
    }

    /// From now on `policy` holds. What a window of another shape held is forgotten; all else goes on.
    pub fn reconfigure(&mut self, policy: Arc<Policy>, now: Tick) {
        self.tick(now);
        if policy.window != self.policy.window {
            self.window = Log::new(policy.window);
        }
        self.policy = policy;
        self.must_judge = true;
    }

    /// Successes that were counted elsewhere since the last time, none of them after [`Machine::frame_end`].
    pub(super) fn fold(&mut self, successes: u64) {
        if successes > 0 {
            self.window.push_successes(successes);
            self.totals.successes += successes;
            self.streak = 0;
        }
    }

    /// The next change that nobody has been told of.
    pub fn take_untold(&mut self) -> Option<Change> {
        self.untold.pop_front()
    }

    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// What it shows.
    #[must_use]
    pub fn shows(&self) -> Circuit {
        if let Some(pin) = &self.pin {
            return pin.shows;
        }
        if self.shed {
            return Circuit::Shed;
        }
        match self.phase {
            Phase::Closed => Circuit::Closed,
            Phase::Open { .. } => Circuit::Open,
            Phase::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }

    /// What it has counted: of a half-open circuit its probes, and of one that they opened again as well; else
    /// what the window holds.
    #[must_use]
    pub fn counts(&mut self, now: Tick) -> Counts {
        let frame = self.window.frame_end();
        let window = self.window.counts(now);
        self.must_judge |= self.window.frame_end() != frame;
        let probes = self.probes.counts();
        match self.shows() {
            Circuit::HalfOpen => probes,
            Circuit::Open if probes.calls > 0 => probes,
            Circuit::Closed
            | Circuit::Open
            | Circuit::ForcedOpen
            | Circuit::ForcedClosed
            | Circuit::Disabled
            | Circuit::MetricsOnly
            | Circuit::Shed => window,
        }
    }

    /// After what time a caller may try again who was refused by an open circuit.
    #[must_use]
    pub fn retry_after(&self, now: Tick) -> Option<Duration> {
        match self.shows() {
            Circuit::ForcedOpen => self.pin.as_ref().and_then(|pin| pin.until).map(|until| until.since(now)),
            Circuit::Shed => Some(SHED_FOR),
            Circuit::Open | Circuit::HalfOpen => self.settled_until().map(|until| until.since(now)),
            Circuit::Closed | Circuit::ForcedClosed | Circuit::Disabled | Circuit::MetricsOnly => None,
        }
    }

    /// Failures since the last success.
    #[must_use]
    pub const fn consecutive_failures(&self) -> u64 {
        self.streak
    }

    /// Since the start.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// What holds it where it is.
    #[must_use]
    pub fn pin(&self) -> Option<&Pin> {
        self.pin.as_deref()
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    pub(super) const fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) const fn must_judge(&self) -> bool {
        self.must_judge
    }

    /// Until when all calls get the same answer, which needs no asking; `None` if they must ask.
    pub(super) fn settled_until(&self) -> Option<Tick> {
        if let Some(pin) = &self.pin {
            let settled = matches!(pin.shows, Circuit::ForcedOpen | Circuit::Disabled);
            return settled.then(|| pin.until.unwrap_or(Tick::MAX));
        }
        match self.phase {
            _ if self.shed => Some(Tick::MAX),
            Phase::Closed => None,
            Phase::Open { until } => Some(until),
            Phase::HalfOpen { since } => self.probes.full_until(&self.policy, since),
        }
    }

    /// Until when successes need not say when they ended.
    pub(super) const fn frame_end(&self) -> Tick {
        self.window.frame_end()
    }

    const fn pass(&self, lease: u32) -> Pass {
        Pass { epoch: self.epoch, lease }
    }

    fn give_back(&mut self, pass: Pass) {
        if pass.epoch == self.epoch {
            self.probes.give_back(pass.lease);
        }
    }

    /// A call wants in while the circuit is open or half-open.
    fn try_it(&mut self, now: Tick) -> Result<Pass, (Reason, Option<Duration>)> {
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Err((Reason::Open, Some(until.since(now))));
            }
            self.half_open(Cause::Elapsed, now);
        }
        let Phase::HalfOpen { since } = self.phase else { return Ok(self.pass(0)) };
        match self.probes.take(&self.policy, since, now) {
            Some(lease) => Ok(self.pass(lease)),
            None => Err((Reason::HalfOpenFull, self.retry_after(now))),
        }
    }

    fn judge(&mut self, now: Tick) {
        let verdict = judge(&self.policy, self.window.counts(now), self.streak);
        self.must_judge = verdict.a_success_may_open;
        let Some(cause) = verdict.opens else { return };
        match self.pin.as_ref().map(|pin| pin.shows) {
            None => self.open(None, cause, now),
            Some(Circuit::MetricsOnly) if !self.told => {
                self.told = true;
                self.note(Circuit::MetricsOnly, Circuit::Open, cause, true, now);
            }
            Some(_) => {}
        }
    }

    fn probed(&mut self, failed: bool, slow: bool, now: Tick) {
        if let Some(decision) = self.probes.settle(&self.policy, failed, slow) {
            self.decide(decision, now);
        }
    }

    fn decide(&mut self, decision: Decision, now: Tick) {
        match decision {
            Decision::Close(cause) => self.close(cause, now),
            Decision::Reopen(cause) => self.open(None, cause, now),
        }
    }

    /// Something is due.
    fn fire(&mut self, now: Tick) {
        if self.pin.is_some() {
            return self.unpin(Cause::Expired, now);
        }
        match self.phase {
            Phase::Closed => {}
            Phase::Open { .. } => self.half_open(Cause::Elapsed, now),
            Phase::HalfOpen { since } => {
                if let Some((_, decision)) = Probes::overdue(&self.policy, since) {
                    self.decide(decision, now);
                }
            }
        }
    }

    fn open(&mut self, lasts: Option<Duration>, cause: Cause, now: Tick) {
        self.openings = self.openings.saturating_add(1);
        let random = self.random();
        let lasts = lasts.unwrap_or_else(|| self.policy.open_length(self.openings, random));
        self.change(cause, true, now, |machine| machine.phase = Phase::Open { until: now + lasts });
    }

    fn half_open(&mut self, cause: Cause, now: Tick) {
        self.probes = Probes::default();
        self.streak = 0;
        self.change(cause, true, now, |machine| machine.phase = Phase::HalfOpen { since: now });
    }

    fn close(&mut self, cause: Cause, now: Tick) {
        self.probes = Probes::default();
        self.window.clear();
        self.streak = 0;
        self.openings = 0;
        self.must_judge = true;
        self.change(cause, true, now, |machine| machine.phase = Phase::Closed);
    }

    fn set_pin(&mut self, shows: Circuit, command: &Command, now: Tick) {
        let pin = Pin {
            shows,
            until: command.lasts.map(|lasts| now + lasts),
            by: command.by.clone(),
            reason: command.reason.clone(),
        };
        let anew = self.pin.as_ref().is_none_or(|pin| pin.shows != shows);
        self.told &= !anew;
        self.restart_probes(now);
        self.change(Cause::Operator, anew, now, |machine| machine.pin = Some(Box::new(pin)));
    }

    fn unpin(&mut self, cause: Cause, now: Tick) {
        self.restart_probes(now);
        self.must_judge = true;
        self.change(cause, true, now, |machine| machine.pin = None);
    }

    /// The probes under way belong to an epoch that ends.
    fn restart_probes(&mut self, now: Tick) {
        if let Phase::HalfOpen { since } = &mut self.phase {
            *since = now;
            self.probes = Probes::default();
        }
    }

    /// Makes a change, begins an epoch with it, and notes what is shown if that is new.
    fn change(&mut self, cause: Cause, begins: bool, now: Tick, change: impl FnOnce(&mut Self)) {
        let from = self.shows();
        change(self);
        if begins {
            self.epoch = (self.epoch + 1) & EPOCHS;
        }
        let to = self.shows();
        if to != from {
            self.note(from, to, cause, false, now);
        }
    }

    fn note(&mut self, from: Circuit, to: Circuit, cause: Cause, would: bool, at: Tick) {
        self.changes += 1;
        if self.untold.len() == UNTOLD {
            self.untold.pop_front();
        }
        self.untold.push_back(Change { number: self.changes, at, from, to, cause, would });
    }

    /// The next of a fixed sequence of numbers from 0 to 1 (splitmix64).
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
