//! This project's durable jobs.

use std::{ops::Range, time::Duration};

use futures_util::future::BoxFuture;
use selfheal::{
    PgHealPool,
    batch_executor::journal::{Claim, Counts, End, Fence, Journal as _, NewJob, Settle},
    signal::Name,
    store::{Dialect, Jobs},
};
use sqlx::PgPool;

use crate::{
    Done,
    backlog::{self, BACKLOG, SETS},
    lap::{self, Cell, DONE, ENQUEUE, Notice, SHAPES},
    server::{Server, options},
};

const NAME: &str = "selfheal";
/// Long enough that no lease ends.
const TTL: Duration = Duration::from_secs(30);

pub(crate) async fn cells(server: &Server) -> Done<Vec<Cell>> {
    let admin = lap::database(server, "ours").await?;
    let pool = PgHealPool::builder().max(4).connect_with(options(server.port(), "app", "ours")).await?;
    let jobs = Jobs::of(&pool);
    jobs.ready().await?;
    Ok(all(&jobs, [ENQUEUE, DONE], move || Box::pin(clear(admin.clone()))))
}

/// All cells, whatever the database.
pub(crate) fn all<DB: Dialect>(
    jobs: &Jobs<DB>,
    [enqueued, done]: [&'static str; 2],
    clear: impl Fn() -> BoxFuture<'static, Done> + Clone + Send + Sync + 'static,
) -> Vec<Cell> {
    let enqueueing = SHAPES.map(|shape| {
        let (jobs, clear) = (jobs.clone(), clear.clone());
        Cell {
            table: enqueued,
            contender: NAME,
            shape: shape.to_string(),
            lap: Box::new(move |lap| {
                let (jobs, clear) = (jobs.clone(), clear.clone());
                Box::pin(async move {
                    clear().await?;
                    lap::call(vec![jobs; shape.callers], shape.at_once, lap, enqueue::<DB>).await
                })
            }),
        }
    });
    let working = SETS.map(|set| {
        let (jobs, clear) = (jobs.clone(), clear.clone());
        Cell {
            table: done,
            contender: NAME,
            shape: format!("{set} at once"),
            lap: Box::new(move |_| {
                let (jobs, clear) = (jobs.clone(), clear.clone());
                Box::pin(async move {
                    clear().await?;
                    fill(&jobs).await?;
                    backlog::drain(backlog::share(set), work(jobs, set)).await
                })
            }),
        }
    });
    enqueueing.into_iter().chain(working).collect()
}

async fn clear(pool: PgPool) -> Done {
    sqlx::query("truncate selfheal_jobs, selfheal_job_counts").execute(&pool).await?;
    Ok(())
}

fn enqueue<DB: Dialect>(jobs: &mut Jobs<DB>, new: Range<u64>) -> BoxFuture<'_, Done> {
    Box::pin(async move {
        jobs.accept(new.map(|n| NewJob::new("q", Notice::json(n))).collect()).await?;
        Ok(())
    })
}

async fn fill<DB: Dialect>(jobs: &Jobs<DB>) -> Done {
    jobs.accept((0..BACKLOG as u64).map(|n| NewJob::new("q", Notice::json(n))).collect()).await?;
    Ok(())
}

async fn work<DB: Dialect>(jobs: Jobs<DB>, set: usize) -> Done<usize> {
    let queues: [Name; 1] = ["q".into()];
    let mut done = 0;
    while done < backlog::share(set) {
        let claim = Claim { queues: &queues, limit: set as u32, ttl: TTL };
        let claimed = jobs.claim(&claim).await?;
        let counts = Counts { total: 1, done: 1, blocked: 0, failed: 0 };
        let ends = claimed.iter().map(|job| Settle { lease: job.lease, end: End::Done { counts } }).collect();
        done += jobs.settle(ends).await?.iter().filter(|fence| **fence == Fence::Held).count();
    }
    Ok(done)
}
