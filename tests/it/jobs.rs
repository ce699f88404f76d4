//! Durable jobs on SQLite.

use std::{path::PathBuf, time::Duration};

use futures_core::future::BoxFuture;
use futures_util::FutureExt as _;
use selfheal::{
    SqliteHealPool,
    batch_executor::journal::{Fence, Journal, NewJob, Settle, Trouble},
    store::{Jobs, Schema, migrate, schema, script},
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::durable::{self, accept, books, claim, done, job, kills, siege::Siege};

/// A directory that ends with its test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("selfheal-jobs-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub(crate) fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new().filename(self.0.join("jobs.db")).create_if_missing(true)
    }

    pub(crate) async fn pool(&self) -> SqliteHealPool {
        SqliteHealPool::builder()
            .max(4)
            .busy_timeout(Duration::from_millis(300))
            .connect_with(self.options())
            .await
            .expect("it opens")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn sqlite_keeps_what_durable_jobs_promise() {
    let folder = Folder::new("everything");
    durable::everything(&folder.pool().await).await;
}

#[tokio::test]
async fn what_takes_down_whoever_works_on_it_is_given_up() {
    let folder = Folder::new("deadly");
    durable::what_takes_down_whoever_works_on_it_is_given_up(&folder.pool().await).await;
}

#[tokio::test]
async fn a_queue_that_is_drained_waits_for_nothing() {
    let folder = Folder::new("drained");
    durable::a_queue_that_is_drained_waits_for_nothing(&folder.pool().await).await;
}

#[tokio::test]
async fn what_was_asked_for_is_written_before_it_rests() {
    let folder = Folder::new("rest");
    durable::what_was_asked_for_is_written_before_it_rests(&folder.pool().await).await;
}

#[tokio::test]
async fn whatever_happens_the_books_balance() {
    let folder = Folder::new("books");
    durable::whatever_happens_the_books_balance(&folder.pool().await, 300).await;
}

#[tokio::test]
async fn workers_of_one_process_never_get_the_same() {
    let folder = Folder::new("share");
    durable::workers_share_and_never_the_same(&folder.pool().await, 0).await;
}

#[tokio::test]
async fn one_process_at_a_time_works_and_the_next_takes_over_at_once() {
    let folder = Folder::new("lock");
    let pool = folder.pool().await;
    let hour = Duration::from_secs(3_600);
    let (first, second) = (Jobs::of(&pool), Jobs::of(&pool));
    accept(&first, vec![job("q")]).await;
    let held = claim(&first, &["q"], 1, hour).await.remove(0);
    accept(&second, vec![job("q")]).await;
    assert_eq!(claim(&second, &["q"], 9, hour).await, [], "it may accept, and not work");
    drop(first);
    let taken = claim(&second, &["q"], 9, hour).await;
    assert_eq!(taken.len(), 2);
    let again = taken.iter().find(|claimed| claimed.lease.job == held.lease.job).expect("it was taken over");
    assert_eq!(again.losses, 1);
    let late = second.settle(vec![Settle { lease: held.lease, end: done() }]).await.expect("it answers");
    assert_eq!(late, [Fence::Lost]);
}

#[tokio::test]
async fn what_this_process_holds_already_is_not_taken_over_when_it_begins_to_claim() {
    let folder = Folder::new("own-lease");
    let (jobs, hour) = (Jobs::of(&folder.pool().await), Duration::from_secs(3_600));
    let held = accept(&jobs, vec![NewJob { hold: Some(hour), ..job("q") }]).await.remove(0);
    assert_eq!(claim(&jobs, &["q"], 9, hour).await, [], "it is held, by this very process");
    let end = Settle { lease: held.lease.expect("it was to be held"), end: done() };
    assert_eq!(jobs.settle(vec![end]).await.expect("it answers"), [Fence::Held]);
}

#[tokio::test]
async fn what_is_leased_at_once_wakes_nobody() {
    let folder = Folder::new("leased");
    let (jobs, queue) = (Jobs::of(&folder.pool().await), ["q".into()]);
    let hold = Some(Duration::from_secs(3_600));
    jobs.accept(vec![NewJob { hold, ..NewJob::new("q", *b"x") }]).await.expect("it is accepted");
    assert!(jobs.due(&queue).now_or_never().is_none(), "there is nothing to claim");
    jobs.accept(vec![NewJob::new("q", *b"x")]).await.expect("it is accepted");
    assert!(jobs.due(&queue).now_or_never().is_some());
}

#[tokio::test]
async fn a_job_is_accepted_with_the_transaction_that_enqueues_it_and_done_with_the_one_that_does_it() {
    let folder = Folder::new("within");
    let (pool, queue) = (folder.pool().await, ["q"]);
    sqlx::query("create table effects (item integer)").execute(&pool).await.expect("a table");
    let jobs = Jobs::of(&pool);
    jobs.ready().await.expect("tables");
    for commits in [false, true] {
        let mut tx = pool.begin().await.expect("a transaction");
        sqlx::query("insert into effects values (1)").execute(&mut *tx).await.expect("a row");
        jobs.enqueue(&mut tx, &[job("q")]).await.expect("it is enqueued");
        if commits { tx.commit().await } else { tx.rollback().await }.expect("it ends");
        assert_eq!(books(&jobs).await, [u64::from(commits), 0, 0, 0]);
    }
    let claimed = claim(&jobs, &queue, 1, Duration::from_secs(60)).await.remove(0);
    for commits in [false, true] {
        let mut tx = pool.begin().await.expect("a transaction");
        sqlx::query("insert into effects values (2)").execute(&mut *tx).await.expect("a row");
        let end = Settle { lease: claimed.lease, end: done() };
        assert_eq!(jobs.settle_within(&mut tx, end).await.expect("it is written"), Fence::Held);
        if commits { tx.commit().await } else { tx.rollback().await }.expect("it ends");
        assert_eq!(books(&jobs).await, [0, u64::from(!commits), u64::from(commits), 0]);
    }
    let rows: i64 =
        sqlx::query_scalar("select count(*) from effects").fetch_one(&pool).await.expect("a count");
    assert_eq!(rows, 2);
}

#[tokio::test]
async fn a_database_that_cannot_be_written_is_told_and_recovers_by_itself() {
    let folder = Folder::new("trouble");
    let pool = folder.pool().await;
    let jobs = Jobs::of(&pool);
    accept(&jobs, vec![job("q")]).await;
    // A lock that is never let go: another writer is in the middle of something.
    let mut other = SqliteConnection::connect_with(&folder.options()).await.expect("it opens");
    sqlx::query("begin exclusive").execute(&mut other).await.expect("a lock");
    let error = jobs.accept(vec![job("q")]).await.expect_err("nothing can be written");
    assert_eq!(error.trouble, Trouble::Busy, "{error}");
    sqlx::query("rollback").execute(&mut other).await.expect("it lets go");
    accept(&jobs, vec![job("q")]).await;
    assert_eq!(books(&jobs).await, [2, 0, 0, 0], "what was refused is not there");
}

/// Somebody else writes, again and again, for longer than anybody waits.
#[tokio::test]
async fn a_file_that_others_hold_loses_and_doubles_nothing() {
    let folder = Folder::new("siege");
    let pool = folder.pool().await;
    sqlx::query("create table effects (item integer)").execute(&pool).await.expect("a table");
    let siege = Siege::begin(&pool, effect).await;
    siege.more(20).await;
    for _ in 0..3 {
        let mut other = SqliteConnection::connect_with(&folder.options()).await.expect("it opens");
        sqlx::query("begin immediate").execute(&mut other).await.expect("its turn comes");
        siege.troubled().await;
        sqlx::query("rollback").execute(&mut other).await.expect("it lets go");
        siege.more(20).await;
    }
    let effects =
        async || sqlx::query_scalar("select item from effects").fetch_all(&pool).await.expect("a list");
    siege.end(effects).await;
}

/// A file that may not grow takes no more jobs, and takes some again when others are done.
#[tokio::test]
async fn a_file_that_is_full_is_told_and_recovers_by_itself() {
    let folder = Folder::new("full");
    let options = folder.options().pragma("max_page_count", "64");
    let pool = SqliteHealPool::builder().max(1).connect_with(options).await.expect("it opens");
    let jobs = Jobs::of(&pool);
    let big = || NewJob::new("q", vec![b'x'; 2_000]);
    let mut accepted = 0;
    let error = loop {
        match jobs.accept(vec![big(); 5]).await {
            Ok(five) => accepted += five.len() as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(error.trouble, Trouble::Full, "{error}");
    assert_eq!(books(&jobs).await, [accepted, 0, 0, 0], "all that was acknowledged, and nothing else");
    for claimed in claim(&jobs, &["q"], 20, Duration::from_secs(60)).await {
        assert_eq!(durable::settle(&jobs, claimed.lease, done()).await, Fence::Held);
    }
    accept(&jobs, vec![big(); 5]).await;
}

#[tokio::test]
async fn a_file_that_takes_no_writes_is_told_so() {
    let folder = Folder::new("read-only");
    Jobs::of(&folder.pool().await).ready().await.expect("tables");
    let options = folder.options().create_if_missing(false).read_only(true);
    let pool = SqliteHealPool::builder().max(1).connect_with(options).await.expect("it opens");
    let error = Jobs::of(&pool).accept(vec![job("q")]).await.expect_err("it cannot be written");
    assert_eq!(error.trouble, Trouble::ReadOnly, "{error}");
}

/// The folder is away, as a disk that is not mounted is, and comes back.
#[tokio::test]
async fn a_file_that_cannot_be_reached_is_told_and_recovers_by_itself() {
    let folder = Folder::new("away");
    let pool = folder.pool().await;
    let jobs = Jobs::of(&pool);
    let away = folder.0.with_extension("away");
    std::fs::rename(&folder.0, &away).expect("it is away");
    let error = jobs.accept(vec![job("q")]).await.expect_err("it is not there");
    assert_eq!(error.trouble, Trouble::Down, "{error}");
    std::fs::rename(&away, &folder.0).expect("it is back");
    accept(&jobs, vec![job("q")]).await;
    assert_eq!(books(&jobs).await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn the_tables_are_made_once_and_the_script_makes_the_same() {
    let folder = Folder::new("migrate");
    let mut conn = SqliteConnection::connect_with(&folder.options()).await.expect("it opens");
    assert_eq!(schema::<sqlx::Sqlite>(&mut conn).await.expect("it looks"), Schema::Behind { at: 0 });
    assert!(!migrate::<sqlx::Sqlite>(&mut conn).await.expect("it migrates").is_empty());
    assert!(migrate::<sqlx::Sqlite>(&mut conn).await.expect("it migrates").is_empty());
    let tables = "select group_concat(sql, ';') from (select sql from sqlite_schema where name like 'selfheal%' order by name)";
    let made: String = sqlx::query_scalar(tables).fetch_one(&mut conn).await.expect("a list");

    let mut by_hand = SqliteConnection::connect("sqlite::memory:").await.expect("it opens");
    sqlx::raw_sql(sqlx::AssertSqlSafe(script::<sqlx::Sqlite>()))
        .execute(&mut by_hand)
        .await
        .expect("it runs");
    assert_eq!(schema::<sqlx::Sqlite>(&mut by_hand).await.expect("it looks"), Schema::Usable);
    let scripted: String = sqlx::query_scalar(tables).fetch_one(&mut by_hand).await.expect("a list");
    assert_eq!(scripted, made);
}

/// Is started by the test of kills, and killed by it.
#[tokio::test]
#[ignore = "a victim, not a test"]
async fn victim() {
    let Some(file) = kills::told(kills::DATABASE) else { return };
    let options = SqliteConnectOptions::new().filename(file);
    let pool = SqliteHealPool::builder().max(4).connect_with(options).await.expect("it opens");
    kills::victim(&pool, effect).await;
}

fn effect(conn: &mut SqliteConnection, item: i64) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(
        async move { sqlx::query("insert into effects values (?)").bind(item).execute(conn).await.map(drop) },
    )
}

async fn killed(kills: usize) {
    let folder = Folder::new(&format!("kills-{kills}"));
    let pool = folder.pool().await;
    sqlx::query("create table effects (item integer)").execute(&pool).await.expect("a table");
    let file = folder.0.join("jobs.db").to_string_lossy().into_owned();
    let acked = kills::kill("jobs::victim", &file, kills).await;
    kills::finish(&pool, effect).await;
    let effects: Vec<i64> =
        sqlx::query_scalar("select item from effects").fetch_all(&pool).await.expect("a list");
    kills::once(&acked, &effects);
    eprintln!("{kills} kills: {} jobs acknowledged, {} done, each once", acked.len(), effects.len());
}

#[tokio::test]
async fn ten_kills_and_every_acknowledged_job_is_done_once() {
    killed(10).await;
}

#[tokio::test]
#[ignore = "takes minutes: KILLS=… of them, 200 if not said"]
async fn two_hundred_kills_and_every_acknowledged_job_is_done_once() {
    killed(kills::kills(200)).await;
}
