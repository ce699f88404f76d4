//! The decision: do this chunk now, answer the caller, wait, or stop.
//!
//! One machine knows all operations of a runtime: what each kind has taught ([`Estimate`]), which runs there are, and
//! the level of each pool. Whoever drives a run asks [`Machine::next`], does what it says, and says how it went
//! ([`Machine::finished`]).

use std::{collections::BTreeMap, time::Duration};

use super::{
    attempts::Attempts,
    estimate::Estimate,
    journal::Counts,
    policy::{Policy, Reply},
    queueing::Queueing,
    run::{Found, Run, Working},
    turns::Turns,
};
use crate::{
    clock::Tick,
    error_class::ErrorClass,
    histogram::Histogram,
    level::{Class, Level},
    signal::{BatchEvent, Name},
};

/// So many runs are worked on at once, over all kinds; the rest of an operation beyond that waits in the journal.
pub const RUNS: usize = 64;
/// Chunks are told of no more often than this, but for the last one of a run.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// All operations of a runtime.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    kinds: BTreeMap<Name, Kind>,
    runs: BTreeMap<RunId, Run>,
    turns: Turns,
    draining: bool,
    last: u64,
}

/// A kind of operation, and what is known of it.
#[derive(Clone, Debug)]
struct Kind {
    pool: Name,
    policy: Policy,
    estimate: Estimate,
    /// How long chunks that somebody waits for wait for their connection.
    queueing: Queueing,
    /// A chunk has no more items than this, because one was too slow. `None`: as many as planned.
    cap: Option<u32>,
    held: bool,
    tally: Tally,
    /// How often its jobs are tried, if they are in one piece; of a long operation each part is tried in its place.
    attempts: Option<Attempts>,
}

/// One run of an operation, within this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

/// What is known of a job in one piece before it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whose work it is: where not all may work at once, the better class goes first.
    pub class: Class,
    /// How many attempts have failed before.
    pub before: u32,
}

/// What an operation will come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its items.
    pub items: u64,
    /// Whether all of it is done while its caller waits.
    pub inline: bool,
    /// Items of a chunk.
    pub batch: u32,
    /// How many chunks that makes.
    pub batches: u64,
    /// How long it takes.
    pub estimate: Duration,
    /// How long it takes at most, 95 times in 100.
    pub at_most: Duration,
}

impl BatchEvent {
    /// What is told of a plan.
    #[must_use]
    pub const fn planned(plan: &Plan, deadline: Duration) -> Self {
        let Plan { items, estimate, batch, .. } = *plan;
        Self::Planned { items, estimate, deadline, batch }
    }
}

/// How an operation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// As a run of its own.
    Run(RunId, Plan),
    /// Its caller has the same operation running already: this is that one.
    Joined(RunId),
    /// Not at all: nothing new is begun before the end.
    Draining,
}

/// Who wants what done.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The kind of operation.
    pub kind: &'a Name,
    /// Whose it is.
    pub caller: &'a str,
    /// Its items.
    pub items: u64,
    /// When the caller goes away, if that is before the operation's own deadline.
    pub deadline: Option<Tick>,
    /// In one piece and without a guard, as if there were no healing: in mode `observe` and `off`.
    pub whole: bool,
}

/// What is to be done about a run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// So many items, from this one on.
    Chunk {
        /// The first.
        from: u64,
        /// How many.
        items: u32,
    },
    /// Answer the caller: what is left is done without them.
    Answer,
    /// Nothing, until something changes or this moment comes.
    Wait {
        /// Why.
        why: Waits,
        /// When to ask again at the latest.
        until: Option<Tick>,
    },
    /// Stop: it is over here.
    Over(Ending),
}

/// Why a run waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Its pool is at level critical.
    Pressure,
    /// Others on its pool have their turn: it is at level warning, or was a moment ago.
    Turn,
    /// An operator has paused its kind.
    Paused,
    /// Its last chunk has failed, and will be tried again.
    Again,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Something has become of every item.
    Done,
    /// Too many items failed.
    GaveUp,
    /// Somebody did not want it any more.
    Cancelled,
    /// It is left to whoever takes it up from the journal.
    Released,
    /// Somebody else works on it: its lease is lost.
    Lost,
    /// A job in one piece has failed.
    Failed {
        /// When it is tried again, from now; `None`: never.
        again: Option<Duration>,
    },
    /// A job in one piece had no chance, which is no attempt. It is left alone for so long.
    PutOff {
        /// From now.
        after: Duration,
    },
}

