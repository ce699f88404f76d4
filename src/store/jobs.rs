//! The journal of a pool's database.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_core::future::BoxFuture;
use selfheal_actors::{
    batch_executor::{
        Tenure,
        journal::{
            Accepted, Claim, Claimed, End, Fence, Job, JobId, Journal, JournalError, Lease, MAX_PAYLOAD,
            NewJob, Progress, Settle, State,
        },
    },
    signal::Name,
};
use tokio::{runtime::Handle, sync::OnceCell};

use super::{
    answers,
    dialect::{Dialect, texts},
    listen::Listener,
    lock::{Lock, Turn},
    overview::{Look, Queue},
    trouble,
    wake::Bells,
    writer::Writer,
};
use crate::db::{ConnectOptionsOf, HealPool};

/// No queue, key or owner is longer than this, in bytes.
pub(crate) const LONGEST: usize = 512;

/// Durable jobs in the database of a [`HealPool`]. Cheap to clone; clones share their connections and their bells.
///
/// It has connections of its own, one (SQLite) or two and one that listens (PostgreSQL), which are opened when they are
/// first needed, and makes its tables then if they are not there and it may.
pub struct Jobs<DB: Dialect>(pub(super) Arc<Parts<DB>>);

pub(super) struct Parts<DB: Dialect> {
    accepts: Writer<DB>,
    pub(super) works: Writer<DB>,
    pub(super) bells: Arc<Bells>,
    lock: Lock,
    /// Whether this process may work: once it may, it may for as long as it lives.
    turn: OnceCell<()>,
    /// From the first time that somebody waits.
    listener: OnceLock<Option<Listener>>,
    options: ConnectOptionsOf<DB>,
    runtime: Handle,
    tenure: Tenure,
}

impl<DB: Dialect> Jobs<DB> {
    /// The jobs of `pool`'s database. Take it once a pool: two would each claim what the other could.
    /// Must be called on a tokio runtime: its connections live there.
    #[must_use]
    pub fn of(pool: &HealPool<DB>) -> Self {
        Self::with(pool, Tenure::default())
    }

    /// The same, with another bound for jobs that take down whoever works on them ([`Tenure::max_losses`]); for how long
    /// a job is leased is said by whoever claims it.
    #[must_use]
    pub fn with(pool: &HealPool<DB>, tenure: Tenure) -> Self {
        let options = pool.unguarded().connect_options();
        let (lock, runtime) = (Lock::new(DB::lock_file(&options)), Handle::current());
        let options = (*options).clone();
        let writer = || Writer::new(DB::writer(options.clone()), runtime.clone());
        let works = writer();
        let accepts = if DB::WRITERS > 1 { writer() } else { works.clone() };
        let (bells, listener) = (Arc::default(), OnceLock::new());
        Self(Arc::new(Parts {
            accepts,
            works,
            bells,
            lock,
            turn: OnceCell::new(),
            listener,
            options,
            runtime,
            tenure,
        }))
    }

    /// Sees to it that the tables are there.
    ///
    /// # Errors
    /// [`JournalError`] if the database cannot be reached, or the tables not be made.
    pub async fn ready(&self) -> Result<(), JournalError> {
        self.0.accepts.ready().await
    }

