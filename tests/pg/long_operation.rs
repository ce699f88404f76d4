//! Long operations on PostgreSQL.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_core::future::BoxFuture;
use selfheal::{
    PgHealPool,
    batch::{self, Part, Results},
    batch_executor::journal::State,
};
use sqlx::{Executor as _, PgConnection};

use crate::{
    durable::kills::{DATABASE, kills, told},
    jobs::pool,
    operations::{
        self, ITEMS, each_once, ended,
        record::{LONG, SHORT},
        start,
    },
    server::{Database, Server, options, server},
};

pub(crate) fn effects(conn: &mut PgConnection, items: Vec<i64>) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async move {
        let insert = sqlx::query("insert into effects select * from unnest($1::int8[])");
        insert.bind(items).execute(conn).await.map(drop)
    })
}

pub(crate) fn written(pool: &PgHealPool) -> BoxFuture<'_, Vec<i64>> {
    Box::pin(
        async move { sqlx::query_scalar("select item from effects").fetch_all(pool).await.expect("rows") },
    )
}

pub(crate) fn clear(pool: &PgHealPool) -> BoxFuture<'_, Vec<i64>> {
    let clear = sqlx::query_scalar("delete from effects returning item");
    Box::pin(async move { clear.fetch_all(pool).await.expect("it is cleared") })
}

/// Has the server close this connection at the end of the transaction, before it says that it was committed.
fn cut_off(conn: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async move {
        sqlx::raw_sql(
            "create temporary table if not exists last (x int) on commit delete rows; \
             create or replace function pg_temp.end_me() returns trigger language plpgsql as \
             $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$; \
             drop trigger if exists ends on last; \
             create constraint trigger ends after insert on last deferrable initially deferred \
             for each row execute function pg_temp.end_me(); \
             insert into last values (1)",
        )
        .execute(conn)
        .await
        .map(drop)
    })
}

pub(crate) async fn table(database: &Database) -> PgHealPool {
    let pool = pool(database.options()).await;
    sqlx::query("create table effects (item int8)").execute(&pool).await.expect("a table");
    pool
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_keeps_what_long_operations_promise() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    operations::everything(&table(&database).await, effects, written, clear).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_with_its_commit_is_undone_and_the_item_is_found() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let pool = table(&database).await;
    let unique = "alter table effects add unique (item) deferrable initially deferred";
    sqlx::query(unique).execute(&pool).await.expect("it is empty");
    let writing = batch::run_tx(&pool, |conn, items: Part<i64>| {
        Box::pin(async move {
            effects(conn, items.to_vec()).await?;
            Ok(Results::done())
        })
    });
    let heal = start(&pool, writing).await;
    let items: Vec<i64> = (0..ITEMS).chain([42]).collect();
    let report = heal.batch("effects").caller("ann").run(&items).await.expect("it begins");
    let job = ended(&heal, report.job.expect("it is written down")).await;
    assert_eq!((job.state, job.counts.done, job.counts.failed), (State::Done, ITEMS as u64, 1));
    each_once(written(&pool).await, 0..ITEMS);
    heal.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_cut_off_in_a_commit_finds_out_what_was_done() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let (pool, parts) = (table(&database).await, AtomicU32::new(0));
    let cut = batch::run_tx(&pool, move |conn, items: Part<i64>| {
        let part = parts.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            effects(&mut *conn, items.to_vec()).await?;
            if part % 3 == 1 {
                cut_off(conn).await?;
            }
            Ok(Results::done())
        })
    });
    let heal = start(&pool, cut).await;
    let items: Vec<i64> = (0..ITEMS).collect();
    let report = heal.batch("effects").caller("ann").run(&items).await.expect("it begins");
    let job = ended(&heal, report.job.expect("it is written down")).await;
    assert_eq!((job.state, job.counts.done), (State::Done, ITEMS as u64));
    each_once(written(&pool).await, 0..ITEMS);
    heal.shutdown().await;
}

/// Is started by the test of kills, and killed by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a victim, not a test"]
async fn victim() {
    let Some(url) = told(DATABASE) else { return };
    operations::kills::victim(&pool(url.parse().expect("a URL")).await, effects).await;
}

async fn killed(kills: usize) {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let pool = table(&database).await;
    let name = "long_operation::victim";
    println!("{}", operations::kills::killed(name, &database.url(), kills, &pool, effects, written).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_and_every_item_that_was_promised_is_done_once() {
    killed(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: KILLS=… of them, 200 if not said"]
async fn two_hundred_kills_and_every_item_that_was_promised_is_done_once() {
    killed(kills(200)).await;
}

/// What a message costs that is looked for among many others, of which each looks at more or fewer: some 10 ms.
fn searched(conn: &mut PgConnection, items: Vec<i64>) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async move {
        let search = "insert into effects select $1 where 0 <= (select count(*) from messages \
                      where id <= 2000 + $1 * 7919 % 10000 and body like '%' || $1 || '%')";
        for item in items {
            sqlx::query(search).bind(item).execute(&mut *conn).await?;
        }
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it records for the calibration of estimates, and takes a minute"]
async fn record_chunks() {
    let Some(server) = server() else { return };
    let server = server.durable();
    let pool = to_record(&server).await;
    operations::record::record(&pool, SHORT, effects, effects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it records for the calibration of estimates, and takes five minutes"]
async fn record_long_chunks() {
    let Some(server) = server() else { return };
    let server = server.durable();
    let pool = to_record(&server).await;
    let messages = "create table messages as select id, repeat(md5(id::text), 8) as body \
                    from generate_series(1, 12000) as id; create index on messages (id); analyze messages";
    pool.unguarded().execute(messages).await.expect("messages");
    operations::record::record(&pool, LONG, searched, effects).await;
}

async fn to_record(server: &Server) -> PgHealPool {
    server.admin().await.execute("grant create on schema public to app").await.expect("it may create tables");
    let pool = pool(options(server.port(), "app", "postgres")).await;
    sqlx::query("create table effects (item int8)").execute(&pool).await.expect("a table");
    pool
}
