//! A pool that has nothing left, on SQLite: who waits, who goes first, who is refused, and what comes back.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use parking_lot::Mutex;
use selfheal::db::{self, ErrorClass, HealPool, SqliteHealPool, classify, refusal};
use selfheal_actors::{
    clock::Clock,
    gate::{Gate, Reason, Ticket},
    level::{Class, Mode},
    signal::Signals,
};
use sqlx::{Connection, Executor, Row, Sqlite, Statement, pool::PoolOptions, sqlite::SqliteConnectOptions};

use crate::guarded::{
    cancel::{churn, poll_then_drop},
    cancellations, eventually, guard, guard_in, load, patient, seed,
};

/// A new database file, removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let name = format!("selfheal-{}-{}.db", std::process::id(), fastrand::u64(..));
        Self(std::env::temp_dir().join(name))
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new().filename(&self.0).create_if_missing(true)
    }

    async fn pool(&self, max: u32) -> (SqliteHealPool, Gate) {
        let pool = SqliteHealPool::builder().max(max).connect_with(self.options()).await.expect("a file");
        let gate = guard(&pool, max, Signals::none());
        (pool, gate)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let mut path = self.0.clone().into_os_string();
            path.push(end);
            let _ = std::fs::remove_file(path);
        }
    }
}

#[tokio::test]
async fn every_way_of_asking_is_answered_through_the_gate() {
    let scratch = Scratch::new();
    let (pool, gate) = scratch.pool(2).await;
    pool.execute("create table t (id integer primary key, word text not null)").await.expect("a table");
    let inserted = sqlx::query("insert into t (word) values (?), (?)").bind("one").bind("two");
    assert_eq!(inserted.execute(&pool).await.expect("two rows").rows_affected(), 2);
    let all: Vec<(i64, String)> = sqlx::query_as("select * from t").fetch_all(&pool).await.expect("rows");
    assert_eq!(all, [(1, "one".into()), (2, "two".into())]);
    let one: String =
        sqlx::query_scalar("select word from t where id = ?").bind(2).fetch_one(&pool).await.expect("a word");
    assert_eq!(one, "two");
    let none = sqlx::query("select * from t where id = 9").fetch_optional(&pool).await.expect("an answer");
    assert!(none.is_none());
    let missing = sqlx::query("select * from t where id = 9").fetch_one(&pool).await.expect_err("no row");
    assert!(matches!(missing, sqlx::Error::RowNotFound));
    let words: Vec<String> = sqlx::query("select word from t")
        .fetch(&pool)
        .map_ok(|row| row.get(0))
        .try_collect()
        .await
        .expect("rows");
    assert_eq!(words, ["one", "two"]);
    let statement = pool
        .prepare(sqlx::SqlSafeStr::into_sql_str("select word from t where id = ?"))
        .await
        .expect("a statement");
    let row = statement.query().bind(1).fetch_one(&pool).await.expect("a row");
    assert_eq!(row.get::<String, _>(0), "one");
    let wrong = pool.execute("insert into t (id, word) values (1, 'again')").await.expect_err("it is there");
    assert_eq!(classify(&wrong), ErrorClass::Permanent);
    let wrong = pool.fetch("select nonsense").try_next().await.expect_err("no such column");
    assert_eq!(classify(&wrong), ErrorClass::Permanent);
    eventually("at rest", || load(&gate) == (0, 0)).await;
}

#[tokio::test]
async fn rows_that_are_not_taken_wait_and_none_is_lost() {
    let scratch = Scratch::new();
    let (pool, gate) = scratch.pool(1).await;
    let many =
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) select i from n";
    let mut rows = sqlx::query_scalar::<_, i64>(many).fetch(&pool);
    let mut sum = 0;
    while let Some(i) = rows.try_next().await.expect("no error") {
        sum += i;
    }
    assert_eq!(sum, 5000 * 5001 / 2);
    drop(rows);
    let mut rows = sqlx::query(many).fetch(&pool);
    assert!(rows.try_next().await.expect("no error").is_some());
    drop(rows);
    eventually("at rest", || load(&gate) == (0, 0)).await;
    assert_eq!(pool.usage().size, 1, "its connection went back");
}

