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
        queue::{Links, List, Place, Queues},
        service::{Operation, Services},
    },
    level::Class,
    slab::Slab,
    user_limit::{self, UserKey},
};

/// More queries than this, and a request or job is decided about as a whole.
pub(super) const WHOLE: u32 = 2;

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
    closed: bool,
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
        if self.nobody_waits() && self.may_grant(&claim) {
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

    /// When [`tick`](Self::tick) will change something, if nothing else happens before.
    #[must_use]
    pub fn next_timer(&self) -> Option<Tick> {
        let expiry = self.expiries.first().map(|&(at, _)| at);
        expiry.into_iter().chain(self.next_step()).min()
    }

    /// When more may be granted without anything being given back.
    #[must_use]
    pub fn next_step(&self) -> Option<Tick> {
        if self.nobody_waits() { None } else { self.ceilings.next_step(self.now) }
    }

    /// Who is next, when more may be granted.
    #[must_use]
    pub fn first(&self) -> Option<ClaimId> {
        self.queues.first(&self.claims, self.policy.standing, self.now)
    }

    /// When the claim gives up waiting.
    #[must_use]
    pub fn expiry(&self, claim: ClaimId) -> Option<Tick> {
        self.claims.get(claim).filter(|claim| claim.state != State::Held).map(|claim| claim.expires)
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

    /// Connections held through the gate.
    #[must_use]
    pub const fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Connections of the pool in use: through the gate, and by others.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.in_use.saturating_add(self.outside)
    }

    /// Connections that may be in use at most, as of the last event.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.ceilings.limit(self.now)
    }

    /// Those that wait for a connection, by class. Who waits for their own user's connections is not among
    /// them: the pool has nothing to do with that.
    #[must_use]
    pub const fn waiting(&self) -> [u32; 4] {
        self.waiting
    }

    /// Those that wait for one of their own user's connections.
    #[must_use]
    pub const fn parked(&self) -> u32 {
        self.parked
    }

    /// Requests and jobs in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.jobs.len()
    }

    /// Users who have anything in flight.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// For how long the one who waits longest for a connection has waited.
    #[must_use]
    pub fn oldest_wait(&self) -> Duration {
        let arrivals = self.queues.iter(&self.claims).filter_map(|id| self.claims.get(id));
        arrivals.map(|claim| self.now.since(claim.arrived)).max().unwrap_or_default()
    }

    /// What was done so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The parameters in force.
    #[must_use]
    pub const fn params(&self) -> Params {
        self.params
    }

    /// Why work may not enter, and how long its caller would have to wait, as far as that is known.
    fn objection(&self, work: &Work<'_>, job: &Job) -> Option<(Reason, Duration)> {
        let class = work.class;
        if self.closed {
            return Some((Reason::Closed, Duration::ZERO));
        }
        if job.deadline <= self.now {
            return Some((Reason::Deadline, Duration::ZERO));
        }
        if class == Class::Critical {
            return None;
        }
        if self.is_shed(class) {
            return Some((Reason::Shed, self.drain(class)));
        }
        if work.user.is_some_and(|user| !self.users.may_enter(user)) {
            return Some((Reason::UserLimit, Duration::ZERO));
        }
        match job.whole {
            Some(queries) => {
                let needed = self.time_for_job(queries, job.operation);
                let late = self.now + needed > job.deadline;
                late.then(|| (Reason::Deadline, needed.saturating_sub(job.deadline.since(self.now))))
            }
            None => {
                let place = Place::of(job.served_as, self.services.is_long(job.operation));
                let full = self.queues.len(place) >= self.most_waiting() as usize;
                full.then(|| (Reason::QueueFull, self.drain(class)))
            }
        }
    }

    fn job(&self, work: &Work<'_>, operation: Option<Operation>) -> Job {
        let queries = work.queries.or_else(|| self.services.queries(operation?));
        let whole = queries.filter(|&n| n > WHOLE && work.class != Class::Critical);
        Job {
            class: work.class,
            served_as: self.served_as(work),
            user: None,
            operation,
            entered: self.now,
            deadline: work.deadline.unwrap_or(self.now + self.policy.patience),
            whole,
            left: whole.unwrap_or(0),
            asked: 0,
        }
    }

    fn admit(&mut self, mut job: Job, work: &Work<'_>) -> JobId {
        if job.class != Class::Critical {
            job.user = work.user.and_then(|user| self.users.enter(user));
        }
        self.estimate.job_came(job.left);
        self.tally.entered[job.class.index()] += 1;
        self.jobs.insert(job)
    }

    /// Retries yield to first tries while the pool is pressed.
    const fn served_as(&self, work: &Work<'_>) -> Class {
        match work.class {
            Class::Normal if work.attempt > 0 && self.params.shed => Class::Sheddable,
            Class::Critical | Class::Normal | Class::Sheddable | Class::Background => work.class,
        }
    }

    fn claim(&mut self, ask: &Ask<'_>) -> Claim {
        let operation = ask.operation.or(ask.work.operation).map(|name| self.services.find(name));
        let claim = match ask.job.and_then(|id| self.jobs.get_mut(id)) {
            Some(job) => {
                job.asked = job.asked.saturating_add(1);
                let job = *job;
                self.of_job(ask.job, &job, operation)
            }
            None => self.loose(ask, operation),
        };
        if ask.nested { self.nested(claim) } else { claim }
    }

    fn of_job(&self, id: Option<JobId>, job: &Job, operation: Option<Operation>) -> Claim {
        let operation = operation.or(job.operation);
        let long = job.class != Class::Critical && self.services.is_long(operation);
        let paced = job.whole.is_some() && job.served_as == Class::Normal && !long;
        Claim {
            job: id,
            class: job.class,
            served_as: job.served_as,
            user: job.user,
            operation,
            long,
            place: if paced { Place::Job } else { Place::of(job.served_as, long) },
            state: State::New,
            sequence: 0,
            arrived: self.now,
            granted: self.now,
            deadline: job.deadline,
            expires: job.deadline,
            due: self.due(job),
            links: Links::default(),
        }
    }

    /// When the query that a job has just asked for goes before others: they are spread evenly over most of the
    /// job's time, so that a job neither starves nor starves others of its class.
    fn due(&self, job: &Job) -> Tick {
        let Some(queries) = job.whole else { return job.entered };
        let nth = f64::from((job.asked - 1).min(queries)) / f64::from(queries);
        let after = self.policy.pace * nth * job.deadline.since(job.entered).as_secs_f64();
        job.entered + Duration::try_from_secs_f64(after).unwrap_or(Duration::MAX)
    }

    fn loose(&self, ask: &Ask<'_>, operation: Option<Operation>) -> Claim {
        let class = ask.work.class;
        let served_as = self.served_as(&ask.work);
        let long = class != Class::Critical && self.services.is_long(operation);
        let deadline = ask.work.deadline.unwrap_or(self.now + self.policy.patience);
        Claim {
            job: None,
            class,
            served_as,
            user: None,
            operation,
            long,
            place: Place::of(served_as, long),
            state: State::New,
            sequence: 0,
            arrived: self.now,
            granted: self.now,
            deadline,
            expires: deadline,
            due: self.now,
            links: Links::default(),
        }
    }

    /// Whoever holds a connection and needs another goes first, is not held to the user's limit, and gives up
    /// soon: while it waits, it gives nothing back.
    fn nested(&self, claim: Claim) -> Claim {
        let expires = claim.expires.min(self.now + self.policy.nested_wait);
        Claim { user: None, long: false, place: Place::Nested, expires, ..claim }
    }

    /// Why an acquisition is refused on arrival. What nobody decided about when it entered is decided about now.
    fn hopeless(&self, claim: &Claim) -> Option<(Reason, Duration)> {
        if self.closed {
            Some((Reason::Closed, Duration::ZERO))
        } else if claim.expires <= self.now {
            Some((Reason::Deadline, Duration::ZERO))
        } else if claim.job.is_none() && self.is_shed(claim.class) {
            Some((Reason::Shed, self.drain(claim.class)))
        } else {
            None
        }
    }

    const fn is_shed(&self, class: Class) -> bool {
        match class {
            Class::Critical | Class::Normal => false,
            Class::Sheddable => self.params.shed,
            Class::Background => self.params.pause_durable,
        }
    }

    /// The user behind an acquisition without a job. It must be counted next, or the user is never forgotten.
    fn user_of_loose(&mut self, ask: &Ask<'_>) -> Option<UserKey<List>> {
        let limited = ask.job.is_none() && !ask.nested && ask.work.class != Class::Critical;
        self.users.find_or_add(ask.work.user.filter(|_| limited)?)
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
