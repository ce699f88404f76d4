//! All connections are held by reports that nobody has seen before, and critical work waits.

use std::time::Duration;

use futures_util::future::join_all;
use selfheal::{
    Heal, PgHealPool,
    config::{Config, Source},
    db::{ErrorClass, classify},
};
use selfheal_actors::{clock::Clock, gate::Ticket, level::Class};
use sqlx::Executor;

use crate::{guarded::eventually, server::server};

const MAX: u32 = 4;

/// A service with four connections, all of them in reports of 20 seconds; what became of the critical request that
/// came then, and of the reports.
async fn crowded(config: &str) -> Option<(Result<(), sqlx::Error>, Vec<Result<(), sqlx::Error>>)> {
    let database = server()?.database().await;
    let pool = PgHealPool::builder().max(MAX).connect_with(database.options()).await.expect("it connects");
    let config = Config::load(&Source::text("test", config)).expect("it is valid");
    let heal = Heal::builder().config(config).pool("main", &pool).start().await.expect("it starts");
    let clock = Clock::system();
    let within = |class, secs| Ticket::new(class).with_deadline(clock.now() + Duration::from_secs(secs));
    let reports: Vec<_> = (0..MAX).map(|_| pool.with(within(Class::Sheddable, 8))).collect();
    let reports = tokio::runtime::Handle::current()
        .spawn(async move { join_all(reports.iter().map(|pool| pool.execute("select pg_sleep(20)"))).await });
    let gate = heal.gate("main").expect("it is there");
    eventually("crowded", || gate.stats().in_use == MAX).await;
    let critical = pool.with(within(Class::Critical, 4)).execute("select 1").await;
    let reports = reports.await.expect("they end");
    eventually("at rest", || gate.stats().in_use == 0).await;
    // Nobody who comes later is hit by a cancel that was meant for a report.
    for _ in 0..100 {
        pool.with(within(Class::Normal, 60)).execute("select 1").await.expect("an answer");
    }
    heal.shutdown().await;
    Some((critical.map(drop), reports.into_iter().map(|report| report.map(drop)).collect()))
}

#[tokio::test]
async fn where_the_policy_allows_it_a_report_makes_room_for_critical_work() {
    let Some((critical, reports)) = crowded("[pools.main]\ncancel_after = \"50ms\"").await else { return };
    critical.expect("a report was cancelled for it");
    for report in reports {
        let error = report.expect_err("cancelled, or over its deadline");
        assert_eq!(classify(&error), ErrorClass::Timeout, "{error}");
    }
}

#[tokio::test]
async fn where_it_does_not_critical_work_waits_for_the_reports() {
    let Some((critical, _)) = crowded("[pools.main]").await else { return };
    critical.expect_err("the reports go on for longer than it can wait");
}
