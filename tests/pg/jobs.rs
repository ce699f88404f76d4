//! Durable jobs on PostgreSQL.

use std::time::Duration;

use futures_core::future::BoxFuture;
use selfheal::{
    PgHealPool,
    batch_executor::journal::{Fence, Journal, Settle, Trouble},
    store::{Jobs, Schema, migrate, schema, script},
};
use sqlx::{Connection, Executor, PgConnection, postgres::PgConnectOptions};

use crate::{
    durable::{self, accept, books, claim, done, job, kills},
    server::{options, server},
};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) async fn pool(options: PgConnectOptions) -> PgHealPool {
    PgHealPool::builder().max(4).connect_with(options).await.expect("it connects")
}

#[tokio::test]
async fn postgresql_keeps_what_durable_jobs_promise() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    durable::everything(&pool(database.options()).await).await;
}

#[tokio::test]
async fn what_takes_down_whoever_works_on_it_is_given_up() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    durable::what_takes_down_whoever_works_on_it_is_given_up(&pool(database.options()).await).await;
}

#[tokio::test]
async fn a_queue_that_is_drained_waits_for_nothing() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    durable::a_queue_that_is_drained_waits_for_nothing(&pool(database.options()).await).await;
}

#[tokio::test]
async fn what_was_asked_for_is_written_before_it_rests() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    durable::what_was_asked_for_is_written_before_it_rests(&pool(database.options()).await).await;
}

#[tokio::test]
async fn whatever_happens_the_books_balance() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    durable::whatever_happens_the_books_balance(&pool(database.options()).await, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_the_work_and_never_get_the_same() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    durable::workers_share_and_never_the_same(&pool(database.options()).await, 3).await;
}

#[tokio::test]
async fn a_job_is_accepted_with_the_transaction_that_enqueues_it_and_done_with_the_one_that_does_it() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let pool = pool(database.options()).await;
    let jobs = Jobs::of(&pool);
    for commits in [false, true] {
        let mut tx = pool.begin().await.expect("a transaction");
        jobs.enqueue(&mut tx, &[job("q")]).await.expect("it is enqueued");
        assert_eq!(books(&jobs).await, [0; 4], "nobody sees it yet");
        if commits { tx.commit().await } else { tx.rollback().await }.expect("it ends");
    }
    let claimed = claim(&jobs, &["q"], 9, MINUTE).await.remove(0);
    for commits in [false, true] {
        let mut tx = pool.begin().await.expect("a transaction");
        let end = Settle { lease: claimed.lease, end: done() };
        assert_eq!(jobs.settle_within(&mut tx, end).await.expect("it is written"), Fence::Held);
        if commits { tx.commit().await } else { tx.rollback().await }.expect("it ends");
        assert_eq!(books(&jobs).await, [0, u64::from(!commits), u64::from(commits), 0]);
    }
}

/// Looks go on meanwhile: they see all of a statement or nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_balance_in_every_snapshot() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let pool = pool(database.options()).await;
    let (jobs, looker) = (Jobs::of(&pool), Jobs::of(&pool));
    jobs.ready().await.expect("tables");
    let looks = tokio::runtime::Handle::current().spawn(async move {
        for _ in 0..100 {
            books(&looker).await;
            looker.sweep().await.expect("it adds up");
        }
    });
    while !looks.is_finished() {
        accept(&jobs, vec![job("q"); 20]).await;
        let claimed = claim(&jobs, &["q"], 15, MINUTE).await;
        let ends = claimed.iter().map(|claimed| Settle { lease: claimed.lease, end: done() }).collect();
        jobs.settle(ends).await.expect("it is written");
    }
    looks.await.expect("every look balanced");
    books(&jobs).await;
}

