//! The traps of sqlx's pool under pressure, each by name, on a real server.

use std::{sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use selfheal::db::{Error, ErrorClass, HealPool, PgHealPool, classify};
use selfheal_actors::{
    clock::Clock,
    gate::{Change, Gate, Ticket},
    level::Class,
    signal::{ServerState, Signal, Signals},
};
use sqlx::{Connection, Executor, PgConnection, Postgres, pool::PoolOptions};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};

use crate::{
    guarded::{
        cancel::{churn, poll_then_drop},
        cancellations, eventually, guard, load, patient, seed,
    },
    server::{Database, SLOTS, server},
};

async fn pool(database: &Database, max: u32) -> (PgHealPool, Gate) {
    let pool = PgHealPool::builder().max(max).connect_with(database.options()).await.expect("it connects");
    let gate = guard(&pool, max, Signals::none());
    (pool, gate)
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// The sessions behind all connections of a pool.
async fn sessions(pool: &PgHealPool, max: u32) -> Vec<i32> {
    let pool = pool.with(patient());
    let (mut held, mut pids) = (Vec::new(), Vec::new());
    for _ in 0..max {
        let mut conn = pool.acquire().await.expect("a connection");
        pids.push(sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *conn).await.expect("a pid"));
        held.push(conn);
    }
    pids.sort_unstable();
    pids
}

#[tokio::test]
async fn a_begin_that_is_dropped_poisons_plain_sqlx_and_not_a_guarded_pool() {
    let Some(server) = server() else { return };
    let database = server.database().await;

    let plain = PoolOptions::<Postgres>::new().max_connections(1).test_before_acquire(false);
    let plain = plain.connect_with(database.options()).await.expect("it connects");
    // In which of its polls it is sent depends on where the connection is, and on what of the last answer has come, so
    // it is dropped after each of the first ones until that was in between.
    let mut innocent = Ok(());
    for polls in (1..=4).cycle().take(400) {
        drop(poll_then_drop(polls, plain.begin()).await);
        let _ = plain.execute("select 1/0").await.expect_err("a bug of the caller");
        innocent = plain.execute("select 1").await.map(drop);
        if innocent.is_err() {
            break;
        }
    }
    let innocent = innocent.expect_err("the next caller is in its transaction");
    assert_eq!(code(&innocent).as_deref(), Some("25P02"));

    let (pool, gate) = pool(&database, 1).await;
    let pool = pool.with(patient());
    let before = sessions(&pool, 1).await;
    for polls in (0..6).cycle().take(600) {
        drop(poll_then_drop(polls, pool.begin()).await);
        let bug = pool.execute("select 1/0").await.expect_err("a bug of the caller");
        assert_eq!(code(&bug).as_deref(), Some("22012"), "after {polls} polls");
        pool.execute("select 1").await.expect("the next caller is in no transaction");
    }
    assert_eq!(sessions(&pool, 1).await, before, "no connection was closed for it");
    eventually("at rest", || load(&gate) == (0, 0)).await;
}

#[tokio::test]
async fn a_begin_on_a_held_connection_that_is_dropped_closes_that_connection() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let (pool, _gate) = pool(&database, 1).await;
    let pool = pool.with(patient());
    let before = sessions(&pool, 1).await;

    let mut conn = pool.acquire().await.expect("a connection");
    // A client that is held up may find the answer there at its first poll: then it is tried again.
    while let Some(begun) = poll_then_drop(1, conn.begin()).await {
        begun.expect("it begins").rollback().await.expect("and ends");
    }
    drop(conn);
    pool.execute("create table t (id int)").await.expect("it is not in a lost transaction");
    let mut elsewhere = PgConnection::connect_with(&database.options()).await.expect("it connects");
    elsewhere.execute("select * from t").await.expect("and so it is permanent");
    assert_ne!(sessions(&pool, 1).await, before);
}