/// How a chunk went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something has become of each of its items.
    Done {
        /// Done.
        done: u32,
        /// Left as they were, because they must not be changed.
        blocked: u32,
        /// Not done, and not to be tried again.
        failed: u32,
        /// For how long it waited for a connection. That is no work, and is not learnt as such.
        waited: Duration,
    },
    /// Nothing of it was done.
    Failed(ErrorClass),
}

/// What is to be done after a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// This item fails by itself, and is passed by: write that down.
    Poisoned(u64),
    /// So many chunks of so many are done: tell it.
    Tell {
        /// The chunk, counted from 1.
        number: u64,
        /// How many there are.
        of: u64,
        /// Items of it.
        items: u32,
        /// How long it took.
        took: Duration,
        /// How long the rest takes.
        left: Duration,
    },
}

/// What has become of all items of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Items done.
    pub done: u64,
    /// Items left as they were.
    pub blocked: u64,
    /// Items that failed for good.
    pub failed: u64,
    /// Operations that would have taken longer than their callers wait.
    pub prevented: u64,
    /// Replies that came after their deadline: there are none, or there is a bug.
    pub overruns: u64,
    /// How long chunks took that were done.
    pub took: Histogram,
}

impl Machine {
    /// From now on there is this kind of operation, on this pool. What is known of a kind stays.
    pub fn register(&mut self, kind: Name, pool: Name, policy: Policy) {
        let chunk = planned(&policy, &Estimate::new(policy.per_item, policy.least));
        let estimate = Estimate::new(policy.per_item, chunk);
        let (queueing, tally) = (Queueing::default(), Tally::default());
        let fresh = Kind { pool, policy, estimate, queueing, cap: None, held: false, tally, attempts: None };
        self.kinds.entry(kind).or_insert(fresh);
    }

    /// From now on there are jobs in one piece of this kind, on this pool. Nobody waits for them; one that fails is given
    /// back to the journal, and is tried again so often.
    pub fn register_deferred(&mut self, kind: Name, pool: Name, attempts: Attempts) {
        self.register(Name::clone(&kind), pool, Policy::default());
        if let Some(kind) = self.kinds.get_mut(&kind) {
            kind.attempts = Some(attempts);
        }
    }

    /// What an operation of so many items would come to, begun now. `None`: there is no such kind.
    #[must_use]
    pub fn plan(&self, kind: &str, items: u64) -> Option<Plan> {
        self.kinds.get(kind).map(|kind| kind.plan(items, kind.policy.deadline))
    }

    /// An operation is wanted. `None`: there is no such kind.
    pub fn begin(&mut self, wanted: &Wanted<'_>, now: Tick) -> Option<Begun> {
        if let Some(joined) = self.find(wanted.kind, wanted.caller) {
            return Some(Begun::Joined(joined));
        }
        if self.draining {
            return Some(Begun::Draining);
        }
        let kind = self.kinds.get_mut(wanted.kind)?;
        let until = now + kind.policy.deadline;
        let until = wanted.deadline.map_or(until, |deadline| deadline.min(until));
        let plan = kind.plan(wanted.items, until.since(now));
        kind.tally.prevented += u64::from(!plan.inline && !wanted.whole);
        let run = Run::foreground(wanted, plan, until);
        Some(Begun::Run(self.add(run), plan))
    }

    /// Goes on with a job of the journal. `None`: there is no such kind, or no room.
    pub fn resume(&mut self, kind: &Name, caller: &str, counts: Counts) -> Option<RunId> {
        let plan = self.plan(kind, counts.remaining())?;
        let room = self.room() > 0 && !self.draining && self.find(kind, caller).is_none();
        room.then(|| self.add(Run::background(kind, caller, plan, counts)))
    }

    /// Another attempt at a job in one piece.
    pub fn attempt(&mut self, kind: &Name, job: &str, counts: Counts, attempt: Attempt) -> Option<RunId> {
        let id = self.resume(kind, job, counts)?;
        if let Some(run) = self.runs.get_mut(&id) {
            run.attempt = attempt;
        }
        Some(id)
    }

    /// How many runs more can be worked on.
    #[must_use]
    pub fn room(&self) -> usize {
        RUNS.saturating_sub(self.runs.len())
    }

