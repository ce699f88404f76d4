//! A journal in memory, with leases by tokio's clock.

use std::{collections::BTreeMap, sync::Arc};

use futures_core::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::*;
use crate::batch_executor::journal::{
    Accepted, Claim, Claimed, Counts, End, Fence, Job, JobId, Journal, JournalError, Lease, NewJob, Progress,
    Settle, State, Trouble,
};
use crate::clock::Clock;

/// Jobs, and whether they can be written down.
#[derive(Default)]
pub(super) struct Memory {
    jobs: Mutex<BTreeMap<i64, Kept>>,
    broken: bool,
    /// How long it takes to accept.
    accepts_in: Duration,
    /// Whether every lease is lost.
    lost: bool,
}

struct Kept {
    new: NewJob,
    state: State,
    counts: Counts,
    cursor: Option<Vec<u8>>,
    error: Option<String>,
    token: i64,
    /// When it may be claimed: when its lease ends, if it has one.
    due: Tick,
    failures: u32,
    losses: u32,
}

fn now() -> Tick {
    Clock::tokio().now()
}

impl Memory {
    /// Nothing can be written down.
    pub(super) fn broken() -> Self {
        Self { broken: true, ..Self::default() }
    }

    /// It takes so long to accept.
    pub(super) fn slow(accepts_in: Duration) -> Self {
        Self { accepts_in, ..Self::default() }
    }

    /// Every lease is lost as soon as it is there.
    pub(super) fn lost() -> Self {
        Self { lost: true, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.lock().is_empty()
    }

    pub(super) fn ended(&self, id: i64) -> (State, Counts) {
        let jobs = self.jobs.lock();
        let job = jobs.get(&id).expect("it was accepted");
        (job.state, job.counts)
    }

    /// Attempts that failed, and leases that ended without a word.
    pub(super) fn troubles(&self, id: i64) -> (u32, u32) {
        let jobs = self.jobs.lock();
        let job = jobs.get(&id).expect("it was accepted");
        (job.failures, job.losses)
    }

    /// Another one has the job from now on.
    pub(super) fn lease(&self, id: i64) -> Lease {
        let mut jobs = self.jobs.lock();
        jobs.get_mut(&id).expect("it was accepted").lease(id, Duration::from_secs(30))
    }

    fn held<T>(&self, lease: Lease, how: impl FnOnce(&mut Kept) -> T) -> Fence {
        let mut jobs = self.jobs.lock();
        let held = |job: &&mut Kept| job.token == lease.token && job.state == State::Leased && !self.lost;
        match jobs.get_mut(&lease.job.0).filter(held) {
            Some(job) => {
                how(job);
                Fence::Held
            }
            None => Fence::Lost,
        }
    }
}

impl Kept {
    fn lease(&mut self, id: i64, ttl: Duration) -> Lease {
        (self.state, self.due) = (State::Leased, now() + ttl);
        self.token += 1;
        Lease { job: JobId(id), token: self.token }
    }
}

impl Journal for Memory {
    fn accept(&self, jobs: Vec<NewJob>) -> BoxFuture<'_, Result<Vec<Accepted>, JournalError>> {
        Box::pin(async move {
            sleep(self.accepts_in).await;
            if self.broken {
                return Err(JournalError { trouble: Trouble::Down, source: None });
            }
            let mut known = self.jobs.lock();
            let accept = |new: NewJob| {
                let same = |(_, kept): &(&i64, &Kept)| {
                    new.key.is_some() && kept.new.key == new.key && !kept.state.is_over()
                };
                if let Some((id, _)) = known.iter().find(same) {
                    return Accepted { id: JobId(*id), fresh: false, lease: None };
                }
                let id = known.len() as i64 + 1;
                let counts = Counts { total: new.total, ..Counts::default() };
                let due = now() + new.delay;
                let hold = new.hold;
                let mut kept = Kept {
                    new,
                    state: State::Pending,
                    counts,
                    cursor: None,
                    error: None,
                    token: 0,
                    due,
                    failures: 0,
                    losses: 0,
                };
                let lease = hold.map(|ttl| kept.lease(id, ttl));
                known.insert(id, kept);
                Accepted { id: JobId(id), fresh: true, lease }
            };
            Ok(jobs.into_iter().map(accept).collect())
        })
    }

