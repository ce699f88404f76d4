//! What the handles of one gate share: the machine under its lock, and what follows once the lock is free.
//!
//! Every event is one visit: lock, decide, collect who is to be woken and told, unlock, wake and tell. So no
//! code of anybody else ever runs under the lock, and a waker may come straight back in.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    task::Waker,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    clock::{Clock, Tick},
    gate::{
        Answer, Ask, ClaimId, Effect, Hold, JobId, Machine, Params, Policy, Reason, Refusal, Stats, Tally,
        Work, params,
        seats::{Seat, Seats},
        slot::{Outcome, Slot},
    },
    level::{Class, Mode, ModeCell},
    signal::{Name, Signal, Signals},
};

/// Somebody got no connection, or would have got none.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Of which class.
    pub class: Class,
    /// Why.
    pub reason: Reason,
    /// On whose behalf.
    pub user: Option<Name>,
    /// The gate only watches: it was not refused in truth.
    pub would: bool,
}

type OnRefused = Box<dyn Fn(&Refused) + Send + Sync>;

/// One gate.
pub(super) struct Shared {
    pub(super) pool: Name,
    pub(super) clock: Clock,
    pub(super) mode: ModeCell,
    pub(super) params: params::Cell,
    pub(super) calm: Params,
    pub(super) pressed: Notify,
    pub(super) on_refused: OnceLock<OnRefused>,
    signals: Signals,
    core: Mutex<Core>,
}

/// What is behind the lock.
pub(super) struct Core {
    pub(super) machine: Machine,
    pub(super) seats: Seats,
    pub(super) ticketless: u64,
    pub(super) leaks: u64,
    would: Tally,
    pool: Name,
    policy: Policy,
    mode: Mode,
    pressure: Pressure,
    effects: Vec<Effect>,
    after: After,
}

/// What is done when the lock is free again.
#[derive(Default)]
struct After {
    /// Most events wake nobody or one: neither allocates.
    wake: Option<Waker>,
    wakes: Vec<Waker>,
    refused: Vec<Refused>,
    signals: Vec<Signal>,
    pressed: bool,
}

/// What the monitor is woken for when it rises.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Pressure {
    waiting: bool,
    marks: u8,
}

impl Shared {
    pub(super) fn new(
        pool: Name,
        policy: Policy,
        machine: Machine,
        clock: Clock,
        mode: ModeCell,
        signals: Signals,
    ) -> Self {
        let calm = machine.params();
        let core = Core {
            machine,
            seats: Seats::default(),
            ticketless: 0,
            leaks: 0,
            would: Tally::default(),
            pool: Name::clone(&pool),
            policy,
            mode: mode.get(),
            pressure: Pressure::default(),
            effects: Vec::new(),
            after: After::default(),
        };
        Self {
            pool,
            clock,
            mode,
            params: params::Cell::new(calm),
            calm,
            pressed: Notify::new(),
            on_refused: OnceLock::new(),
            signals,
            core: Mutex::new(core),
        }
    }

    /// One visit: `event` decides under the lock, and what follows from it is done after it.
    pub(super) fn run<R>(&self, event: impl FnOnce(&mut Core, Tick) -> R) -> R {
        let (mode, now) = (self.mode.get(), self.clock.now());
        let mut core = self.core.lock();
        core.follow(mode, now);
        let result = event(&mut core, now);
        let after = core.settle();
        drop(core);
        self.perform(after);
        result
    }

    fn perform(&self, after: After) {
        after.wake.into_iter().chain(after.wakes).for_each(Waker::wake);
        if after.pressed {
            self.pressed.notify_one();
        }
        if let Some(tell) = self.on_refused.get() {
            after.refused.iter().for_each(tell);
        }
        after.signals.into_iter().for_each(|signal| self.signals.emit(signal));
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({})", self.pool)
    }
}

impl Core {
    pub(super) fn enter(&mut self, work: &Work<'_>, now: Tick) -> Result<JobId, Refusal> {
        if self.mode != Mode::Act {
            return Ok(self.join(work, now));
        }
        let entered = self.machine.enter(work, now, &mut self.effects);
        entered.inspect_err(|refusal| self.refused(work.class, work.user, refusal.reason))
    }

    pub(super) fn join(&mut self, work: &Work<'_>, now: Tick) -> JobId {
        self.machine.join(work, now, &mut self.effects)
    }

    pub(super) fn leave(&mut self, job: JobId, now: Tick) {
        self.machine.leave(job, now, &mut self.effects);
    }

    pub(super) fn acquire(&mut self, ask: &Ask<'_>, hold: &Hold, now: Tick) -> (Answer, Option<Arc<Slot>>) {
        let answer = if self.mode == Mode::Act {
            self.machine.acquire(ask, now, &mut self.effects)
        } else {
            Answer::Granted(self.machine.pass(ask, now, &mut self.effects))
        };
        let slot = match answer {
            Answer::Granted(claim) => {
                self.seat(claim, ask, hold);
                self.seats.granted(claim, now);
                None
            }
            Answer::Parked(claim) => {
                let slot = Arc::new(Slot::new(self.machine.expiry(claim).unwrap_or(now)));
                self.seat(claim, ask, hold).slot = Some(Arc::clone(&slot));
                Some(slot)
            }
            Answer::Refused(refusal) => {
                self.refused(ask.work.class, ask.work.user, refusal.reason);
                None
            }
        };
        (answer, slot)
    }