#[tokio::test]
async fn a_transaction_is_undone_unless_it_is_committed() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let (pool, _gate) = pool(&database, 2).await;
    let pool = pool.with(patient());
    pool.execute("create table t (id int)").await.expect("a table");
    let insert = "insert into t values (1)";

    let mut dropped = pool.begin().await.expect("a transaction");
    dropped.execute(insert).await.expect("a row");
    drop(dropped);
    let mut undone = pool.begin().await.expect("a transaction");
    undone.execute(insert).await.expect("a row");
    undone.rollback().await.expect("it is undone");
    let mut committed = pool.begin().await.expect("a transaction");
    committed.execute(insert).await.expect("a row");
    {
        let mut savepoint = Connection::begin(&mut *committed).await.expect("a savepoint");
        savepoint.execute(insert).await.expect("a row");
        savepoint.rollback().await.expect("it is undone");
    }
    committed.commit().await.expect("it is permanent");
    let mut left = pool.begin().await.expect("a transaction");
    left.execute(insert).await.expect("a row");
    drop(poll_then_drop(1, left.commit()).await);

    // The second connection may be asked before the abandoned commit is through, so both are waited for.
    drop(sessions(&pool, 2).await);
    let rows: i64 = sqlx::query_scalar("select count(*) from t").fetch_one(&pool).await.expect("a count");
    assert_eq!(rows, 2, "the committed row, and that of the commit which was begun");
}

#[tokio::test]
async fn a_transaction_that_somebody_else_left_failed_costs_the_next_caller_nothing() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let theirs = PoolOptions::<Postgres>::new().max_connections(1).test_before_acquire(false);
    let theirs = theirs.connect_with(database.options()).await.expect("it connects");
    let pool = HealPool::wrap(theirs);
    let gate = guard(&pool, 1, Signals::none());
    let pool = pool.with(patient());
    let poison = async || {
        eventually("at rest", || pool.usage().in_use == 0).await;
        // By hand, and not by a dropped `begin`: whether one poll of that sends anything is a matter of luck.
        let mut connection = pool.unguarded().acquire().await.expect("a connection");
        connection.execute("begin").await.expect("a transaction that sqlx knows nothing of");
        let _ = connection.execute("select 1/0").await.expect_err("it fails");
    };

    poison().await;
    let one: i32 = sqlx::query_scalar("select 1").fetch_one(&pool).await.expect("a sound connection");
    assert_eq!(one, 1);
    poison().await;
    let rows: Vec<_> =
        pool.fetch("select 1 union all select 2").try_collect().await.expect("also row by row");
    assert_eq!(rows.len(), 2);
    poison().await;
    pool.begin().await.expect("also a transaction").commit().await.expect("which is sound");
    poison().await;
    pool.unguarded().set_connect_options(database.options().host("/nowhere"));
    let error = pool.execute("select 1").await.expect_err("there is no other to replace it");
    assert_eq!(classify(&error), ErrorClass::Transient, "{error}");
    eventually("at rest", || load(&gate) == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_clients_are_named_as_the_cause_and_not_called_a_timeout() {
    let Some(server) = server() else { return };
    let database = server.alone().await;
    let timeout = Duration::from_secs(2);
    let (tell, mut told) = mpsc::unbounded_channel();
    let pool = PgHealPool::builder().max(20).acquire_timeout(timeout).connect_lazy_with(database.options());
    let signals = Signals::new(move |signal| drop(tell.send(signal)));
    let gate = guard(&pool, 20, signals);
    let pool = pool.with(patient());

    let mut others = Vec::new();
    while let Ok(other) = PgConnection::connect_with(&database.options()).await {
        others.push(other);
    }
    assert_eq!(others.len(), SLOTS as usize, "the server is full");

    let clock = Clock::system();
    let asked = clock.now();
    let mut unlucky = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let pool = pool.clone();
        unlucky.spawn(async move { pool.execute("select 1").await.expect_err("there is no slot") });
    }
    for error in unlucky.join_all().await {
        assert_eq!(code(&error).as_deref(), Some("53300"), "{error}");
        assert_eq!(classify(&error), ErrorClass::Overload);
    }
    let took = clock.now().since(asked);
    println!("named after {took:?}");
    assert!(took < timeout + Duration::from_millis(500), "{took:?}");
    let limit = gate.stats().limit;
    assert!((14..=17).contains(&limit), "one finding for all: 20 × 0.7, and one more a second, not {limit}");
    let state = |signal| matches!(signal, Signal::Server { state: ServerState::Full, .. });
    assert!(state(told.recv().await.expect("it is told")), "and only once");

    others.clear();
    let up =
        tokio::time::timeout(Duration::from_secs(10), told.recv()).await.expect("its recovery is noticed");
    assert!(matches!(up, Some(Signal::Server { state: ServerState::Up, .. })), "without traffic");
    pool.execute("select 1").await.expect("there are slots");
    let plain = PoolOptions::<Postgres>::new().acquire_timeout(Duration::from_millis(300));
    let mut others = Vec::new();
    drop(gate);
    pool.close().await;
    while let Ok(other) = PgConnection::connect_with(&database.options()).await {
        others.push(other);
    }
    let hidden = plain.connect_with(database.options()).await.expect_err("there is no slot");
    assert!(matches!(hidden, sqlx::Error::PoolTimedOut), "plain sqlx does not say why: {hidden}");
}

