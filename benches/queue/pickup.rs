//! How soon an idle worker has a new job: from the call that enqueues it to the handler.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use selfheal::{
    HealPool, PgHealPool, SqliteHealPool,
    batch_executor::journal::{Claim, Counts, End, Journal as _, NewJob, Settle},
    signal::Name,
    store::{Dialect, Jobs},
};
use selfheal_benches::{Table, quantile};

use crate::{
    Done, apalis,
    args::Args,
    backlog::SEEN,
    graphile, lap,
    lap::Notice,
    server::{Server, options},
    sqlite::Folder,
};

/// Between two jobs: the worker is idle again.
const PAUSE: Duration = Duration::from_millis(30);
/// A worker that has begun waits by then.
const SETTLED: Duration = Duration::from_millis(500);

pub(crate) async fn measure(server: &Server, folder: &Folder, args: &Args) -> Done<Table> {
    let jobs = if args.rounds > 1 { 60 } else { 5 };
    let mut table = Table::new(["enqueue to handler, ms", "p50", "p99", "most"]);
    let mut row = |who: &str, mut ms: Vec<f64>| {
        ms.sort_by(f64::total_cmp);
        let of = |q| quantile(&ms, q).map_or_else(String::new, |ms| format!("{ms:.1}"));
        table.row([who.to_owned(), of(0.5), of(0.99), of(1.0)]);
    };
    lap::database(server, "pickup_ours").await?;
    let pool =
        PgHealPool::builder().max(4).connect_with(options(server.port(), "app", "pickup_ours")).await?;
    row("selfheal, PostgreSQL, same process", ours(&pool, jobs, false).await?);
    row("selfheal, PostgreSQL, another process", ours(&pool, jobs, true).await?);
    let pool = SqliteHealPool::builder().max(2).connect_with(folder.options("pickup.db")).await?;
    row("selfheal, SQLite, same process", ours(&pool, jobs, false).await?);
    row("selfheal, SQLite, another process", ours(&pool, jobs, true).await?);
    let pool = graphile::pool(server, "pickup_graphile").await?;
    for settings in [graphile::Settings::Default, graphile::Settings::Tuned] {
        let worker = settings.start(&pool).await?;
        row(settings.name(), each(graphile::utils(&pool), jobs, graphile::one).await?);
        worker.stop().await;
    }
    let pool = apalis::pool(server, "pickup_apalis").await?;
    let worker = apalis::Settings::Tuned.start(&pool);
    row(apalis::Settings::Tuned.name(), each(pool, jobs, apalis::statement).await?);
    worker.abort();
    Ok(table)
}

/// So many jobs, each when the one before has been handled for a while; milliseconds of each.
async fn each<S>(
    mut enqueuer: S,
    jobs: u64,
    enqueue: for<'c> fn(&'c mut S, std::ops::Range<u64>) -> BoxFuture<'c, Done>,
) -> Done<Vec<f64>> {
    tokio::time::sleep(SETTLED).await;
    SEEN.forget();
    let mut took = Vec::new();
    for n in 0..jobs {
        let begun = Instant::now();
        enqueue(&mut enqueuer, n..n + 1).await?;
        SEEN.reach(n + 1).await;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(took)
}

async fn ours<DB: Dialect>(pool: &HealPool<DB>, jobs: u64, apart: bool) -> Done<Vec<f64>> {
    let works = Jobs::of(pool);
    works.ready().await?;
    // Two of them know nothing of each other, as those of two processes would not.
    let accepts = if apart { Jobs::of(pool) } else { works.clone() };
    let worker = tokio::spawn(async move { work(&works).await });
    let took = each(accepts, jobs, |jobs, new| {
        Box::pin(async move {
            jobs.accept(new.map(|n| NewJob::new("q", Notice::json(n))).collect()).await?;
            Ok(())
        })
    })
    .await;
    worker.abort();
    // It is gone, and has given back what it held, when this is said.
    let _ = worker.await;
    took
}

async fn work<DB: Dialect>(jobs: &Jobs<DB>) -> Done {
    let queues: [Name; 1] = ["q".into()];
    let claim = Claim { queues: &queues, limit: 10, ttl: Duration::from_secs(30) };
    loop {
        let claimed = jobs.claim(&claim).await?;
        claimed.iter().for_each(|_| SEEN.one());
        if claimed.is_empty() {
            jobs.due(&queues).await;
        } else {
            let counts = Counts { total: 1, done: 1, blocked: 0, failed: 0 };
            let ends = claimed.iter().map(|job| Settle { lease: job.lease, end: End::Done { counts } });
            jobs.settle(ends.collect()).await?;
        }
    }
}
