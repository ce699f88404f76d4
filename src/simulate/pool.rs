//! One pool: the gate in front of it, and the monitor that watches both.
//!
//! The runtime's monitor looks at its gate every few milliseconds. This one looks after every event, so nothing
//! depends on when it looks, and it cannot become blind.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use selfheal_actors::{
    clock::Tick,
    gate::{self, Answer, Ask, Change, ClaimId, JobId, Refusal, Work},
    level::{Class, Level},
    pool_monitor::{self, Effect, Sample},
    signal::{Action, Name, Signal, Step},
};
use serde::Serialize;

use super::Output;

/// A pool to simulate.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name in the trace.
    pub name: Name,
    /// How many connections it has.
    pub max: u32,
    /// How its gate decides. What refused callers are asked to wait is spread at random only if this says so.
    pub gate: gate::Policy,
    /// When its level changes. There is always a sample, so `blind_after` has no effect.
    pub monitor: pool_monitor::Policy,
}

impl Pool {
    /// A pool of 100 with the default policies, and without chance.
    #[must_use]
    pub fn named(name: impl Into<Name>) -> Self {
        let gate = gate::Policy { retry_jitter: false, ..gate::Policy::default() };
        Self { name: name.into(), max: 100, gate, monitor: pool_monitor::Policy::default() }
    }
}

/// A pool's machines.
pub(super) struct Machines {
    name: Name,
    gate: gate::Machine,
    monitor: pool_monitor::Machine,
    /// Who waits outside the gate.
    outside: Waiters,
    /// What the trace calls the claims that hold or wait.
    names: HashMap<ClaimId, String>,
}

/// Who waits for a connection, all and critical.
#[derive(Clone, Copy, Default)]
pub(super) struct Waiters {
    pub(super) all: u32,
    pub(super) critical: u32,
}

/// A claim that waited has a connection.
#[derive(Serialize)]
struct Granted<'a> {
    granted: &'a str,
}

/// A claim that waited gets none.
#[derive(Serialize)]
struct Refused<'a> {
    refused: &'a str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[derive(Serialize)]
struct Pressure<'a> {
    event: &'static str,
    pool: &'a str,
    from: Level,
    to: Level,
    in_use: u32,
    max: u32,
}

/// So many statements of work that can wait would be ended at the server.
#[derive(Serialize)]
struct Cancelled<'a> {
    event: &'static str,
    pool: &'a str,
    statements: u32,
}

#[derive(Serialize)]
struct Acted<'a> {
    event: &'static str,
    action: &'static str,
    target: &'a str,
    step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<u32>,
}

impl Machines {
    pub(super) fn new(pool: Pool, seed: u64) -> Self {
        let monitor = pool_monitor::Policy { blind_after: Duration::MAX, ..pool.monitor };
        Self {
            name: pool.name,
            gate: gate::Machine::new(pool.gate, pool.max, seed),
            monitor: pool_monitor::Machine::new(monitor),
            outside: Waiters::default(),
            names: HashMap::new(),
        }
    }

    pub(super) fn next_timer(&self) -> Option<Tick> {
        let timers = [self.gate.next_timer(), self.monitor.next_timer()];
        timers.into_iter().flatten().filter(|&at| at < Tick::MAX).min()
    }

    pub(super) fn timer(&mut self, now: Tick, out: &mut Output) {
        let mut effects = Vec::new();
        self.gate.tick(now, &mut effects);
        self.settle(effects, now, out);
    }

    /// Use of the pool that does not come from the gate.
    pub(super) fn outside(
        &mut self,
        in_use: u32,
        max: Option<u32>,
        waiting: Waiters,
        now: Tick,
        out: &mut Output,
    ) {
        let mut effects = Vec::new();
        if let Some(max) = max {
            self.gate.set_limit(max, now, &mut effects);
        }
        self.gate.set_outside(in_use, now, &mut effects);
        self.outside = waiting;
        self.settle(effects, now, out);
    }

    /// Decides about a job. What follows from it is told by [`settle`](Self::settle), after the answer.
    pub(super) fn enter(
        &mut self,
        work: &Work<'_>,
        now: Tick,
    ) -> (Result<JobId, Refusal>, Vec<gate::Effect>) {
        let mut effects = Vec::new();
        (self.gate.enter(work, now, &mut effects), effects)
    }

    pub(super) fn join(&mut self, work: &Work<'_>, now: Tick, out: &mut Output) -> JobId {
        let mut effects = Vec::new();
        let job = self.gate.join(work, now, &mut effects);
        self.settle(effects, now, out);
        job
    }

    pub(super) fn leave(&mut self, job: JobId, now: Tick, out: &mut Output) {
        let mut effects = Vec::new();
        self.gate.leave(job, now, &mut effects);
        self.settle(effects, now, out);
    }