#[tokio::test]
async fn a_server_that_is_down_or_mute_is_told_from_an_exhausted_pool() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let timeout = Duration::from_secs(2);
    let build = || PgHealPool::builder().max(1).acquire_timeout(timeout);

    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = free.local_addr().expect("its address").port();
    let mute = build().connect_lazy_with(database.options().port(port));
    guard(&mute, 1, Signals::none());
    let error = mute.execute("select 1").await.expect_err("it never answers");
    assert!(matches!(&error, sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::TimedOut), "{error}");
    assert_eq!(mute.server_state(), ServerState::Down);

    drop(free);
    let Err(Error::Sqlx(error)) = build().connect_with(database.options().port(port)).await else {
        panic!("nobody listens");
    };
    assert!(
        matches!(&error, sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused),
        "{error}"
    );
    assert_eq!(classify(&error), ErrorClass::Transient);

    let exhausted = build().connect_with(database.options()).await.expect("it connects");
    guard(&exhausted, 1, Signals::none());
    let pool = exhausted.unguarded();
    let past_the_gate = [pool.acquire().await, pool.acquire().await, pool.acquire().await];
    let error = exhausted.execute("select 1").await.expect_err("nobody gives one back");
    assert!(matches!(error, sqlx::Error::PoolTimedOut), "{error}");
    assert_eq!(exhausted.server_state(), ServerState::Up);
    drop(past_the_gate);
}

#[tokio::test]
async fn an_abandoned_query_keeps_its_permit_until_the_server_is_done_with_it() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let (pool, gate) = pool(&database, 1).await;
    let pool = pool.with(patient());
    let clock = Clock::system();
    eventually("at rest", || load(&gate) == (0, 0)).await;

    let sent = clock.now();
    assert!(poll_then_drop(1, pool.execute("select pg_sleep(1)")).await.is_none());
    assert_eq!(load(&gate), (1, 0), "its caller has gone, and its permit is still held");
    let mut conn = pool.acquire().await.expect("a connection");
    let waited = clock.now().since(sent);
    sqlx::query("select 1").execute(&mut *conn).await.expect("an answer");
    let answered = clock.now().since(sent) - waited;
    println!("the permit came after {waited:?}, the answer {answered:?} later");
    assert!(waited >= Duration::from_millis(900), "{waited:?}");
    assert!(answered < Duration::from_millis(300), "the next caller must not wait for it: {answered:?}");
}

#[tokio::test]
async fn an_abandoned_query_ends_at_the_servers_statement_timeout() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let build = PgHealPool::builder().max(1).statement_timeout(Duration::from_millis(300));
    let pool = build.connect_with(database.options()).await.expect("it connects");
    let gate = guard(&pool, 1, Signals::none());
    let pool = pool.with(patient());
    let clock = Clock::system();

    let sent = clock.now();
    assert!(poll_then_drop(1, pool.execute("select pg_sleep(30)")).await.is_none());
    pool.execute("select 1").await.expect("an answer");
    let took = clock.now().since(sent);
    println!("free again after {took:?}");
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(5), "{took:?}");
    let error = pool.execute("select pg_sleep(30)").await.expect_err("it is too long");
    assert_eq!(classify(&error), ErrorClass::Timeout);
    eventually("at rest", || load(&gate) == (0, 0)).await;
}