#[tokio::test]
async fn critical_work_goes_before_work_that_came_earlier() {
    let scratch = Scratch::new();
    let (pool, gate) = scratch.pool(1).await;
    let held = pool.acquire().await.expect("the only one");
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut callers = tokio::task::JoinSet::new();
    let deadline = Clock::system().now() + Duration::from_secs(60);
    for (place, class) in [Class::Sheddable, Class::Normal, Class::Critical].into_iter().enumerate() {
        let pool = pool.with(Ticket::new(class).with_deadline(deadline));
        let order = Arc::clone(&order);
        callers.spawn(async move {
            let _conn = pool.acquire().await.expect("in the end");
            order.lock().push(class);
        });
        eventually("in the queue", || load(&gate).1 == place as u32 + 1).await;
    }
    drop(held);
    callers.join_all().await;
    assert_eq!(*order.lock(), [Class::Critical, Class::Normal, Class::Sheddable]);
}

#[tokio::test]
async fn whoever_has_no_job_behind_it_is_refused_soon_and_by_name() {
    let scratch = Scratch::new();
    let (pool, _gate) = scratch.pool(1).await;
    let held = pool.acquire().await.expect("the only one");
    let stranger = pool.clone();
    // In a task of its own: this one holds a connection, and would be served from the reserve.
    let refused = tokio::task::JoinSet::from_iter([async move { stranger.execute("select 1").await }]);
    let error = refused.join_all().await.remove(0).expect_err("nothing is left");
    let refused = refusal(&error).expect("it is the gate's");
    assert_eq!(refused.reason, Reason::Shed);
    assert!(refused.retry_after.is_some());
    assert_eq!(classify(&error), ErrorClass::Overload);
    assert!(matches!(db::Error::from(error), db::Error::Refused(_)));
    drop(held);
}

#[tokio::test]
async fn a_task_that_holds_the_last_connection_and_needs_another_is_no_deadlock() {
    let scratch = Scratch::new();
    let (pool, gate) = scratch.pool(1).await;
    let pool = pool.with(patient());
    let gates = gate.clone();
    let nested = async move {
        let outer = pool.acquire().await.expect("the last one");
        let inner = pool.acquire().await.expect("one from the reserve");
        pool.execute("select 1").await.expect("and the other");
        eventually("two are left", || load(&gates) == (2, 0)).await;
        drop((outer, inner));
        pool
    };
    let pool = tokio::task::JoinSet::from_iter([nested]).join_all().await.remove(0);
    eventually("at rest", || load(&gate) == (0, 0) && pool.usage().in_use == 0).await;
}

#[tokio::test]
async fn where_the_gate_orders_nothing_callers_who_have_gone_cost_those_behind_them_no_query() {
    for mode in [Mode::Observe, Mode::Off] {
        let scratch = Scratch::new();
        let pool = SqliteHealPool::builder().max(1).connect_with(scratch.options()).await.expect("a file");
        pool.execute("create table t (id integer)").await.expect("a table");
        let gate = guard_in(mode, &pool, 1, Signals::none());
        // All that it has, with its reserve: whoever comes now waits in sqlx's own queue.
        let mut held = Vec::new();
        for _ in 0..=pool.nested_reserve() {
            held.push(pool.acquire().await.expect("it is let through"));
        }
        let insert = "insert into t values (1)";
        for _ in 0..50 {
            assert!(poll_then_drop(1, pool.execute(insert)).await.is_none(), "{mode:?}: nothing is left");
            assert!(poll_then_drop(1, pool.fetch(insert).try_next()).await.is_none());
            assert!(poll_then_drop(1, pool.begin()).await.is_none());
        }
        assert_eq!(gate.stats().real_in_use as usize, held.len() + 150, "{mode:?}: they are in the queue");
        drop(held);
        let rows: i64 = sqlx::query_scalar("select count(*) from t").fetch_one(&pool).await.expect("a count");
        assert_eq!(rows, 0, "{mode:?}: nobody was there any more");
        eventually("at rest", || gate.stats().real_in_use == 0 && pool.usage().in_use == 0).await;
    }
}