    pub(super) fn release(&mut self, claim: ClaimId, now: Tick) {
        let returned = self.seats.returned(claim, &self.pool, now);
        self.after.signals.extend(returned);
        self.machine.release(claim, now, &mut self.effects);
    }

    pub(super) fn abandon(&mut self, claim: ClaimId, now: Tick) {
        self.seats.leave(claim);
        self.machine.abandon(claim, now, &mut self.effects);
    }

    pub(super) fn tick(&mut self, now: Tick) {
        self.machine.tick(now, &mut self.effects);
        let leaks = self.seats.leaks(&self.pool, self.policy.leak_after, now);
        self.leaks += leaks.len() as u64;
        self.after.signals.extend(leaks);
    }

    /// The alarm of a parked claim has gone off.
    pub(super) fn alarm(&mut self, claim: ClaimId, now: Tick) {
        self.machine.tick(now, &mut self.effects);
        let expiry = self.machine.expiry(claim);
        if let Some(slot) = self.seats.get_mut(claim).and_then(|seat| seat.slot.as_ref()) {
            let woken = slot.set_alarm(expiry.unwrap_or(now));
            self.after.wake(woken);
        }
    }

    /// Something about the gate itself changes, in every machine.
    pub(super) fn each(&mut self, mut change: impl FnMut(&mut Machine, &mut Vec<Effect>)) {
        change(&mut self.machine, &mut self.effects);
    }

    pub(super) fn stats(&self) -> Stats {
        let machine = self.judged();
        Stats {
            pool: Name::clone(&self.pool),
            mode: self.mode,
            limit: machine.limit(),
            in_use: machine.used(),
            real_in_use: self.machine.in_use(),
            waiting: machine.waiting(),
            parked: machine.parked(),
            oldest_wait: machine.oldest_wait(),
            in_flight: machine.in_flight(),
            users: machine.users(),
            holders: self.seats.held(),
            ticketless: self.ticketless,
            leaks: self.leaks,
            params: machine.params(),
            acted: *self.machine.tally(),
            would: self.would,
        }
    }

    /// The machine whose word counts.
    pub(super) const fn judged(&self) -> &Machine {
        &self.machine
    }

    fn seat(&mut self, claim: ClaimId, ask: &Ask<'_>, hold: &Hold) -> &mut Seat {
        let mut seat = Seat::new(claim, hold, ask.work.class);
        seat.operation = hold.operation.as_ref().or(ask.work.operation).cloned();
        seat.user = ask.work.user.cloned();
        self.seats.seat(seat)
    }

    fn refused(&mut self, class: Class, user: Option<&Name>, reason: Reason) {
        self.after.refused.push(Refused { class, reason, user: user.cloned(), would: false });
    }

    /// Nobody waits for a decision that is not made any more.
    fn follow(&mut self, mode: Mode, now: Tick) {
        if mode == self.mode {
            return;
        }
        self.mode = mode;
        if mode != Mode::Act {
            self.machine.open(now, &mut self.effects);
        }
    }

    fn settle(&mut self) -> After {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Granted(claim) => {
                    let slot = self.seats.granted(claim, self.machine.now);
                    self.end(slot, Ok(()));
                }
                Effect::Refused(claim, class, refusal) => {
                    let Some(seat) = self.seats.leave(claim) else { continue };
                    self.refused(class, seat.user.as_ref(), refusal.reason);
                    self.end(seat.slot, Err(refusal));
                }
            }
        }
        // The list is kept, so that a grant allocates nothing.
        self.effects = effects;
        self.arm_first();
        self.after.pressed = self.has_risen();
        std::mem::take(&mut self.after)
    }

    fn end(&mut self, slot: Option<Arc<Slot>>, outcome: Outcome) {
        let woken = slot.and_then(|slot| slot.end(outcome));
        self.after.wake(woken);
    }

    /// While a ceiling rises by itself, whoever is next looks after it: no actor is needed for that.
    fn arm_first(&mut self) {
        let Some(step) = self.machine.next_step() else { return };
        let Some(first) = self.machine.first() else { return };
        let alarm = self.machine.expiry(first).map_or(step, |expiry| expiry.min(step));
        if let Some(slot) = self.seats.get_mut(first).and_then(|seat| seat.slot.as_ref()) {
            let woken = slot.set_alarm(alarm);
            self.after.wake(woken);
        }
    }

    fn has_risen(&mut self) -> bool {
        let machine = self.judged();
        let (used, limit) = (f64::from(machine.used()), f64::from(machine.limit()));
        let marks = [self.policy.warning, self.policy.critical, 1.0];
        let marks = marks.iter().filter(|&&mark| used >= mark * limit).count() as u8;
        let before = self.pressure;
        self.pressure = Pressure { waiting: !machine.nobody_waits(), marks };
        self.pressure.waiting && !before.waiting || self.pressure.marks > before.marks
    }
}

impl After {
    fn wake(&mut self, waker: Option<Waker>) {
        match (&self.wake, waker) {
            (_, None) => {}
            (None, waker) => self.wake = waker,
            (Some(_), Some(waker)) => self.wakes.push(waker),
        }
    }
}
