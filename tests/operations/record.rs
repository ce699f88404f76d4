//! Records how long the chunks of long operations take, to see how far their estimates can be trusted.

use std::time::Duration;

use futures_util::StreamExt as _;
use selfheal::{
    Heal, HealPool,
    batch::{self, Batch, Part, Results},
    clock::Clock,
    config::{Config, Source},
    store::Dialect,
};
use tokio::task::JoinSet;

use super::Effects;

/// In every other hundred chunks so many others write beside them.
const OTHERS: usize = 2;

/// Of what chunks are.
pub(crate) struct Load {
    config: &'static str,
    chunks: usize,
}

/// Chunks of some 40 ms, by an item's cost that is learnt.
pub(crate) const SHORT: Load = Load {
    config: "[batches.effects]\ndeadline = \"400ms\"\nper_item = \"1ms\"\n[pools.main]",
    chunks: 1_000,
};
/// Chunks of a second, as they are by default.
pub(crate) const LONG: Load =
    Load { config: "[batches.effects]\ndeadline = \"10s\"\nper_item = \"10ms\"\n[pools.main]", chunks: 300 };

/// Prints `items microseconds` of so many chunks in which each item is a statement of its own, `work`; who writes beside
/// them does it with `effects`.
#[expect(clippy::print_stdout, reason = "it is to be kept")]
pub(crate) async fn record<DB: Dialect>(
    pool: &HealPool<DB>,
    load: Load,
    work: Effects<DB>,
    effects: Effects<DB>,
) {
    let handler = batch::run_tx(pool, move |conn, items: Part<i64>| {
        Box::pin(async move {
            for item in items.iter() {
                work(&mut *conn, vec![*item]).await?;
            }
            Ok(Results::done())
        })
    });
    let config = Config::load(&Source::text("test.toml", load.config)).expect("it is valid");
    let builder = Heal::builder().config(config).pool("main", pool).batch("effects", handler);
    let heal = builder.start().await.expect("it starts");
    let (mut chunks, mut random) = (Vec::new(), fastrand::Rng::with_seed(1));
    for operation in 0.. {
        let mut others = JoinSet::new();
        for _ in 0..if chunks.len() / 100 % 2 == 1 { OTHERS } else { 0 } {
            others.spawn(disturb(pool.clone(), effects));
        }
        let batch = heal.batch("effects").caller(operation.to_string());
        follow(&batch, random.i64(1_500..4_000), &mut chunks).await;
        others.shutdown().await;
        if chunks.len() >= load.chunks {
            break;
        }
    }
    heal.shutdown().await;
    chunks.truncate(load.chunks);
    chunks.iter().for_each(|(items, took)| println!("CHUNK {items} {}", took.as_micros()));
}

/// What it shows of its progress, which is a chunk at a time. The first one is over before it can be seen.
async fn follow(batch: &Batch, items: i64, chunks: &mut Vec<(u64, Duration)>) {
    let items: Vec<i64> = (0..items).collect();
    // While others write it may not be written down in time; then it is asked for again.
    while batch.run(&items).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let Some(progress) = batch.progress() else { return };
    let (mut progress, mut last) = (Box::pin(progress), None);
    while let Some(seen) = progress.next().await {
        let now = Clock::system().now();
        // What is seen first may be in the midst of a chunk.
        if let Some((at, done, whole)) = last
            && whole
            && seen.counts.done > done
        {
            chunks.push((seen.counts.done - done, now.since(at)));
        }
        let moved = last.is_none_or(|(_, done, _)| seen.counts.done > done);
        if moved {
            last = Some((now, seen.counts.done, last.is_some()));
        }
    }
}

/// Somebody else, who writes a few rows at a time.
async fn disturb<DB: Dialect>(pool: HealPool<DB>, effects: Effects<DB>) {
    loop {
        let wrote = async {
            let mut tx = pool.begin().await?;
            for item in 0..20 {
                effects(&mut tx, vec![item]).await?;
            }
            Ok::<_, sqlx::Error>(tx.commit().await?)
        };
        // It may be refused, or have to wait for a lock for too long: then it tries again.
        let _ = wrote.await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
