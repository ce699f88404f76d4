//! How fast a backlog is worked through.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::Done;

/// Jobs in it.
pub(crate) const BACKLOG: usize = 20_000;
/// How many are claimed at once.
pub(crate) const SETS: [usize; 4] = [1, 10, 100, 1_000];
/// Who has not done all of it by then is judged by what it has done.
const MOST: Duration = Duration::from_millis(1_500);

/// How many jobs of a backlog are done one set at a time: small sets take long.
pub(crate) const fn share(set: usize) -> usize {
    if set * 300 < BACKLOG { set * 300 } else { BACKLOG }
}

/// Does so many; says how many a second that was.
pub(crate) async fn drain(jobs: usize, work: impl Future<Output = Done<usize>>) -> Done<f64> {
    let begun = Instant::now();
    let done = work.await?;
    if done < jobs {
        return Err(format!("only {done} of {jobs} were done").into());
    }
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}

/// What handlers have seen since the last lap.
pub(crate) static SEEN: Seen = Seen { jobs: AtomicU64::new(0), more: Notify::const_new() };

pub(crate) struct Seen {
    jobs: AtomicU64,
    more: Notify,
}

impl Seen {
    /// A handler has a job.
    pub(crate) fn one(&self) {
        self.jobs.fetch_add(1, Ordering::Relaxed);
        self.more.notify_waiters();
    }

    pub(crate) fn forget(&self) {
        self.jobs.store(0, Ordering::Relaxed);
    }

    /// Waits until handlers have seen so many.
    pub(crate) async fn reach(&self, jobs: u64) {
        loop {
            let more = self.more.notified();
            if self.jobs.load(Ordering::Relaxed) >= jobs {
                return;
            }
            more.await;
        }
    }
}

/// Waits until a worker that runs by itself has done the backlog and the database says so; says how many a second that
/// was.
pub(crate) async fn watch<F: Future<Output = Done<u64>>>(done: impl Fn() -> F) -> Done<f64> {
    let begun = Instant::now();
    // Who does not come so far is judged by what it has done.
    let _ = tokio::time::timeout(MOST, SEEN.reach(BACKLOG as u64)).await;
    loop {
        let done = done().await?;
        let took = begun.elapsed();
        if done >= BACKLOG as u64 || took > MOST {
            return Ok(done as f64 / took.as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
