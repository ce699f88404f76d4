//! The gate's decisions: who enters, who gets a connection, who waits and who is refused.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    clock::Tick,
    gate::{
        Answer, Ask, Change, Claim, ClaimId, Effect, Job, JobId, Params, Policy, Reason, Refusal, Tally,
        Work,
        ceiling::{Ceilings, share},
        claim::State,
        dispatch::Side,
        estimate::Estimate,
        queue::{List, Queues},
        service::Services,
    },
    slab::Slab,
    user_limit,
};

/// Decides for one pool. Feed it what happens, in the order of time; it tells what follows.
///
/// Time that falls is taken for the time before it. Every call that can free a connection or change what may be
/// granted appends to `effects` what became of others: a claim is told of once, either by the [`Answer`] to
/// its own acquisition or, if that was [`Answer::Parked`], by one [`Effect`].
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) policy: Policy,
    pub(super) params: Params,
    pub(super) ceilings: Ceilings,
    pub(super) users: user_limit::Machine<List>,
    pub(super) services: Services,
    pub(super) estimate: Estimate,
    pub(super) jobs: Slab<Job>,
    pub(super) claims: Slab<Claim>,
    pub(super) queues: Queues,
    /// When each claim that waits or is parked gives up.
    pub(super) expiries: BTreeSet<(Tick, ClaimId)>,
    pub(super) in_use: u32,
    pub(super) long_in_use: u32,
    pub(super) outside: u32,
    /// Those that wait for a connection, by their class.
    pub(super) waiting: [u32; 4],
    pub(super) parked: u32,
    pub(super) tally: Tally,
    pub(super) now: Tick,
    sequence: u64,
    pub(super) closed: bool,
}

impl Machine {
    /// A gate in front of `limit` connections, none of them in use. `seed` spreads what refused callers are
    /// asked to wait.
    #[must_use]
    pub fn new(policy: Policy, limit: u32, seed: u64) -> Self {
        Self {
            params: Params::calm(policy.batch),
            ceilings: Ceilings::new(&policy, limit),
            users: user_limit::Machine::new(policy.users),
            services: Services::new(policy.long_hold, &policy.long_operations),
            estimate: Estimate::new(policy.retry_jitter.then_some(seed)),
            jobs: Slab::default(),
            claims: Slab::default(),
            queues: Queues::default(),
            expiries: BTreeSet::new(),
            in_use: 0,
            long_in_use: 0,
            outside: 0,
            waiting: [0; 4],
            parked: 0,
            tally: Tally::default(),
            now: Tick::ZERO,
            sequence: 0,
            closed: false,
            policy,
        }
    }

    /// Decides about a request or job, once. Its acquisitions are not refused afterwards, except by its own
    /// deadline.
    ///
    /// # Errors
    /// [`Refusal`]: nothing is counted for it and it must not be started.
    pub fn enter(&mut self, work: &Work<'_>, now: Tick, effects: &mut Vec<Effect>) -> Result<JobId, Refusal> {
        self.advance(now, effects);
        let operation = work.operation.map(|name| self.services.find(name));
        let job = self.job(work, operation);
        match self.objection(work, &job) {
            None => Ok(self.admit(job, work)),
            Some((reason, wait)) => Err(self.refuse(work.class, reason, wait)),
        }
    }

    /// Lets a request or job in without deciding about it: it began before anybody asked.
    pub fn join(&mut self, work: &Work<'_>, now: Tick, effects: &mut Vec<Effect>) -> JobId {
        self.advance(now, effects);
        let operation = work.operation.map(|name| self.services.find(name));
        let job = self.job(work, operation);
        self.admit(job, work)
    }

    /// A request or job has ended. What it still holds or waits for stays its own until it is given back.
    pub fn leave(&mut self, job: JobId, now: Tick, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        let Some(job) = self.jobs.remove(job) else { return };
        self.estimate.job_done(job.left);
        if let Some(operation) = job.operation {
            self.services.record_queries(operation, job.asked);
        }
        if let Some(user) = job.user {
            self.users.leave(user);
        }
    }

    /// Somebody wants a connection.
    pub fn acquire(&mut self, ask: &Ask<'_>, now: Tick, effects: &mut Vec<Effect>) -> Answer {
        self.advance(now, effects);
        let mut claim = self.claim(ask);
        if let Some((reason, wait)) = self.hopeless(&claim) {
            return Answer::Refused(self.refuse(claim.class, reason, wait));
        }
        claim.user = claim.user.or_else(|| self.user_of_loose(ask));
        let id = self.claims.insert(claim);
        if claim.user.is_some_and(|user| !self.users.may_hold(user)) {
            if let Some(refusal) = self.park(id) {
                return Answer::Refused(refusal);
            }
            return Answer::Parked(id);
        }
        self.count_active(id);
        // Whoever waits could not be granted, and a ceiling that stops them stops all whom they go before. So an
        // arrival that may be granted overtakes nobody.
        if self.may_grant(&claim) {
            self.grant(id);
            return Answer::Granted(id);
        }
        self.queue(id);
        self.dispatch(effects);
        self.answer(id, effects)
    }