#[tokio::test]
async fn a_server_that_is_gone_is_told_and_jobs_go_on_when_it_is_back() {
    let Some(server) = server() else { return };
    let server = server.another();
    // The tests' servers are told not to wait for their disks.
    let options = options(server.port(), "app", "postgres").options([("synchronous_commit", "on")]);
    let pool = pool(options).await;
    server.admin().await.execute("grant create on schema public to app").await.expect("it may create tables");
    let jobs = Jobs::of(&pool);
    accept(&jobs, vec![job("q")]).await;
    server.stop_at_once();
    let mut seen = Vec::new();
    // The first to ask meets the connection that broke.
    while seen.last() != Some(&Trouble::Down) {
        match jobs.accept(vec![job("lost")]).await {
            Ok(_) => seen.clear(),
            Err(error) => seen.push(error.trouble),
        }
        assert!(seen.len() < 1_000, "{seen:?}");
    }
    let mut tries = 0_u32;
    while let Err(error) = jobs.accept(vec![job("q")]).await {
        // What is left of the one that was stopped can keep it from starting: then it is said again.
        if tries.is_multiple_of(10) {
            server.start_again();
        }
        tries += 1;
        assert!(tries < 600, "it is never back: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(claim(&jobs, &["q"], 9, MINUTE).await.len(), 2);
    books(&jobs).await;
}

#[tokio::test]
async fn a_role_that_may_not_create_tables_works_with_those_that_are_there() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let mut owner = PgConnection::connect_with(&database.options()).await.expect("it connects");
    assert_eq!(schema::<sqlx::Postgres>(&mut owner).await.expect("it looks"), Schema::Behind { at: 0 });
    let mut admin = server.admin().await;
    admin.execute("drop role if exists worker").await.expect("it is gone");
    admin.execute("create role worker login").await.expect("a role");
    admin.close().await.expect("it closes");

    let worker = pool(database.options().username("worker")).await;
    let error = Jobs::of(&worker).ready().await.expect_err("it may not create tables");
    assert_eq!(error.trouble, Trouble::Refused, "{error}");
    assert!(!migrate::<sqlx::Postgres>(&mut owner).await.expect("it migrates").is_empty());
    let grant = "grant select, insert, update, delete on selfheal_jobs, selfheal_job_counts, selfheal_queues, \
                 selfheal_migrations to worker";
    owner.execute(grant).await.expect("it may use them");
    let jobs = Jobs::of(&worker);
    accept(&jobs, vec![job("q")]).await;
    let claimed = claim(&jobs, &["q"], 1, MINUTE).await.remove(0);
    assert_eq!(durable::settle(&jobs, claimed.lease, done()).await, Fence::Held);
    owner.execute("drop owned by worker").await.ok();
}

#[tokio::test]
async fn the_script_makes_the_same_tables() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let mut conn = PgConnection::connect_with(&database.options()).await.expect("it connects");
    let script = sqlx::AssertSqlSafe(script::<sqlx::Postgres>());
    sqlx::raw_sql(script).execute(&mut conn).await.expect("it runs");
    assert_eq!(schema::<sqlx::Postgres>(&mut conn).await.expect("it looks"), Schema::Usable);
}

/// Is started by the test of kills, and killed by it.
#[tokio::test]
#[ignore = "a victim, not a test"]
async fn victim() {
    let Some(url) = kills::told(kills::DATABASE) else { return };
    kills::victim(&pool(url.parse().expect("a URL")).await, effect).await;
}

pub(crate) fn effect(conn: &mut PgConnection, item: i64) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async move {
        sqlx::query("insert into effects values ($1)").bind(item).execute(conn).await.map(drop)
    })
}

async fn killed(kills: usize) {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let pool = pool(database.options()).await;
    sqlx::query("create table effects (item int8)").execute(&pool).await.expect("a table");
    let acked = kills::kill("jobs::victim", &database.url(), kills).await;
    kills::finish(&pool, effect).await;
    let effects: Vec<i64> =
        sqlx::query_scalar("select item from effects").fetch_all(&pool).await.expect("a list");
    kills::once(&acked, &effects);
    println!("{kills} kills: {} jobs acknowledged, {} done, each once", acked.len(), effects.len());
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
