//! One run, from its first chunk to its end: asks the machine, does what it says, and says how it went.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};

use super::{
    handle::{Batches, Chunk, Did, Fate, Item, NotDone, Operation, Refused, Report},
    journal::{
        Accepted, Counts, End, Fence, Journal, JournalError, Key, KeyUntil, Lease, NewJob, Progress, Settle,
        Trouble,
    },
    machine::{Effect, Ending, Machine, Next, Outcome, RunId},
    policy::Policy,
};
use crate::{
    clock::Tick,
    error_class::ErrorClass,
    level::Mode,
    signal::{BatchEvent, Name},
};

/// So many items that were not done are told of by name.
const NAMED: usize = 100;
/// For how long what has become of an operation can be asked about.
const KEEP: Duration = Duration::from_secs(3_600);

/// A run at work.
pub(super) struct Drive {
    batches: Batches,
    id: RunId,
    operation: Operation,
    journal: Arc<dyn Journal>,
    answer: Option<oneshot::Sender<Result<Report, Refused>>>,
    lease: Option<Lease>,
    items: Vec<Item>,
    /// Why the last chunk failed, and what that means.
    why: String,
    class: ErrorClass,
    /// What it came to.
    result: Option<Vec<u8>>,
    changes: watch::Receiver<()>,
    begun: Tick,
}

/// What stops a run before its end.
enum Stop {
    /// Somebody else has the job.
    Lost,
    /// It could not be written down.
    NotWritten(JournalError),
    /// It failed, and nothing is healed.
    Failed(ErrorClass),
}

impl Drive {
    pub(super) fn new(
        batches: Batches,
        id: RunId,
        operation: Operation,
        journal: Arc<dyn Journal>,
        answer: Option<oneshot::Sender<Result<Report, Refused>>>,
    ) -> Self {
        let (changes, why, begun) = (batches.changes(), String::new(), batches.now());
        let (lease, items, class, result) = (None, Vec::new(), ErrorClass::Unknown, None);
        Self { batches, id, operation, journal, answer, lease, items, why, class, result, changes, begun }
    }

    pub(super) fn with(mut self, lease: Lease) -> Self {
        self.hold(Some(lease));
        self
    }

    fn hold(&mut self, lease: Option<Lease>) {
        self.lease = lease;
        if let Some(lease) = lease {
            self.batches.holds(self.id, &self.journal, lease);
        }
    }

    pub(super) async fn run(mut self, durable: bool) {
        let stopped = self.work(durable).await;
        match stopped {
            Ok(ending) => self.end(ending).await,
            Err(Stop::Lost) => self.reply(),
            Err(Stop::NotWritten(error)) => self.refuse(Refused::NotWritten(error)),
            Err(Stop::Failed(class)) => self.refuse(Refused::Failed { class, why: self.why.clone() }),
        }
    }

    async fn work(&mut self, durable: bool) -> Result<Ending, Stop> {
        if durable {
            self.write_down().await?;
        }
        loop {
            // Whatever changes from here on is noticed, also before it is waited for.
            self.changes.mark_unchanged();
            match self.batches.next(self.id) {
                Next::Chunk { from, items } => {
                    self.write_down_late().await?;
                    self.chunk(from, items).await?;
                }
                Next::Answer => {
                    if self.lease.is_none() {
                        self.write_down().await?;
                    }
                    self.reply();
                }
                Next::Wait { until, .. } => self.wait(until).await,
                Next::Over(ending) => return Ok(ending),
            }
        }
    }

    /// What was thought short, and whose caller was answered or has left before its end, is kept from then on.
    async fn write_down_late(&mut self) -> Result<(), Stop> {
        let alone = self.answer.as_ref().is_some_and(oneshot::Sender::is_closed);
        if !alone || self.lease.is_some() || self.batches.0.mode.get() != Mode::Act {
            return Ok(());
        }
        self.answer = None;
        match self.write_down().await {
            // Nobody was promised anything, and it is done all the same.
            Err(Stop::NotWritten(_)) => Ok(()),
            written => written,
        }
    }

