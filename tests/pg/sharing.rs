//! Pools of several processes on one server.

use selfheal::db::{PgHealPool, Probe};
use selfheal_actors::signal::Signals;
use sqlx::{Connection as _, PgConnection, Postgres};

use crate::{
    drill::drill,
    guarded::{drill::Drill, eventually, guard, patient},
    server::{Database, SLOTS, server},
};

async fn pool(database: &Database, name: &str) -> (PgHealPool, Probe<Postgres>) {
    let build = PgHealPool::builder().max(100).application_name(name);
    let pool = build.connect_with(database.options()).await.expect("it connects");
    guard(&pool, 100, Signals::none());
    let probe = pool.probe();
    (pool.with(patient()), probe)
}

async fn look(probe: &mut Probe<Postgres>) -> (u32, u32) {
    let truth = probe.server_truth().await.expect("an answer").expect("there is a server");
    probe.apply(&truth);
    (truth.limit, truth.share)
}

/// Also if both call their sessions the same, as replicas of one service do.
#[tokio::test]
async fn who_came_first_gives_back_what_it_has_above_its_part() {
    let Some(server) = server() else { return };
    let database = server.alone().await;
    for second_name in ["desk", "jobs"] {
        let (first, mut first_probe) = pool(&database, "desk").await;
        assert_eq!(look(&mut first_probe).await, (SLOTS - 2, SLOTS - 2), "alone it may have all");
        let mut held = Vec::new();
        for _ in 0..SLOTS - 2 {
            held.push(first.acquire().await.expect("a connection"));
        }
        let idle = held.split_off(60);
        drop(idle);
        eventually("returned", || first.usage().in_use == 60).await;

        let (second, mut second_probe) = pool(&database, second_name).await;
        let (limit, share) = look(&mut second_probe).await;
        assert_eq!((limit, share), (1, 46), "its part is still in other hands");
        assert_eq!(look(&mut first_probe).await, (46, 46));
        eventually("without idle connections", || first.usage().size == 60).await;
        drop(held);
        eventually("within its part", || first.usage().size == 46).await;
        // The server notices the end of a session a moment later.
        let mut limit = 0;
        for _ in 0..200 {
            limit = look(&mut second_probe).await.0;
            if limit == 46 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(limit, 46);
        for closing in [first, second] {
            closing.close().await;
        }
        first_probe.close().await;
        second_probe.close().await;
        quiet(&database).await;
    }
}

/// Others came first and have everything: the pool's own idle connection makes room for the question.
#[tokio::test]
async fn a_full_server_is_asked_all_the_same_and_the_pool_makes_do() {
    let Some(server) = server() else { return };
    let database = server.alone().await;
    let (pool, mut probe) = pool(&database, "desk").await;
    let mut others = Vec::new();
    while let Ok(other) = PgConnection::connect_with(&database.options()).await {
        others.push(other);
    }
    assert_eq!(look(&mut probe).await, (1, 1), "96 others, and 2 to keep free");
    eventually("given up", || pool.usage().size == 0).await;
    probe.close().await;

    // Now there is none to give up, once somebody else has taken that slot.
    let mut late = pool.probe();
    let error = loop {
        others.extend(PgConnection::connect_with(&database.options()).await);
        match late.server_truth().await {
            Ok(_) => late = pool.probe(),
            Err(error) => break error,
        }
    };
    late.make_do(&error);
    assert_eq!(pool.gate().stats().limit, 1, "{error}");
}

/// Sessions end a moment after their connections are closed.
async fn quiet(database: &Database) {
    let watching = PgHealPool::builder().max(1).connect_with(database.options()).await.expect("it connects");
    let sessions = "select count(*) from pg_stat_activity where usename = current_user";
    for _ in 0..1_000 {
        let left: i64 = sqlx::query_scalar(sessions).fetch_one(&watching).await.expect("a count");
        if left == 1 {
            return watching.close().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("sessions are left");
}

/// How far apart the parts are is measured where nothing else runs; here the machine may be busy.
#[tokio::test]
async fn two_processes_share_a_server_and_nobody_hears_that_it_is_full() {
    let Some(server) = server() else { return };
    let database = server.alone().await;
    let Drill { figures, passed, .. } = drill(&database, &["pool", "--processes", "2"]).await;
    println!("{figures}");
    assert_eq!(figures["slots"], SLOTS);
    assert_eq!(figures["no_connection"], 0, "{figures}");
    for promise in ["doubled", "non_json"] {
        assert_eq!(figures["with"][promise], 0, "{promise}: {figures}");
    }
    let shares = figures["shares"].as_array().expect("one a process");
    assert_eq!(shares.len(), 2);
    for share in shares {
        assert!(share["limit"].as_f64().is_some_and(|limit| (20.0..75.0).contains(&limit)), "{figures}");
    }
    assert_eq!(passed, figures["passed"] == true, "{figures}");
}
