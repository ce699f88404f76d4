//! Questions by key, answered together: on SQLite, with queries that are counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use selfheal::{
    SqliteHealPool,
    db::Lookup,
    http::{Code, Failure},
};
use sqlx::{Sqlite, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::task::JoinSet;

/// One connection: questions wait while a query runs.
async fn pool() -> SqliteHealPool {
    let options = SqliteConnectOptions::new().in_memory(true);
    SqliteHealPool::builder().max(1).connect_with(options).await.expect("memory")
}

/// Answers `n` with `n * n`, knows nothing of multiples of 10, and fails for any query with 13 in it.
fn squares(pool: &SqliteHealPool, queries: &Arc<AtomicUsize>) -> Lookup<Sqlite, i64, i64> {
    let queries = Arc::clone(queries);
    pool.lookup("squares", move |connection: &mut SqliteConnection, keys: Vec<i64>| {
        queries.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let keys = serde_json::to_string(&keys).expect("numbers");
            let query = "SELECT value, CASE value WHEN 13 THEN json('13 is no JSON') ELSE value * value END \
                         FROM json_each($1) WHERE value % 10 <> 0";
            sqlx::query_as(query).bind(keys).fetch_all(connection).await
        })
    })
}

#[tokio::test]
async fn what_is_asked_at_one_moment_is_asked_for_together_and_everybody_gets_their_own() {
    let (pool, queries) = (pool().await, Arc::default());
    let squares = squares(&pool, &queries);
    let mut callers = JoinSet::new();
    for n in (0..160).filter(|n| *n != 13) {
        let squares = squares.clone();
        callers.spawn(async move { (n, squares.get(n).await.expect("an answer")) });
    }
    for (n, square) in callers.join_all().await {
        assert_eq!(square, (n % 10 != 0).then_some(n * n), "{n}");
    }
    // The first may have left before others asked; all others go ten by ten.
    let queries = queries.load(Ordering::Relaxed);
    assert!((160 / 10..=160 / 10 + 8).contains(&queries), "{queries}");
}

#[tokio::test]
async fn one_who_asks_alone_is_answered_by_a_query_of_its_own() {
    let (pool, queries) = (pool().await, Arc::default());
    let squares = squares(&pool, &queries);
    for n in 1..5 {
        assert_eq!(squares.get(n).await.expect("an answer"), Some(n * n));
    }
    assert_eq!(queries.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_key_that_makes_a_query_fail_fails_alone() {
    let (pool, queries) = (pool().await, Arc::default());
    let squares = squares(&pool, &queries);
    let mut callers = JoinSet::new();
    for n in 1..20 {
        let squares = squares.clone();
        callers.spawn(async move { (n, squares.get(n).await) });
    }
    for (n, square) in callers.join_all().await {
        match square {
            Ok(square) => assert_eq!(square, (n != 10).then_some(n * n)),
            Err(error) => assert!(n == 13 && error.to_string().contains("malformed JSON"), "{n}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_caller_who_leaves_takes_nobody_along() {
    let (pool, queries) = (pool().await, Arc::default());
    let squares = squares(&pool, &queries);
    let held = pool.acquire().await.expect("the one connection");
    let ask = |n| {
        let squares = squares.clone();
        tokio::runtime::Handle::current().spawn(async move { squares.get(n).await.expect("an answer") })
    };
    let (first, second, third) = (ask(2), ask(2), ask(3));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    first.abort();
    third.abort();
    assert!(first.await.expect_err("it was told to").is_cancelled());
    assert!(third.await.expect_err("it was told to").is_cancelled());
    drop(held);
    assert_eq!(second.await.expect("no panic"), Some(4));
    assert_eq!(queries.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_query_that_panics_answers_everybody_and_the_next_one_is_asked() {
    let (pool, queries) = (pool().await, Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&queries);
    let lookup = pool.lookup("panics", move |_: &mut SqliteConnection, keys: Vec<i64>| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        Box::pin(async move {
            assert!(!first, "planted");
            Ok(keys.into_iter().map(|key| (key, key)).collect())
        })
    });
    lookup.get(7).await.expect_err("its query is gone");
    assert_eq!(lookup.get(7).await.expect("an answer"), Some(7));
}

#[test]
fn a_runtime_that_ends_leaves_nobody_waiting() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (ends, goes_on) = (runtime(), runtime());
    let queries = Arc::default();
    let (pool, squares, held) = goes_on.block_on(async {
        let pool = pool().await;
        let squares = squares(&pool, &queries);
        let held = pool.acquire().await.expect("the one connection");
        (pool, squares, held)
    });
    let asks = squares.clone();
    ends.block_on(async {
        let waits = tokio::runtime::Handle::current().spawn(async move { asks.get(2).await });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!waits.is_finished());
    });
    drop(ends);
    goes_on.block_on(async {
        drop(held);
        assert_eq!(squares.get(3).await.expect("an answer"), Some(9));
        pool.close().await;
    });
}

#[tokio::test]
async fn a_refusal_of_the_gate_is_found_in_the_error() {
    let (pool, queries) = (pool().await, Arc::default());
    let squares = squares(&pool, &queries);
    pool.close().await;
    let error = squares.get(2).await.expect_err("it is closed");
    assert_eq!(Failure::from(error).problem().code, Code::StoreDown);
}
