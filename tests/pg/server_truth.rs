//! What the server has left, as it says itself; and what happens when it becomes a standby.

use selfheal::db::PgHealPool;
use selfheal_actors::signal::Signals;
use sqlx::{Connection, Executor, PgConnection};

use crate::{
    guarded::{eventually, guard, patient},
    server::{SLOTS, server},
};

#[tokio::test]
async fn the_limit_is_what_the_server_has_left_for_us() {
    let Some(server) = server() else { return };
    let database = server.alone().await;
    let pool = PgHealPool::builder().max(200).connect_with(database.options()).await.expect("it connects");
    guard(&pool, 200, Signals::none());
    let mut probe = pool.probe();

    let alone = probe.server_truth().await.expect("an answer").expect("there is a server");
    assert_eq!((alone.max, alone.reserved), (100, 3));
    assert_eq!(alone.limit, SLOTS - 2, "all but the two outside the pool");
    assert_eq!(alone.used, 2, "one of the pool, and this one");

    let mut others = Vec::new();
    for _ in 0..30 {
        others.push(PgConnection::connect_with(&database.options()).await.expect("a slot"));
    }
    let shared = probe.server_truth().await.expect("an answer").expect("there is a server");
    assert_eq!(shared.limit, SLOTS - 2 - 30);
    assert_eq!(shared.used, 32);

    let mut admin = server.admin().await;
    admin.execute("alter role app connection limit 40").await.expect("a limit");
    let limited = probe.server_truth().await.expect("an answer").expect("there is a server");
    admin.execute("alter role app connection limit -1").await.expect("no limit");
    assert_eq!(limited.limit, 40 - 2 - 30, "the role has a limit of its own");
    for other in others {
        other.close().await.expect("it closes");
    }
    probe.close().await;
}

#[tokio::test]
async fn the_server_can_be_asked_when_it_is_full() {
    let Some(server) = server() else { return };
    let database = server.alone().await;
    let pool = PgHealPool::builder().max(20).connect_with(database.options()).await.expect("it connects");
    let mut probe = pool.probe();
    probe.server_truth().await.expect("it is opened while nothing is wrong");
    let mut others = Vec::new();
    while let Ok(other) = PgConnection::connect_with(&database.options()).await {
        others.push(other);
    }
    let truth = probe.server_truth().await.expect("an answer").expect("there is a server");
    assert_eq!((truth.used, truth.limit), (SLOTS, 1), "95 others, and 2 to keep free");
}

#[tokio::test]
async fn after_a_failover_connections_to_the_standby_are_closed() {
    let Some(server) = server() else { return };
    let standby = server.standby();
    let pool = PgHealPool::builder().max(4).connect_with(standby.admin_options()).await.expect("it connects");
    guard(&pool, 4, Signals::none());
    let pool = pool.with(patient());
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(pool.acquire().await.expect("a connection"));
    }
    drop(held);
    eventually("idle", || pool.usage().in_use == 0).await;
    assert_eq!(pool.usage().size, 4);

    let refused = pool.execute("create table t (id int)").await.expect_err("a standby refuses writes");
    assert_eq!(refused.as_database_error().and_then(|e| e.code()).as_deref(), Some("25006"));
    eventually("without connections", || pool.usage().size == 0).await;
}

#[tokio::test]
async fn a_session_that_is_read_only_by_choice_is_no_failover() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let read_only = database.options().options([("default_transaction_read_only", "on")]);
    let pool = PgHealPool::builder().max(1).connect_with(read_only).await.expect("it connects");
    guard(&pool, 1, Signals::none());
    let pool = pool.with(patient());
    let session = || sqlx::query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(&pool);
    let before = session().await.expect("a pid");
    let refused = pool.execute("create table t (id int)").await.expect_err("it is read only");
    assert_eq!(refused.as_database_error().and_then(|e| e.code()).as_deref(), Some("25006"));
    assert_eq!(session().await.expect("a pid"), before);
}
