//! One run of an operation: how far it is, and which part of it is the next one to try.
//!
//! Items are worked on in order, so that one number says how far a run is, to the journal and to whoever goes on
//! with it. If a chunk fails because of what is in it, its first half is tried by itself, then the rest: of 128 items
//! the one that fails is found in at most 15 tries, and the other 127 are done. What that finds out is not written
//! down; a successor finds it again.

use std::{sync::Arc, time::Duration};

use super::{
    attempts::Attempts,
    journal::Counts,
    machine::{Attempt, Ending, Next, Plan, Waits, Wanted},
    policy::Policy,
};
use crate::{clock::Tick, error_class::ErrorClass, level::Class, signal::Name};

/// A run of an operation.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) kind: Name,
    pub(super) caller: Arc<str>,
    pub(super) whole: bool,
    pub(super) inline: bool,
    /// Items of a chunk: as planned, or as many as a larger one had.
    pub(super) batch: u32,
    /// Items that the next chunk may have beyond that, because the last one was cheap.
    pub(super) grown: Option<u32>,
    pub(super) counts: Counts,
    /// When the caller goes away; `None` if nobody waits.
    pub(super) until: Option<Tick>,
    /// Whether a chunk of it is done.
    pub(super) begun: bool,
    /// Chunks that are done.
    pub(super) chunks: u64,
    pub(super) told_at: Option<Tick>,
    pub(super) cancelled: bool,
    pub(super) lost: bool,
    /// Of a job in one piece; a long operation is always what can wait.
    pub(super) attempt: Attempt,
    /// How the attempt has ended, if it has failed.
    spent: Option<Ending>,
    working: Option<Working>,
    /// Where the parts end that a failed chunk was divided into, the next one last.
    parts: Vec<u64>,
    /// How often the next chunk has failed because of its surroundings, and when it may be tried again.
    failures: u32,
    not_before: Option<Tick>,
}

/// A chunk that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Working {
    pub(super) items: u32,
    since: Tick,
    /// Whether somebody waited for it as it began.
    pub(super) awaited: bool,
}

/// What a failure says.
pub(super) enum Found {
    /// Nothing about the chunk, which is tried again.
    Again,
    /// It was too much at once.
    TooMuch,
    /// This item fails, whatever is around it.
    Poison(u64),
}

impl Run {
    pub(super) fn foreground(wanted: &Wanted<'_>, plan: Plan, until: Tick) -> Self {
        let counts = Counts { total: wanted.items, ..Counts::default() };
        let run = Self::background(wanted.kind, wanted.caller, plan, counts);
        Self { whole: wanted.whole, inline: plan.inline, until: Some(until), ..run }
    }

    pub(super) fn background(kind: &Name, caller: &str, plan: Plan, counts: Counts) -> Self {
        Self {
            kind: Arc::clone(kind),
            caller: caller.into(),
            whole: false,
            inline: false,
            batch: plan.batch,
            grown: None,
            counts,
            until: None,
            begun: false,
            chunks: 0,
            told_at: None,
            cancelled: false,
            lost: false,
            attempt: Attempt { class: Class::Background, before: 0 },
            spent: None,
            working: None,
            parts: Vec::new(),
            failures: 0,
            not_before: None,
        }
    }

