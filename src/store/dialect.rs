//! What differs between the databases: the statements, and how sets are handed to them.
//!
//! Sealed with [`Backend`]. The methods are not for callers; they are here because a generic function of a host would
//! otherwise have to repeat sqlx's bounds. Each is one statement, or few that need not be one: a statement commits by
//! itself unless its caller has begun a transaction.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use selfheal_actors::{
    batch_executor::journal::{Claim, Claimed, Counts, Job, JobId, Lease, NewJob, Progress, Settle, State},
    level::Class,
};

use super::{
    listen::Ears,
    migrations::Migration,
    overview::{Look, Queue},
};
use crate::db::{Backend, ConnectOptionsOf};

/// Of a job that was written down just now: its id, and its queue and key if it has a key.
#[derive(Debug)]
pub struct Fresh {
    pub(super) id: JobId,
    pub(super) key: Option<(String, String)>,
}

/// A database that can keep durable jobs: PostgreSQL and SQLite.
pub trait Dialect: Backend {
    /// Connections outside the pool that write at the same time.
    #[doc(hidden)]
    const WRITERS: usize;

    /// All steps from an empty database to today's tables, in order.
    #[doc(hidden)]
    const MIGRATIONS: &'static [Migration];

    /// How such a connection is made.
    #[doc(hidden)]
    fn writer(options: ConnectOptionsOf<Self>) -> ConnectOptionsOf<Self>;

    /// Listens for what other processes accept, on a connection of its own; `None` where the database tells nobody.
    #[doc(hidden)]
    fn listener(options: ConnectOptionsOf<Self>) -> Option<BoxFuture<'static, Result<Ears, sqlx::Error>>>;

    /// Which file only one process at a time may hold to work on the jobs; `None` if leases alone keep processes apart.
    #[doc(hidden)]
    fn lock_file(options: &ConnectOptionsOf<Self>) -> Option<PathBuf>;

    /// A transaction in which nobody else writes the tables' own table.
    #[doc(hidden)]
    fn begin_migration(conn: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// Runs statements as they are.
    #[doc(hidden)]
    fn run<'c>(conn: &'c mut Self::Connection, sql: &'static str) -> BoxFuture<'c, Result<(), sqlx::Error>>;

    /// The steps that were taken: their version, and the oldest version that can live with them.
    #[doc(hidden)]
    fn steps(conn: &mut Self::Connection) -> BoxFuture<'_, Result<Vec<(i64, i64)>, sqlx::Error>>;

    /// A step was taken.
    #[doc(hidden)]
    fn took<'c>(
        conn: &'c mut Self::Connection,
        step: &'c Migration,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>>;

    #[doc(hidden)]
    fn accept<'c>(
        conn: &'c mut Self::Connection,
        jobs: &'c [NewJob],
    ) -> BoxFuture<'c, Result<Vec<Fresh>, sqlx::Error>>;

