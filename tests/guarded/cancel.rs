//! Calls that are polled a few times and then dropped, at whatever they were waiting for.

use std::{
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use selfheal::db::{Backend, HealPool};
use selfheal_actors::{clock::Clock, gate::Gate};
use sqlx::Executor;

use super::{eventually, load, patient};

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) finished: u32,
    pub(crate) dropped: u32,
}

/// Polls `future` until it has been pending `times`; then drops it. `None` if it was dropped.
pub(crate) async fn poll_then_drop<F: Future>(times: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    std::future::poll_fn(|context: &mut Context<'_>| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // At the bound it is dropped now, not when it is woken.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// `calls` calls of all kinds by `tasks` tasks at once, each dropped after a few polls if it is not done by then.
/// Afterwards nothing is in use and nobody waits.
pub(crate) async fn churn<DB: Backend>(
    pool: &HealPool<DB>,
    gate: &Gate,
    calls: u32,
    tasks: u32,
    seed: u64,
) -> Seen {
    let mut callers = tokio::task::JoinSet::new();
    for task in 0..tasks {
        // A line that stands serves its newest first, so that the oldest may wait until the others are through.
        let ticket = patient().with_deadline(Clock::system().now() + Duration::from_secs(3_600));
        let (pool, random) = (pool.with(ticket), fastrand::Rng::with_seed(seed ^ u64::from(task) << 32));
        callers.spawn(caller(pool, calls / tasks, random));
    }
    let mut all = Seen::default();
    while let Some(seen) = callers.join_next().await {
        let seen = seen.expect("no caller panics");
        all.finished += seen.finished;
        all.dropped += seen.dropped;
    }
    eventually("at rest", || load(gate) == (0, 0) && pool.usage().in_use == 0).await;
    assert!(gate.invariants().is_empty(), "{:?}", gate.invariants());
    all
}

async fn caller<DB: Backend>(pool: HealPool<DB>, calls: u32, mut random: fastrand::Rng) -> Seen {
    let mut seen = Seen::default();
    for _ in 0..calls {
        let times = random.u32(0..6);
        let outcome = match random.u32(0..10) {
            0..3 => poll_then_drop(times, pool.acquire()).await.map(|conn| drop(conn.expect("a connection"))),
            3..6 => match poll_then_drop(times, pool.begin()).await {
                Some(begun) => {
                    let begun = begun.expect("a transaction");
                    let times = random.u32(0..4);
                    poll_then_drop(times, begun.commit())
                        .await
                        .map(|committed| committed.expect("it commits"))
                }
                None => None,
            },
            _ => poll_then_drop(times, pool.fetch_optional("select 1"))
                .await
                .map(|row| drop(row.expect("an answer").expect("a row"))),
        };
        match outcome {
            Some(()) => seen.finished += 1,
            None => seen.dropped += 1,
        }
    }
    seen
}
