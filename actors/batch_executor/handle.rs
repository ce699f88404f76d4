//! Operations as requests begin them.
//!
//! An operation runs in a task of the host's runtime which nobody can drop: its caller only waits for the answer, and
//! who is gone by then has not stopped it. No actor is asked: with all of them dead operations are begun, divided,
//! answered and ended as ever.
//!
//! **Cancel safety**: all of it. A dropped call leaves the operation to itself.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use super::{
    attempts::Attempts,
    drive::Drive,
    journal::{Counts, Fence, JobId, Journal, JournalError, Lease, Trouble},
    machine::{Attempt, Begun, Machine, Next, RunId, Wanted},
    policy::{Policy, Tenure},
};
use crate::{
    clock::{Clock, Tick},
    error_class::ErrorClass,
    level::{Level, Mode, ModeCell},
    signal::{BatchEvent, Name, Signal, Signals},
};

/// Does a chunk. It runs in a task that nobody drops, and may be asked for the same items again if it failed.
pub type Work = Arc<dyn Fn(Chunk) -> BoxFuture<'static, Result<Did, NotDone>> + Send + Sync>;

/// Some items of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The first.
    pub from: u64,
    /// How many.
    pub items: u32,
    /// Whether somebody waits for them.
    pub awaited: bool,
    /// What to write the progress under, in the transaction of the work itself; `None` if nothing is written down.
    pub lease: Option<Lease>,
    /// What had become of the operation's items before.
    pub before: Counts,
}

/// What has become of a chunk. The numbers add up to its items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Did {
    /// Done.
    pub done: u32,
    /// Left as they were, because they must not be changed.
    pub blocked: u32,
    /// Not done, and not to be tried again.
    pub failed: u32,
    /// Whether the progress was written with it. If not, it is written afterwards, and a crash in between repeats the
    /// chunk.
    pub written: bool,
    /// For how long it had to wait for a connection: no part of the work.
    pub waited: Duration,
    /// Those that were not done, by name.
    pub items: Vec<Item>,
    /// What it came to, to be kept with the job; of a job in one piece. At most [`MAX_RESULT`] bytes.
    pub result: Option<Vec<u8>>,
}

/// The most bytes that the result of a job may have: it is no place for files.
pub const MAX_RESULT: usize = 64 * 1024;

/// An item that was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which one, counted from 0 over the whole operation.
    pub at: u64,
    /// What has become of it.
    pub fate: Fate,
    /// Why.
    pub why: String,
}

/// What has become of an item that was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It was left as it was, because it must not be changed.
    Blocked,
    /// It fails, and is not tried again.
    Failed,
}

/// Why a chunk was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// It failed, and nothing of it was done.
    Failed {
        /// What the error means.
        class: ErrorClass,
        /// The error.
        why: String,
    },
    /// The lease is lost: somebody else works on it.
    Lost,
}

/// An operation to be done.
pub struct Operation {
    /// Its kind.
    pub kind: Name,
    /// Whose it is: a second one of the same caller joins it.
    pub caller: String,
    /// How many items it has.
    pub items: u64,
    /// What another process needs to go on with it.
    pub payload: Vec<u8>,
    /// When the caller goes away.
    pub deadline: Option<Tick>,
    /// How its items are done.
    pub work: Work,
}

/// What a caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The job that goes on, or has ended; `None` if nothing was written down. Then what remains, if anything, is not
    /// promised: it was thought to be short enough, and was not.
    pub job: Option<JobId>,
    /// What has become of the items by now.
    pub counts: Counts,
    /// Whether it was running already.
    pub joined: bool,
    /// How long the rest takes.
    pub left: Duration,
    /// The first items that were not done, at most a hundred.
    pub items: Vec<Item>,
}

