//! What would happen if the gate acted.
//!
//! In mode `observe` real work goes through at once, so a machine that watched it would see no wait, and no end
//! of what it would have refused. The shadow lets the same machine decide about the same arrivals, and lives
//! on by itself: what it parks is held from the moment of its *virtual* grant for as long as the real work
//! took, and what it refuses brings it no load. A request that is over in truth stays in flight here until its
//! last query is. So what is counted agrees with what mode `act` would have done to the same work.
//!
//! When real work waits elsewhere (in sqlx's own queue, first come first served), its hold is known only after it
//! would have ended here. Such a hold is taken to last as long as its operation's do on average: otherwise what
//! stands in that queue would be pressure here that no acting gate would have. Work that has its connection when
//! it is granted here is simply waited for.
//!
//! Not the same: optional work that would have been left out is load here. A caller who waits asks for its second query later; here it asks when the real one does. And a
//! refused caller may come again, which nobody here can know.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    time::Duration,
};

use crate::{
    clock::Tick,
    gate::{Answer, Ask, Change, ClaimId, Effect, JobId, Machine, Reason, Tally, Work},
    level::Class,
    signal::Name,
};

/// The machine beside the real one, and what it must remember of work that is over in truth.
#[derive(Debug)]
pub(super) struct Shadow {
    machine: Machine,
    /// By the real job. A real job without an entry came before the shadow.
    jobs: HashMap<JobId, Inside>,
    /// By the real claim, until it is released in truth.
    claims: HashMap<ClaimId, ClaimId>,
    lives: HashMap<ClaimId, Life>,
    /// When what is over in truth ends here.
    endings: BTreeSet<(Tick, ClaimId)>,
    effects: Vec<Effect>,
    refused: Vec<Would>,
}

/// A connection that is there so soon after its permit was not waited for.
const AT_ONCE: Duration = Duration::from_millis(5);

/// A refusal that did not happen.
#[derive(Debug)]
pub(super) struct Would {
    pub(super) class: Class,
    pub(super) reason: Reason,
    pub(super) user: Option<Name>,
}

#[derive(Debug)]
enum Inside {
    Refused,
    Admitted { job: JobId, open: u32, left: bool },
}

/// One claim here.
#[derive(Debug)]
struct Life {
    real_job: Option<JobId>,
    user: Option<Name>,
    /// How long it is expected to hold.
    expected: Option<Duration>,
    /// When it ends here, as far as is known.
    ending: Option<Tick>,
    /// When the real one began to hold.
    began: Tick,
    granted: Option<Tick>,
    /// For how long the real one held, once that is known.
    held: Option<Duration>,
}

