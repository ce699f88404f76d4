//! What befalls a store, and what must be true in the end: what was acknowledged is done, and everything is done once.
//!
//! Callers accept jobs under a key of their own and ask again, under the same key, until they are told that one is
//! accepted: that is what a caller does who was told that nobody knows. Workers do them in the transaction that also
//! ends them. Each writes a row into a table without a unique key, so what was done twice shows.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use selfheal::{
    HealPool,
    batch_executor::journal::{
        Claim, Claimed, Fence, Journal, JournalError, KeyUntil, NewJob, Settle, Trouble,
    },
    signal::Name,
    store::{Dialect, Jobs},
};
use tokio::task::JoinSet;

use super::{books, done, keyed, kills::Effect};

const CALLERS: usize = 8;
const WORKERS: usize = 2;
/// Short, so that what was lost comes back soon.
const TTL: Duration = Duration::from_secs(1);
/// Whatever it was, it is over by then.
const BOUND: Duration = Duration::from_secs(60);

/// Callers and workers, until they are dropped.
pub(crate) struct Siege<DB: Dialect> {
    jobs: Jobs<DB>,
    pool: HealPool<DB>,
    effect: Effect<DB>,
    seen: Arc<Seen>,
    running: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    next: AtomicI64,
    acknowledged: Mutex<BTreeSet<i64>>,
    told: Mutex<HashMap<Trouble, u32>>,
    /// Attempts that have failed.
    failed: AtomicU32,
}

impl<DB: Dialect> Siege<DB> {
    /// The tables are there, and so is that of the effects.
    pub(crate) async fn begin(pool: &HealPool<DB>, effect: Effect<DB>) -> Self {
        let (jobs, seen, mut running) = (Jobs::of(pool), Arc::new(Seen::default()), JoinSet::new());
        jobs.ready().await.expect("tables");
        for _ in 0..CALLERS {
            let (jobs, seen) = (jobs.clone(), Arc::clone(&seen));
            running.spawn(async move {
                loop {
                    let item = seen.next.fetch_add(1, Ordering::Relaxed);
                    // Kept, so that its key stands for it also when it is done.
                    let new =
                        NewJob { keep: 2 * BOUND, ..keyed("siege", &item.to_string(), KeyUntil::Forgotten) };
                    let new = NewJob { payload: item.to_string().into_bytes(), ..new };
                    while let Err(error) = jobs.accept(vec![new.clone()]).await {
                        seen.told(&error);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    seen.acknowledged.lock().insert(item);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }
        for _ in 0..WORKERS {
            let (jobs, pool, seen) = (jobs.clone(), pool.clone(), Arc::clone(&seen));
            running.spawn(async move {
                loop {
                    if round(&jobs, &pool, effect, &seen).await == 0 {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
            });
        }
        Self { jobs, pool: pool.clone(), effect, seen, running }
    }

    /// Waits until so many more were acknowledged.
    pub(crate) async fn more(&self, acknowledged: usize) {
        let before = self.seen.acknowledged.lock().len();
        let more = async {
            while self.seen.acknowledged.lock().len() < before + acknowledged {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(BOUND, more)
            .await
            .unwrap_or_else(|_| panic!("it goes on: {:?}", self.seen.told.lock()));
    }

    /// Waits until somebody has been told that something is the matter.
    pub(crate) async fn troubled(&self) {
        let troubles =
            || self.seen.told.lock().values().sum::<u32>() + self.seen.failed.load(Ordering::Relaxed);
        let before = troubles();
        let told = async {
            while troubles() == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(BOUND, told).await.expect("it is told");
    }

    /// All is well again: nothing is in limbo, and what was acknowledged is done, once. Says how many were.
    #[expect(clippy::print_stdout, reason = "figures are to be seen")]
    pub(crate) async fn end(mut self, effects: impl AsyncFn() -> Vec<i64>) -> usize {
        self.running.shutdown().await;
        let left = async {
            loop {
                round(&self.jobs, &self.pool, self.effect, &self.seen).await;
                match self.jobs.queues().await {
                    Ok(queues) if queues.iter().all(|queue| queue.depth() == 0) => return,
                    Ok(_) => {}
                    Err(error) => self.seen.told(&error),
                }
            }
        };
        tokio::time::timeout(BOUND, left).await.expect("nothing is in limbo");
        let [_, _, done, dead] = books(&self.jobs).await;
        let (effects, acknowledged) = (effects().await, self.seen.acknowledged.lock());
        super::kills::once(&acknowledged, &effects);
        assert_eq!((done, dead), (effects.len() as u64, 0));
        let (failed, told) = (self.seen.failed.load(Ordering::Relaxed), self.seen.told.lock());
        let all = acknowledged.len();
        println!("{all} acknowledged, {done} done, each once; {failed} attempts failed; told {told:?}");
        all
    }
}

impl Seen {
    fn told(&self, error: &JournalError) {
        assert!(error.trouble.passes(), "it passes: {error}");
        *self.told.lock().entry(error.trouble).or_default() += 1;
    }
}

/// Does what is due, as far as it can be done now; says how much of it there was.
async fn round<DB: Dialect>(jobs: &Jobs<DB>, pool: &HealPool<DB>, effect: Effect<DB>, seen: &Seen) -> usize {
    let queues: [Name; 1] = ["siege".into()];
    let claimed = match jobs.claim(&Claim { queues: &queues, limit: 16, ttl: TTL }).await {
        Ok(claimed) => claimed,
        Err(error) => {
            seen.told(&error);
            return 0;
        }
    };
    for claimed in &claimed {
        // What fails is due again when its lease is over.
        if work(jobs, pool, effect, claimed).await.is_err() {
            seen.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
    claimed.len()
}

async fn work<DB: Dialect>(
    jobs: &Jobs<DB>,
    pool: &HealPool<DB>,
    effect: Effect<DB>,
    claimed: &Claimed,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let item = std::str::from_utf8(&claimed.payload)?.parse()?;
    let mut tx = pool.begin().await?;
    effect(&mut tx, item).await?;
    let end = Settle { lease: claimed.lease, end: done() };
    match jobs.settle_within(&mut tx, end).await? {
        Fence::Held => tx.commit().await?,
        Fence::Lost => tx.rollback().await?,
    }
    Ok(())
}
