//! The first incident, replayed by the binary on a real server: two plain services that share its slots, then a
//! healed one whose gate knows them.

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::{
    guarded::drill::Drill,
    server::{Database, SLOTS, server},
};

/// Runs `selfheal drill` with `which` on a database.
pub(crate) async fn drill(database: &Database, which: &'static [&'static str]) -> Drill {
    let url = database.url();
    let drill = tokio::task::spawn_blocking(move || Drill::run(&[which, &["--database-url", &url]].concat()));
    drill.await.expect("no panic")
}

#[tokio::test]
async fn a_dashboard_exhausts_the_server_and_the_healed_service_loses_nothing() {
    let Some(server) = server() else { return };
    // The drill takes every slot that there is.
    let database = server.alone().await;
    let replayed = drill(&database, &["pool"]).await;
    let (figures, (without, with)) = (&replayed.figures, replayed.kept_its_promises());

    assert!(figures["database"].as_str().is_some_and(|name| name.starts_with("postgresql 1")), "{figures}");
    assert_eq!(without["services"], 2);
    assert_ne!(without["dashboards"]["completed"], without["dashboards"]["sent"], "{without}");
    assert_eq!(without["peak_in_use"], SLOTS, "{without}");
    assert!(without["cause"].as_str().is_some_and(|cause| cause.contains("SQLSTATE 53300")), "{without}");

    assert_eq!(with["critical"]["ok"], with["critical"]["sent"], "{with}");
    assert_eq!(with["dashboards"]["completed"], with["dashboards"]["sent"], "{with}");
    for promise in ["lost", "doubled", "non_json", "failed"] {
        assert_eq!(with[promise], 0, "{promise}: {with}");
    }
    assert!(with["limit"].as_u64() < Some(u64::from(SLOTS)), "the gate leaves room for others: {with}");

    let mut connection = PgConnection::connect_with(&database.options()).await.expect("a slot");
    let left = "select count(*) from pg_namespace where nspname like 'selfheal_drill%'";
    let left: i64 = sqlx::query_scalar(left).fetch_one(&mut connection).await.expect("a count");
    assert_eq!(left, 0, "the drill drops what it has made");
}

#[tokio::test]
async fn api_calls_fail_and_on_a_real_server_too_every_caller_sees_data() {
    let Some(server) = server() else { return };
    let database = server.alone().await;
    let replayed = drill(&database, &["api"]).await;
    let (figures, (without, with)) = (&replayed.figures, replayed.kept_its_promises());

    assert!(figures["database"].as_str().is_some_and(|name| name.starts_with("postgresql 1")), "{figures}");
    let scenarios = |run: &Value| run["scenarios"].as_array().cloned().expect("a list");
    assert_eq!((scenarios(without).len(), scenarios(with).len()), (4, 4), "{figures}");
    for scenario in scenarios(without) {
        assert_eq!(scenario["served"], 0, "nobody saw data: {scenario}");
    }
    for scenario in scenarios(with) {
        assert_eq!(scenario["served"], scenario["callers"], "everybody saw data: {scenario}");
    }
    assert_eq!((&with["non_json"], &with["lost"]), (&0.into(), &0.into()), "{with}");
}

#[tokio::test]
async fn a_click_that_takes_too_long_is_answered_in_time_and_done_once() {
    let Some(server) = server() else { return };
    // It takes a minute, in which others want to be alone on theirs.
    let server = server.another();
    let database = server.database().await;
    let replayed = drill(&database, &["timeout"]).await;
    let (without, with) = replayed.kept_its_promises();
    assert_eq!(without["clicks"][0]["json"], false, "{without}");
    assert!(without["after_first"].as_i64() < Some(1_418), "{without}");
    assert_eq!((&with["done"], &with["doubled"], &with["overruns"]), (&1_418.into(), &0.into(), &0.0.into()));
    assert_eq!(with["batches"].as_array().map(Vec::len), Some(15), "{with}");
}

/// Also when one of the writers goes past the service, to a database that holds to the table itself.
#[tokio::test]
async fn no_status_is_ever_invalid_whoever_writes() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let replayed = drill(&database, &["transitions"]).await;
    let (figures, (without, with)) = (&replayed.figures, replayed.kept_its_promises());
    assert!(without["invalid"].as_i64() > Some(5), "{without}");
    assert_eq!((&without["bypass"]["refused"], &with["trigger"]), (&0.into(), &true.into()), "{figures}");
    for (figure, value) in [("scanned", 1_000), ("applied", 150), ("blocked", 5), ("invalid", 0)] {
        assert_eq!(with[figure], value, "{figure}: {with}");
    }
    assert!(with["bypass"]["refused"].as_i64() > Some(0), "the database refuses by itself: {with}");
    replayed.says(&["[SELF-HEAL] Prevented 5 invalid status transitions", "✅ All states valid"]);
}