/// What the session's bound is, for work of `ticket`.
async fn bound_of(pool: &PgHealPool, ticket: Ticket) -> String {
    let show = sqlx::query_scalar("show statement_timeout");
    show.fetch_one(&pool.with(ticket)).await.expect("an answer")
}

#[tokio::test]
async fn under_pressure_a_statement_ends_with_its_callers_deadline() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let (pool, gate) = pool(&database, 1).await;
    let clock = Clock::system();
    let within = |class, time| Ticket::new(class).with_deadline(clock.now() + time);
    let (soon, later) = (Duration::from_millis(300), Duration::from_secs(20));

    // Calm, only work that can wait is bound, and the next caller has the session as it was.
    assert_eq!(bound_of(&pool, within(Class::Normal, later)).await, "30s");
    let bound = bound_of(&pool, within(Class::Sheddable, later)).await;
    assert!(bound.starts_with("19") || bound == "20s", "what is left of 20 s: {bound}");
    assert_eq!(bound_of(&pool, within(Class::Critical, later)).await, "30s");
    assert_eq!(
        bound_of(&pool, patient()).await,
        "30s",
        "a deadline beyond the session's bound loosens nothing"
    );

    gate.apply(Change::Shed(true));
    let sent = clock.now();
    let critical = pool.with(within(Class::Critical, soon));
    assert!(poll_then_drop(1, critical.execute("select pg_sleep(30)")).await.is_none());
    eventually("free again", || load(&gate) == (0, 0)).await;
    let took = clock.now().since(sent);
    println!("abandoned 300 ms before its deadline, the server was done with it after {took:?}");
    assert!(took < Duration::from_secs(15), "not the session's 30 s: {took:?}");
    let error =
        pool.with(within(Class::Normal, soon)).execute("select pg_sleep(30)").await.expect_err("too long");
    assert_eq!(classify(&error), ErrorClass::Timeout);
    let mut tx = pool.with(within(Class::Normal, soon)).begin().await.expect("it begins");
    let error = tx.execute("select pg_sleep(30)").await.expect_err("too long");
    assert_eq!(classify(&error), ErrorClass::Timeout);
    drop(tx);

    gate.apply(Change::Shed(false));
    assert_eq!(bound_of(&pool, within(Class::Normal, later)).await, "30s", "nothing is left of it");
    eventually("at rest", || load(&gate) == (0, 0)).await;
}

/// Passes one connection on to the server until it is told to be silent; both sides stay open then.
async fn relay(port: u16, silent: Arc<Notify>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own = listener.local_addr().expect("its address").port();
    tokio::runtime::Handle::current().spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a client");
        let mut server = TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            () = silent.notified() => std::future::pending().await,
        }
    });
    own
}

#[tokio::test]
async fn a_server_that_dies_without_a_word_does_not_keep_the_permit_for_ever() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let silent = Arc::new(Notify::new());
    let port = relay(database.options().get_port(), Arc::clone(&silent)).await;
    let build = PgHealPool::builder().max(1).statement_timeout(Duration::from_millis(100));
    let pool = build.connect_with(database.options().port(port)).await.expect("it connects");
    let gate = guard(&pool, 1, Signals::none());
    let pool = pool.with(patient());
    pool.execute("select 1").await.expect("an answer");
    eventually("at rest", || load(&gate) == (0, 0)).await;
    silent.notify_one();
    let clock = Clock::system();
    let asked = clock.now();
    let error = pool.execute("select 1").await.expect_err("there is no answer any more");
    let took = clock.now().since(asked);
    println!("given up after {took:?}");
    assert!(took >= Duration::from_millis(5_100) && took < Duration::from_millis(7_500), "{took:?}");
    assert!(matches!(&error, sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::TimedOut), "{error}");
    assert_eq!(classify(&error), ErrorClass::Interrupted, "it may have been done");
    eventually("at rest", || load(&gate) == (0, 0) && pool.usage().size == 0).await;
}

