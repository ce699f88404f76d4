//! What is behind the lock: the machine, its shadow, and who sits where.

use std::{mem, sync::Arc, time::Duration};

use crate::{
    clock::Tick,
    gate::{
        Answer, Ask, ClaimId, Effect, Hold, JobId, Machine, Policy, Reason, Refusal, Refused, Stats, Tally,
        Work,
        journal::{self, Call, Journal, KeptWork, Told},
        seats::{Seat, Seats},
        shadow::{Shadow, Would},
        shared::After,
        slot::{Outcome, Slot},
    },
    level::{Class, Mode},
    signal::Name,
};

/// What is behind the lock.
pub(super) struct Core {
    pub(super) machine: Machine,
    pub(super) seats: Seats,
    pub(super) ticketless: u64,
    pub(super) leaks: u64,
    shadow: Option<Box<Shadow>>,
    /// The decisions, while they are recorded.
    pub(super) journal: Option<Box<Journal>>,
    /// What was counted by shadows that are gone.
    would: Tally,
    pool: Name,
    policy: Policy,
    mode: Mode,
    pressure: Pressure,
    effects: Vec<Effect>,
    after: After,
}

/// What the monitor is woken for when it rises.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Pressure {
    waiting: bool,
    marks: u8,
}

impl Core {
    pub(super) fn new(pool: Name, policy: Policy, machine: Machine, mode: Mode) -> Self {
        let shadow = (mode == Mode::Observe).then(|| Box::new(Shadow::beside(&machine, Tally::default())));
        Self {
            machine,
            shadow,
            journal: None,
            would: Tally::default(),
            seats: Seats::default(),
            ticketless: 0,
            leaks: 0,
            pool,
            policy,
            mode,
            pressure: Pressure::default(),
            effects: Vec::new(),
            after: After::default(),
        }
    }

    /// Decides about a request or job.
    pub(super) fn enter(&mut self, work: &Work<'_>, now: Tick) -> Result<JobId, Refusal> {
        if self.mode != Mode::Act {
            return Ok(self.let_in(work, true, now));
        }
        let before = self.effects.len();
        let entered = self.machine.enter(work, now, &mut self.effects);
        self.note(before, Told::Entered(entered), || {
            let work = KeptWork::of(work);
            Box::new(move |machine, effects| Told::Entered(machine.enter(&work.get(), now, effects)))
        });
        entered.inspect_err(|refusal| self.refused(work.class, work.user, refusal.reason))
    }

    /// Lets in a request or job that began before anybody asked.
    pub(super) fn join(&mut self, work: &Work<'_>, now: Tick) -> JobId {
        self.let_in(work, false, now)
    }

    pub(super) fn leave(&mut self, job: JobId, now: Tick) {
        self.turn(move |machine, effects| machine.leave(job, now, effects));
        if let Some(shadow) = self.shadow.as_mut() {
            shadow.leave(job, now);
        }
    }

    pub(super) fn acquire(&mut self, ask: &Ask<'_>, hold: &Hold, now: Tick) -> (Answer, Option<Arc<Slot>>) {
        let answer = if self.mode == Mode::Act {
            let before = self.effects.len();
            let answer = self.machine.acquire(ask, now, &mut self.effects);
            self.note(before, Told::Answer(answer), || journal::acquisition(ask, now));
            answer
        } else {
            Answer::Granted(self.machine.pass(ask, now, &mut self.effects))
        };
        // The claim may lie where one lay that has just been turned away, who must be told before the seat is taken.
        self.carry_out();
        match answer {
            Answer::Granted(claim) => {
                self.seat(claim, ask, hold);
                self.seats.granted(claim, now);
                if let Some(shadow) = self.shadow.as_mut() {
                    shadow.acquire(claim, ask, self.machine.expected_hold(claim), now);
                }
                (answer, None)
            }
            Answer::Parked(claim) => {
                let slot = Arc::new(Slot::new(self.machine.expiry(claim).unwrap_or(now)));
                self.seat(claim, ask, hold).slot = Some(Arc::clone(&slot));
                (answer, Some(slot))
            }
            Answer::Refused(refusal) => {
                self.refused(ask.work.class, ask.work.user, refusal.reason);
                (answer, None)
            }
        }
    }

    /// The connection behind a permit is there only now: its hold begins.
    pub(super) fn connected(&mut self, claim: ClaimId, now: Tick) {
        self.seats.granted(claim, now);
        self.turn(move |machine, _| machine.connected(claim, now));
        if let Some(shadow) = self.shadow.as_mut() {
            shadow.connected(claim, now);
        }
    }

    pub(super) fn release(&mut self, claim: ClaimId, now: Tick) {
        let returned = self.seats.returned(claim, &self.pool, now);
        self.after.signals.extend(returned);
        self.turn(move |machine, effects| machine.release(claim, now, effects));
        if let Some(shadow) = self.shadow.as_mut() {
            shadow.release(claim, now);
        }
    }

    pub(super) fn abandon(&mut self, claim: ClaimId, now: Tick) {
        self.seats.leave(claim);
        self.turn(move |machine, effects| machine.abandon(claim, now, effects));
    }

