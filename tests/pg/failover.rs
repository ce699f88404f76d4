//! The primary goes away under load and a standby takes its place.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use selfheal::db::{Error, PgHealPool};
use selfheal_actors::{
    clock::{Clock, Tick},
    signal::Signals,
};
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::JoinSet;

use crate::{
    guarded::{eventually, guard, load, patient},
    proxy::Proxy,
    server::{Server, options, server},
};

const MAX: u32 = 16;
const CALLERS: u32 = 32;

/// A pool that comes to the server in front of which the proxy stands.
async fn pool(proxy: &Proxy, max: u32) -> PgHealPool {
    let build = PgHealPool::builder().max(max).acquire_timeout(Duration::from_secs(2));
    let through = options(proxy.port(), "admin", "postgres").options([("synchronous_commit", "on")]);
    build.connect_with(through).await.expect("it connects")
}

fn is_read_only(error: &Error) -> bool {
    let Error::Sqlx(error) = error else { return false };
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("25006")
}

/// What the callers have seen.
#[derive(Default)]
struct Seen {
    next: AtomicU32,
    acknowledged: Mutex<Vec<i64>>,
    refused_to_write: AtomicU32,
    failed: AtomicU32,
    last_success: Mutex<Tick>,
}

/// Writes one item after the other, in every second turn in a transaction.
async fn write(pool: PgHealPool, seen: Arc<Seen>, clock: Clock) {
    loop {
        let id = i64::from(seen.next.fetch_add(1, Ordering::Relaxed));
        match write_one(&pool.with(patient()), id).await {
            Ok(()) => {
                seen.acknowledged.lock().push(id);
                *seen.last_success.lock() = clock.now();
            }
            Err(Error::Refused(refusal)) => panic!("{refusal}"),
            Err(error) if is_read_only(&error) => drop(seen.refused_to_write.fetch_add(1, Ordering::Relaxed)),
            Err(_) => drop(seen.failed.fetch_add(1, Ordering::Relaxed)),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn write_one(pool: &PgHealPool, id: i64) -> Result<(), Error> {
    let insert = sqlx::query("insert into items values ($1)").bind(id);
    if id % 2 == 0 {
        insert.execute(pool).await?;
        return Ok(());
    }
    let mut transaction = pool.begin().await?;
    insert.execute(&mut *transaction).await?;
    transaction.commit().await
}

/// A commit is acknowledged when the replica has it.
async fn replicate(primary: &Server) {
    let mut admin = primary.admin().await;
    admin.execute("create table items (id bigint)").await.expect("a table");
    admin.execute("alter system set synchronous_standby_names = '*'").await.expect("it is set");
    admin.execute("select pg_reload_conf()").await.expect("it is read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_promoted_under_load_and_nothing_acknowledged_is_lost() {
    let Some(server) = server() else { return };
    let (primary, proxy) = (server.another(), Proxy::to(0).await);
    let replica = primary.replica();
    proxy.switch_to(primary.port());
    replicate(&primary).await;
    let pool = pool(&proxy, MAX).await;
    let gate = guard(&pool, MAX, Signals::none());
    let (seen, clock) = (Arc::<Seen>::default(), Clock::system());
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(write(pool.clone(), Arc::clone(&seen), clock.clone()));
    }
    eventually("under load", || seen.acknowledged.lock().len() > 200).await;

    let connected = proxy.accepted();
    primary.stop_at_once();
    proxy.switch_to(replica.port());
    proxy.close_all();
    eventually("at the standby", || seen.refused_to_write.load(Ordering::Relaxed) > 0).await;
    let mut admin = replica.admin().await;
    admin.execute("select pg_promote()").await.expect("it is promoted");
    let ready = clock.now();
    eventually("at the new primary", || *seen.last_success.lock() > ready).await;
    let took = seen.last_success.lock().since(ready);
    let attempts = proxy.accepted() - connected;

    callers.abort_all();
    while callers.join_next().await.is_some() {}
    eventually("at rest", || load(&gate) == (0, 0) && pool.usage().in_use == 0).await;
    let acknowledged = seen.acknowledged.lock().clone();
    let rows: Vec<i64> =
        sqlx::query_scalar("select id from items order by id").fetch_all(&mut admin).await.expect("rows");
    println!(
        "{} acknowledged, {} refused to write, {} failed; first success {took:?} after the promotion; \
         {attempts} connections were tried",
        acknowledged.len(),
        seen.refused_to_write.load(Ordering::Relaxed),
        seen.failed.load(Ordering::Relaxed),
    );
    let (mut lost, mut doubled) = (acknowledged, rows.len());
    lost.retain(|id| rows.binary_search(id).is_err());
    assert!(lost.is_empty(), "lost: {lost:?}");
    doubled -= rows.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(doubled, 0);
    // Each of the pool's connections once after the primary went, and once or twice more to leave the standby.
    assert!(attempts <= 8 * MAX, "a storm of {attempts} connections");
}

/// The pool has `max` idle connections, all to where the proxy leads now.
async fn fill(pool: &PgHealPool, max: u32) {
    let mut held = Vec::new();
    while held.len() < max as usize {
        let mut connection = pool.acquire().await.expect("a connection");
        // One that leads elsewhere has been closed.
        if connection.execute("select 1").await.is_ok() {
            held.push(connection);
        }
    }
    drop(held);
    eventually("idle", || pool.usage().in_use == 0 && pool.usage().size == max).await;
}

#[tokio::test]
async fn errors_of_held_connections_close_the_idle_ones_after_a_failover_too() {
    let Some(server) = server() else { return };
    let (primary, standby) = (server.another(), server.standby());
    let proxy = Proxy::to(primary.port()).await;
    let pool = pool(&proxy, 4).await;
    guard(&pool, 4, Signals::none());
    let pool = pool.with(patient());
    for in_transaction in [false, true] {
        proxy.switch_to(primary.port());
        proxy.close_all();
        fill(&pool, 4).await;
        // It is looked once a second, and the pool is to know that there was a primary.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        drop(pool.acquire().await.expect("a connection"));
        eventually("idle", || pool.usage().in_use == 0).await;

        proxy.switch_to(standby.port());
        proxy.close_all();
        fill(&pool, 4).await;
        let left = async {
            while pool.usage().size > 0 {
                let refused = if in_transaction {
                    let mut transaction = pool.begin().await.expect("a transaction");
                    transaction.execute("create table t (id int)").await.map(drop)
                } else {
                    let mut connection = pool.acquire().await.expect("a connection");
                    connection.execute("create table t (id int)").await.map(drop)
                };
                let refused = refused.expect_err("a standby refuses writes");
                assert!(is_read_only(&Error::Sqlx(refused)));
                eventually("returned", || pool.usage().in_use == 0).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), left).await.expect("the standby is left");
    }
    proxy.switch_to(primary.port());
    pool.execute("create table t (id int)").await.expect("the new primary takes writes");
}

#[tokio::test]
async fn a_service_that_reads_from_a_standby_keeps_its_connections() {
    let Some(server) = server() else { return };
    let standby = server.standby();
    let pool = PgHealPool::builder().max(2).connect_with(standby.admin_options()).await.expect("it connects");
    guard(&pool, 2, Signals::none());
    let pool = pool.with(patient());
    fill(&pool, 2).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let mut connection = pool.acquire().await.expect("a connection");
    connection.execute("select 1").await.expect("it may be read");
    drop(connection);
    // The way back is over when the permit is there again.
    eventually("returned", || load(&pool.gate()) == (0, 0)).await;
    assert_eq!(pool.usage().size, 2);
    let mut admin = PgConnection::connect_with(&standby.admin_options()).await.expect("it connects");
    admin.ping().await.expect("it answers");
}
