//! A process that defers work and does it is killed with SIGKILL, again and again, wherever it is.

use std::sync::Arc;

use parking_lot::Mutex;
use selfheal::{
    HealPool, deferred,
    store::{Dialect, Jobs},
};

use super::{Mail, drained, mail, sending, start};
use crate::{
    durable::kills::{FIRST, Point, kill, once, say, told},
    operations::{Effects, Written},
};

/// What the victim does until it is killed.
pub(crate) async fn victim<DB: Dialect>(pool: &HealPool<DB>, effects: Effects<DB>) {
    let point = Arc::new(Mutex::new(Point::told()));
    let at = Arc::clone(&point);
    let handler = deferred::run_tx(pool, move |conn, mail: Mail, _| {
        let at = Arc::clone(&at);
        Box::pin(async move {
            at.lock().pass("after claim");
            effects(conn, vec![mail.item]).await?;
            at.lock().pass("after effect");
            at.lock().pass("before commit");
            Ok(mail.item)
        })
    });
    let heal = start(pool, handler).await;
    let first: i64 = told(FIRST).expect("it is told").parse().expect("a number");
    say("ready");
    for item in first.. {
        point.lock().pass("before accept");
        // The journal may not answer in time: then nothing is promised.
        if let Ok(accepted) = heal.deferred("mail").caller("ann").defer(&mail(item)).await {
            point.lock().pass("before ack");
            assert_eq!(accepted.id().len(), 32);
            say(&format!("acked {item}."));
        }
        point.lock().pass("after commit");
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
    let heal = start(pool, sending(pool, effects)).await;
    let (done, dead) = drained(&Jobs::of(pool)).await;
    heal.shutdown().await;
    let effects = written(pool).await;
    once(&acked, &effects);
    assert_eq!((done, dead), (effects.len() as u64, 0), "what is done has its effect, and no other has");
    format!("{kills} kills: {} jobs acknowledged, {done} done, each once", acked.len())
}