#[tokio::test]
async fn the_list_of_holders_says_what_is_held_and_where_it_was_taken() {
    let scratch = Scratch::new();
    let (pool, gate) = scratch.pool(2).await;
    let labelled = pool.operation("nightly");
    let line = line!() + 1;
    let held = labelled.acquire().await.expect("a connection");
    let holders = gate.holders();
    assert_eq!(holders.len(), 1);
    assert_eq!(holders[0].operation.as_deref(), Some("nightly"));
    assert_eq!((holders[0].site.file(), holders[0].site.line()), (file!(), line));
    drop(held);
    eventually("at rest", || gate.holders().is_empty()).await;
}

#[tokio::test]
async fn a_transaction_is_undone_unless_it_is_committed() {
    let scratch = Scratch::new();
    let (pool, gate) = scratch.pool(2).await;
    let pool = pool.with(patient());
    pool.execute("create table t (id integer)").await.expect("a table");
    let insert = "insert into t values (1)";
    let mut dropped = pool.begin().await.expect("a transaction");
    dropped.execute(insert).await.expect("a row");
    drop(dropped);
    let mut undone = pool.begin().await.expect("a transaction");
    undone.execute(insert).await.expect("a row");
    undone.rollback().await.expect("it is undone");
    let mut committed = pool.begin().await.expect("a transaction");
    committed.execute(insert).await.expect("a row");
    let mut savepoint = Connection::begin(&mut *committed).await.expect("a savepoint");
    savepoint.execute(insert).await.expect("a row");
    savepoint.rollback().await.expect("it is undone");
    committed.commit().await.expect("it is permanent");
    let mut conn = pool.acquire().await.expect("a connection");
    let mut on_it = conn.begin().await.expect("a transaction");
    on_it.execute(insert).await.expect("a row");
    on_it.commit().await.expect("it is permanent");
    drop(conn);
    let rows: i64 = sqlx::query_scalar("select count(*) from t").fetch_one(&pool).await.expect("a count");
    assert_eq!(rows, 2);
    eventually("at rest", || load(&gate) == (0, 0)).await;
}

#[tokio::test]
async fn before_a_runtime_is_attached_everybody_passes() {
    let scratch = Scratch::new();
    let pool = SqliteHealPool::builder().max(2).connect_with(scratch.options()).await.expect("a file");
    let held = [pool.acquire().await.expect("one"), pool.acquire().await.expect("two")];
    pool.execute("select 1").await.expect("one of the reserve: nothing is refused");
    eventually("two are left", || load(&pool.gate()) == (2, 0)).await;
    drop(held);

    let theirs = PoolOptions::<Sqlite>::new().max_connections(2).connect_lazy_with(scratch.options());
    let wrapped = HealPool::wrap(theirs);
    assert_eq!((wrapped.max(), wrapped.nested_reserve()), (2, 0));
    wrapped.execute("select 1").await.expect("an answer");
}

#[test]
fn a_connection_that_outlives_its_runtime_is_dropped_without_a_panic() {
    let scratch = Scratch::new();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let first = runtime().expect("a runtime");
    let (pool, gate) = first.block_on(scratch.pool(2));
    let (held, abandoned) = first.block_on(async {
        let held = pool.acquire().await.expect("a connection");
        let begun = pool.begin().await.expect("a transaction");
        (held, begun)
    });
    // Outside any runtime, while theirs lives: it goes back.
    drop(held);
    first.block_on(eventually("back", || load(&gate) == (1, 0)));
    drop(first);
    drop(abandoned);
    assert_eq!(load(&gate), (0, 0), "its runtime has gone, and the permit with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_calls_dropped_anywhere_leak_nothing() {
    let scratch = Scratch::new();
    let max = 8;
    let (pool, gate) = scratch.pool(max).await;
    let mut all = Vec::new();
    for _ in 0..max {
        all.push(pool.acquire().await.expect("a connection"));
    }
    drop(all);
    let clock = Clock::system();
    let began = clock.now();
    let seen = churn(&pool, &gate, cancellations(100_000), 20, seed()).await;
    println!("{seen:?} in {:?}", clock.now().since(began));
    assert!(seen.finished > 10_000 && seen.dropped > 10_000, "{seen:?}");
    assert_eq!(pool.usage().size, max, "the pool has its connections");
    assert!(poll_then_drop(u32::MAX, pool.execute("select 1")).await.expect("not dropped").is_ok());
}
