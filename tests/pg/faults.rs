//! A guarded pool behind a network that is ill in eight ways.
//!
//! Whatever ails it: every call ends, with an error that says of which class it is, nobody is refused who may wait, no
//! permit is lost, and once the network is well the pool is as before, without help.

use std::time::Duration;

use selfheal::db::{Error, ErrorClass, PgHealPool, classify};
use selfheal_actors::{
    clock::Clock,
    gate::{Gate, Ticket},
    level::Class,
    signal::Signals,
};
use sqlx::Executor;
use tokio::task::JoinSet;

use crate::{
    guarded::{eventually, guard, load},
    proxy::{Proxy, Toxic},
    server::server,
};

const MAX: u32 = 4;
/// Calls during the illness, all at once.
const CALLS: u32 = 16;
/// No call takes longer: a statement may take half a second and five more to be answered, and three callers may have
/// to wait for that before it is one's turn.
const BOUND: Duration = Duration::from_secs(60);

fn critical() -> Ticket {
    Ticket::new(Class::Critical).with_deadline(Clock::system().now() + 2 * BOUND)
}

/// What the calls may come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Each succeeds, late perhaps.
    Late,
    /// Each succeeds or fails as a broken connection, or one that cannot be had, does.
    Broken,
}

async fn survives(toxic: Toxic, outcome: Outcome) {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let proxy = Proxy::to(database.options().get_port()).await;
    let build = PgHealPool::builder().max(MAX).acquire_timeout(Duration::from_secs(2));
    let build = build.statement_timeout(Duration::from_millis(500));
    let pool = build.connect_with(database.options().port(proxy.port())).await.expect("it connects");
    let gate = guard(&pool, MAX, Signals::none());
    pool.with(critical()).execute("create table t (id int)").await.expect("a table");

    proxy.set(toxic);
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        calls.spawn(call(pool.with(critical()), number));
    }
    let (mut succeeded, mut failed) = (0, Vec::new());
    while let Some(ended) = calls.join_next().await {
        match ended.expect("no call panics").expect("every call ends") {
            Ok(()) => succeeded += 1,
            Err(Error::Refused(refusal)) => panic!("{refusal}"),
            Err(Error::Sqlx(error)) => failed.push((classify(&error), error.to_string())),
        }
    }
    println!("{toxic:?}: {succeeded} succeeded, {failed:?} failed");
    assert!(failed.is_empty() || outcome == Outcome::Broken, "{failed:?}");
    for (class, error) in &failed {
        let broken = matches!(class, ErrorClass::Transient | ErrorClass::Interrupted | ErrorClass::Timeout);
        assert!(broken, "{class:?}: {error}");
    }
    assert!(gate.invariants().is_empty(), "{:?}", gate.invariants());

    proxy.set(Toxic::None);
    recovers(&pool, &gate).await;
}

/// A statement, or a transaction; odd ones write.
async fn call(pool: PgHealPool, number: u32) -> Result<Result<(), Error>, tokio::time::error::Elapsed> {
    let work = async {
        if number.is_multiple_of(2) {
            pool.execute("select generate_series(1, 200)").await?;
            return Ok(());
        }
        let mut transaction = pool.begin().await?;
        transaction.execute("insert into t values (1)").await?;
        transaction.commit().await
    };
    tokio::time::timeout(BOUND, work).await
}

/// Nothing is in use, and all there is can be used.
async fn recovers(pool: &PgHealPool, gate: &Gate) {
    let again = async { while pool.with(critical()).execute("select 1").await.is_err() {} };
    tokio::time::timeout(BOUND, again).await.expect("it works again");
    eventually("at rest", || load(gate) == (0, 0) && pool.usage().in_use == 0).await;
    let mut held = Vec::new();
    for _ in 0..MAX {
        let mut connection = pool.with(critical()).acquire().await.expect("a connection");
        connection.execute("select 1").await.expect("a sound one");
        held.push(connection);
    }
    drop(held);
    eventually("at rest", || load(gate) == (0, 0) && pool.usage().in_use == 0).await;
    assert!(gate.invariants().is_empty(), "{:?}", gate.invariants());
}

/// The answer never comes, and nobody waits for it for ever: neither the caller nor the permit.
#[tokio::test]
async fn a_commit_into_a_black_hole_ends() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let proxy = Proxy::to(database.options().get_port()).await;
    let build = PgHealPool::builder().max(MAX).statement_timeout(Duration::from_millis(100));
    let pool = build.connect_with(database.options().port(proxy.port())).await.expect("it connects");
    let gate = guard(&pool, MAX, Signals::none());
    let mut transaction = pool.with(critical()).begin().await.expect("a transaction");
    transaction.execute("create table t (id int)").await.expect("a table");
    proxy.set(Toxic::BlackHole);
    let ended = tokio::time::timeout(BOUND, transaction.commit()).await.expect("it ends");
    let Err(Error::Sqlx(error)) = ended else { panic!("{ended:?}") };
    assert_eq!(classify(&error), ErrorClass::Interrupted, "nobody knows whether it is permanent");
    proxy.set(Toxic::None);
    recovers(&pool, &gate).await;
}

#[tokio::test]
async fn latency() {
    survives(Toxic::Latency(Duration::from_millis(50)), Outcome::Late).await;
}

#[tokio::test]
async fn down() {
    survives(Toxic::Down, Outcome::Broken).await;
}

#[tokio::test]
async fn bandwidth() {
    survives(Toxic::Bandwidth(32 * 1024), Outcome::Late).await;
}

#[tokio::test]
async fn slow_close() {
    survives(Toxic::SlowClose(Duration::from_millis(500)), Outcome::Late).await;
}

#[tokio::test]
async fn black_hole() {
    survives(Toxic::BlackHole, Outcome::Broken).await;
}

#[tokio::test]
async fn reset_peer() {
    survives(Toxic::ResetPeer, Outcome::Broken).await;
}

#[tokio::test]
async fn slicer() {
    survives(Toxic::Slicer, Outcome::Late).await;
}

#[tokio::test]
async fn limit_data() {
    survives(Toxic::LimitData(600), Outcome::Broken).await;
}