    /// Whether anybody has used them in this process: until then they have no connections.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.0.accepts.is_ready() || self.0.works.is_ready()
    }

    /// All queues that ever had a job, by name.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn queues(&self) -> Result<Vec<Queue>, JournalError> {
        self.0.works.with(|conn| DB::queues(conn)).await
    }

    /// The newest jobs, of one queue or of all, in one state or in any.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn list(
        &self,
        queue: Option<String>,
        state: Option<State>,
        limit: u32,
    ) -> Result<Vec<Job>, JournalError> {
        self.0
            .works
            .with(move |conn| {
                Box::pin(async move {
                    DB::look(conn, &Look::List { queue: queue.as_deref(), state, limit }).await
                })
            })
            .await
    }

    /// The job that has this key in one of `queues`, for whoever has it from us: `None` from when the time is over for
    /// which it is kept.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn open(&self, queues: &[Name], key: &str) -> Result<Option<Job>, JournalError> {
        let (queues, key) = (queues.to_vec(), key.to_owned());
        let found = self.0.works.with(move |conn| {
            Box::pin(async move { DB::look(conn, &Look::Open { queues: texts(&queues), key: &key }).await })
        });
        Ok(found.await?.pop())
    }

    /// From now on nobody claims jobs of `queue`, or everybody may again. What is claimed goes on.
    ///
    /// # Errors
    /// [`JournalError`]; then it is as before, unless it is [unknown](selfheal_actors::batch_executor::journal::Trouble).
    pub async fn pause(
        &self,
        queue: &Name,
        paused: bool,
        by: Name,
        reason: Name,
    ) -> Result<(), JournalError> {
        let name = Arc::clone(queue);
        self.0
            .works
            .with(move |conn| Box::pin(async move { DB::pause(conn, &name, paused, &by, &reason).await }))
            .await?;
        self.0.bells.ring(std::iter::once(queue));
        Ok(())
    }

    /// Forgets jobs whose time is over, a thousand at most, and adds the books up; says how many were forgotten. To be
    /// called every few seconds, by any process.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn sweep(&self) -> Result<u64, JournalError> {
        self.0.works.with(|conn| DB::sweep(conn)).await
    }

    /// Whether this process may work on the jobs.
    async fn turn(&self) -> Result<bool, JournalError> {
        // Whoever comes while what was leased before is taken over waits, so that no lease of this process is among it.
        let turn = self.0.turn.get_or_try_init(|| self.take_turn()).await;
        match turn {
            Ok(()) => Ok(true),
            Err(None) => Ok(false),
            Err(Some(error)) => Err(error),
        }
    }

    /// `None` if it is another process's.
    async fn take_turn(&self) -> Result<(), Option<JournalError>> {
        let turn = self.0.lock.take();
        match turn.map_err(|error| trouble::of_connecting(sqlx::Error::Io(error)))? {
            Turn::Ours => Ok(()),
            Turn::Theirs => Err(None),
            Turn::New => {
                let taken = self.0.works.with(|conn| DB::take_over(conn)).await;
                if taken.is_err() {
                    self.0.lock.let_go();
                }
                taken.map(drop).map_err(Some)
            }
        }
    }

    /// Jobs that take down whoever works on them are over; gives back the others.
    async fn bury(&self, claimed: Vec<Claimed>) -> Vec<Claimed> {
        let (mut living, mut lost) = (Vec::with_capacity(claimed.len()), Vec::new());
        for job in claimed {
            match self.0.tenure.lost(&job) {
                None => living.push(job),
                Some(end) => {
                    tracing::error!(target: "selfheal", job = %job.lease.job, queue = %job.queue, losses = job.losses, "A job takes down whoever works on it, and is given up");
                    lost.push(Settle { lease: job.lease, end });
                }
            }
        }
        if !lost.is_empty()
            && let Err(error) = self.0.works.settle(lost).await
        {
            // Their leases will end; then it is said again.
            tracing::warn!(target: "selfheal", %error, "Jobs that are given up could not be ended");
        }
        living
    }

    /// Waits until all is written that was asked for. Nothing may be asked for meanwhile that is to be waited for, too.
    ///
    /// # Errors
    /// [`JournalError`], if the database does not answer.
    pub async fn rest(&self) -> Result<(), JournalError> {
        self.0.accepts.rest().await?;
        self.0.works.rest().await
    }

    /// All jobs of `queue` that wait may be claimed at once: its pause is over, and so is every delay.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn drain(&self, queue: &Name, by: Name, reason: Name) -> Result<(), JournalError> {
        self.pause(queue, false, by, reason).await?;
        let name = Arc::clone(queue);
        self.0.works.with(move |conn| Box::pin(async move { DB::hurry(conn, &name).await })).await?;
        self.0.bells.ring(std::iter::once(queue));
        Ok(())
    }

    async fn look(&self, what: Look<'static>) -> Result<Option<Job>, JournalError> {
        let found = self.0.works.with(move |conn| Box::pin(async move { DB::look(conn, &what).await }));
        Ok(found.await?.pop())
    }
}