/// Why an operation was not begun, or ended without an answer.
#[derive(Clone, Debug)]
pub enum Refused {
    /// There is no such kind.
    Unknown,
    /// The service is ending.
    Draining,
    /// The rest of it could not be written down, and so not be promised. What is done stays done.
    NotWritten(JournalError),
    /// It failed, and was not tried again: in mode `observe` or `off`, or because nobody can tell what was done.
    Failed {
        /// What the error means.
        class: ErrorClass,
        /// The error.
        why: String,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("begin an operation that is not registered"),
            Self::Draining => f.write_str("begin an operation: the service is ending"),
            Self::NotWritten(error) => error.fmt(f),
            Self::Failed { why, .. } => write!(f, "do the operation: {why}"),
        }
    }
}

impl std::error::Error for Refused {}

/// How far a run is, for whoever watches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Its job, once there is one.
    pub job: Option<JobId>,
    /// What has become of its items.
    pub counts: Counts,
    /// Whether it is worked on no longer.
    pub over: bool,
}

/// The operations of one runtime. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Batches(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) mode: ModeCell,
    pub(super) tenure: Tenure,
    pub(super) runtime: Handle,
    pub(super) signals: Signals,
    machine: Mutex<Machine>,
    shown: Mutex<BTreeMap<RunId, Shown>>,
    changed: watch::Sender<()>,
}

/// What is known of a run outside of the machine.
struct Shown {
    progress: watch::Sender<Progress>,
    /// The right to work on it, and where that is written down.
    lease: Option<(Arc<dyn Journal>, Lease)>,
}

/// Leases of one journal, and the runs that hold them, in the same order.
pub(super) struct Held {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) leases: Vec<Lease>,
    runs: Vec<RunId>,
}

impl Batches {
    /// No operations yet. They will run on `runtime`.
    #[must_use]
    pub fn new(clock: Clock, mode: ModeCell, tenure: Tenure, runtime: Handle, signals: Signals) -> Self {
        let (machine, shown, changed) = (Mutex::default(), Mutex::default(), watch::Sender::new(()));
        Self(Arc::new(Shared { clock, mode, tenure, runtime, signals, machine, shown, changed }))
    }

    /// From now on there is this kind of operation, on this pool.
    pub fn register(&self, kind: Name, pool: Name, policy: Policy) {
        self.0.machine.lock().register(kind, pool, policy);
    }

    /// From now on there are jobs in one piece of this kind, on this pool, which are tried so often.
    pub fn register_deferred(&self, kind: Name, pool: Name, attempts: Attempts) {
        self.0.machine.lock().register_deferred(kind, pool, attempts);
    }

