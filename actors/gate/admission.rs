//! What arrives: who may come in, and what a claim of theirs is like.

use std::time::Duration;

use crate::{
    clock::Tick,
    gate::{
        Ask, Claim, Job, JobId, Machine, Reason, Work,
        claim::State,
        queue::{Links, List, Place},
        service::Operation,
    },
    level::Class,
    user_limit::UserKey,
};

/// More queries than this, and a request or job is decided about as a whole.
const WHOLE: u32 = 2;

impl Machine {
    /// Why work may not enter, and how long its caller would have to wait, as far as that is known.
    pub(super) fn objection(&self, work: &Work<'_>, job: &Job) -> Option<(Reason, Duration)> {
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
                late.then(|| (Reason::Deadline, self.until_it_would_fit(needed, job)))
            }
            None => {
                let place = Place::of(job.served_as, self.services.is_long(job.operation));
                let full = self.queues.len(place) >= self.most_waiting() as usize;
                full.then(|| (Reason::QueueFull, self.drain(class)))
            }
        }
    }

    pub(super) fn job(&self, work: &Work<'_>, operation: Option<Operation>) -> Job {
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

    pub(super) fn admit(&mut self, mut job: Job, work: &Work<'_>) -> JobId {
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

    pub(super) fn claim(&mut self, ask: &Ask<'_>) -> Claim {
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
            queued: self.now,
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
            queued: self.now,
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
    pub(super) fn hopeless(&self, claim: &Claim) -> Option<(Reason, Duration)> {
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
    pub(super) fn user_of_loose(&mut self, ask: &Ask<'_>) -> Option<UserKey<List>> {
        let limited = ask.job.is_none() && !ask.nested && ask.work.class != Class::Critical;
        self.users.find_or_add(ask.work.user.filter(|_| limited)?)
    }
}