    #[doc(hidden)]
    fn claim<'c>(
        conn: &'c mut Self::Connection,
        claim: &'c Claim<'c>,
    ) -> BoxFuture<'c, Result<Vec<Claimed>, sqlx::Error>>;

    /// Those of `leases` that were prolonged.
    #[doc(hidden)]
    fn heartbeat<'c>(
        conn: &'c mut Self::Connection,
        leases: &'c [Lease],
        ttl: Duration,
    ) -> BoxFuture<'c, Result<Vec<Lease>, sqlx::Error>>;

    #[doc(hidden)]
    fn checkpoint<'c>(
        conn: &'c mut Self::Connection,
        lease: Lease,
        progress: &'c Progress,
    ) -> BoxFuture<'c, Result<bool, sqlx::Error>>;

    /// Those of `done` that need not be kept, which are done and gone.
    #[doc(hidden)]
    fn finish<'c>(
        conn: &'c mut Self::Connection,
        done: &'c [Lease],
    ) -> BoxFuture<'c, Result<Vec<Lease>, sqlx::Error>>;

    /// Those of `ends` that were held, and have ended.
    #[doc(hidden)]
    fn settle<'c>(
        conn: &'c mut Self::Connection,
        ends: &'c [&'c Settle],
    ) -> BoxFuture<'c, Result<Vec<Lease>, sqlx::Error>>;

    #[doc(hidden)]
    fn look<'c>(
        conn: &'c mut Self::Connection,
        what: &'c Look<'c>,
    ) -> BoxFuture<'c, Result<Vec<Job>, sqlx::Error>>;

    /// Forgets those of the jobs with these keys whose time is over, and lets the keys go with them.
    #[doc(hidden)]
    fn let_go<'c>(
        conn: &'c mut Self::Connection,
        queues: &'c [&'c str],
        keys: &'c [&'c str],
    ) -> BoxFuture<'c, Result<(), sqlx::Error>>;

    #[doc(hidden)]
    fn queues(conn: &mut Self::Connection) -> BoxFuture<'_, Result<Vec<Queue>, sqlx::Error>>;

    #[doc(hidden)]
    fn pause<'c>(
        conn: &'c mut Self::Connection,
        queue: &'c str,
        paused: bool,
        by: &'c str,
        reason: &'c str,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>>;

    /// Jobs of a queue that wait for their time need not any longer.
    #[doc(hidden)]
    fn hurry<'c>(conn: &'c mut Self::Connection, queue: &'c str) -> BoxFuture<'c, Result<(), sqlx::Error>>;

    /// Leases of processes that are gone end now: nobody else can hold one.
    #[doc(hidden)]
    fn take_over(conn: &mut Self::Connection) -> BoxFuture<'_, Result<u64, sqlx::Error>>;

    /// Forgets what need not be kept any longer, and adds the books up. Says how many jobs were forgotten.
    #[doc(hidden)]
    fn sweep(conn: &mut Self::Connection) -> BoxFuture<'_, Result<u64, sqlx::Error>>;
}

/// For how long a dead job is kept: somebody should look at it.
pub(super) const DEAD_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Jobs that one look forgets at most.
pub(super) const FORGOTTEN_AT_ONCE: i64 = 1_000;