    /// Does an operation, or as much of it as its caller has time for; the rest is done without them, and written down
    /// in `journal` before anybody is told of it.
    ///
    /// **Cancel safety**: the operation goes on without the caller.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn run(&self, operation: Operation, journal: Arc<dyn Journal>) -> Result<Report, Refused> {
        let Operation { kind, caller, items, deadline, .. } = &operation;
        let whole = self.0.mode.get() != Mode::Act;
        let wanted = Wanted { kind, caller, items: *items, deadline: *deadline, whole };
        let now = self.0.clock.now();
        let begun = self.0.machine.lock().begin(&wanted, now);
        let (id, plan) = match begun {
            None => return Err(Refused::Unknown),
            Some(Begun::Draining) => return Err(Refused::Draining),
            Some(Begun::Joined(id)) => return Ok(self.report(id, true, Vec::new())),
            Some(Begun::Run(id, plan)) => (id, plan),
        };
        let counts = Counts { total: *items, ..Counts::default() };
        self.begin_to_show(id, Progress { counts, ..Progress::default() });
        let (answer, answered) = oneshot::channel();
        let durable = !plan.inline && !whole;
        if durable {
            let deadline = self.read(|machine| machine.deadline(id)).map(|until| until.since(now));
            self.tell(kind, BatchEvent::planned(&plan, deadline.unwrap_or_default()));
        }
        let kind = Name::clone(kind);
        let drive = Drive::new(self.clone(), id, operation, journal, Some(answer));
        let (by, until) = self.read(|machine| (machine.answer_by(id), machine.deadline(id)));
        self.0.runtime.spawn(drive.run(durable));
        let answer = self.answer(id, answered, by, durable).await;
        if until.is_some_and(|until| self.now() > until) {
            self.0.machine.lock().overran(&kind);
        }
        answer
    }

    /// Goes on with a job that was claimed; `attempt`: it is in one piece. False: there is no room, or it runs already;
    /// give the lease back.
    pub fn resume(
        &self,
        operation: Operation,
        journal: Arc<dyn Journal>,
        (lease, counts): (Lease, Counts),
        attempt: Option<Attempt>,
    ) -> bool {
        let Operation { kind, caller, .. } = &operation;
        let resumed = match attempt {
            Some(attempt) => self.0.machine.lock().attempt(kind, caller, counts, attempt),
            None => self.0.machine.lock().resume(kind, caller, counts),
        };
        let Some(id) = resumed else { return false };
        let progress = Progress { job: Some(lease.job), counts, over: false };
        self.begin_to_show(id, progress);
        let drive = Drive::new(self.clone(), id, operation, journal, None).with(lease);
        self.0.runtime.spawn(drive.run(false));
        true
    }

    /// How far this caller's operation is, now and from now on. `None`: none runs.
    #[must_use]
    pub fn watch(&self, kind: &str, caller: &str) -> Option<watch::Receiver<Progress>> {
        let id = self.0.machine.lock().find(kind, caller)?;
        self.0.shown.lock().get(&id).map(|shown| shown.progress.subscribe())
    }

    /// The pool came to this level.
    pub fn on_level(&self, pool: &Name, level: Level) {
        let now = self.0.clock.now();
        self.change(|machine| machine.on_level(pool, level, now));
    }

    /// Runs of this kind that nobody waits for do nothing from now on, or go on again. False: no such kind.
    pub fn hold(&self, kind: &str, held: bool) -> bool {
        self.change(|machine| machine.hold(kind, held))
    }

    /// This caller's operation ends before its next chunk. False: none runs.
    pub fn cancel(&self, kind: &str, caller: &str) -> bool {
        self.change(|machine| {
            let id = machine.find(kind, caller);
            id.map(|id| machine.cancel(id)).is_some()
        })
    }

    /// From now on nothing is begun, and what runs is left to others before its next chunk.
    pub fn drain(&self) {
        self.change(Machine::drain);
    }

    /// Waits until `what` holds. Cancel safe.
    pub async fn until(&self, what: impl Fn(&Machine) -> bool) {
        let mut changes = self.changes();
        while !self.read(&what) {
            // They change for as long as this is waited for: the sender is here.
            drop(changes.changed().await);
        }
    }

    /// The time by which it works.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.0.clock.now()
    }

    /// What is known of all kinds, to be shown.
    pub fn read<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.0.machine.lock())
    }

    /// Waits for the answer, but no longer than the caller does.
    async fn answer(
        &self,
        id: RunId,
        answered: oneshot::Receiver<Result<Report, Refused>>,
        answer_by: Option<Tick>,
        durable: bool,
    ) -> Result<Report, Refused> {
        let panicked =
            || Err(Refused::Failed { class: ErrorClass::Permanent, why: "it has panicked".to_owned() });
        let Some(by) = answer_by else { return answered.await.unwrap_or_else(|_| panicked()) };
        let patience = by.since(self.0.clock.now());
        match tokio::time::timeout(patience, answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| panicked()),
            Err(_) => {
                self.0.machine.lock().answered(id);
                let report = self.report(id, false, Vec::new());
                let busy = JournalError { trouble: Trouble::Busy, source: None };
                // Before it is written down nothing of it is done, and nothing is promised.
                if durable && report.job.is_none() { Err(Refused::NotWritten(busy)) } else { Ok(report) }
            }
        }
    }

    /// Tells what is worth a line.
    pub(super) fn tell(&self, operation: &Name, event: BatchEvent) {
        self.0.signals.emit(Signal::Batch { operation: Name::clone(operation), event });
    }

    pub(super) fn report(&self, id: RunId, joined: bool, items: Vec<Item>) -> Report {
        let seen = self.0.shown.lock().get(&id).map(|shown| *shown.progress.borrow()).unwrap_or_default();
        let left = self.0.machine.lock().left(id, self.0.clock.now()).unwrap_or_default();
        Report { job: seen.job, counts: seen.counts, joined, left, items }
    }

    pub(super) fn next(&self, id: RunId) -> Next {
        let now = self.0.clock.now();
        self.heeding().next(id, now)
    }

    /// So many jobs of these kinds may be taken up, on this pool.
    pub(super) fn room<'a>(&self, pool: &Name, kinds: impl Iterator<Item = &'a Name>) -> (Vec<Name>, usize) {
        let now = self.0.clock.now();
        let machine = self.heeding();
        (kinds.filter(|kind| machine.is_open(kind)).cloned().collect(), machine.room_on(pool, now))
    }

    /// The machine, which heeds levels only where it may act on them.
    fn heeding(&self) -> MutexGuard<'_, Machine> {
        let mut machine = self.0.machine.lock();
        machine.heed(self.0.mode.get() == Mode::Act);
        machine
    }

    /// The leases that runs hold, journal by journal.
    pub(super) fn leases(&self) -> Vec<Held> {
        let mut all: Vec<Held> = Vec::new();
        for (run, Shown { lease, .. }) in &*self.0.shown.lock() {
            let Some((journal, lease)) = lease else { continue };
            match all.iter_mut().find(|held| Arc::ptr_eq(&held.journal, journal)) {
                Some(held) => {
                    held.leases.push(*lease);
                    held.runs.push(*run);
                }
                None => {
                    let journal = Arc::clone(journal);
                    all.push(Held { journal, leases: vec![*lease], runs: vec![*run] });
                }
            }
        }
        all
    }

    /// Prolongs leases. Whoever has lost one stops before the next chunk; a database that does not answer is asked
    /// again next time.
    pub(super) async fn prolong(&self, Held { journal, leases, runs }: Held) {
        let Tenure { ttl, .. } = self.0.tenure;
        let prolonging = journal.heartbeat(&leases, ttl);
        let Ok(Ok(fences)) = tokio::time::timeout(self.0.tenure.heartbeat(), prolonging).await else {
            return;
        };
        let lost = runs.into_iter().zip(fences).filter(|(_, fence)| *fence == Fence::Lost);
        lost.for_each(|(run, _)| self.change(|machine| machine.lose(run)));
    }

    /// Something changes, and everybody who waits looks again.
    pub(super) fn change<T>(&self, how: impl FnOnce(&mut Machine) -> T) -> T {
        let changed = how(&mut self.0.machine.lock());
        self.0.changed.send_replace(());
        changed
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    fn begin_to_show(&self, id: RunId, progress: Progress) {
        let shown = Shown { progress: watch::Sender::new(progress), lease: None };
        self.0.shown.lock().insert(id, shown);
    }

    /// The run holds this lease.
    pub(super) fn holds(&self, id: RunId, journal: &Arc<dyn Journal>, lease: Lease) {
        if let Some(shown) = self.0.shown.lock().get_mut(&id) {
            shown.lease = Some((Arc::clone(journal), lease));
        }
    }

    /// Shows how far the run is.
    pub(super) fn show(&self, id: RunId, job: Option<JobId>) {
        let Some(counts) = self.0.machine.lock().counts(id) else { return };
        if let Some(shown) = self.0.shown.lock().get(&id) {
            shown.progress.send_replace(Progress { job, counts, over: false });
        }
    }

    /// The run is worked on no longer.
    pub(super) fn forget(&self, id: RunId) {
        self.change(|machine| machine.forget(id));
        if let Some(shown) = self.0.shown.lock().remove(&id) {
            shown.progress.send_modify(|progress| progress.over = true);
        }
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").field("machine", &*self.0.machine.lock()).finish_non_exhaustive()
    }
}