    /// What is to be done about the run. One that is not known is over.
    pub fn next(&mut self, id: RunId, now: Tick) -> Next {
        let Some(run) = self.runs.get(&id) else { return Next::Over(Ending::Cancelled) };
        let Some(kind) = self.kinds.get(&run.kind) else { return Next::Over(Ending::Cancelled) };
        if let Some(ending) = run.ending(kind.policy.may_fail(run.size())) {
            return Next::Over(ending);
        }
        let items = self.chunk_of(run, kind, now);
        let decided = match run.until {
            Some(until) => run.awaited(&kind.policy, self.draining).unwrap_or_else(|| {
                let fits = run.whole || kind.fits(items, until, now);
                if fits { run.due(items, now, Some(until)) } else { Next::Answer }
            }),
            None => self.unawaited(id, run, kind, items, now),
        };
        self.note(id, decided, now);
        decided
    }

    /// A chunk went like this.
    pub fn finished(&mut self, id: RunId, outcome: Outcome, now: Tick) -> Vec<Effect> {
        let Some(run) = self.runs.get_mut(&id) else { return Vec::new() };
        let Some(kind) = self.kinds.get_mut(&run.kind) else { return Vec::new() };
        let Some((Working { items, awaited, .. }, took)) = run.stop(now) else { return Vec::new() };
        if let Some(attempts) = &kind.attempts {
            match outcome {
                Outcome::Done { done, blocked, failed, .. } => run.advance(done, blocked, failed),
                Outcome::Failed(class) => {
                    run.spent(class, attempts, self.turns.level(&kind.pool) > Level::Normal);
                }
            }
            return Vec::new();
        }
        let mut effects = Vec::new();
        match outcome {
            Outcome::Done { done, blocked, failed, waited } => {
                kind.tally.count(done, blocked, failed);
                kind.tally.took.record(took);
                if !run.whole {
                    let worked = took.saturating_sub(waited);
                    kind.learn(items, worked);
                    run.grow(items, worked, &kind.policy);
                }
                // Who works for nobody waits longer than somebody's request, and that is no news to the next one.
                if awaited {
                    kind.queueing.learn(waited, now);
                }
                run.advance(done, blocked, failed);
                effects.extend(tell(run, kind, (items, took), now));
            }
            Outcome::Failed(class) => match run.failed(items, class, &kind.policy, now) {
                Found::Again => {}
                Found::TooMuch => kind.shrink(items),
                Found::Poison(item) => {
                    kind.tally.count(0, 0, 1);
                    effects.push(Effect::Poisoned(item));
                }
            },
        }
        effects
    }