    /// A connection that is taken without a decision: while the gate only watches, or is off.
    pub fn pass(&mut self, ask: &Ask<'_>, now: Tick, effects: &mut Vec<Effect>) -> ClaimId {
        self.advance(now, effects);
        let mut claim = self.claim(ask);
        claim.user = claim.user.or_else(|| self.user_of_loose(ask));
        let id = self.claims.insert(claim);
        self.count_active(id);
        self.grant(id);
        id
    }

    /// A connection was given back. Its hold is learnt from.
    pub fn release(&mut self, claim: ClaimId, now: Tick, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        let Some(&held) = self.claims.get(claim).filter(|claim| claim.state == State::Held) else { return };
        self.learn(&held);
        self.end(claim, effects);
    }

    /// The connection of a claim is there only now: its hold begins.
    pub fn connected(&mut self, claim: ClaimId, now: Tick) {
        if let Some(claim) = self.claims.get_mut(claim).filter(|claim| claim.state == State::Held) {
            claim.granted = claim.granted.max(now);
        }
    }

    /// The caller of an acquisition is gone: it waits no longer, or gives back a connection that it never used.
    pub fn abandon(&mut self, claim: ClaimId, now: Tick, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        if self.claims.get(claim).is_some() {
            self.tally.abandoned += 1;
            self.end(claim, effects);
        }
    }

    /// Lets what was to happen by now happen.
    pub fn tick(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        self.dispatch(effects);
    }

    /// The pool has this many connections from now on. What is held beyond them is not taken back, it only is
    /// not replaced.
    pub fn set_limit(&mut self, limit: u32, now: Tick, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        self.ceilings.set_limit(limit);
        self.dispatch(effects);
    }

    /// This many connections of the pool are in use by others than the gate's callers.
    pub fn set_outside(&mut self, in_use: u32, now: Tick, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        self.outside = in_use;
        self.dispatch(effects);
    }

    /// The server had no connection left: the limit falls to seven tenths, and grows back by one a second.
    pub fn server_full(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        self.ceilings.server_full(self.now);
        self.dispatch(effects);
    }

    /// Puts a published parameter in force.
    pub fn apply(&mut self, change: Change, now: Tick, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        self.params = self.params.with(change);
        match change {
            Change::CriticalOnly(true) => self.ceilings.hold_at(self.used(), self.now),
            Change::CriticalOnly(false) => self.ceilings.undo(self.now),
            Change::UserLimit(limit) => {
                self.users.set_limit(limit);
                self.hold_users_to_their_limit();
                self.unpark_all();
            }
            Change::Shed(_) | Change::OmitOptional(_) | Change::PauseDurable(_) | Change::Batch(_) => {}
        }
        self.dispatch(effects);
    }

    /// Grants everyone who waits, whatever the limit: the gate decides no longer.
    pub fn open(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        let parked: Vec<ClaimId> = self.in_order(State::Parked);
        for id in parked {
            self.move_on(id);
        }
        for id in self.in_order(State::Waiting) {
            self.unqueue(id);
            self.grant(id);
            effects.push(Effect::Granted(id));
        }
    }

    /// Refuses everyone who waits or comes from now on.
    pub fn close(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
        self.closed = true;
        for id in self.in_order(State::Waiting).into_iter().chain(self.in_order(State::Parked)) {
            self.turn_away(id, Reason::Closed, effects);
        }
    }

    /// Sets a claim aside until one of its user's own connections is given back.
    fn park(&mut self, id: ClaimId) -> Option<Refusal> {
        let &Claim { user: Some(user), job, class, .. } = self.claims.get(id)? else { return None };
        if job.is_none() && !self.users.may_park(user) {
            self.claims.remove(id);
            return Some(self.refuse(class, Reason::UserLimit, Duration::ZERO));
        }
        self.set_aside(id, user, Side::Back);
        None
    }

    fn answer(&mut self, id: ClaimId, effects: &mut Vec<Effect>) -> Answer {
        let own = effects.iter().position(|effect| effect.claim() == id);
        match own.map(|at| effects.remove(at)) {
            None => Answer::Parked(id),
            Some(Effect::Granted(id)) => Answer::Granted(id),
            Some(Effect::Refused(_, _, refusal)) => Answer::Refused(refusal),
        }
    }

    fn learn(&mut self, held: &Claim) {
        let hold = self.now.since(held.granted);
        self.tally.hold.record(hold);
        let job = held.job.and_then(|id| self.jobs.get_mut(id));
        self.services.record_hold(held.operation, job.as_ref().and_then(|job| job.operation), hold);
        if let Some(job) = job.filter(|job| job.left > 0) {
            job.left -= 1;
            self.estimate.job_done(1);
        }
    }

    /// Those in this state, in the order in which they began to wait.
    pub(super) fn in_order(&self, state: State) -> Vec<ClaimId> {
        let found = self.claims.iter().filter(|(_, claim)| claim.state == state);
        let mut found: Vec<_> = found.map(|(id, claim)| (claim.sequence, id)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// The most who may wait at one place without a promise.
    pub(super) fn most_waiting(&self) -> u32 {
        self.limit().max(1).saturating_mul(self.policy.queue_factor.max(1))
    }

    pub(super) fn nobody_waits(&self) -> bool {
        self.waiting == [0; 4]
    }

    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(super) fn most_long(&self) -> u32 {
        share(self.policy.long_share, self.limit())
    }
}
