//! Deferred work on SQLite.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use selfheal::{
    SqliteHealPool,
    batch_executor::{Refused, journal::Trouble},
    store::Jobs,
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    deferred::{self, ask, mail, pause, sending, service, start},
    durable::{
        books,
        kills::{DATABASE, kills, told},
    },
    jobs::Folder,
    long_operation::{clear, effects, table, written},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_what_deferred_work_promises() {
    let folder = Folder::new("deferred");
    deferred::everything(&table(&folder).await, effects, written, clear).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_enqueued_is_accepted_with_its_transaction() {
    let folder = Folder::new("deferred-enqueued");
    let pool = table(&folder).await;
    deferred::what_is_enqueued_is_accepted_with_its_transaction(&pool, effects, written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_a_key_is_one_job_while_it_is_kept() {
    let folder = Folder::new("deferred-keyed");
    let pool = table(&folder).await;
    deferred::what_has_a_key_is_one_job_while_it_is_kept(&pool, effects, written).await;
}

#[tokio::test]
async fn the_better_class_goes_first() {
    let folder = Folder::new("deferred-classes");
    deferred::the_better_class_goes_first(&folder.pool().await).await;
}

#[tokio::test]
async fn what_is_done_elsewhere_has_a_key_and_a_result() {
    let folder = Folder::new("deferred-elsewhere");
    deferred::what_is_done_elsewhere_has_a_key_and_a_result(&folder.pool().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_another_holds_the_lock_nothing_is_accepted() {
    let folder = Folder::new("deferred-locked");
    let pool = table(&folder).await;
    let mut other = SqliteConnection::connect_with(&folder.options()).await.expect("it opens");
    let spoil = async move |on: bool| {
        let statement = if on { "begin exclusive" } else { "rollback" };
        sqlx::query(statement).execute(&mut other).await.expect("it is done");
    };
    deferred::what_cannot_be_written_down_is_not_accepted(&pool, effects, written, spoil).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_the_file_full_or_read_only_is_answered_503_and_not_accepted() {
    let folder = Folder::new("deferred-full");
    drop(table(&folder).await);
    let options = folder.options().pragma("max_page_count", "64");
    let pool = SqliteHealPool::builder().max(2).connect_with(options).await.expect("it opens");
    let jobs = Jobs::of(&pool);
    let heal = start(&pool, sending(&pool, effects)).await;
    jobs.ready().await.expect("tables");
    pause(&jobs, true).await;
    let mut accepted = 0;
    let error = loop {
        match heal.deferred("mail").defer(&mail(accepted)).await {
            Ok(job) => accepted += i64::from(!job.id().is_empty()),
            Err(Refused::NotWritten(error)) => break error,
            Err(refused) => panic!("failed to {refused}"),
        }
    };
    assert_eq!(error.trouble, Trouble::Full);
    // Where there is a little room, it depends on its name whether a job finds some: now and then one does.
    let app = service(&heal);
    let (head, reply) = loop {
        let (head, reply) = ask(&app, Method::POST, "/api/mails", "ann", "1").await;
        match head.status() {
            StatusCode::ACCEPTED => accepted += 1,
            _ => break (head, reply),
        }
    };
    assert_eq!((head.status(), &reply["code"]), (StatusCode::SERVICE_UNAVAILABLE, &"store_down".into()));
    assert_eq!(books(&jobs).await[0], accepted as u64, "all that was acknowledged, and nothing else");
    heal.shutdown().await;
    drop((heal, jobs, app));
    let options = folder.options().create_if_missing(false).read_only(true);
    let pool = SqliteHealPool::builder().max(2).connect_with(options).await.expect("it opens");
    let heal = start(&pool, sending(&pool, effects)).await;
    let (head, reply) = ask(&service(&heal), Method::POST, "/api/mails", "ann", "1").await;
    assert_eq!((head.status(), &reply["code"]), (StatusCode::SERVICE_UNAVAILABLE, &"store_down".into()));
    heal.shutdown().await;
}

/// Is started by the test of kills, and killed by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a victim, not a test"]
async fn victim() {
    let Some(file) = told(DATABASE) else { return };
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(5));
    let pool = SqliteHealPool::builder().max(4).connect_with(options).await.expect("it opens");
    deferred::kills::victim(&pool, effects).await;
}

async fn killed(kills: usize) {
    let folder = Folder::new(&format!("deferred-kills-{kills}"));
    let pool = table(&folder).await;
    let file = folder.0.join("jobs.db").to_string_lossy().into_owned();
    let name = "deferred_work::victim";
    eprintln!("{}", deferred::kills::killed(name, &file, kills, &pool, effects, written).await);
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
