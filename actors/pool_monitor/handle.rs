//! What outlives the actor: the machine's state, what is still to be performed, and what others may read.
//!
//! A step is decided on a copy which replaces the machine only when it is complete, so a panic in between
//! leaves the state of before. What was decided is put into an outbox together with it and taken out *after* it
//! was performed. So whoever comes next (a restarted actor, or the guardian) goes on where the last one stopped:
//! an actor that is killed neither forgets an action nor repeats one. Only if applying an action itself panics
//! will it be applied again, which is why applying must be idempotent.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use metrics::counter;
use parking_lot::Mutex;

use super::{
    machine::{Effect, Effects, Machine, Sample},
    policy::Policy,
};
use crate::{
    clock::{Clock, Tick},
    level::{Level, Mode, ModeCell},
    signal::{Action, Name, Signal, Signals, Step},
    telemetry::WOULD_REJECT_TOTAL,
};

/// A pool, as its monitor knows it.
pub struct Pool {
    /// Its name.
    pub name: Name,
    /// When it is.
    pub clock: Clock,
    /// How far the runtime may go.
    pub mode: ModeCell,
    /// Who hears of what happens.
    pub signals: Signals,
    /// Looks at the pool; `None` if that is not possible at the moment. Called every 10 ms under pressure.
    pub look: Box<dyn Fn() -> Option<Sample> + Send + Sync>,
    /// Does an action or undoes it. Must be quick, must not block, and must be idempotent. It is called in mode
    /// `observe` as well, for the gate to move its shadow; it is up to the gate that nothing real follows.
    pub apply: Box<dyn Fn(Action, Step) + Send + Sync>,
    /// Ends up to so many statements of work that can wait, those that have run longest first. Must be quick and
    /// must not block.
    pub cancel: Box<dyn Fn(u32) + Send + Sync>,
    /// Resolves when the pool deserves a look earlier than planned: its first waiter, or a watermark crossed.
    pub pressed: Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The monitor of one pool. Cheap to clone; clones are the same monitor.
#[derive(Clone, Debug)]
pub struct Monitor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: Pool,
    state: Mutex<State>,
    performing: AtomicBool,
    level: AtomicU8,
    /// Nanoseconds of the last sample; 0 before the first.
    sampled_at: AtomicU64,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    /// The mode in which what is done at present was done.
    mode: Mode,
    outbox: VecDeque<(Effect, Mode)>,
}

impl Monitor {
    /// A monitor that has not looked yet.
    #[must_use]
    pub fn new(pool: Pool, policy: Policy) -> Self {
        let state = State { machine: Machine::new(policy), mode: pool.mode.get(), outbox: VecDeque::new() };
        Self(Arc::new(Shared {
            pool,
            state: Mutex::new(state),
            performing: AtomicBool::new(false),
            level: AtomicU8::new(Level::Normal as u8),
            sampled_at: AtomicU64::new(0),
        }))
    }

    /// Looks at the pool, decides, and performs what was decided. In mode `off` there is nothing to decide.
    pub fn look(&self) {
        let sample = (self.0.pool.look)();
        if sample.is_some() {
            self.0.sampled_at.store(self.0.pool.clock.now().as_nanos(), Ordering::Release);
        }
        self.step(|machine, mode, now| match (sample, mode) {
            (Some(sample), Mode::Act | Mode::Observe) => machine.on(sample, now),
            (None, _) | (_, Mode::Off) => machine.on_tick(now),
        });
    }

    /// Decides and performs what is due by now, without looking. Whoever finds that the actor no longer looks
    /// may call this: it is how a blind monitor lets go.
    pub fn tick(&self) {
        self.step(|machine, _, now| machine.on_tick(now));
    }

    /// From now on this policy holds.
    pub fn reconfigure(&self, policy: Policy) {
        self.step(|machine, _, now| machine.reconfigure(policy, now));
    }

