//! The whole loop, wired as in a service, on virtual time: pressure, action, recovery, incident.

use std::time::Duration;

use selfheal::{
    Heal, SqliteHealPool,
    alert::{Kind, Phase},
    clock::Clock,
    config::{Config, Source},
    gate::{Acquire, Gate, Hold, Permit, Reason, Ticket},
    level::{Class, Level, Mode},
    signal::Action,
};
use sqlx::sqlite::SqliteConnectOptions;

const LIMIT: u32 = 10;

/// The runtime on tokio's paused clock, and the gate of its one pool, whose database is never asked.
async fn runtime() -> (Heal, Gate) {
    let pool = SqliteHealPool::builder().max(LIMIT).connect_lazy_with(SqliteConnectOptions::new());
    let config = Config::load(&Source::text("test", "[pools.main]")).expect("it is valid");
    let builder = Heal::builder().config(config).pool("main", &pool).inline(Clock::tokio());
    let heal = builder.start().await.expect("it starts");
    let gate = heal.gate("main").expect("it is there");
    (heal, gate)
}

async fn until(heal: &Heal, level: Level) {
    let reached = async {
        while heal.level("main") != Some(level) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap_or_else(|_| panic!("never {level}"));
}

/// All connections in use, and somebody who waits.
async fn exhaust(gate: &Gate) -> (Vec<Permit>, Acquire) {
    let mut held = Vec::new();
    for n in 0..LIMIT {
        let ticket = Ticket::new(Class::Normal).with_user(format!("user {n}"));
        held.push(gate.acquire(Some(&ticket), Hold::here()).await.expect("there is one left"));
    }
    let mut waiter = gate.acquire(Some(&Ticket::new(Class::Normal)), Hold::here());
    // It waits from its first poll on.
    assert!(futures_util::poll!(&mut waiter).is_pending());
    (held, waiter)
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_is_eased_recovers_and_is_one_incident() {
    let (heal, gate) = runtime().await;
    let reports = Ticket::new(Class::Sheddable);
    drop(gate.enter(&reports).expect("all is calm"));
    let (held, waiter) = exhaust(&gate).await;
    until(&heal, Level::Critical).await;

    assert_eq!(gate.enter(&Ticket::new(Class::Sheddable)).expect_err("it can wait").reason, Reason::Shed);
    drop(gate.enter(&Ticket::new(Class::Critical)).expect("critical work is never shed"));
    assert_eq!(heal.batch_size("main"), Some(50));
    assert_eq!(heal.optional(async { 1 }).await, None, "optional work is left out");

    drop(held);
    drop(waiter.await.expect("its turn comes"));
    until(&heal, Level::Normal).await;
    drop(gate.enter(&Ticket::new(Class::Sheddable)).expect("all is calm again"));
    assert_eq!(heal.batch_size("main"), Some(10));
    assert_eq!(heal.optional(async { 1 }).await, Some(1));

    tokio::time::sleep(Duration::from_secs(10)).await;
    let incidents = heal.incidents().all();
    let [incident] = &incidents[..] else { panic!("one, not {incidents:?}") };
    assert_eq!((incident.kind, incident.phase), (Kind::PoolPressure, Phase::Resolved));
    assert_eq!(incident.peak.map(|peak| peak.in_use), Some(LIMIT));
    let shed = incident.actions.iter().find(|deed| deed.action == Action::Shed).expect("it was done");
    assert!(!shed.would && shed.undone_at > Some(shed.taken_at));
    assert_eq!(incident.impact.omitted, 1);
    heal.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_kill_switch_lets_everyone_through_at_once_and_undoes_what_was_done() {
    let (heal, gate) = runtime().await;
    let (held, waiter) = exhaust(&gate).await;
    until(&heal, Level::Warning).await;
    assert_eq!(heal.set_mode(Mode::Off, "ada", "it is in the way"), Mode::Act);
    gate.tick();
    let let_through = tokio::time::timeout(Duration::from_millis(100), waiter).await.expect("at once");
    until(&heal, Level::Normal).await;
    drop(gate.enter(&Ticket::new(Class::Sheddable)).expect("nobody is refused"));
    drop((held, let_through));
    heal.shutdown().await;
}