#[tokio::test]
async fn a_reader_who_stops_in_the_middle_of_many_rows_leaves_a_sound_connection() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let (pool, gate) = pool(&database, 1).await;
    let pool = pool.with(patient());
    let before = sessions(&pool, 1).await;
    {
        let mut rows = pool.fetch("select generate_series(1, 100000)");
        assert!(rows.try_next().await.expect("no error").is_some());
    }
    let rows = pool.fetch_all("select generate_series(1, 1000)").await.expect("all of them");
    assert_eq!(rows.len(), 1000);
    assert_eq!(sessions(&pool, 1).await, before);
    eventually("at rest", || load(&gate) == (0, 0)).await;
}

/// On one thread, so that the two counts are read at the same moment.
#[tokio::test]
async fn the_pool_never_uses_more_than_the_gate_has_handed_out() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let max = 6;
    let (pool, gate) = pool(&database, max).await;
    let mut random = fastrand::Rng::with_seed(seed());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..40 {
        callers.spawn(use_in_all_ways(pool.with(patient()), random.fork()));
    }
    let (mut samples, mut peak) = (0_u64, 0);
    while !callers.is_empty() {
        let (used, granted) = (pool.usage().in_use, gate.stats().in_use);
        assert!(used <= granted && granted <= max, "{used} in use, {granted} handed out");
        (samples, peak) = (samples + 1, peak.max(used));
        tokio::task::yield_now().await;
        while let Some(done) = callers.try_join_next() {
            done.expect("no panic");
        }
    }
    println!("{samples} samples, at most {peak} in use");
    assert_eq!(peak, max, "the limit was reached, or nothing was tested");
    eventually("at rest", || load(&gate) == (0, 0) && pool.usage().in_use == 0).await;
}

/// Half of the calls are dropped on the way. None may fail: were sqlx's pool ever to queue behind a gate of the
/// same size, it could time out.
async fn use_in_all_ways(pool: PgHealPool, mut random: fastrand::Rng) {
    for _ in 0..50 {
        let times = if random.bool() { u32::MAX } else { random.u32(0..4) };
        let failed = match random.u32(0..3) {
            0 => poll_then_drop(times, pool.acquire()).await.and_then(|conn| conn.err()),
            1 => poll_then_drop(times, pool.begin()).await.and_then(|begun| begun.err()),
            _ => poll_then_drop(times, pool.execute("select 1"))
                .await
                .and_then(|done| done.err())
                .map(Error::from),
        };
        assert!(failed.is_none(), "{failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_dropped_anywhere_leak_nothing_and_close_nothing() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let max = 8;
    let (pool, gate) = pool(&database, max).await;
    let before = sessions(&pool, max).await;
    let clock = Clock::system();
    let began = clock.now();
    let seen = churn(&pool, &gate, cancellations(10_000), 20, seed()).await;
    println!("{seen:?} in {:?}", clock.now().since(began));
    assert!(seen.finished > 1_000 && seen.dropped > 1_000, "{seen:?}");
    assert_eq!(sessions(&pool, max).await, before, "the pool has the connections it had");
}

#[tokio::test]
async fn a_wrapped_pool_is_told_what_it_lacks() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let bare = PoolOptions::<Postgres>::new().connect_lazy_with(database.options());
    let gaps: Vec<_> = HealPool::wrap(bare).gaps().iter().map(ToString::to_string).collect();
    println!("{gaps:#?}");
    for missing in [
        "test_before_acquire",
        "acquire_timeout",
        "statement_timeout",
        "idle_in_transaction",
        "application_name",
    ] {
        assert!(gaps.iter().any(|gap| gap.starts_with(missing)), "{missing}");
    }
    let (own, _gate) = pool(&database, 1).await;
    assert!(own.gaps().is_empty());
    let name: String = sqlx::query_scalar("show application_name").fetch_one(&own).await.expect("a name");
    assert_eq!(name, "selfheal");
    let idle: String =
        sqlx::query_scalar("show idle_in_transaction_session_timeout").fetch_one(&own).await.expect("a time");
    assert_eq!(idle, "30s");
}
