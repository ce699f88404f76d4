//! `graphile_worker`, as it is and as it is fastest.

use std::{ops::Range, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, Worker, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use sqlx::PgPool;
use tokio::task::JoinHandle;

use crate::{
    Done,
    backlog::{self, BACKLOG, SEEN},
    lap::{self, Cell, DONE, ENQUEUE, Notice, SHAPES},
    server::Server,
};

const SCHEMA: &str = "graphile_worker";

impl TaskHandler for Notice {
    const IDENTIFIER: &'static str = "notice";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        SEEN.one();
        Ok::<(), String>(())
    }
}

/// How it is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settings {
    /// As it is.
    Default,
    /// A local queue that is filled a thousand at a time, and ends that are written together.
    Tuned,
}

impl Settings {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Default => "graphile_worker, defaults",
            Self::Tuned => "graphile_worker, tuned",
        }
    }

    pub(crate) async fn start(self, pool: &PgPool) -> Done<Running> {
        let options =
            WorkerOptions::default().pg_pool(pool.clone()).schema(SCHEMA).listen_os_shutdown_signals(false);
        let options = match self {
            Self::Default => options,
            Self::Tuned => options
                .concurrency(500)
                .poll_interval(Duration::from_millis(100))
                .complete_job_batch_delay(Duration::from_millis(1))
                .local_queue(LocalQueueConfig::default().with_size(2_000)),
        };
        let worker = Arc::new(options.define_job::<Notice>().init().await?);
        let own = Arc::clone(&worker);
        // What it says in the end is of no interest.
        let task = tokio::spawn(async move { drop(own.run().await) });
        Ok(Running { worker, task })
    }
}

/// A worker.
pub(crate) struct Running {
    worker: Arc<Worker>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn stop(mut self) {
        self.worker.request_shutdown();
        if tokio::time::timeout(Duration::from_secs(5), &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

pub(crate) async fn pool(server: &Server, name: &str) -> Done<PgPool> {
    let pool = lap::database(server, name).await?;
    utils(&pool).migrate().await?;
    Ok(pool)
}

pub(crate) fn utils(pool: &PgPool) -> WorkerUtils {
    WorkerUtils::new(pool.clone(), SCHEMA)
}

pub(crate) async fn cells(server: &Server) -> Done<Vec<Cell>> {
    let pool = pool(server, "graphile").await?;
    let enqueueing = SHAPES.map(|shape| {
        let pool = pool.clone();
        Cell {
            table: ENQUEUE,
            contender: "graphile_worker",
            shape: shape.to_string(),
            lap: Box::new(move |lap| {
                let pool = pool.clone();
                Box::pin(async move {
                    clear(&pool).await?;
                    let callers = (0..shape.callers).map(|_| utils(&pool)).collect();
                    lap::call(callers, shape.at_once, lap, if shape.at_once == 1 { one } else { many }).await
                })
            }),
        }
    });
    let working = [Settings::Default, Settings::Tuned].map(|settings| {
        let pool = pool.clone();
        Cell {
            table: DONE,
            contender: settings.name(),
            shape: "as set up".into(),
            lap: Box::new(move |_| {
                let pool = pool.clone();
                Box::pin(async move {
                    clear(&pool).await?;
                    utils(&pool).add_raw_jobs(&raw(0..BACKLOG as u64)).await?;
                    sqlx::query("vacuum analyze graphile_worker._private_jobs").execute(&pool).await?;
                    SEEN.forget();
                    let worker = settings.start(&pool).await?;
                    let rate = backlog::watch(|| done(pool.clone())).await;
                    worker.stop().await;
                    rate
                })
            }),
        }
    });
    Ok(enqueueing.into_iter().chain(working).collect())
}

async fn done(pool: PgPool) -> Done<u64> {
    let left = sqlx::query_scalar("select count(*) from graphile_worker._private_jobs");
    Ok((BACKLOG as u64).saturating_sub(u64::try_from(left.fetch_one(&pool).await.map(|left: i64| left)?)?))
}

async fn clear(pool: &PgPool) -> Done {
    sqlx::query("truncate graphile_worker._private_jobs cascade").execute(pool).await?;
    Ok(())
}

pub(crate) fn one(utils: &mut WorkerUtils, jobs: Range<u64>) -> BoxFuture<'_, Done> {
    Box::pin(async move {
        for job in jobs {
            utils.add_job(Notice::new(job), JobSpec::default()).await?;
        }
        Ok(())
    })
}

fn many(utils: &mut WorkerUtils, jobs: Range<u64>) -> BoxFuture<'_, Done> {
    Box::pin(async move {
        utils.add_raw_jobs(&raw(jobs)).await?;
        Ok(())
    })
}

fn raw(jobs: Range<u64>) -> Vec<RawJobSpec> {
    let job = |n| RawJobSpec {
        identifier: Notice::IDENTIFIER.to_owned(),
        payload: serde_json::to_value(Notice::new(n)).unwrap_or_default(),
        spec: JobSpec::default(),
    };
    jobs.map(job).collect()
}