    fn claim<'a>(&'a self, claim: &'a Claim<'a>) -> BoxFuture<'a, Result<Vec<Claimed>, JournalError>> {
        Box::pin(async move {
            let mut jobs = self.jobs.lock();
            let due = |job: &Kept| {
                !job.state.is_over() && job.due <= now() && claim.queues.contains(&job.new.queue)
            };
            let due = jobs.iter_mut().filter(|(_, job)| due(job)).take(claim.limit as usize);
            let claimed = due.map(|(id, job)| {
                job.losses += u32::from(job.state == State::Leased);
                Claimed {
                    lease: job.lease(*id, claim.ttl),
                    queue: Arc::clone(&job.new.queue),
                    payload: job.new.payload.clone(),
                    class: job.new.class,
                    owner: job.new.owner.clone(),
                    progress: Progress { cursor: None, counts: job.counts },
                    failures: job.failures,
                    losses: job.losses,
                    age: Duration::ZERO,
                }
            });
            Ok(claimed.collect())
        })
    }

    fn heartbeat<'a>(
        &'a self,
        leases: &'a [Lease],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Vec<Fence>, JournalError>> {
        let prolong = move |lease: &Lease| self.held(*lease, |job| job.due = now() + ttl);
        Box::pin(async move { Ok(leases.iter().map(prolong).collect()) })
    }

    fn checkpoint<'a>(
        &'a self,
        lease: Lease,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Fence, JournalError>> {
        Box::pin(async move {
            Ok(self.held(lease, |job| {
                assert!(progress.counts.remaining() <= job.counts.remaining(), "progress never falls");
                (job.counts, job.losses) = (progress.counts, 0);
                job.cursor.clone_from(&progress.cursor);
            }))
        })
    }

    fn settle(&self, ends: Vec<Settle>) -> BoxFuture<'_, Result<Vec<Fence>, JournalError>> {
        let settle = |Settle { lease, end }| {
            self.held(lease, |job| {
                let (state, after, failed) = match end {
                    End::Done { counts } => {
                        job.counts = counts;
                        (State::Done, Duration::ZERO, false)
                    }
                    End::Dead { error } => {
                        job.error = Some(error);
                        (State::Dead, Duration::ZERO, true)
                    }
                    End::Retry { after, error } => {
                        job.error = Some(error);
                        (State::Pending, after, true)
                    }
                    End::Release { after } => (State::Pending, after, false),
                };
                (job.state, job.due) = (state, now() + after);
                job.failures += u32::from(failed);
            })
        };
        Box::pin(async move { Ok(ends.into_iter().map(settle).collect()) })
    }

    fn look(&self, job: JobId) -> BoxFuture<'_, Result<Option<Job>, JournalError>> {
        Box::pin(async move {
            let jobs = self.jobs.lock();
            Ok(jobs.get(&job.0).map(|kept| Job {
                id: job,
                queue: Arc::clone(&kept.new.queue),
                key: None,
                owner: kept.new.owner.clone(),
                class: kept.new.class,
                state: kept.state,
                counts: kept.counts,
                failures: kept.failures,
                losses: kept.losses,
                cursor: kept.cursor.clone(),
                error: kept.error.clone(),
                age: Duration::ZERO,
            }))
        })
    }

    fn find<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<Job>, JournalError>> {
        Box::pin(async { Ok(None) })
    }

    fn due<'a>(&'a self, _: &'a [Name]) -> BoxFuture<'a, ()> {
        Box::pin(sleep(MS(100)))
    }
}
