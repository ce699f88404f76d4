//! Jobs that nobody works on are taken up: what a process has left behind that ended, and what was put off.
//!
//! Each journal is looked after by itself, so that a database which is down keeps no other waiting. What is claimed is
//! worked on by [`Batches`], like everything else; so much is claimed as there is room for, and nothing while the pool is
//! at level critical, because what is claimed here is claimed by nobody else.
//!
//! Jobs are taken up in every mode: they are promises.
//!
//! **Whose fault is it?** A process that is killed loses the leases of all its jobs, and a job that kills its process
//! looks like those beside it: a service that crashes at each start, or is killed sooner than it gets to them, would
//! give up all of them in the end. So a job that has been lost a quarter as often as it may ([`Tenure::suspects`]) is
//! begun by itself: the others are given back, and until it has got on by a chunk, which clears it, or for as long as
//! a lease, nothing else is taken up. What is under way already goes on beside it: that has got on lately. Sixty jobs
//! of which one is to blame cost twenty crashes, and that one job. For the same reason a process that has just begun
//! takes up one job, then two, then four: one that ends soon has lost few, and where the first is such a job there is
//! nothing to give back.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{
    handle::{Batches, Operation, Work},
    journal::{Claim, Claimed, End, Journal, Settle},
    machine::{Attempt, RUNS},
    policy::Policy,
};
use crate::{
    clock::Tick,
    signal::{BatchEvent, Name},
};

/// How long until a job is taken up again for which there was no room in the end.
const CROWDED: Duration = Duration::from_secs(1);
/// A pool that is at level critical, or full, is looked at again after so long, if nothing is heard of it.
const FULL: Duration = Duration::from_secs(1);

/// Makes the work of a job from its payload, or says why it cannot. It is called before each job, on the host's runtime.
pub type Make = Arc<dyn Fn(&Claimed) -> Result<Work, String> + Send + Sync>;

/// What is done with the jobs of one queue.
#[derive(Clone)]
pub struct Handler {
    /// Makes the work of a job.
    pub make: Make,
    /// Whether an owner has one job at a time here, which a second call of the same operation joins. If not, jobs know
    /// nothing of each other, and each is in one piece.
    pub one_each: bool,
}

/// Jobs of one pool, and who does what is written in them. Each queue is a kind of operation that is
/// [registered](Batches::register).
#[derive(Clone)]
pub struct Source {
    /// The pool whose level says how many are taken up.
    pub pool: Name,
    /// Where they are written down.
    pub journal: Arc<dyn Journal>,
    /// By queue.
    pub handlers: BTreeMap<Name, Handler>,
}

/// A job that was begun by itself.
struct Alone {
    kind: Name,
    caller: String,
    /// For no longer than this.
    until: Tick,
}

/// Where jobs come from. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    pub(super) batches: Batches,
    pub(super) sources: Arc<[Source]>,
}

impl Intake {
    /// Jobs from these sources are worked on by `batches`.
    #[must_use]
    pub fn new(batches: Batches, sources: Vec<Source>) -> Self {
        let sources = sources.into_iter().filter(|source| !source.handlers.is_empty()).collect();
        Self { batches, sources }
    }

    /// What is taken up on this pool, by name.
    pub fn handlers<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Name> {
        self.sources
            .iter()
            .filter(move |source| *source.pool == *pool)
            .flat_map(|source| source.handlers.keys())
    }