    /// Whether it is over, if so many items may fail.
    pub(super) fn ending(&self, may_fail: u32) -> Option<Ending> {
        if self.lost {
            Some(Ending::Lost)
        } else if self.counts.remaining() == 0 {
            Some(Ending::Done)
        } else if self.cancelled {
            Some(Ending::Cancelled)
        } else if let Some(ending) = self.spent {
            Some(ending)
        } else {
            (self.counts.failed > u64::from(may_fail)).then_some(Ending::GaveUp)
        }
    }

    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.counts.total).unwrap_or(u32::MAX)
    }

    /// The first item that nothing has become of.
    pub(super) const fn cursor(&self) -> u64 {
        self.counts.total - self.counts.remaining()
    }

    /// So many items from the cursor on, but no more than there are in this part.
    pub(super) fn within(&self, items: u32) -> u32 {
        let end = self.parts.last().copied().unwrap_or(self.counts.total);
        items.min(u32::try_from(end - self.cursor()).unwrap_or(u32::MAX))
    }

    /// The chunk, unless it has failed and must wait: for a caller who waits not longer than they do.
    pub(super) fn due(&self, items: u32, now: Tick, until: Option<Tick>) -> Next {
        match self.not_before.filter(|at| *at > now) {
            Some(at) if until.is_some_and(|until| at >= until) => Next::Answer,
            Some(at) => Next::Wait { why: Waits::Again, until: Some(at) },
            None => Next::Chunk { from: self.cursor(), items },
        }
    }

    pub(super) const fn works_unawaited(&self) -> bool {
        self.working.is_some() && self.until.is_none()
    }

    pub(super) fn start(&mut self, items: u32, now: Tick) {
        self.batch = self.batch.max(items);
        self.working = Some(Working { items, since: now, awaited: self.until.is_some() });
    }

    /// The chunk that has ended, and how long it took.
    pub(super) fn stop(&mut self, now: Tick) -> Option<(Working, Duration)> {
        self.working.take().map(|working| (working, now.since(working.since)))
    }

    /// A chunk that took no more than a quarter of what one may take is followed by one of twice its items: that is still
    /// well within it.
    pub(super) fn grow(&mut self, items: u32, took: Duration, policy: &Policy) {
        let twice = items.saturating_mul(2).min(policy.most);
        let cheap = took <= policy.chunk_target() / 4;
        self.grown = (cheap && twice > self.batch).then_some(twice);
    }

    pub(super) fn advance(&mut self, done: u32, blocked: u32, failed: u32) {
        self.counts.done += u64::from(done);
        self.counts.blocked += u64::from(blocked);
        self.counts.failed += u64::from(failed);
        self.begun = true;
        self.chunks += 1;
        self.moved();
    }

    /// A chunk has failed, and nothing of it was done.
    pub(super) fn failed(&mut self, items: u32, class: ErrorClass, policy: &Policy, now: Tick) -> Found {
        match class {
            ErrorClass::Permanent | ErrorClass::Unknown => self.divide(items),
            ErrorClass::Timeout => {
                self.later(policy, now);
                Found::TooMuch
            }
            ErrorClass::Transient | ErrorClass::Interrupted | ErrorClass::Overload | ErrorClass::Shutdown => {
                self.later(policy, now);
                Found::Again
            }
        }
    }

    /// A job in one piece has failed, and nothing of it was done.
    pub(super) fn spent(&mut self, class: ErrorClass, attempts: &Attempts, pressed: bool) {
        self.spent = Some(attempts.failed(class, self.attempt.before, pressed));
    }

    /// Whether it waits for nothing but its turn to begin.
    pub(super) const fn is_ready(&self) -> bool {
        let stopped = self.lost || self.cancelled || self.spent.is_some();
        !(self.begun || stopped) && self.working.is_none() && self.until.is_none()
    }

    /// Somebody has written down that it is further than was known.
    pub(super) fn found(&mut self, counts: Counts) {
        if counts.remaining() < self.counts.remaining() {
            self.counts = Counts { total: self.counts.total, ..counts };
            self.begun = true;
            self.moved();
        }
    }

    fn later(&mut self, policy: &Policy, now: Tick) {
        self.failures += 1;
        self.not_before = Some(now + policy.wait(self.failures));
    }

    /// Half of what has failed is tried by itself, then the other half; a single item is passed by.
    fn divide(&mut self, items: u32) -> Found {
        let from = self.cursor();
        if items > 1 {
            let end = from + u64::from(items);
            if self.parts.last() != Some(&end) {
                self.parts.push(end);
            }
            self.parts.push(from + u64::from(items.div_ceil(2)));
            return Found::Again;
        }
        self.counts.failed += 1;
        self.begun = true;
        self.moved();
        Found::Poison(from)
    }

    /// Parts that are behind the cursor are no parts any more, and what failed before it matters no longer.
    fn moved(&mut self) {
        let cursor = self.cursor();
        self.parts.retain(|end| *end > cursor);
        self.failures = 0;
        self.not_before = None;
    }
}
