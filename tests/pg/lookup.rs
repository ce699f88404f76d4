//! Questions by key, answered together: `= any($1)` on a table of PostgreSQL.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use selfheal::db::{ErrorClass, Lookup, PgHealPool, classify};
use selfheal_actors::{
    gate::{Change, Gate},
    signal::Signals,
};
use sqlx::{Executor, PgConnection, Postgres};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    guarded::{guard, load, patient},
    server::{Database, server},
};

/// The keys of each query, in the order of the queries.
type Queries = Arc<Mutex<Vec<Vec<i64>>>>;

/// A pool of one connection, so that questions wait for each other; 200 rows, of which the keys that are multiples of 10
/// are missing; and a lookup whose query cannot be done for 13.
struct Rows {
    pool: PgHealPool,
    gate: Gate,
    lookup: Lookup<Postgres, i64, String>,
    queries: Queries,
    _database: Database,
}

impl Rows {
    async fn new() -> Option<Self> {
        let database = server()?.database().await;
        let pool = PgHealPool::builder().max(1).connect_with(database.options()).await.expect("it connects");
        let gate = guard(&pool, 1, Signals::none());
        let table = "create table tasks (id int8 primary key, title text not null, part int8 not null)";
        pool.execute(table).await.expect("a table");
        let rows = "insert into tasks select n, 'task ' || n, n - 13 from generate_series(1, 200) n where n % 10 <> 0";
        pool.execute(rows).await.expect("rows");
        let queries = Queries::default();
        let asked = Arc::clone(&queries);
        let lookup = pool.lookup("tasks.by_id", move |connection: &mut PgConnection, ids: Vec<i64>| {
            asked.lock().push(ids.clone());
            Box::pin(async move {
                let query = "select id, title || left((1 / part)::text, 0) from tasks where id = any($1)";
                sqlx::query_as(query).bind(ids).fetch_all(connection).await
            })
        });
        Some(Self { pool, gate, lookup, queries, _database: database })
    }

    fn ask(&self, id: i64) -> JoinHandle<Result<Option<String>, selfheal::db::LookupError>> {
        let lookup = self.lookup.clone();
        Handle::current().spawn(patient().scope(async move { lookup.get(id).await }))
    }
}

fn title(id: i64) -> Option<String> {
    (id % 10 != 0).then(|| format!("task {id}"))
}

/// All that is asked while the only connection is away waits for it; then it goes by tens, and by fifties under pressure.
#[tokio::test]
async fn what_waits_goes_ten_at_a_time_and_fifty_under_pressure() {
    for (batch, most) in [(None, 10), (Some(50), 50)] {
        let Some(rows) = Rows::new().await else { return };
        if let Some(batch) = batch {
            rows.gate.apply(Change::Batch(batch));
        }
        let held = rows.pool.with(patient()).acquire().await.expect("the one connection");
        let asked: Vec<_> = (20..180).map(|id| (id, rows.ask(id))).collect();
        crate::guarded::eventually("asked", || load(&rows.gate).1 > 0).await;
        drop(held);
        for (id, answer) in asked {
            assert_eq!(answer.await.expect("no panic").expect("an answer"), title(id), "{id}");
        }
        let queries = rows.queries.lock();
        let keys: Vec<_> = queries.iter().flatten().copied().collect();
        assert_eq!(keys.len(), 160, "each key was asked for once");
        assert!(queries.iter().all(|keys| keys.len() <= most), "{queries:?}");
        assert_eq!(queries.len(), 160_usize.div_ceil(most), "{queries:?}");
    }
}

#[tokio::test]
async fn who_asks_for_the_same_is_answered_by_one_question() {
    let Some(rows) = Rows::new().await else { return };
    let held = rows.pool.with(patient()).acquire().await.expect("the one connection");
    let asked: Vec<_> = (0..40).map(|n| rows.ask(71 + n % 2)).collect();
    crate::guarded::eventually("asked", || load(&rows.gate).1 > 0).await;
    drop(held);
    for (n, answer) in asked.into_iter().enumerate() {
        let id = if n % 2 == 0 { 71 } else { 72 };
        assert_eq!(answer.await.expect("no panic").expect("an answer"), title(id));
    }
    let asked: Vec<BTreeSet<_>> =
        rows.queries.lock().iter().map(|keys| keys.iter().copied().collect()).collect();
    assert_eq!(asked, [BTreeSet::from([71, 72])]);
}

#[tokio::test]
async fn a_key_that_makes_a_query_fail_is_told_what_the_server_said_and_no_other_is() {
    let Some(rows) = Rows::new().await else { return };
    let held = rows.pool.with(patient()).acquire().await.expect("the one connection");
    let asked: Vec<_> = (8..18).map(|id| (id, rows.ask(id))).collect();
    crate::guarded::eventually("asked", || load(&rows.gate).1 > 0).await;
    drop(held);
    for (id, answer) in asked {
        match answer.await.expect("no panic") {
            Ok(found) => assert_eq!((found, id == 13), (title(id), false)),
            Err(error) => {
                let source =
                    std::error::Error::source(&error).and_then(|source| source.downcast_ref::<sqlx::Error>());
                let source = source.expect("it is sqlx's");
                assert_eq!((id, classify(source)), (13, ErrorClass::Permanent), "{error}");
                assert!(error.to_string().contains("division by zero"), "{error}");
            }
        }
    }
}

/// A connection that breaks is everybody's: nobody is asked for again in halves, and the next question is answered.
#[tokio::test]
async fn a_connection_that_breaks_is_told_to_all_and_the_next_question_has_another() {
    let Some(rows) = Rows::new().await else { return };
    let mut held = rows.pool.with(patient()).acquire().await.expect("the one connection");
    let pid: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *held).await.expect("its number");
    let asked: Vec<_> = (1..6).map(|id| rows.ask(id)).collect();
    crate::guarded::eventually("asked", || load(&rows.gate).1 > 0).await;
    let mut admin = server().expect("it runs").admin().await;
    let _ =
        sqlx::query("select pg_terminate_backend($1)").bind(pid).execute(&mut admin).await.expect("it ends");
    drop(held);
    for answer in asked {
        // Either the pool noticed and opened another, or all were told; nobody hangs.
        if let Err(error) = answer.await.expect("no panic") {
            let source =
                std::error::Error::source(&error).and_then(|source| source.downcast_ref::<sqlx::Error>());
            let class = classify(source.expect("it is sqlx's"));
            assert!(
                matches!(class, ErrorClass::Interrupted | ErrorClass::Shutdown | ErrorClass::Transient),
                "{class:?}"
            );
        }
    }
    let again = rows.ask(7).await.expect("no panic");
    assert_eq!(again.expect("an answer"), title(7));
}