    /// Takes up the jobs of a source, for as long as it is polled. What was claimed by a call that is dropped comes back
    /// when its lease is over.
    pub(super) async fn take_up(self, source: Source) {
        let Source { pool, journal, handlers } = &source;
        let ttl = self.batches.0.tenure.ttl;
        let (mut changes, mut failures) = (self.batches.changes(), 0);
        let (mut alone, mut most): (Option<Alone>, usize) = (None, 1);
        loop {
            changes.mark_unchanged();
            let (queues, room) = self.batches.room(pool, handlers.keys());
            let limit = u32::try_from(room.min(most)).unwrap_or(u32::MAX);
            alone = alone.filter(|alone| self.is_at_work(alone));
            if limit == 0 || queues.is_empty() || alone.is_some() {
                drop(tokio::time::timeout(FULL, changes.changed()).await);
                continue;
            }
            match journal.claim(&Claim { queues: &queues, limit, ttl }).await {
                Ok(claimed) => {
                    failures = 0;
                    let none = claimed.is_empty();
                    alone = self.begin(&source, claimed).await;
                    most = if alone.is_some() { 1 } else { RUNS.min(2 * most) };
                    if none {
                        journal.due(&queues).await;
                    }
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(target: "selfheal", %pool, "Jobs are not taken up: failed to {error}");
                    }
                    failures += 1;
                    tokio::time::sleep(Policy::default().wait(failures)).await;
                }
            }
        }
    }

    /// Begins what was claimed. If some of it may take the process down, the first of that, which is given back, and no other.
    async fn begin(&self, source: &Source, claimed: Vec<Claimed>) -> Option<Alone> {
        let tenure = &self.batches.0.tenure;
        let suspect = claimed.iter().position(|job| tenure.suspects(job));
        let (mut ends, mut alone) = (Vec::with_capacity(claimed.len()), None);
        for (at, job) in claimed.into_iter().enumerate() {
            let lease = job.lease;
            let begun = if suspect.is_some_and(|suspect| suspect != at) {
                Err(End::Release { after: Duration::ZERO })
            } else {
                self.begin_one(source, job)
            };
            match begun {
                Ok((kind, caller)) if suspect.is_some() => {
                    alone = Some(Alone { kind, caller, until: self.batches.now() + tenure.ttl });
                }
                Ok(_) => {}
                Err(end) => ends.push(Settle { lease, end }),
            }
        }
        if !ends.is_empty() {
            // Those whose end is not written come back when their leases are over.
            drop(source.journal.settle(ends).await);
        }
        alone
    }

    /// Whether it is still to be seen what becomes of it.
    fn is_at_work(&self, Alone { kind, caller, until }: &Alone) -> bool {
        self.batches.now() < *until
            && self.batches.read(|machine| machine.is_at_its_first_chunk(kind, caller))
    }

    /// Says by which kind and caller it is known.
    fn begin_one(&self, source: &Source, job: Claimed) -> Result<(Name, String), End> {
        let tenure = &self.batches.0.tenure;
        if let Some(end) = tenure.lost(&job) {
            return Err(end);
        }
        let handler = source.handlers.get(&job.queue).ok_or(End::Release { after: CROWDED })?;
        let made = catch_unwind(AssertUnwindSafe(|| (handler.make)(&job)));
        let made = made.unwrap_or_else(|_| Err("it has panicked".to_owned()));
        let work = made.map_err(|error| self.not_made(&job, error))?;
        let attempt = Attempt { class: job.class, before: job.failures };
        let attempt = (!handler.one_each).then_some(attempt);
        let counts = job.progress.counts;
        let operation = Operation {
            caller: job
                .owner
                .filter(|_| handler.one_each)
                .unwrap_or_else(|| format!("job {}", job.lease.job)),
            kind: job.queue,
            items: counts.total,
            payload: job.payload,
            deadline: None,
            work,
        };
        let known = (Name::clone(&operation.kind), operation.caller.clone());
        let journal = Arc::clone(&source.journal);
        let resumed = self.batches.resume(operation, journal, (job.lease, counts), attempt);
        if resumed { Ok(known) } else { Err(End::Release { after: CROWDED }) }
    }

    /// It may have been written by a newer version, which is started beside this one: there is time for that.
    fn not_made(&self, job: &Claimed, error: String) -> End {
        let (id, tenure) = (job.lease.job, &self.batches.0.tenure);
        if job.failures + 1 >= tenure.max_failures {
            self.batches.tell(&job.queue, BatchEvent::Dead { job: id.0, why: error.as_str().into() });
            return End::Dead { error };
        }
        tracing::warn!(target: "selfheal", job = %id, operation = %job.queue, "A job cannot be begun: {error}");
        End::Retry { after: tenure.again, error }
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools: Vec<_> = self.sources.iter().map(|source| &source.pool).collect();
        f.debug_struct("Intake").field("pools", &pools).finish_non_exhaustive()
    }
}