    /// The caller has been answered.
    pub fn answered(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.until = None;
        }
    }

    /// A caller of this kind was answered after the deadline.
    pub fn overran(&mut self, kind: &str) {
        if let Some(kind) = self.kinds.get_mut(kind) {
            kind.tally.overruns += 1;
        }
    }

    /// The journal says that this has become of the run's items. What is known already stays.
    pub fn found(&mut self, id: RunId, counts: Counts) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.found(counts);
        }
    }

    /// The run is worked on no longer. Gives what has become of it.
    pub fn forget(&mut self, id: RunId) -> Option<Counts> {
        self.runs.remove(&id).map(|run| run.counts)
    }

    /// Nobody wants the run any more: it ends before its next chunk. What is done stays done.
    pub fn cancel(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.cancelled = true;
        }
    }

    /// Somebody else works on it by now: it ends before its next chunk.
    pub fn lose(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.lost = true;
        }
    }

    /// Runs of this kind that nobody waits for do nothing from now on, or go on again. False: no such kind.
    pub fn hold(&mut self, kind: &str, held: bool) -> bool {
        self.kinds.get_mut(kind).map(|kind| kind.held = held).is_some()
    }

    /// From now on nothing is begun, and every run stops before its next chunk: others go on with them.
    pub const fn drain(&mut self) {
        self.draining = true;
    }

    /// The pool came to this level.
    pub fn on_level(&mut self, pool: &Name, level: Level, now: Tick) {
        self.turns.on_level(pool, level, now);
    }

    /// Levels change something, or nothing: in mode `observe` and `off`.
    pub const fn heed(&mut self, levels: bool) {
        self.turns.heed(levels);
    }

    /// How many jobs more may be taken up on this pool, that nobody waits for.
    #[must_use]
    pub fn room_on(&self, pool: &Name, now: Tick) -> usize {
        if self.draining {
            return 0;
        }
        let of_pool = self.runs.values().filter(|run| run.until.is_none() && self.is_on(run, pool));
        self.room().min(self.turns.allowed(pool, now).0.saturating_sub(of_pool.count()))
    }

    /// Whether runs of this kind may be worked on that nobody waits for.
    #[must_use]
    pub fn is_open(&self, kind: &str) -> bool {
        self.kinds.get(kind).is_some_and(|kind| !kind.held)
    }

    /// Whether what is called so is a job in one piece.
    #[must_use]
    pub fn is_deferred(&self, kind: &str) -> bool {
        self.kinds.get(kind).is_some_and(|kind| kind.attempts.is_some())
    }

    /// Whether nothing is begun any more.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether a run of this kind is worked on.
    #[must_use]
    pub fn runs(&self, kind: &str) -> bool {
        self.runs.values().any(|run| *run.kind == *kind)
    }

    /// Whether this caller's run of this kind is worked on, and has not got on since it was begun here.
    #[must_use]
    pub fn is_at_its_first_chunk(&self, kind: &str, caller: &str) -> bool {
        let run = self.find(kind, caller).and_then(|id| self.runs.get(&id));
        run.is_some_and(|run| !run.begun)
    }

    /// Whether nothing is worked on.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.runs.is_empty()
    }

    /// What has become of the run's items.
    #[must_use]
    pub fn counts(&self, id: RunId) -> Option<Counts> {
        self.runs.get(&id).map(|run| run.counts)
    }

    /// When the run's caller goes away, while they wait for less than all of it.
    #[must_use]
    pub fn deadline(&self, id: RunId) -> Option<Tick> {
        self.runs.get(&id).filter(|run| !run.whole)?.until
    }

    /// When the run's caller must have been answered, while they wait.
    #[must_use]
    pub fn answer_by(&self, id: RunId) -> Option<Tick> {
        let run = self.runs.get(&id).filter(|run| !run.whole)?;
        let kept = self.kinds.get(&run.kind)?.policy.kept_back();
        run.until.map(|until| Tick::ZERO + until.since(Tick::ZERO + kept))
    }

    /// How long the rest of the run takes.
    #[must_use]
    pub fn left(&self, id: RunId, now: Tick) -> Option<Duration> {
        let run = self.runs.get(&id)?;
        Some(self.kinds.get(&run.kind)?.left(run, now))
    }

    /// The run of this kind for this caller.
    #[must_use]
    pub fn find(&self, kind: &str, caller: &str) -> Option<RunId> {
        let mut runs = self.runs.iter();
        runs.find(|(_, run)| *run.kind == *kind && *run.caller == *caller).map(|(id, _)| *id)
    }

    /// Each kind of long operation: its name, the items of a chunk now, the items that are left in its runs, and what has
    /// become of all others.
    pub fn kinds(&self) -> impl Iterator<Item = (&Name, u32, u64, Tally)> {
        self.kinds.iter().filter(|(_, kind)| kind.attempts.is_none()).map(|(name, kind)| {
            let runs = self.runs.values().filter(|run| run.kind == *name);
            let left = runs.map(|run| run.counts.remaining()).sum();
            (name, self.under_pressure(kind, kind.batch()), left, kind.tally)
        })
    }

    fn add(&mut self, run: Run) -> RunId {
        self.last += 1;
        self.runs.insert(RunId(self.last), run);
        RunId(self.last)
    }

    /// A run that nobody waits for gives way to everybody else.
    fn unawaited(&self, id: RunId, run: &Run, kind: &Kind, items: u32, now: Tick) -> Next {
        let wait = |why, until| Next::Wait { why, until };
        if self.draining || self.runs.len() > RUNS {
            return Next::Over(Ending::Released);
        }
        if kind.held {
            return wait(Waits::Paused, None);
        }
        match self.turns.allowed(&kind.pool, now) {
            (0, _) => wait(Waits::Pressure, None),
            (allowed, more) if self.others_first(id, run, &kind.pool) >= allowed => wait(Waits::Turn, more),
            _ => run.due(items, now, None),
        }
    }

    /// How many others are at work, or have a better class and wait for nothing but their turn.
    fn others_first(&self, id: RunId, run: &Run, pool: &Name) -> usize {
        let others =
            self.runs.iter().filter(|(other, other_run)| **other != id && self.is_on(other_run, pool));
        let better = |other: &Run| {
            other.attempt.class < run.attempt.class && other.is_ready() && self.is_open(&other.kind)
        };
        others.filter(|(_, other)| other.works_unawaited() || better(other)).count()
    }

    fn is_on(&self, run: &Run, pool: &Name) -> bool {
        self.kinds.get(&run.kind).is_some_and(|kind| kind.pool == *pool)
    }

    fn note(&mut self, id: RunId, decided: Next, now: Tick) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        match decided {
            Next::Chunk { items, .. } => run.start(items, now),
            Next::Answer => run.until = None,
            Next::Wait { .. } | Next::Over(_) => {}
        }
    }

    fn chunk_of(&self, run: &Run, kind: &Kind, now: Tick) -> u32 {
        if run.whole {
            return u32::try_from(run.counts.remaining()).unwrap_or(u32::MAX);
        }
        run.within(self.under_pressure(kind, kind.size(run, now)))
    }

    /// Connections are to come back sooner.
    fn under_pressure(&self, kind: &Kind, items: u32) -> u32 {
        match self.turns.level(&kind.pool) {
            Level::Normal => items,
            Level::Warning | Level::Critical => (items / 2).max(kind.policy.least.min(items)),
        }
    }
}