impl<DB: Dialect> Journal for Jobs<DB> {
    fn accept(&self, jobs: Vec<NewJob>) -> BoxFuture<'_, Result<Vec<Accepted>, JournalError>> {
        Box::pin(async move {
            jobs.iter().try_for_each(check)?;
            // What is leased at once is nobody else's to claim.
            let free = jobs.iter().filter(|job| job.hold.is_none());
            let queues: Vec<_> = free.map(|job| Arc::clone(&job.queue)).collect();
            let delay = jobs.iter().map(|job| job.delay).filter(|delay| !delay.is_zero()).min();
            if jobs.iter().any(|job| job.hold.is_some()) {
                // Else what is leased here would be taken over with what others have left.
                self.turn().await?;
            }
            let accepted = self.0.accepts.accept(jobs).await?;
            self.0.bells.ring(queues.iter());
            if let Some(delay) = delay {
                self.0.bells.ring_after(delay, &self.0.runtime);
            }
            Ok(accepted)
        })
    }

    fn claim<'a>(&'a self, claim: &'a Claim<'a>) -> BoxFuture<'a, Result<Vec<Claimed>, JournalError>> {
        let (queues, limit, ttl) = (claim.queues.to_vec(), claim.limit, claim.ttl);
        Box::pin(async move {
            if limit == 0 || queues.is_empty() || !self.turn().await? {
                return Ok(Vec::new());
            }
            loop {
                let queues = queues.clone();
                let claim = self.0.works.with(move |conn| {
                    Box::pin(async move { DB::claim(conn, &Claim { queues: &queues, limit, ttl }).await })
                });
                let claimed = claim.await?;
                let all = claimed.len();
                let living = self.bury(claimed).await;
                if !living.is_empty() {
                    self.0.bells.found();
                }
                if !living.is_empty() || all == 0 {
                    return Ok(living);
                }
            }
        })
    }

    fn heartbeat<'a>(
        &'a self,
        leases: &'a [Lease],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Vec<Fence>, JournalError>> {
        let asked = leases.to_vec();
        Box::pin(async move {
            let prolong = self
                .0
                .works
                .with(move |conn| Box::pin(async move { DB::heartbeat(conn, &asked, ttl).await }));
            let held: HashSet<_> = prolong.await?.into_iter().collect();
            Ok(answers::fences(leases.iter().copied(), &held))
        })
    }

    fn checkpoint<'a>(
        &'a self,
        lease: Lease,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Fence, JournalError>> {
        let progress = progress.clone();
        Box::pin(async move {
            let write = self
                .0
                .works
                .with(move |conn| Box::pin(async move { DB::checkpoint(conn, lease, &progress).await }));
            Ok(if write.await? { Fence::Held } else { Fence::Lost })
        })
    }

    fn settle(&self, ends: Vec<Settle>) -> BoxFuture<'_, Result<Vec<Fence>, JournalError>> {
        Box::pin(async move {
            let again = ends.iter().filter_map(|end| match end.end {
                End::Retry { after, .. } | End::Release { after } => Some(after),
                End::Done { .. } | End::Dead { .. } => None,
            });
            let again = again.min();
            let fences = self.0.works.settle(ends).await?;
            if let Some(after) = again {
                self.0.bells.ring_after(after, &self.0.runtime);
            }
            Ok(fences)
        })
    }

    fn look(&self, job: JobId) -> BoxFuture<'_, Result<Option<Job>, JournalError>> {
        Box::pin(self.look(Look::Job(job)))
    }

    fn find<'a>(&'a self, queue: &'a str, key: &'a str) -> BoxFuture<'a, Result<Option<Job>, JournalError>> {
        let (queue, key) = (queue.to_owned(), key.to_owned());
        Box::pin(async move {
            let found = self.0.works.with(move |conn| {
                Box::pin(async move { DB::look(conn, &Look::Key { queue: &queue, key: &key }).await })
            });
            Ok(found.await?.pop())
        })
    }

    fn due<'a>(&'a self, queues: &'a [Name]) -> BoxFuture<'a, ()> {
        let Parts { bells, listener, options, runtime, .. } = &*self.0;
        listener.get_or_init(|| Listener::start::<DB>(options.clone(), Arc::clone(bells), runtime));
        Box::pin(bells.rung(queues))
    }
}

/// What no database would take is refused before it can spoil a round.
pub(super) fn check(job: &NewJob) -> Result<(), JournalError> {
    if job.payload.len() > MAX_PAYLOAD {
        let why = format!("a payload has {} bytes, and may have {MAX_PAYLOAD}", job.payload.len());
        return Err(trouble::refused(why));
    }
    let texts = [Some(&*job.queue), job.key.as_ref().map(|key| &*key.text), job.owner.as_deref()];
    if texts.into_iter().flatten().any(|text| text.is_empty() || text.len() > LONGEST || text.contains('\0'))
    {
        return Err(trouble::refused(format!(
            "queue, key and owner have 1 to {LONGEST} bytes, and none is zero"
        )));
    }
    Ok(())
}

impl<DB: Dialect> Clone for Jobs<DB> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<DB: Dialect> fmt::Debug for Jobs<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("database", &DB::NAME).finish_non_exhaustive()
    }
}
