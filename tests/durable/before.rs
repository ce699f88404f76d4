//! A program of the version before works beside one of today, on the tables of today.
//!
//! What the version before said to the database is kept as it was said then. When a statement or a table changes, what
//! is kept here is what was said until then: services are replaced one by one, and those that are not yet replaced go on.

use futures_core::future::BoxFuture;
use selfheal::{
    HealPool,
    batch_executor::journal::{Fence, JobId, Journal, Lease, Settle},
    store::{Dialect, Jobs},
};

use super::{MINUTE, accept, books, claim, done, job};
use crate::guarded::seed;

/// A program of the version before, on a connection of its own. Its jobs are of one queue, and not kept.
pub(crate) trait Before: Send {
    /// Writes so many jobs down; says which.
    fn accept<'a>(&'a mut self, queue: &'a str, jobs: i64) -> BoxFuture<'a, Vec<i64>>;
    /// Leases so many for a span in microseconds: ids and tokens.
    fn claim<'a>(&'a mut self, queue: &'a str, jobs: i64, span: i64) -> BoxFuture<'a, Vec<(i64, i64)>>;
    /// Ends leases of jobs that are done; says how many were held.
    fn finish<'a>(&'a mut self, leases: &'a [(i64, i64)]) -> BoxFuture<'a, usize>;
}

/// Both accept, both claim what the other has accepted, both end what they hold; nobody ends what the other holds.
pub(crate) async fn side_by_side<DB: Dialect>(pool: &HealPool<DB>, mut before: impl Before, steps: usize) {
    let today = Jobs::of(pool);
    today.ready().await.expect("tables");
    // Where one process at a time works, its first claim takes over what others have left: here nobody has left.
    assert_eq!(claim(&today, &["both"], 1, MINUTE).await, []);
    let mut random = fastrand::Rng::with_seed(seed());
    let (mut accepted, mut over) = (0, 0);
    let (mut by_before, mut by_today): (Vec<(i64, i64)>, Vec<Lease>) = (Vec::new(), Vec::new());
    for _ in 0..steps {
        let some = random.i64(1..6);
        match random.u8(..6) {
            0 => accepted += before.accept("both", some).await.len() as u64,
            1 => accepted += accept(&today, vec![job("both"); some as usize]).await.len() as u64,
            2 => by_before.extend(before.claim("both", some, 60_000_000).await),
            3 => {
                by_today
                    .extend(claim(&today, &["both"], some as u32, MINUTE).await.iter().map(|job| job.lease));
            }
            4 => {
                // It says of what the other holds that it is its own; nothing comes of it.
                let theirs: Vec<_> = by_today.iter().map(|lease| (lease.job.0, lease.token + 1)).collect();
                assert_eq!(before.finish(&theirs).await, 0);
                assert_eq!(before.finish(&by_before).await, by_before.len());
                over += by_before.drain(..).count() as u64;
            }
            _ => {
                let theirs = by_before.iter().map(|(id, token)| Lease { job: JobId(*id), token: token + 1 });
                let ends = |lease| Settle { lease, end: done() };
                let lost = today.settle(theirs.map(ends).collect()).await.expect("it answers");
                assert!(lost.iter().all(|fence| *fence == Fence::Lost));
                let held = today.settle(by_today.drain(..).map(ends).collect()).await.expect("it answers");
                assert!(held.iter().all(|fence| *fence == Fence::Held));
                over += held.len() as u64;
            }
        }
        let [pending, leased, done, dead] = books(&today).await;
        assert_eq!((pending + leased + done, done, dead), (accepted, over, 0));
        assert_eq!(leased as usize, by_before.len() + by_today.len());
    }
    assert!(over > 0, "something was done");
}