    /// From here on the rest of it is promised.
    async fn write_down(&mut self) -> Result<(), Stop> {
        let Operation { kind, caller, items, payload, .. } = &self.operation;
        let key = Key { text: caller.clone(), until: KeyUntil::Over };
        let job = NewJob {
            key: Some(key),
            owner: Some(caller.clone()),
            total: *items,
            keep: KEEP,
            hold: Some(self.batches.0.tenure.ttl),
            ..NewJob::new(Arc::clone(kind), payload.clone())
        };
        let accepted = self.journal.accept(vec![job]).await.map_err(Stop::NotWritten)?;
        let Some(&Accepted { id, lease, .. }) = accepted.first() else {
            let nothing = "the journal has accepted nothing";
            return Err(Stop::NotWritten(JournalError::new(Trouble::Unknown, nothing)));
        };
        self.hold(lease);
        if lease.is_none() {
            // Another process does the same for the same caller.
            if let Ok(Some(job)) = self.journal.look(id).await {
                self.batches.change(|machine| machine.found(self.id, job.counts));
            }
        }
        self.batches.show(self.id, Some(id));
        if self.lease.is_none() {
            return Err(Stop::Lost);
        }
        match self.batches.read(|machine| machine.counts(self.id)) {
            Some(counts) if counts.remaining() < counts.total => self.checkpoint(counts).await,
            Some(_) | None => Ok(()),
        }
    }

    async fn chunk(&mut self, from: u64, items: u32) -> Result<(), Stop> {
        let before = self.batches.read(|machine| machine.counts(self.id)).unwrap_or_default();
        let chunk = Chunk { from, items, awaited: self.answer.is_some(), lease: self.lease, before };
        let work = Arc::clone(&self.operation.work);
        let did = caught(Box::pin(async move { work(chunk).await })).await;
        let now = self.batches.0.clock.now();
        let outcome = match did.as_ref() {
            Ok(&Did { done, blocked, failed, waited, .. }) => Outcome::Done { done, blocked, failed, waited },
            Err(NotDone::Lost) => return Err(Stop::Lost),
            Err(NotDone::Failed { class, why }) => {
                self.why.clone_from(why);
                self.class = *class;
                Outcome::Failed(*class)
            }
        };
        if let Some(class) = self.is_left_alone(outcome) {
            return Err(Stop::Failed(class));
        }
        self.reread(outcome).await?;
        let effects = self.batches.change(|machine| machine.finished(self.id, outcome, now));
        self.batches.show(self.id, self.lease.map(|lease| lease.job));
        let mut moved = false;
        if let Ok(did) = did {
            // That the only item is done is written with the end.
            moved = !did.written && (self.operation.items > 1 || did.result.is_some());
            self.result = did.result;
            self.name(did.items);
        }
        for effect in effects {
            match effect {
                Effect::Poisoned(item) => {
                    moved = true;
                    let why = Name::from(self.why.as_str());
                    self.batches.tell(&self.operation.kind, BatchEvent::PassedBy { item, why });
                    self.name(vec![Item { at: item, fate: Fate::Failed, why: self.why.clone() }]);
                }
                Effect::Tell { number, of, items, took, left } => {
                    self.tell(BatchEvent::Part { number, of, items, took, left });
                }
            }
        }
        match self.batches.read(|machine| machine.counts(self.id)).filter(|_| moved) {
            Some(counts) => self.checkpoint(counts).await,
            None => Ok(()),
        }
    }

    /// Of what is short nobody wants to hear.
    fn tell(&self, event: BatchEvent) {
        if self.lease.is_some() {
            self.batches.tell(&self.operation.kind, event);
        }
    }

    /// Those that are told of are the first ones.
    fn name(&mut self, items: Vec<Item>) {
        let room = NAMED.saturating_sub(self.items.len());
        self.items.extend(items.into_iter().take(room));
    }

    /// Without a job nobody can tell whether a chunk was done whose connection has ended; and without healing a failure
    /// is one.
    fn is_left_alone(&self, outcome: Outcome) -> Option<ErrorClass> {
        let Outcome::Failed(class) = outcome else { return None };
        let heals = self.batches.0.mode.get() == Mode::Act;
        (self.lease.is_none() && (class == ErrorClass::Interrupted || !heals)).then_some(class)
    }

    /// If the connection ended under way, only the journal knows whether the chunk was done: it is asked until it
    /// answers. In the meantime nothing is tried again that may be done.
    async fn reread(&self, outcome: Outcome) -> Result<(), Stop> {
        let interrupted = outcome == Outcome::Failed(ErrorClass::Interrupted);
        let Some(lease) = self.lease.filter(|_| interrupted) else { return Ok(()) };
        let waits = Policy::default();
        for failures in 1.. {
            match self.journal.look(lease.job).await {
                Ok(Some(job)) => {
                    self.batches.change(|machine| machine.found(self.id, job.counts));
                    return Ok(());
                }
                // It is over, and forgotten.
                Ok(None) => break,
                // Whoever takes it up finds out.
                Err(_) if self.batches.read(Machine::is_draining) => break,
                Err(_) => tokio::time::sleep(waits.wait(failures)).await,
            }
        }
        Err(Stop::Lost)
    }