    /// The pool's name.
    #[must_use]
    pub fn pool(&self) -> &Name {
        &self.0.pool.name
    }

    /// The level, in one load.
    #[must_use]
    pub fn level(&self) -> Level {
        match self.0.level.load(Ordering::Acquire) {
            0 => Level::Normal,
            1 => Level::Warning,
            _ => Level::Critical,
        }
    }

    /// When the pool was last seen: the monitor's heartbeat.
    #[must_use]
    pub fn sampled_at(&self) -> Option<Tick> {
        Some(self.0.sampled_at.load(Ordering::Acquire)).filter(|&nanos| nanos > 0).map(Tick::from_nanos)
    }

    /// The machine as it is, for what people are shown.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.0.state.lock().machine.clone()
    }

    pub(super) fn pressed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        (self.0.pool.pressed)()
    }

    pub(super) fn now(&self) -> Tick {
        self.0.pool.clock.now()
    }

    fn step(&self, decide: impl FnOnce(&mut Machine, Mode, Tick) -> Effects) {
        let (now, mode) = (self.now(), self.0.pool.mode.get());
        {
            let mut state = self.0.state.lock();
            let mut next = state.machine.clone();
            // What was only pretended must not be undone for real, nor the reverse: a new mode starts afresh.
            let lifted = if mode == state.mode { Effects::new() } else { next.lift(now) };
            let decided = decide(&mut next, mode, now);
            let old = std::mem::replace(&mut state.mode, mode);
            state.outbox.extend(lifted.into_iter().map(|effect| (effect, old)));
            state.outbox.extend(decided.into_iter().map(|effect| (effect, mode)));
            self.0.level.store(next.level() as u8, Ordering::Release);
            state.machine = next;
        }
        self.perform();
    }

    /// Performs what is in the outbox, in order. One caller at a time does so, for all.
    fn perform(&self) {
        while let Some(turn) = Turn::take(&self.0.performing) {
            while let Some((effect, mode)) = self.next_effect() {
                self.perform_one(effect, mode);
                self.0.state.lock().outbox.pop_front();
            }
            drop(turn);
            // Whoever decided something before the turn was given back has left it to this caller.
            if self.next_effect().is_none() {
                return;
            }
        }
    }

    fn next_effect(&self) -> Option<(Effect, Mode)> {
        self.0.state.lock().outbox.front().copied()
    }

    fn perform_one(&self, effect: Effect, mode: Mode) {
        let pool = Arc::clone(&self.0.pool.name);
        let tell = |signal| self.0.pool.signals.emit(signal);
        let apply = |action: Action, step| {
            (self.0.pool.apply)(action, step);
            if mode == Mode::Observe && step == Step::Taken {
                counter!(WOULD_REJECT_TOTAL.name, "what" => action.name()).increment(1);
            }
            let pool = Arc::clone(&self.0.pool.name);
            tell(Signal::Action { pool, action, step, would: mode == Mode::Observe });
        };
        match effect {
            Effect::LevelChanged { from, to, reason: _, sample: Sample { in_use, max, waiting, .. } } => {
                tell(Signal::Pressure { pool, from, to, in_use, max, waiting });
            }
            Effect::Act(action) => apply(action, Step::Taken),
            Effect::Undo(action) => apply(action, Step::Undone),
            Effect::Peak(Sample { in_use, max, .. }) => tell(Signal::Peak { pool, in_use, max }),
            Effect::Blind(blind) => tell(Signal::Blind { pool, blind }),
            Effect::Cancel(statements) if mode == Mode::Observe => {
                counter!(WOULD_REJECT_TOTAL.name, "what" => "cancel").increment(statements.into());
            }
            Effect::Cancel(statements) => (self.0.pool.cancel)(statements),
        }
    }
}

/// The right to perform. Given back when dropped, so a panic does not take it along.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(flag: &'a AtomicBool) -> Option<Self> {
        let free = flag.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok();
        free.then_some(Self(flag))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
