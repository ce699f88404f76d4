//! What is measured: many callers who write jobs down, each waiting for its own.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::task::JoinSet;

use crate::{
    Done,
    server::{Server, options},
};

/// One contender in one shape.
pub(crate) struct Cell {
    pub(crate) table: &'static str,
    pub(crate) contender: &'static str,
    pub(crate) shape: String,
    /// Jobs a second.
    pub(crate) lap: Lap,
}

pub(crate) type Lap = Box<dyn Fn(Duration) -> BoxFuture<'static, Done<f64>> + Send + Sync>;

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {}", self.table, self.contender, self.shape)
    }
}

/// The tables.
pub(crate) const ENQUEUE: &str = "enqueued a second, PostgreSQL";
pub(crate) const DONE: &str = "done a second, PostgreSQL";
pub(crate) const ENQUEUE_SQLITE: &str = "enqueued a second, SQLite (synchronous=FULL)";
pub(crate) const DONE_SQLITE: &str = "done a second, SQLite (synchronous=FULL)";

/// How jobs are enqueued: by so many callers, so many at once.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) callers: usize,
    pub(crate) at_once: usize,
}

pub(crate) const SHAPES: [Shape; 5] = [
    Shape { callers: 1, at_once: 1 },
    Shape { callers: 10, at_once: 1 },
    Shape { callers: 200, at_once: 1 },
    Shape { callers: 1, at_once: 100 },
    Shape { callers: 1, at_once: 1_000 },
];

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.callers, self.at_once) {
            (1, 1) => f.write_str("1 caller"),
            (callers, 1) => write!(f, "{callers} callers"),
            (_, at_once) => write!(f, "{at_once} at once"),
        }
    }
}

/// Lets every one of `callers` call `enqueue` again and again for a lap; says how many jobs a second that was.
pub(crate) async fn call<S: Send + 'static>(
    callers: Vec<S>,
    at_once: usize,
    lap: Duration,
    enqueue: for<'c> fn(&'c mut S, Range<u64>) -> BoxFuture<'c, Done>,
) -> Done<f64> {
    let (begun, jobs) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut running = JoinSet::new();
    for mut caller in callers {
        let jobs = Arc::clone(&jobs);
        running.spawn(async move {
            while begun.elapsed() < lap {
                let from = jobs.fetch_add(at_once as u64, Ordering::Relaxed);
                enqueue(&mut caller, from..from + at_once as u64).await?;
            }
            Done::Ok(())
        });
    }
    while let Some(caller) = running.join_next().await {
        caller??;
    }
    Ok(jobs.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
}

/// What a job is about: a hundred bytes of JSON.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Notice {
    message: u64,
    to: String,
    subject: String,
}

impl Notice {
    pub(crate) fn new(message: u64) -> Self {
        let subject = "Your order of the day before yesterday is on its way".into();
        Self { message, to: "ada@example.org".into(), subject }
    }

    /// As it is written down.
    pub(crate) fn json(message: u64) -> Vec<u8> {
        serde_json::to_vec(&Self::new(message)).unwrap_or_default()
    }
}

/// A database of its own, and a pool of ten to it that asks no connection whether it still is one.
pub(crate) async fn database(server: &Server, name: &str) -> Done<PgPool> {
    let mut admin = server.admin().await;
    sqlx::query(sqlx::AssertSqlSafe(format!("create database {name} owner app"))).execute(&mut admin).await?;
    let pool = PgPoolOptions::new().max_connections(10).min_connections(10).test_before_acquire(false);
    Ok(pool.connect_with(options(server.port(), "app", name)).await?)
}