    pub(super) fn acquire(&mut self, id: &str, ask: &Ask<'_>, now: Tick) -> (Answer, Vec<gate::Effect>) {
        let mut effects = Vec::new();
        let answer = self.gate.acquire(ask, now, &mut effects);
        if let Answer::Granted(claim) | Answer::Parked(claim) = answer {
            self.names.insert(claim, id.to_owned());
        }
        (answer, effects)
    }

    /// The caller gives back what it holds; if it still waits, it waits no longer.
    pub(super) fn end(&mut self, claim: ClaimId, how: End, now: Tick, out: &mut Output) {
        let mut effects = Vec::new();
        // One that waits has nothing to give back, and nobody is left who would.
        let waits = self.gate.expiry(claim).is_some();
        match how {
            End::Release if !waits => self.gate.release(claim, now, &mut effects),
            End::Release | End::Abandon => self.gate.abandon(claim, now, &mut effects),
        }
        self.names.remove(&claim);
        self.settle(effects, now, out);
    }

    /// Tells what became of others, and lets the monitor look until it has nothing more to say.
    pub(super) fn settle(&mut self, mut effects: Vec<gate::Effect>, now: Tick, out: &mut Output) {
        loop {
            for effect in effects.drain(..) {
                self.tell(effect, out);
            }
            let mut decided = VecDeque::from(self.monitor.on(self.sample(), now));
            if decided.is_empty() {
                return;
            }
            while let Some(effect) = decided.pop_front() {
                self.perform(effect, now, &mut effects, out);
            }
        }
    }

    fn tell(&mut self, effect: gate::Effect, out: &mut Output) {
        match effect {
            gate::Effect::Granted(claim) => {
                if let Some(granted) = self.names.get(&claim) {
                    out.write(Granted { granted });
                }
            }
            gate::Effect::Refused(claim, _, refusal) => {
                if let Some(refused) = self.names.remove(&claim) {
                    let retry_after_ms = in_ms(refusal.retry_after);
                    out.write(Refused { refused: &refused, reason: refusal.reason.name(), retry_after_ms });
                }
            }
        }
    }

    fn perform(&mut self, effect: Effect, now: Tick, effects: &mut Vec<gate::Effect>, out: &mut Output) {
        let pool = Name::clone(&self.name);
        match effect {
            Effect::LevelChanged { from, to, sample: Sample { in_use, max, waiting, .. }, reason: _ } => {
                out.write(Pressure { event: "pressure", pool: &pool, from, to, in_use, max });
                out.happened(Signal::Pressure { pool, from, to, in_use, max, waiting });
            }
            Effect::Act(action) => self.act(action, Step::Taken, now, effects, out),
            Effect::Undo(action) => self.act(action, Step::Undone, now, effects, out),
            Effect::Peak(Sample { in_use, max, .. }) => out.happened(Signal::Peak { pool, in_use, max }),
            Effect::Blind(blind) => out.happened(Signal::Blind { pool, blind }),
            // A trace has no statements; what was cancelled would end by a line of its own.
            Effect::Cancel(statements) => out.write(Cancelled { event: "cancel", pool: &pool, statements }),
        }
    }

    fn act(
        &mut self,
        action: Action,
        step: Step,
        now: Tick,
        effects: &mut Vec<gate::Effect>,
        out: &mut Output,
    ) {
        let word = match step {
            Step::Taken => "taken",
            Step::Undone => "undone",
        };
        let change = Change::of(action, step);
        let value = match change {
            Change::Batch(size) => Some(size),
            Change::UserLimit(limit) => limit,
            Change::Shed(_) | Change::CriticalOnly(_) | Change::OmitOptional(_) | Change::PauseDurable(_) => {
                None
            }
        };
        out.write(Acted { event: "action", action: action.name(), target: &self.name, step: word, value });
        let pool = Name::clone(&self.name);
        out.happened(Signal::Action { pool, action, step, would: false });
        self.gate.apply(change, now, effects);
    }

    /// The pool as its monitor sees it: deferred work waits for nobody's sake.
    fn sample(&self) -> Sample {
        let waiting = self.gate.waiting();
        let of = |class: Class| waiting[class.index()];
        let inside = of(Class::Critical) + of(Class::Normal) + of(Class::Sheddable);
        Sample {
            in_use: self.gate.used(),
            max: self.gate.limit(),
            waiting: inside.saturating_add(self.outside.all),
            waiting_critical: of(Class::Critical).saturating_add(self.outside.critical),
            // How long those outside have waited, nobody says.
            waiting_since: self.gate.pressed_since().filter(|_| self.outside.all == 0),
            critical_waiting_since: self.gate.critical_waiting_since(),
        }
    }
}

/// How a claim ends.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// Its caller gives the connection back.
    Release,
    /// Its caller is gone.
    Abandon,
}

pub(super) fn in_ms(wait: Option<Duration>) -> Option<u64> {
    wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}
