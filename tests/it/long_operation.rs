//! Long operations on SQLite.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_core::future::BoxFuture;
use futures_util::FutureExt as _;
use selfheal::{
    Heal, SqliteHealPool,
    batch::{self, Handler, Part, Results},
    config::{Config, Source},
    fault::Fault,
    gate::Hold,
    level::Level,
};
use sqlx::{Executor as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    durable::kills::{DATABASE, kills, told},
    guarded::{eventually, patient},
    jobs::Folder,
    operations::{
        self,
        record::{LONG, SHORT},
    },
};

pub(crate) fn effects(
    conn: &mut SqliteConnection,
    items: Vec<i64>,
) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async move {
        let insert = sqlx::query("insert into effects select value from json_each(?)");
        insert.bind(serde_json::json!(items).to_string()).execute(conn).await.map(drop)
    })
}

pub(crate) fn written(pool: &SqliteHealPool) -> BoxFuture<'_, Vec<i64>> {
    Box::pin(
        async move { sqlx::query_scalar("select item from effects").fetch_all(pool).await.expect("rows") },
    )
}

pub(crate) fn clear(pool: &SqliteHealPool) -> BoxFuture<'_, Vec<i64>> {
    let clear = sqlx::query_scalar("delete from effects returning item");
    Box::pin(async move { clear.fetch_all(pool).await.expect("it is cleared") })
}

pub(crate) async fn table(folder: &Folder) -> SqliteHealPool {
    let pool = folder.pool().await;
    sqlx::query("create table effects (item integer)").execute(&pool).await.expect("a table");
    pool
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_what_long_operations_promise() {
    let folder = Folder::new("operations");
    operations::everything(&table(&folder).await, effects, written, clear).await;
}

/// Is started by the test of kills, and killed by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a victim, not a test"]
async fn victim() {
    let Some(file) = told(DATABASE) else { return };
    let options = SqliteConnectOptions::new().filename(file);
    let pool = SqliteHealPool::builder().max(4).connect_with(options).await.expect("it opens");
    operations::kills::victim(&pool, effects).await;
}

async fn killed(kills: usize) {
    let folder = Folder::new(&format!("operation-kills-{kills}"));
    let pool = table(&folder).await;
    let file = folder.0.join("jobs.db").to_string_lossy().into_owned();
    let name = "long_operation::victim";
    eprintln!("{}", operations::kills::killed(name, &file, kills, &pool, effects, written).await);
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

async fn healed(pool: &SqliteHealPool, batches: &str, handler: Handler) -> Heal {
    let config = Config::load(&Source::text("test.toml", batches)).expect("it is valid");
    let builder = Heal::builder().config(config).pool("main", pool).batch("effects", handler);
    builder.start().await.expect("it starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_waits_for_its_connection_teaches_what_its_items_cost_and_not_the_wait() {
    let folder = Folder::new("operation-waits");
    let options = folder.options();
    let pool = SqliteHealPool::builder().max(1).connect_with(options).await.expect("it opens");
    let handler = batch::run_tx(&pool, |_, _: Part<i64>| Box::pin(async { Ok(Results::done()) }));
    let heal = healed(&pool, "[batches.effects]\nper_item = \"1ms\"\n[pools.main]", handler).await;
    let batch = heal.batch("effects");
    // Of as many items, lest a fixed cost of each chunk be taken for an explanation.
    let items: Vec<i64> = (0..300).collect();
    let estimate = || batch.plan(300).expect("it is registered").estimate;
    let (before, gate) = (estimate(), heal.gate("main").expect("there is a pool"));
    assert_eq!(before, Duration::from_millis(300));
    let held = pool.acquire().await.expect("it is free");
    let hold = async {
        eventually("waiting", || gate.stats().waiting_in_all() > 0).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        drop(held);
    };
    let (report, ()) = tokio::join!(batch.run(&items), hold);
    assert_eq!(report.expect("it is done").counts.done, 300);
    assert!(estimate() < before, "600 ms of wait are taken for work: {:?}", estimate());
    heal.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_level_critical_no_part_is_begun_though_the_actor_hangs() {
    const CONFIG: &str = "[batches.effects]\ndeadline = \"1s\"\nper_item = \"10ms\"\n[pools.main]";
    let folder = Folder::new("operation-stops");
    let (pool, begun) = (folder.pool().await, Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&begun);
    let handler = batch::run(move |_: Part<i64>| {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(Results::done())
        }
    });
    let heal = healed(&pool, CONFIG, handler).await;
    let items: Vec<i64> = (0..20_000).collect();
    heal.batch("effects").run(&items).await.expect("it begins");
    assert!(heal.plant("batch-executor", Fault::Hang), "there is such an actor");
    let gate = heal.gate("main").expect("there is a pool");
    let mut held = Vec::new();
    while let Some(permit) = gate.acquire(None, Hold::here()).now_or_never() {
        held.push(permit.expect("it is free"));
    }
    let mut waiter = Box::pin(gate.acquire(Some(&patient()), Hold::here()));
    assert!(futures_util::poll!(&mut waiter).is_pending());
    eventually("critical", || heal.level("main") == Some(Level::Critical)).await;
    // One may have been begun in this very moment.
    let then = begun.load(Ordering::Relaxed) + 1;
    // The guardian ends what hangs after a second; this is sooner, and time for fifty parts.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        begun.load(Ordering::Relaxed) <= then,
        "{} more were begun",
        begun.load(Ordering::Relaxed) - then
    );
    drop((held, waiter));
    eventually("going on", || begun.load(Ordering::Relaxed) > then).await;
    heal.batch("effects").cancel();
    heal.shutdown().await;
}

/// What a message costs that is looked for among many others, of which each looks at more or fewer: some 10 ms.
fn searched(conn: &mut SqliteConnection, items: Vec<i64>) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async move {
        let search = "insert into effects select ?1 where 0 <= (select count(*) from messages \
                      where id <= 2000 + ?1 * 7919 % 10000 and body like '%' || ?1 || '%')";
        for item in items {
            sqlx::query(search).bind(item).execute(&mut *conn).await?;
        }
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it records for the calibration of estimates, and takes a minute"]
async fn record_chunks() {
    let folder = Folder::new("operation-record");
    operations::record::record(&table(&folder).await, SHORT, effects, effects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it records for the calibration of estimates, and takes five minutes"]
async fn record_long_chunks() {
    let folder = Folder::new("operation-record-long");
    let pool = table(&folder).await;
    let messages = "create table messages (id integer primary key, body text); \
                    with recursive ids (id) as (select 1 union all select id + 1 from ids where id < 12000) \
                    insert into messages select id, hex(randomblob(128)) from ids";
    pool.unguarded().execute(messages).await.expect("messages");
    operations::record::record(&pool, LONG, searched, effects).await;
}
