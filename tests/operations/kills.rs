//! A process that does long operations is killed with SIGKILL, again and again, wherever it is.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use selfheal::{
    Heal, HealPool,
    batch::{self, Part, Results},
    batch_executor::Refused,
    config::{Config, Source},
    store::{Dialect, Jobs},
};

use super::{Effects, Handler, Written, writing};
use crate::durable::{
    books,
    kills::{FIRST, Point, kill, say, told},
};

/// Chunks of ten.
const CONFIG: &str = "[batches.effects]\ndeadline = \"1s\"\nper_item = \"50ms\"\n[pools.main]";
const ITEMS: i64 = 40;
/// An item of it takes so long, and its caller does not see the end of it.
const EACH: Duration = Duration::from_millis(6);
const WAITS: Duration = Duration::from_millis(250);
/// Short, so that what a victim had is soon another's.
const TTL: Duration = Duration::from_millis(600);

async fn start<DB: Dialect>(pool: &HealPool<DB>, handler: Handler) -> Heal {
    let config = Config::load(&Source::text("test.toml", CONFIG)).expect("it is valid");
    let builder = Heal::builder().config(config).pool("main", pool).batch("effects", handler);
    builder.lease(TTL).start().await.expect("it starts")
}

/// What the victim does until it is killed.
pub(crate) async fn victim<DB: Dialect>(pool: &HealPool<DB>, effects: Effects<DB>) {
    let point = Arc::new(Mutex::new(Point::told()));
    let at = Arc::clone(&point);
    let handler = batch::run_tx(pool, move |conn, items: Part<i64>| {
        let at = Arc::clone(&at);
        Box::pin(async move {
            at.lock().pass(if items.first() == 0 { "after claim" } else { "after commit" });
            tokio::time::sleep(EACH * items.len() as u32).await;
            at.lock().pass("before commit");
            effects(conn, items.to_vec()).await?;
            at.lock().pass("after effect");
            Ok(Results::done())
        })
    });
    let heal = start(pool, handler).await;
    let first: i64 = told(FIRST).expect("it is told").parse().expect("a number");
    say("ready");
    for operation in first.. {
        point.lock().pass("before accept");
        let items: Vec<i64> = (operation * ITEMS..(operation + 1) * ITEMS).collect();
        let batch = heal.batch("effects").caller(operation.to_string()).within(WAITS);
        match batch.run(&items).await {
            Ok(report) if report.job.is_some() || report.counts.remaining() == 0 => {
                point.lock().pass("before ack");
                say(&format!("acked {operation}."));
            }
            // It was thought short, or the journal did not answer in time: nothing is promised.
            Ok(_) | Err(Refused::NotWritten(_)) => {}
            Err(refused) => panic!("failed to {refused}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Kills as many victims, goes on with what they have left behind, and counts.
pub(crate) async fn killed<DB: Dialect>(
    name: &str,
    database: &str,
    kills: usize,
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) -> String {
    let acked = kill(name, database, kills).await;
    let heal = start(pool, writing(pool, effects)).await;
    let jobs = Jobs::of(pool);
    let left = async {
        loop {
            if let [0, 0, _, dead] = books(&jobs).await {
                assert_eq!(dead, 0);
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(45), left).await.expect("nothing is in limbo");
    heal.shutdown().await;
    let effects = written(pool).await;
    let items: BTreeSet<_> = effects.iter().copied().collect();
    assert_eq!(items.len(), effects.len(), "none was done twice");
    let promised = acked.iter().flat_map(|operation| operation * ITEMS..(operation + 1) * ITEMS);
    let lost: Vec<_> = promised.filter(|item| !items.contains(item)).collect();
    assert!(lost.is_empty(), "acknowledged and not done: {lost:?}");
    assert!(!acked.is_empty(), "something was done");
    format!("{kills} kills: {} operations acknowledged, {} items done, each once", acked.len(), items.len())
}
