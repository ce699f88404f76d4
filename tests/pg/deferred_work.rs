//! Deferred work on PostgreSQL.

use sqlx::{AssertSqlSafe, Executor};

use crate::{
    deferred,
    durable::kills::{DATABASE, kills, told},
    jobs::pool,
    long_operation::{clear, effects, table, written},
    server::server,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_keeps_what_deferred_work_promises() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    deferred::everything(&table(&database).await, effects, written, clear).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_enqueued_is_accepted_with_its_transaction() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let pool = table(&database).await;
    deferred::what_is_enqueued_is_accepted_with_its_transaction(&pool, effects, written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_a_key_is_one_job_while_it_is_kept() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let pool = table(&database).await;
    deferred::what_has_a_key_is_one_job_while_it_is_kept(&pool, effects, written).await;
}

#[tokio::test]
async fn the_better_class_goes_first() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    deferred::the_better_class_goes_first(&pool(database.options()).await).await;
}

#[tokio::test]
async fn what_is_done_elsewhere_has_a_key_and_a_result() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    deferred::what_is_done_elsewhere_has_a_key_and_a_result(&pool(database.options()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_no_writes_accepts_nothing() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let pool = table(&database).await;
    let name = database.options().get_database().expect("it has a name").to_owned();
    let mut admin = server.admin().await;
    let spoil = async move |on: bool| {
        let set = format!("alter database {name} set default_transaction_read_only = {on}");
        admin.execute(AssertSqlSafe(set)).await.expect("it is set");
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
        sqlx::query(end).bind(&name).execute(&mut admin).await.expect("they end");
    };
    deferred::what_cannot_be_written_down_is_not_accepted(&pool, effects, written, spoil).await;
}

/// Is started by the test of kills, and killed by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a victim, not a test"]
async fn victim() {
    let Some(url) = told(DATABASE) else { return };
    deferred::kills::victim(&pool(url.parse().expect("a URL")).await, effects).await;
}

async fn killed(kills: usize) {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let pool = table(&database).await;
    let name = "deferred_work::victim";
    println!("{}", deferred::kills::killed(name, &database.url(), kills, &pool, effects, written).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_kills_and_all_that_was_accepted_is_done_once() {
    killed(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: KILLS=… of them, 200 if not said"]
async fn two_hundred_kills_and_all_that_was_accepted_is_done_once() {
    killed(kills(200)).await;
}
