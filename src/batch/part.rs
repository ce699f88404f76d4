//! What a handler is given, and what it gives back.

use std::{fmt, ops::Deref, ops::Range, sync::Arc};

use selfheal_actors::{
    batch_executor::{
        Chunk, Did, Fate, Item, NotDone,
        journal::{JobId, Trouble},
    },
    error_class::ErrorClass,
};

use crate::{db, store};

/// Some items of an operation, in their order: a slice, which can be moved into a task.
pub struct Part<T> {
    all: Arc<[T]>,
    range: Range<usize>,
    job: Option<JobId>,
    awaited: bool,
}

impl<T> Part<T> {
    /// A chunk that is not of these items is an empty part of them.
    pub(super) fn of(all: &Arc<[T]>, chunk: &Chunk) -> Self {
        let at = |index: u64| usize::try_from(index).unwrap_or(usize::MAX).min(all.len());
        let range = at(chunk.from)..at(chunk.from.saturating_add(chunk.items.into()));
        let job = chunk.lease.map(|lease| lease.job);
        Self { all: Arc::clone(all), range, job, awaited: chunk.awaited }
    }

    /// Where in the operation the first of them is, counted from 0.
    #[must_use]
    pub const fn first(&self) -> usize {
        self.range.start
    }

    /// Whether somebody waits for them.
    #[must_use]
    pub const fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// The job that the operation is written down as; `None` if it is short, and not written down.
    #[must_use]
    pub const fn job(&self) -> Option<JobId> {
        self.job
    }

    /// A name of the item at `at` of this part, the same whenever and by whomever it is done, and of no other item: for
    /// effects outside of the database, which may be asked for twice. `None` where nothing is done twice, because nothing
    /// is written down.
    #[must_use]
    pub fn key(&self, at: usize) -> Option<String> {
        self.job.map(|job| format!("{job}-{}", self.range.start + at))
    }
}

impl<T> Deref for Part<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.all[self.range.clone()]
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        let (all, range) = (Arc::clone(&self.all), self.range.clone());
        Self { all, range, job: self.job, awaited: self.awaited }
    }
}

impl<T> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("range", &self.range).field("job", &self.job).finish_non_exhaustive()
    }
}

/// What has become of the items of a part. Those that are not named are done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results(Vec<(usize, Fate, String)>);

impl Results {
    /// All of them are done.
    #[must_use]
    pub const fn done() -> Self {
        Self(Vec::new())
    }

    /// The item at `at` of the part was left as it was, because it must not be changed. An item that is named twice keeps
    /// its first fate.
    #[must_use]
    pub fn blocked(self, at: usize, why: impl Into<String>) -> Self {
        self.with(at, Fate::Blocked, why.into())
    }

    /// The item at `at` of the part fails, and will not be tried again.
    #[must_use]
    pub fn failed(self, at: usize, why: impl Into<String>) -> Self {
        self.with(at, Fate::Failed, why.into())
    }

    fn with(mut self, at: usize, fate: Fate, why: String) -> Self {
        if self.0.iter().all(|(known, ..)| *known != at) {
            self.0.push((at, fate, why));
        }
        self
    }

    /// The same, of a chunk. What is beyond it is none of it.
    pub(super) fn of(self, chunk: &Chunk) -> Did {
        let mut did = Did { done: chunk.items, ..Did::default() };
        for (at, fate, why) in self.0.into_iter().filter(|(at, ..)| *at < chunk.items as usize) {
            did.done -= 1;
            match fate {
                Fate::Blocked => did.blocked += 1,
                Fate::Failed => did.failed += 1,
            }
            did.items.push(Item { at: chunk.from + at as u64, fate, why });
        }
        did
    }
}

/// A part was not done, and nothing of it was.
///
/// What the error means decides what comes next. What passes ([`Transient`](ErrorClass::Transient),
/// [`Overload`](ErrorClass::Overload)) is tried again later; after [`Timeout`](ErrorClass::Timeout) with half of it;
/// after [`Interrupted`](ErrorClass::Interrupted) it is first found out what was done; and what is
/// [`Permanent`](ErrorClass::Permanent) is divided, until the item that fails is known and passed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub(super) class: ErrorClass,
    pub(super) why: String,
}

impl Failed {
    /// A failure of this class.
    pub fn new(class: ErrorClass, why: impl Into<String>) -> Self {
        Self { class, why: why.into() }
    }

    /// The same before the commit of its transaction: nothing of it is done, however its connection has ended.
    pub(crate) fn undone(error: impl Into<Self>) -> Self {
        let failed = error.into();
        match failed.class {
            ErrorClass::Interrupted => Self { class: ErrorClass::Transient, ..failed },
            ErrorClass::Transient
            | ErrorClass::Timeout
            | ErrorClass::Overload
            | ErrorClass::Permanent
            | ErrorClass::Shutdown
            | ErrorClass::Unknown => failed,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Failed {}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        // What has no room for anything, or takes no writes, is no fault of what is written.
        let surroundings = matches!(store::by_code(&error), Some(Trouble::Full | Trouble::ReadOnly));
        let class = if surroundings { ErrorClass::Overload } else { db::classify(&error) };
        Self { class, why: db::message(&error).into_owned() }
    }
}

impl From<db::Error> for Failed {
    fn from(error: db::Error) -> Self {
        sqlx::Error::from(error).into()
    }
}

impl From<Failed> for NotDone {
    fn from(Failed { class, why }: Failed) -> Self {
        Self::Failed { class, why }
    }
}

#[cfg(test)]
mod tests {
    use selfheal_actors::batch_executor::journal::{Counts, Lease};

    use super::*;

    const CHUNK: Chunk = Chunk {
        from: 100,
        items: 3,
        awaited: true,
        lease: Some(Lease { job: JobId(7), token: 1 }),
        before: Counts { total: 500, done: 100, blocked: 0, failed: 0 },
    };

    #[test]
    fn results_add_up_to_the_items_of_the_chunk_whatever_they_name() {
        let results =
            Results::done().blocked(1, "promoted").failed(1, "again").failed(2, "bad").failed(9, "?");
        let did = results.of(&CHUNK);
        assert_eq!((did.done, did.blocked, did.failed), (1, 1, 1));
        assert_eq!(did.items.iter().map(|item| item.at).collect::<Vec<_>>(), [101, 102]);
    }

    #[test]
    fn a_part_is_a_slice_and_its_items_have_names_of_their_own() {
        let all: Arc<[u32]> = (0..500).collect();
        let part = Part::of(&all, &CHUNK);
        assert_eq!((&part[..], part.first()), (&[100, 101, 102][..], 100));
        assert_eq!(part.key(2).as_deref(), Some("7-102"));
        let beyond = Part::of(&all, &Chunk { from: 499, items: 10, lease: None, ..CHUNK });
        assert_eq!((beyond.len(), beyond.key(0)), (1, None));
        assert!(Part::of(&all, &Chunk { from: u64::MAX, ..CHUNK }).is_empty());
    }
}