/// A span as the tables have it.
pub(super) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// A span from the tables. Clocks can be set back: then it is none.
pub(super) fn span(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

pub(super) fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn counted(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn number(n: i64) -> u32 {
    u32::try_from(n.max(0)).unwrap_or(u32::MAX)
}

/// What another version of this program has written may be unknown here: it is treated as what can wait.
pub(super) fn class(index: i64) -> Class {
    usize::try_from(index).ok().and_then(|index| Class::ALL.get(index)).copied().unwrap_or(Class::Background)
}

pub(super) const fn state(index: i64) -> State {
    match index {
        0 => State::Pending,
        1 => State::Leased,
        2 => State::Done,
        _ => State::Dead,
    }
}

/// Reads rows that both databases give alike. `sqlx::Row` cannot be used generically without naming every type.
macro_rules! rows_of {
    ($row:ty) => {
        use sqlx::Row as _;

        type Found<T> = Result<T, sqlx::Error>;

        fn counts(row: &$row) -> Found<Counts> {
            Ok(Counts {
                total: counted(row.try_get("total")?),
                done: counted(row.try_get("done")?),
                blocked: counted(row.try_get("blocked")?),
                failed: counted(row.try_get("failed")?),
            })
        }

        fn fresh(row: &$row) -> Found<Fresh> {
            let (queue, key): (Option<String>, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
            Ok(Fresh { id: JobId(row.try_get(0)?), key: queue.zip(key) })
        }

        /// With its rank, by which they are to be worked on.
        fn claimed(row: &$row) -> Found<(i64, Claimed)> {
            let claimed = Claimed {
                lease: Lease { job: JobId(row.try_get("id")?), token: row.try_get("token")? },
                queue: row.try_get::<String, _>("queue")?.into(),
                payload: row.try_get("payload")?,
                class: class(row.try_get("class")?),
                owner: row.try_get("owner")?,
                progress: Progress { cursor: row.try_get("progress")?, counts: counts(row)? },
                failures: number(row.try_get("failures")?),
                losses: number(row.try_get("losses")?),
                age: span(row.try_get("age")?),
            };
            Ok((row.try_get("rank")?, claimed))
        }

        fn job(row: &$row) -> Found<Job> {
            Ok(Job {
                id: JobId(row.try_get("id")?),
                queue: row.try_get::<String, _>("queue")?.into(),
                key: row.try_get("key")?,
                owner: row.try_get("owner")?,
                class: class(row.try_get("class")?),
                state: state(row.try_get("state")?),
                counts: counts(row)?,
                failures: number(row.try_get("failures")?),
                losses: number(row.try_get("losses")?),
                cursor: row.try_get("progress")?,
                error: row.try_get("error")?,
                age: span(row.try_get("age")?),
            })
        }

        fn queue(row: &$row) -> Found<Queue> {
            Ok(Queue {
                name: row.try_get::<String, _>("queue")?.into(),
                pending: counted(row.try_get("pending")?),
                leased: counted(row.try_get("leased")?),
                accepted: counted(row.try_get("accepted")?),
                done: counted(row.try_get("done")?),
                dead: counted(row.try_get("dead")?),
                oldest: row.try_get::<Option<i64>, _>("oldest")?.map(span),
                paused: row.try_get("paused")?,
            })
        }

        fn lease(row: &$row) -> Found<Lease> {
            Ok(Lease { job: JobId(row.try_get(0)?), token: row.try_get(1)? })
        }

        fn each<T>(rows: &[$row], read: fn(&$row) -> Found<T>) -> Found<Vec<T>> {
            rows.iter().map(read).collect()
        }

        /// The most urgent first.
        fn in_order(rows: &[$row]) -> Found<Vec<Claimed>> {
            let mut claimed = each(rows, claimed)?;
            claimed.sort_by_key(|(rank, claimed)| (*rank, claimed.lease.job));
            Ok(claimed.into_iter().map(|(_, claimed)| claimed).collect())
        }
    };
}

pub(super) use rows_of;

/// A part of an error that may be kept: whole letters, and none that a database refuses.
pub(super) fn kept(error: &str) -> String {
    let most = selfheal_actors::batch_executor::journal::MAX_ERROR;
    let end = (0..=most.min(error.len())).rev().find(|&end| error.is_char_boundary(end)).unwrap_or(0);
    error[..end].replace('\0', " ")
}

/// What an end of a lease does to its row, other than that of a job which is done and need not be kept.
pub(super) struct Written {
    pub(super) lease: Lease,
    /// 0 pending, 2 done, 3 dead.
    pub(super) state: i16,
    /// When it may be claimed, from now.
    pub(super) after: i64,
    /// Whether the attempt has failed.
    pub(super) failure: bool,
    pub(super) error: Option<String>,
    pub(super) counts: Option<Counts>,
}

impl Written {
    pub(super) fn of(settle: &Settle) -> Self {
        use selfheal_actors::batch_executor::journal::End;
        let written = |state, after, failure, error: Option<&str>| Self {
            lease: settle.lease,
            state,
            after: micros(after),
            failure,
            error: error.map(kept),
            counts: None,
        };
        match &settle.end {
            End::Done { counts } => Self { counts: Some(*counts), ..written(2, Duration::ZERO, false, None) },
            End::Retry { after, error } => written(0, *after, true, Some(error)),
            End::Dead { error } => written(3, Duration::ZERO, true, Some(error)),
            End::Release { after } => written(0, *after, false, None),
        }
    }
}

/// Names as a database takes them.
pub(super) fn texts(names: &[Arc<str>]) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_cut_between_letters_and_without_what_no_database_keeps() {
        assert_eq!(kept("a\0b"), "a b");
        let long = "ä".repeat(1_000);
        assert_eq!(kept(&long).len(), 1_024);
        assert_eq!(kept(&format!("x{long}")).len(), 1_023);
    }

    #[test]
    fn spans_go_in_and_out_and_a_clock_that_was_set_back_gives_none() {
        assert_eq!(span(micros(Duration::from_millis(1_500))), Duration::from_millis(1_500));
        assert_eq!(span(-7), Duration::ZERO);
        assert!(micros(Duration::MAX) < i64::MAX / 2, "it can be added to a time");
    }
}
