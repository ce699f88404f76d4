//! A circuit as its callers hold it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    call::{Call, Guarded},
    cell::Cell,
    latency::Latency,
    machine::{Machine, Pass, Totals},
    order::{Command, Illegal, Pin},
    outcome::{Outcome, Reason, Refused, Rejection},
    permit::Permit,
    policy::Policy,
    window::Counts,
};
use crate::{
    circuit::Circuit,
    clock::{Clock, Tick},
    histogram::Histogram,
    level::{Mode, ModeCell},
    signal::{Name, Signal, Signals},
    sync::AtomicU64,
};

/// What all circuits of a runtime share.
#[derive(Clone, Debug)]
pub struct Around {
    /// When it is.
    pub clock: Clock,
    /// How far the runtime may go. In mode `observe` a circuit decides, and every call passes; in mode `off` every
    /// call passes and nothing is counted.
    pub mode: ModeCell,
    /// Who hears of changes.
    pub signals: Signals,
}

/// The circuit of one endpoint. Clones are the same circuit, and it works with every actor dead: it opens in the
/// call that decides so, and half-opens in the call that finds its time over.
///
/// No method waits for anything but the circuit's own lock, which calls that succeed in time, and calls that an
/// open circuit refuses, do not take.
#[derive(Clone)]
pub struct Breaker(Arc<Shared>);

struct Shared {
    cell: Cell,
    name: Name,
    around: Around,
    /// Calls that would not have been admitted, in mode `observe`.
    would_reject: AtomicU64,
    latency: Latency,
    telling: AtomicBool,
    /// Called when something may be due earlier than it was.
    changed: Box<dyn Fn() + Send + Sync>,
}

/// What a circuit looks like at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The endpoint.
    pub name: Name,
    /// What it shows.
    pub shows: Circuit,
    /// What it has counted: while it is half-open its probes, else what its window holds.
    pub counts: Counts,
    /// The share that failed; `None` below the least number of calls.
    pub failure_rate: Option<f64>,
    /// The share that was slow; `None` below the least number of calls.
    pub slow_rate: Option<f64>,
    /// Failures since the last success.
    pub consecutive_failures: u64,
    /// Since the start.
    pub totals: Totals,
    /// Calls that would not have been admitted, in mode `observe`, since the start.
    pub would_reject: u64,
    /// How long calls took since the start, by how they ended, of those that somebody has measured; empty if nobody
    /// has.
    pub durations: Vec<(Outcome, Histogram)>,
    /// After what time a refused caller may try again; `None` if none is refused, or nobody knows.
    pub retry_after: Option<Duration>,
    /// What an operator holds it at.
    pub pin: Option<Pin>,
}

impl Breaker {
    /// A closed circuit of `name`. `seed` is where its jitter comes from.
    #[must_use]
    pub fn new(name: impl Into<Name>, policy: Arc<Policy>, around: Around, seed: u64) -> Self {
        Self::watched(name, policy, around, seed, Box::new(|| {}))
    }

    /// The same, that calls `changed` when something may be due earlier than it was; that must be quick.
    pub(super) fn watched(
        name: impl Into<Name>,
        policy: Arc<Policy>,
        around: Around,
        seed: u64,
        changed: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self(Arc::new(Shared {
            cell: Cell::new(policy, seed),
            name: name.into(),
            around,
            would_reject: AtomicU64::new(0),
            latency: Latency::default(),
            telling: AtomicBool::new(false),
            changed,
        }))
    }

    /// May a call begin? Its permit must be [settled](Permit::settle) with how it ended; dropped without, the call
    /// counts as cancelled, and as failed if it is dropped by a panic.
    ///
    /// # Errors
    /// [`Rejection`]: it must not begin.
    #[inline]
    pub fn admit(&self) -> Result<Permit<&Self>, Rejection> {
        let pass = match self.pass_at_once() {
            Some(pass) => pass,
            None => match self.refused_at_once() {
                Some(refused) => return Err(refused.into()),
                None => self.pass()?,
            },
        };
        Ok(Permit::new(self, pass))
    }

    /// The same, with a permit that keeps the circuit alive: for what outlives the borrow, at the price of a count
    /// that all its holders share.
    ///
    /// # Errors
    /// [`Rejection`]: it must not begin.
    pub fn admit_owned(&self) -> Result<Permit<Self>, Rejection> {
        let pass = self.pass_at_once().map_or_else(|| self.pass(), Ok)?;
        Ok(Permit::new(self.clone(), pass))
    }

