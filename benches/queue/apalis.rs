//! `apalis-postgres`, as it is and as it is fastest.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use apalis::prelude::*;
use apalis_postgres::{Config, PostgresStorage, queries};
use futures_util::future::BoxFuture;
use sqlx::PgPool;
use tokio::task::JoinHandle;

use crate::{
    Done,
    backlog::{self, BACKLOG, SEEN},
    lap::{self, Cell, DONE, ENQUEUE, Notice, SHAPES},
    server::Server,
};

const QUEUE: &str = "notice";

/// How it is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settings {
    /// As it is: ten jobs at once, looked for when all are done.
    Default,
    /// A thousand at once, and a listener.
    Tuned,
}

impl Settings {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Default => "apalis-postgres, defaults",
            Self::Tuned => "apalis-postgres, tuned",
        }
    }

    /// Starts a worker that ends when it is aborted.
    pub(crate) fn start(self, pool: &PgPool) -> JoinHandle<()> {
        static WORKERS: AtomicU64 = AtomicU64::new(0);
        let name = format!("worker-{}", WORKERS.fetch_add(1, Ordering::Relaxed));
        let config = Config::default().queue(QUEUE);
        // What they say in the end is of no interest.
        match self {
            Self::Default => {
                let worker = WorkerBuilder::new(name).backend(storage(pool, config)).build(handle);
                tokio::spawn(async move { drop(worker.run().await) })
            }
            Self::Tuned => {
                let backend = storage(pool, config.batch_size(1_000))
                    .with_pubsub()
                    .poll_with_interval(Duration::from_millis(100));
                let worker = WorkerBuilder::new(name).backend(backend).concurrency(1_000).build(handle);
                tokio::spawn(async move { drop(worker.run().await) })
            }
        }
    }
}

async fn handle(_: Notice) -> Result<(), BoxDynError> {
    SEEN.one();
    Ok(())
}

fn storage(pool: &PgPool, config: Config) -> PostgresStorage<Notice> {
    PostgresStorage::new(pool).with_config(config)
}

pub(crate) async fn pool(server: &Server, name: &str) -> Done<PgPool> {
    let pool = lap::database(server, name).await?;
    PostgresStorage::setup(&pool).await?;
    Ok(pool)
}

pub(crate) async fn cells(server: &Server) -> Done<Vec<Cell>> {
    let pool = pool(server, "apalis").await?;
    let mut cells = Vec::new();
    for shape in SHAPES {
        let (plain, tuned) = (pool.clone(), pool.clone());
        cells.push(Cell {
            table: ENQUEUE,
            contender: Settings::Default.name(),
            shape: shape.to_string(),
            lap: Box::new(move |lap| {
                let pool = plain.clone();
                Box::pin(async move {
                    clear(&pool).await?;
                    let callers =
                        (0..shape.callers).map(|_| storage(&pool, Config::default().queue(QUEUE))).collect();
                    lap::call(callers, shape.at_once, lap, if shape.at_once == 1 { one } else { many }).await
                })
            }),
        });
        cells.push(Cell {
            table: ENQUEUE,
            contender: Settings::Tuned.name(),
            shape: shape.to_string(),
            lap: Box::new(move |lap| {
                let pool = tuned.clone();
                Box::pin(async move {
                    clear(&pool).await?;
                    lap::call(vec![pool; shape.callers], shape.at_once, lap, statement).await
                })
            }),
        });
    }
    for settings in [Settings::Default, Settings::Tuned] {
        let pool = pool.clone();
        cells.push(Cell {
            table: DONE,
            contender: settings.name(),
            shape: "as set up".into(),
            lap: Box::new(move |_| {
                let mut pool = pool.clone();
                Box::pin(async move {
                    clear(&pool).await?;
                    statement(&mut pool, 0..BACKLOG as u64).await?;
                    sqlx::query("vacuum analyze apalis.jobs").execute(&pool).await?;
                    SEEN.forget();
                    let worker = settings.start(&pool);
                    let rate = backlog::watch(|| done(pool.clone())).await;
                    worker.abort();
                    rate
                })
            }),
        });
    }
    Ok(cells)
}

async fn done(pool: PgPool) -> Done<u64> {
    let done = sqlx::query_scalar("select count(*) from apalis.jobs where status = 'Done'");
    Ok(u64::try_from(done.fetch_one(&pool).await.map(|done: i64| done)?)?)
}

async fn clear(pool: &PgPool) -> Done {
    sqlx::query("truncate apalis.jobs").execute(pool).await?;
    Ok(())
}

fn one(storage: &mut PostgresStorage<Notice>, jobs: Range<u64>) -> BoxFuture<'_, Done> {
    Box::pin(async move {
        for job in jobs {
            storage.push(Notice::new(job)).await?;
        }
        Ok(())
    })
}

fn many(storage: &mut PostgresStorage<Notice>, jobs: Range<u64>) -> BoxFuture<'_, Done> {
    Box::pin(async move {
        storage.push_bulk(jobs.map(Notice::new).collect()).await?;
        Ok(())
    })
}

/// Its statement, without the transaction around it that its storage makes.
pub(crate) fn statement(pool: &mut PgPool, jobs: Range<u64>) -> BoxFuture<'_, Done> {
    Box::pin(async move {
        let mut conn = pool.acquire().await?;
        let tasks = jobs.map(|n| TaskBuilder::new(Notice::json(n)).build()).collect();
        queries::push_tasks(&mut *conn, QUEUE, tasks).await?;
        Ok(())
    })
}