    async fn checkpoint(&self, counts: Counts) -> Result<(), Stop> {
        let Some(lease) = self.lease else { return Ok(()) };
        let progress = Progress { cursor: self.result.clone(), counts };
        match self.journal.checkpoint(lease, &progress).await {
            Ok(Fence::Lost) => Err(Stop::Lost),
            // What is not written will be with the next chunk; until then a crash repeats it.
            Ok(Fence::Held) | Err(_) => Ok(()),
        }
    }

    async fn wait(&mut self, until: Option<Tick>) {
        let now = self.batches.0.clock.now();
        let changed = self.changes.changed();
        match until {
            Some(until) => drop(tokio::time::timeout(until.since(now), changed).await),
            None => drop(changed.await),
        }
    }

    async fn end(&mut self, ending: Ending) {
        let counts = self.batches.read(|machine| machine.counts(self.id)).unwrap_or_default();
        if let Some(lease) = self.lease {
            let end = match ending {
                Ending::Done => End::Done { counts },
                Ending::GaveUp => {
                    End::Dead { error: format!("{} items failed: {}", counts.failed, self.why) }
                }
                Ending::Cancelled => End::Dead { error: "cancelled".to_owned() },
                Ending::Released => End::Release { after: Duration::ZERO },
                Ending::Failed { again: Some(after) } => End::Retry { after, error: self.error() },
                Ending::Failed { again: None } => End::Dead { error: self.error() },
                Ending::PutOff { after } => End::Release { after },
                Ending::Lost => return self.reply(),
            };
            // What is not written now is found at its end by whoever takes the job up.
            drop(self.journal.settle(vec![Settle { lease, end }]).await);
        }
        let took = self.batches.now().since(self.begun);
        match ending {
            // Of jobs in one piece there are many, and nobody wants to hear of each.
            Ending::Done if self.batches.read(|machine| machine.is_deferred(&self.operation.kind)) => {}
            Ending::Done => self.tell(BatchEvent::Done { items: counts.total, took }),
            Ending::GaveUp => {
                self.tell(BatchEvent::GivenUp { failed: counts.failed, why: self.why.as_str().into() });
            }
            Ending::Cancelled => self.tell(BatchEvent::Cancelled { left: counts.remaining() }),
            Ending::Failed { again: None } => {
                if let Some(lease) = self.lease {
                    self.tell(BatchEvent::Dead { job: lease.job.0, why: self.why.as_str().into() });
                }
            }
            Ending::Failed { again: Some(_) } | Ending::PutOff { .. } => {
                tracing::debug!(target: "selfheal", operation = %self.operation.kind, error = %self.why, "A job is tried again later");
            }
            Ending::Released | Ending::Lost => {}
        }
        self.reply();
    }

    /// What is kept of a failure: its class is for whoever may ask about the job, all of it for people.
    fn error(&self) -> String {
        format!("{}: {}", self.class, self.why)
    }

    /// Answers the caller, if that has not been done.
    fn reply(&mut self) {
        if let Some(answer) = self.answer.take() {
            let joined =
                self.lease.is_none() && self.batches.report(self.id, false, Vec::new()).job.is_some();
            let report = self.batches.report(self.id, joined, self.items.clone());
            let (done, total) = (report.counts.done, report.counts.total);
            if report.counts.remaining() > 0 {
                self.tell(BatchEvent::Answered { done, total });
            }
            // A caller who is gone needs no answer.
            let _ = answer.send(Ok(report));
        }
    }

    fn refuse(&mut self, refused: Refused) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Err(refused));
        }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        self.batches.forget(self.id);
    }
}

/// A chunk whose code panics has failed like any other.
async fn caught(
    work: futures_core::future::BoxFuture<'static, Result<Did, NotDone>>,
) -> Result<Did, NotDone> {
    let mut work = AssertUnwindSafe(work);
    let polled = std::future::poll_fn(move |context| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(polled) => polled,
            Err(_) => {
                let (class, why) = (ErrorClass::Permanent, "it has panicked".to_owned());
                std::task::Poll::Ready(Err(NotDone::Failed { class, why }))
            }
        }
    });
    polled.await
}
