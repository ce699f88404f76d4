//! The capture of spam: every message that matches the rule is moved to review, at 10 ms an item.
//!
//! Healed it is a long operation: the database is asked which messages match, and what is done with a part of them is
//! registered with the runtime. Plain it is the incident's own code: chunk after chunk of 250, while its caller waits.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use selfheal::{
    Heal, HealPool,
    batch::{self, Failed, Handler, Part, Results},
    batch_executor::Report,
    error_class::ErrorClass,
    store,
    transition::{self, Guard, Outcome},
};
use serde::Serialize;
use sqlx::Executor;

use super::{
    message::Message,
    store::{Error, Guarded, Plain},
};
use crate::output::grouped;

/// What the operation is called, in config, metrics and the database.
pub(crate) const OPERATION: &str = "spam-capture";
/// What an item costs: its text is looked at by something slow.
const PER_ITEM: Duration = Duration::from_millis(10);
/// The incident's chunks.
const CHUNK: usize = 250;

/// Those that may be captured.
const READY: &str =
    "SELECT id, body FROM messages WHERE status = 'READY' AND body LIKE 'You have won %' ORDER BY id";
/// Everything, as the bug has it: the status is looked at by nobody.
const ALL: &str = "SELECT id, body FROM messages ORDER BY id";

/// Guards the status of messages, once the runtime is there that says how.
pub(super) type Guards = Arc<OnceLock<Guard>>;

/// What the caller is told.
#[derive(Debug, Serialize)]
pub(super) struct Captured {
    success: bool,
    captured: u64,
    total: u64,
    remaining: u64,
    job: Option<String>,
    message: String,
    blocked: u64,
    scanned: usize,
}

impl Captured {
    fn of(report: &Report, scanned: usize) -> Self {
        let counts = report.counts;
        let job = report.job.map(|job| job.to_string());
        Self { job, scanned, ..Self::plain(counts.done, counts.total, counts.remaining(), counts.blocked) }
    }

    fn plain(captured: u64, total: u64, remaining: u64, blocked: u64) -> Self {
        let [done, all, left] = [captured, total, remaining].map(grouped);
        let over = if remaining == 0 { " - All done!" } else { "" };
        let message = format!("Captured {done} / {all} ({left} remaining){over}");
        Self { success: true, captured, total, remaining, job: None, message, blocked, scanned: 0 }
    }
}

/// What is done with a part of the messages, on the pool's database.
pub(super) fn handler(pool: &Guarded, guards: &Guards) -> Handler {
    match pool {
        Guarded::Postgres(pool) => moving(pool, guards),
        Guarded::Sqlite(pool) => moving(pool, guards),
    }
}

fn moving<DB>(pool: &HealPool<DB>, guards: &Guards) -> Handler
where
    DB: store::Dialect + transition::Dialect<i64>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let guards = Arc::clone(guards);
    batch::run_tx(pool, move |conn, ids: Part<i64>| {
        let guards = Arc::clone(&guards);
        Box::pin(async move {
            let starting = || Failed::new(ErrorClass::Transient, "the desk is not there yet");
            let guard = guards.get().ok_or_else(starting)?;
            tokio::time::sleep(PER_ITEM * u32::try_from(ids.len()).unwrap_or(u32::MAX)).await;
            let outcome = guard.apply_many(conn, &ids, Message::SpamReview).await?;
            Ok(results(guard, &ids, outcome))
        })
    })
}

fn results(guard: &Guard, ids: &[i64], outcome: Outcome<i64>) -> Results {
    let at = |key: i64| ids.iter().position(|id| *id == key);
    let mut results = Results::done();
    for found in outcome.blocked {
        if let Some(at) = at(found.key) {
            results = results.blocked(at, guard.why(&found, Message::SpamReview).to_string());
        }
    }
    for at in outcome.missing.into_iter().filter_map(at) {
        results = results.failed(at, "there is no such message");
    }
    results
}

/// Captures what matches, or what the bug takes for it, or joins the capture that runs.
pub(super) async fn healed(heal: &Heal, pool: &Guarded, user: &str, bug: bool) -> Result<Captured, Error> {
    let sql = if bug { ALL } else { READY };
    let rows: Vec<(i64, String)> = match pool {
        Guarded::Postgres(pool) => sqlx::query_as(sql).fetch_all(&pool.operation(OPERATION)).await?,
        Guarded::Sqlite(pool) => sqlx::query_as(sql).fetch_all(&pool.operation(OPERATION)).await?,
    };
    let (spam, scanned) = matching(rows);
    let report = heal.batch(OPERATION).caller(user).run(&spam).await.map_err(Error::Batch)?;
    Ok(Captured::of(&report, scanned))
}

/// The same as most hosts do it. A caller who leaves stops it, wherever it is.
pub(super) async fn plain(pool: &Plain, bug: bool) -> Result<Captured, Error> {
    let sql = if bug { ALL } else { READY };
    let rows: Vec<(i64, String)> = match pool {
        Plain::Postgres(pool) => sqlx::query_as(sql).fetch_all(pool).await?,
        Plain::Sqlite(pool) => sqlx::query_as(sql).fetch_all(pool).await?,
    };
    let (spam, scanned) = matching(rows);
    for ids in spam.chunks(CHUNK) {
        tokio::time::sleep(PER_ITEM * u32::try_from(ids.len()).unwrap_or(u32::MAX)).await;
        overwrite(pool, ids).await?;
    }
    let total = spam.len() as u64;
    Ok(Captured { scanned, ..Captured::plain(total, total, 0, 0) })
}

/// The change as the incident's code made it.
async fn overwrite(pool: &Plain, ids: &[i64]) -> Result<(), sqlx::Error> {
    match pool {
        Plain::Postgres(pool) => {
            let change = sqlx::query("UPDATE messages SET status = 'SPAM_REVIEW' WHERE id = ANY ($1)");
            change.bind(ids).execute(pool).await.map(drop)
        }
        Plain::Sqlite(pool) => {
            let change =
                "UPDATE messages SET status = 'SPAM_REVIEW' WHERE id IN (SELECT value FROM json_each(?1))";
            sqlx::query(change).bind(serde_json::json!(ids).to_string()).execute(pool).await.map(drop)
        }
    }
}

/// The messages that match the spam rule, and how many were looked at.
fn matching(scanned: Vec<(i64, String)>) -> (Vec<i64>, usize) {
    let count = scanned.len();
    let is_spam = |(id, body): (i64, String)| body.starts_with("You have won ").then_some(id);
    (scanned.into_iter().filter_map(is_spam).collect(), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_told_in_the_words_of_the_incident() {
        let words = |captured, total| Captured::plain(captured, total, total - captured, 0).message;
        assert_eq!(words(100, 1_418), "Captured 100 / 1,418 (1,318 remaining)");
        assert_eq!(words(1_418, 1_418), "Captured 1,418 / 1,418 (0 remaining) - All done!");
    }
}