/// Items of a chunk that takes as long as it is to take.
fn planned(policy: &Policy, estimate: &Estimate) -> u32 {
    estimate.items_in(policy.chunk_target()).clamp(policy.least, policy.most)
}

fn tell(run: &mut Run, kind: &Kind, (items, took): (u32, Duration), now: Tick) -> Option<Effect> {
    let last = run.counts.remaining() == 0;
    let due = run.told_at.is_none_or(|at| now.since(at) >= TELL_EVERY);
    if !(last || due) || run.whole {
        return None;
    }
    run.told_at = Some(now);
    let of = run.chunks + run.counts.remaining().div_ceil(kind.size(run, now).into());
    Some(Effect::Tell { number: run.chunks, of, items, took, left: kind.left(run, now) })
}

impl Kind {
    /// What so many items come to for somebody who waits for so long.
    fn plan(&self, items: u64, patience: Duration) -> Plan {
        let at_most = self.estimate.at_most(items);
        let batch = u32::try_from(items.min(self.batch().into())).unwrap_or(u32::MAX).max(1);
        Plan {
            items,
            inline: at_most <= patience.mul_f64(self.policy.inline_share),
            batch,
            batches: items.div_ceil(batch.into()),
            estimate: self.estimate.likely(items),
            at_most,
        }
    }

    /// Items of a chunk of a new run.
    fn batch(&self) -> u32 {
        let planned = planned(&self.policy, &self.estimate);
        self.cap.map_or(planned, |cap| cap.min(planned))
    }

    /// Items of the run's next chunk, if there are as many and nothing presses: of the two sizes that it may have the
    /// larger one, unless somebody waits who might not have its time.
    fn size(&self, run: &Run, now: Tick) -> u32 {
        let capped = |items: u32| self.cap.map_or(items, |cap| cap.min(items));
        let fits = |items: u32| run.until.is_none_or(|until| self.fits(run.within(items), until, now));
        run.grown.map(capped).filter(|items| fits(*items)).unwrap_or_else(|| capped(run.batch)).max(1)
    }

    /// Whether a chunk of so many items is over in time for the reply, even if it takes half as long again as 95 in
    /// 100 do at most, once it has waited for its connection as others did lately.
    fn fits(&self, items: u32, until: Tick, now: Tick) -> bool {
        let chunk = self.estimate.at_most(items.into()).mul_f64(1.5);
        now + self.queueing.expected(now) + chunk + self.policy.kept_back() <= until
    }

    fn learn(&mut self, items: u32, took: Duration) {
        self.estimate.learn(items, took);
        let target = self.policy.chunk_target();
        if took > target.mul_f64(1.5) {
            self.shrink(items);
        } else if took <= target
            && let Some(cap) = self.cap
        {
            let grown = cap.saturating_add(self.policy.step);
            self.cap = Some(grown).filter(|grown| *grown < self.policy.most);
        }
    }

    fn shrink(&mut self, items: u32) {
        self.cap = Some((items / 2).max(self.policy.least));
    }

    fn left(&self, run: &Run, now: Tick) -> Duration {
        let left = run.counts.remaining();
        let batch = self.size(run, now);
        let whole = u32::try_from(left / u64::from(batch)).unwrap_or(u32::MAX);
        let rest = left % u64::from(batch);
        let rest = if rest == 0 { Duration::ZERO } else { self.estimate.likely(rest) };
        self.estimate.likely(batch.into()).saturating_mul(whole).saturating_add(rest)
    }
}

impl Run {
    /// What a waiting caller is told, if it is their turn whatever the time is.
    fn awaited(&self, policy: &Policy, draining: bool) -> Option<Next> {
        let first = policy.reply == Reply::FirstChunk && !self.inline && self.begun;
        ((first || draining) && !self.whole).then_some(Next::Answer)
    }
}

impl Tally {
    fn count(&mut self, done: u32, blocked: u32, failed: u32) {
        self.done += u64::from(done);
        self.blocked += u64::from(blocked);
        self.failed += u64::from(failed);
    }
}