impl Shadow {
    /// A shadow beside a machine: of its policy, its limit, its parameters and what it has learnt. What the
    /// machine's callers hold already is not in it.
    pub(super) fn beside(machine: &Machine, tally: Tally) -> Self {
        Self {
            machine: machine.emptied(tally),
            jobs: HashMap::new(),
            claims: HashMap::new(),
            lives: HashMap::new(),
            endings: BTreeSet::new(),
            effects: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub(super) const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What would have been refused since this was last asked.
    pub(super) fn take_refused(&mut self) -> Vec<Would> {
        mem::take(&mut self.refused)
    }

    /// A real request or job went in, after a decision or without one.
    pub(super) fn enter(&mut self, real: JobId, work: &Work<'_>, decided: bool, now: Tick) {
        let entered = if decided {
            self.machine.enter(work, now, &mut self.effects)
        } else {
            Ok(self.machine.join(work, now, &mut self.effects))
        };
        let inside = match entered {
            Ok(job) => Inside::Admitted { job, open: 0, left: false },
            Err(refusal) => {
                self.would_refuse(work.class, refusal.reason, work.user.cloned());
                Inside::Refused
            }
        };
        self.jobs.insert(real, inside);
        self.follow_effects();
    }

    /// A real request or job is over.
    pub(super) fn leave(&mut self, real: JobId, now: Tick) {
        match self.jobs.get_mut(&real) {
            None => {}
            Some(Inside::Refused) => drop(self.jobs.remove(&real)),
            Some(Inside::Admitted { left, .. }) => {
                *left = true;
                self.leave_if_done(real, now);
            }
        }
    }

    /// A real connection was taken; it is expected to be held that long.
    pub(super) fn acquire(&mut self, real: ClaimId, ask: &Ask<'_>, expected: Option<Duration>, now: Tick) {
        let job = match ask.job.and_then(|job| self.jobs.get_mut(&job)) {
            Some(Inside::Refused) => return,
            Some(Inside::Admitted { job, open, .. }) => {
                *open += 1;
                Some(*job)
            }
            None => None,
        };
        let real_job = ask.job.filter(|_| job.is_some());
        let (claim, granted) = match self.machine.acquire(&Ask { job, ..*ask }, now, &mut self.effects) {
            Answer::Granted(claim) => (claim, Some(now)),
            Answer::Parked(claim) => (claim, None),
            Answer::Refused(refusal) => {
                self.would_refuse(ask.work.class, refusal.reason, ask.work.user.cloned());
                self.close(real_job, now);
                return;
            }
        };
        let life = Life {
            real_job,
            user: ask.work.user.cloned(),
            expected,
            ending: None,
            began: now,
            granted,
            held: None,
        };
        self.lives.insert(claim, life);
        self.claims.insert(real, claim);
        self.plan_ending(claim);
        self.follow_effects();
    }

    /// The real connection is there only now.
    pub(super) fn connected(&mut self, real: ClaimId, now: Tick) {
        let Some(&claim) = self.claims.get(&real) else { return };
        let Some(life) = self.lives.get_mut(&claim) else { return };
        life.began = now;
        if life.granted.is_none_or(|granted| now.since(granted) <= AT_ONCE) {
            life.expected = None;
            self.plan_ending(claim);
        }
    }

    /// A real connection was given back.
    pub(super) fn release(&mut self, real: ClaimId, now: Tick) {
        let Some(claim) = self.claims.remove(&real) else { return };
        let Some(life) = self.lives.get_mut(&claim) else { return };
        life.held = Some(now.since(life.began));
        self.plan_ending(claim);
        self.catch_up(now);
    }

    /// Lets everything happen that was to happen by `now`, each at its moment.
    pub(super) fn catch_up(&mut self, now: Tick) {
        while let Some(at) = self.next_moment().filter(|&at| at <= now) {
            // A timer comes before an ending of the same moment, as everywhere.
            self.machine.tick(at, &mut self.effects);
            self.follow_effects();
            if let Some(&ending @ (_, claim)) = self.endings.first().filter(|&&(end, _)| end <= at) {
                self.endings.remove(&ending);
                self.machine.release(claim, at, &mut self.effects);
                self.end(claim, at);
                self.follow_effects();
            }
        }
    }

    fn next_moment(&self) -> Option<Tick> {
        let ending = self.endings.first().map(|&(at, _)| at);
        ending.into_iter().chain(self.machine.next_timer()).min()
    }

    /// Something about the gate itself changes.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Machine, &mut Vec<Effect>)) {
        change(&mut self.machine, &mut self.effects);
        self.follow_effects();
    }

    fn follow_effects(&mut self) {
        let now = self.machine.now;
        let mut effects = mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Granted(claim) => {
                    if let Some(life) = self.lives.get_mut(&claim) {
                        life.granted = Some(now);
                        self.plan_ending(claim);
                    }
                }
                Effect::Refused(claim, class, refusal) => {
                    let user = self.lives.get(&claim).and_then(|life| life.user.clone());
                    self.would_refuse(class, refusal.reason, user);
                    self.end(claim, now);
                }
            }
        }
        self.effects = effects;
    }

    /// What was granted ends when it has held as long as the real one did, or, until that is known, as long as is
    /// expected.
    fn plan_ending(&mut self, claim: ClaimId) {
        let Some(life) = self.lives.get_mut(&claim) else { return };
        let held = life.held.or(life.expected);
        let ending = life.granted.zip(held).map(|(granted, held)| granted + held);
        if let Some(before) = mem::replace(&mut life.ending, ending) {
            self.endings.remove(&(before, claim));
        }
        self.endings.extend(ending.map(|at| (at, claim)));
    }

    fn end(&mut self, claim: ClaimId, now: Tick) {
        if let Some(life) = self.lives.remove(&claim) {
            self.close(life.real_job, now);
        }
    }

    fn close(&mut self, real_job: Option<JobId>, now: Tick) {
        let Some(real) = real_job else { return };
        if let Some(Inside::Admitted { open, .. }) = self.jobs.get_mut(&real) {
            *open = open.saturating_sub(1);
        }
        self.leave_if_done(real, now);
    }

    fn leave_if_done(&mut self, real: JobId, now: Tick) {
        if let Some(&Inside::Admitted { job, open: 0, left: true }) = self.jobs.get(&real) {
            self.jobs.remove(&real);
            self.machine.leave(job, now, &mut self.effects);
        }
    }

    fn would_refuse(&mut self, class: Class, reason: Reason, user: Option<Name>) {
        self.refused.push(Would { class, reason, user });
    }
}

impl Machine {
    /// The same gate with nobody in it.
    fn emptied(&self, tally: Tally) -> Self {
        let mut machine = Self::new(self.policy.clone(), 0, 0);
        machine.ceilings = self.ceilings.clone();
        machine.services = self.services.clone();
        machine.outside = self.outside;
        machine.now = self.now;
        machine.tally = tally;
        let mut effects = Vec::new();
        machine.apply(Change::UserLimit(self.params.user_limit), self.now, &mut effects);
        machine.params = self.params;
        machine
    }
}