    /// Runs `call` if it may begin: `Ok` counts as success and `Err` as failure. Whether it may begin is decided
    /// when the future is first polled.
    ///
    /// Cancel safe: a future that is dropped half way counts as cancelled, and one that panics as failed.
    ///
    /// # Errors
    /// [`CallError`](super::CallError): it was not admitted, or it failed.
    #[inline]
    pub fn call<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        call: F,
    ) -> Call<'_, F, impl FnOnce(&Result<T, E>) -> Outcome + use<T, E, F>> {
        self.call_judged(call, Outcome::of)
    }

    /// The same, where `judge` says how it ended: a response that arrived can be a failure, and an error can be the
    /// caller's own.
    ///
    /// # Errors
    /// [`CallError`](super::CallError): it was not admitted, or it returned an error.
    #[inline]
    pub fn call_judged<T, E, F, J>(&self, call: F, judge: J) -> Call<'_, F, J>
    where
        F: Future<Output = Result<T, E>>,
        J: FnOnce(&Result<T, E>) -> Outcome,
    {
        Call::new(self, call, judge)
    }

    /// Guards a stream of results: it succeeds when it ends, fails with its first error, and counts as cancelled
    /// when it is dropped before.
    ///
    /// # Errors
    /// [`Rejection`]: it must not begin.
    pub fn wrap<S>(&self, stream: S) -> Result<Guarded<S>, Rejection> {
        Ok(Guarded::new(self.admit_owned()?, stream))
    }

    /// The endpoint that it guards.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// What it shows, in one load.
    #[must_use]
    pub fn shows(&self) -> Circuit {
        self.0.cell.shows()
    }

    /// Does what an operator asks for.
    ///
    /// # Errors
    /// [`Illegal`], if it makes no sense as things are; then nothing was changed.
    pub fn operate(&self, command: &Command) -> Result<(), Illegal> {
        self.ask(|machine, now| machine.operate(command, now))
    }

    /// Refuses all calls because of a pool's level, or no longer. Doing either twice changes nothing.
    pub fn shed(&self, on: bool) {
        self.ask(|machine, now| machine.shed(on, now));
    }

    /// From now on `policy` holds.
    pub fn reconfigure(&self, policy: Arc<Policy>) {
        self.ask(|machine, now| machine.reconfigure(policy, now));
    }

    /// Does what is due, and says when something is due next. Nobody needs to call it: a call does so as well.
    pub fn tick(&self) -> Option<Tick> {
        self.ask(|machine, now| {
            machine.tick(now);
            machine.next_timer()
        })
    }

    /// What it looks like now.
    #[must_use]
    pub fn view(&self) -> View {
        let (cell, name) = (&self.0.cell, Arc::clone(&self.0.name));
        let mut view = self.ask(|machine, now| View::of(name, machine, now));
        view.totals = cell.totals();
        view.would_reject = self.0.would_reject.load(Ordering::Relaxed);
        let took = |&outcome| Some((outcome, self.0.latency.of(outcome)?));
        view.durations = Outcome::ALL.iter().filter_map(took).collect();
        view
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.around.clock
    }

    /// When the call began, if anybody wants to know how long it takes.
    #[inline]
    pub(super) fn begun(&self) -> Option<Tick> {
        self.0.cell.slow_after().map(|_| self.0.around.clock.now())
    }

    #[inline]
    pub(super) fn settle(&self, pass: Pass, outcome: Outcome, begun: Option<Tick>) {
        let quick = outcome == Outcome::Success && begun.is_none();
        if !(quick && self.0.cell.count_success(pass, || self.0.around.clock.coarse())) {
            self.settle_and_tell(pass, outcome, begun);
        }
    }

    #[inline(never)]
    fn settle_and_tell(&self, pass: Pass, outcome: Outcome, begun: Option<Tick>) {
        let clock = &self.0.around.clock;
        match begun {
            Some(begun) => {
                // A precise moment is a coarse one as well.
                let now = clock.now();
                let took = now.as_nanos().saturating_sub(begun.as_nanos());
                self.settle_measured(pass, outcome, took, || now);
            }
            None => self.settle_as(pass, outcome, false, || clock.coarse()),
        }
    }

    /// A call that took `took` has ended, `time` says when.
    pub(super) fn settle_after(&self, pass: Pass, outcome: Outcome, took: Duration, time: impl Fn() -> Tick) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.settle_measured(pass, outcome, nanos, time);
    }

    /// The same in nanoseconds: what is measured on every call is not divided into seconds and put together again.
    #[inline]
    fn settle_measured(&self, pass: Pass, outcome: Outcome, nanos: u64, time: impl Fn() -> Tick) {
        let slow = self.0.cell.slow_after().is_some_and(|most| nanos > most);
        if !pass.is_free() {
            self.0.latency.record(outcome, nanos);
        }
        self.settle_as(pass, outcome, slow, time);
    }

    fn settle_as(&self, pass: Pass, outcome: Outcome, slow: bool, time: impl Fn() -> Tick) {
        if self.0.cell.settle(pass, outcome, slow, time) {
            self.tell();
        }
    }

    #[inline]
    pub(super) fn cancel(&self, pass: Pass) {
        self.0.cell.cancel(pass);
    }

    /// What most calls get. What is inlined here is little, so that a permit never goes through memory: written
    /// in parts and read as a whole, it would cost more than all the rest.
    #[inline]
    fn pass_at_once(&self) -> Option<Pass> {
        if self.0.around.mode.get() == Mode::Act { self.0.cell.admit_at_once() } else { None }
    }

    /// What those get whom an open circuit refuses: one call from the caller to the answer, which comes in registers.
    #[inline(never)]
    fn refused_at_once(&self) -> Option<Refused> {
        let around = &self.0.around;
        if around.mode.get() == Mode::Act { self.0.cell.settled(around.clock.coarse())?.err() } else { None }
    }

    /// What all others get.
    #[inline(never)]
    fn pass(&self) -> Result<Pass, Rejection> {
        let around = &self.0.around;
        match around.mode.get() {
            Mode::Act => match self.0.cell.admit_if_not_closed(around.clock.coarse()) {
                Ok(pass) if pass.is_probe() => Ok(self.told(pass)),
                Ok(pass) => Ok(pass),
                Err(rejection) => Err(self.rejected(rejection)),
            },
            Mode::Observe => Ok(self.observe()),
            Mode::Off => Ok(Pass::FREE),
        }
    }

    /// Decides, and lets the call pass whatever was decided.
    #[cold]
    fn observe(&self) -> Pass {
        let clock = &self.0.around.clock;
        match self.0.cell.admit(|| clock.coarse()) {
            Ok(pass) => self.told(pass),
            Err(_) => {
                self.0.would_reject.fetch_add(1, Ordering::Relaxed);
                self.told(Pass::FREE)
            }
        }
    }

    /// A call that half-opens a circuit tells of it.
    fn told(&self, pass: Pass) -> Pass {
        self.tell();
        pass
    }

    /// So does one that came too late for a place among the probes.
    fn rejected(&self, rejection: Rejection) -> Rejection {
        if rejection.reason == Reason::HalfOpenFull {
            self.tell();
        }
        rejection
    }

    fn ask<T>(&self, ask: impl FnOnce(&mut Machine, Tick) -> T) -> T {
        let now = self.0.around.clock.coarse();
        let (answer, changed) = self.0.cell.ask(|machine| ask(machine, now));
        if changed {
            self.tell();
        }
        answer
    }

    /// Tells of all changes, in order. One caller at a time does so, for all.
    #[cold]
    fn tell(&self) {
        let shared = &self.0;
        while shared.telling.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let turn = Turn(&shared.telling);
            while let Some(change) = shared.cell.ask(Machine::take_untold).0 {
                let would = change.would || shared.around.mode.get() == Mode::Observe;
                shared.around.signals.emit(Signal::Circuit {
                    endpoint: Arc::clone(&shared.name),
                    from: change.from,
                    to: change.to,
                    cause: change.cause,
                    would,
                });
            }
            drop(turn);
            // Whoever changed something before the turn was given back has left it to this caller.
            if !shared.cell.ask(|machine| machine.has_untold()).0 {
                break;
            }
        }
        (shared.changed)();
    }
}

/// The right to tell. Given back when dropped, so a panic does not take it along.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl View {
    /// What `machine` looks like at `now`, under the name of its endpoint.
    #[must_use]
    pub fn of(name: Name, machine: &mut Machine, now: Tick) -> Self {
        machine.tick(now);
        let counts = machine.counts(now);
        let rate = |part| counts.rate(part).filter(|_| machine.policy().enough(counts.calls));
        Self {
            name,
            shows: machine.shows(),
            failure_rate: rate(counts.failures),
            slow_rate: rate(counts.slow),
            counts,
            consecutive_failures: machine.consecutive_failures(),
            totals: machine.totals(),
            would_reject: 0,
            durations: Vec::new(),
            retry_after: machine.retry_after(now),
            pin: machine.pin().cloned(),
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("name", &self.0.name).field("shows", &self.shows()).finish()
    }
}