    pub(super) fn tick(&mut self, now: Tick) {
        self.turn(move |machine, effects| machine.tick(now, effects));
        let leaks = self.seats.leaks(&self.pool, self.policy.leak_after, now);
        self.leaks += leaks.len() as u64;
        self.after.signals.extend(leaks);
    }

    /// The alarm of a parked claim has gone off.
    pub(super) fn alarm(&mut self, claim: ClaimId, now: Tick) {
        self.turn(move |machine, effects| machine.tick(now, effects));
        let expiry = self.machine.expiry(claim);
        if let Some(slot) = self.seats.get_mut(claim).and_then(|seat| seat.slot.as_ref()) {
            let woken = slot.set_alarm(expiry.unwrap_or(now));
            self.after.wake(woken);
        }
    }

    /// Something about the gate itself changes, in every machine.
    pub(super) fn each(&mut self, change: impl Fn(&mut Machine, &mut Vec<Effect>) + Copy + Send + 'static) {
        self.turn(change);
        if let Some(shadow) = self.shadow.as_mut() {
            shadow.change(change);
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let machine = self.judged();
        let waiting_since = machine.waiting_since();
        Stats {
            pool: Name::clone(&self.pool),
            mode: self.mode,
            limit: machine.limit(),
            in_use: machine.used(),
            real_in_use: self.machine.in_use(),
            waiting: machine.waiting(),
            parked: machine.parked(),
            pressed_since: machine.pressed_since(),
            critical_waiting_since: machine.critical_waiting_since(),
            oldest_wait: waiting_since.map_or(Duration::ZERO, |since| machine.now.since(since)),
            in_flight: machine.in_flight(),
            users: machine.users(),
            holders: self.seats.held(),
            ticketless: self.ticketless,
            leaks: self.leaks,
            params: machine.params(),
            acted: *self.machine.tally(),
            would: self.shadow.as_ref().map_or(self.would, |shadow| *shadow.machine().tally()),
        }
    }

    /// Every invariant that does not hold, by name.
    pub(super) fn invariants(&self) -> Vec<&'static str> {
        let mut broken = self.judged().invariants();
        if !self.machine.who_waits().eq(self.seats.waiting()) {
            broken.push("whoever waits can be told");
        }
        broken
    }

    /// The machine whose word counts.
    pub(super) fn judged(&self) -> &Machine {
        self.shadow.as_deref().map_or(&self.machine, Shadow::machine)
    }

    fn let_in(&mut self, work: &Work<'_>, decided: bool, now: Tick) -> JobId {
        let before = self.effects.len();
        let job = self.machine.join(work, now, &mut self.effects);
        self.note(before, Told::Entered(Ok(job)), || {
            let work = KeptWork::of(work);
            Box::new(move |machine, effects| Told::Entered(Ok(machine.join(&work.get(), now, effects))))
        });
        if let Some(shadow) = self.shadow.as_mut() {
            shadow.enter(job, work, decided, now);
        }
        job
    }

    /// A call of the machine that has no answer but its effects.
    fn turn(&mut self, call: impl Fn(&mut Machine, &mut Vec<Effect>) + Send + 'static) {
        let before = self.effects.len();
        call(&mut self.machine, &mut self.effects);
        self.note(before, Told::Nothing, || {
            Box::new(move |machine, effects| {
                call(machine, effects);
                Told::Nothing
            })
        });
    }

    /// Writes down a call, if calls are recorded: what it was told, and the effects since there were `before`.
    fn note(&mut self, before: usize, told: Told, call: impl FnOnce() -> Call) {
        if let Some(journal) = self.journal.as_mut() {
            journal.note(call(), told, &self.effects[before..]);
        }
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

    /// Follows the mode: nobody waits for a decision that is not made any more, and there is a shadow while the
    /// gate only watches.
    pub(super) fn follow(&mut self, mode: Mode, now: Tick) {
        if let Some(shadow) = self.shadow.as_mut() {
            shadow.catch_up(now);
        }
        if mode == self.mode {
            return;
        }
        self.mode = mode;
        if let Some(gone) = self.shadow.take() {
            self.would = *gone.machine().tally();
        }
        if mode != Mode::Act {
            self.machine.open(now, &mut self.effects);
        }
        if mode == Mode::Observe {
            self.shadow = Some(Box::new(Shadow::beside(&self.machine, self.would)));
        }
    }

    /// Tells those whose waiting has ended.
    fn carry_out(&mut self) {
        let mut effects = mem::take(&mut self.effects);
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
    }

    /// Ends a visit: what follows from it, once the lock is free.
    pub(super) fn settle(&mut self) -> After {
        self.carry_out();
        if let Some(shadow) = self.shadow.as_mut() {
            let would = |Would { class, reason, user }| Refused { class, reason, user, would: true };
            self.after.refused.extend(shadow.take_refused().into_iter().map(would));
        }
        self.arm_first();
        self.after.pressed = self.has_risen();
        mem::take(&mut self.after)
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
