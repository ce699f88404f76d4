//! What stands between the callers and the database.
//!
//! All contenders run the same handler with the same two statements, on pools of the same size that are hardened
//! alike (an idle connection is not pinged before use, none is closed for its age, statements are bounded): what sqlx
//! does by default besides is measured once, as `sqlx-default`.

mod bouncer;
mod flag;
mod healed;
mod plain;
mod resilience;
mod tower;

use std::{error::Error, str::FromStr, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use selfheal::{clock::Tick, gate::Histogram, level::Level};
use sqlx::{PgExecutor, PgPool, postgres::PgPoolOptions};

use crate::{
    SLOTS,
    fixture::Fixture,
    load::{Query, Shot, Work},
};

/// Something that handles requests.
pub(crate) trait Contender: Send + Sync {
    /// Handles one; `attempt` is how often it was tried before.
    fn handle<'a>(&'a self, shot: &'a Shot, attempt: u32, deadline: Tick)
    -> BoxFuture<'a, Result<(), Fault>>;

    /// What its gate tells of itself, if it has one.
    fn gate(&self) -> Option<GateSeen> {
        None
    }

    /// Ends what it has started. What it has lent is not waited for.
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// What a gate tells of itself.
pub(crate) struct GateSeen {
    /// How long critical work has waited so far.
    pub(crate) critical_waits: Histogram,
    /// The level of its pool.
    pub(crate) level: Level,
}

/// Why a request was not handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It was refused: come again later.
    Refused,
    /// The server had no session left (SQLSTATE 53300).
    ServerFull,
    /// No connection within the pool's own time.
    PoolTimedOut,
    /// The server has ended the statement (SQLSTATE 57014), because its caller has gone or is about to.
    Ended,
    /// Any other error of the database.
    Database,
}

impl From<&sqlx::Error> for Fault {
    fn from(error: &sqlx::Error) -> Self {
        if selfheal::db::refusal(error).is_some() {
            return Self::Refused;
        }
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::PoolTimedOut;
        }
        match error.as_database_error().and_then(|error| error.code()) {
            Some(code) if code == "53300" => Self::ServerFull,
            Some(code) if code == "57014" => Self::Ended,
            _ => Self::Database,
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::from(&error)
    }
}

/// Every contender, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    SqlxDefault,
    Raw30,
    Raw1,
    Tower,
    Bulkhead,
    Adaptive,
    Flag,
    PgBouncer,
    Auto,
    Unbound,
    Static,
    Observe,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::SqlxDefault,
        Self::Raw30,
        Self::Raw1,
        Self::Tower,
        Self::Bulkhead,
        Self::Adaptive,
        Self::Flag,
        Self::PgBouncer,
        Self::Auto,
        Self::Unbound,
        Self::Static,
        Self::Observe,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SqlxDefault => "sqlx-default",
            Self::Raw30 => "raw30",
            Self::Raw1 => "raw1",
            Self::Tower => "tower",
            Self::Bulkhead => "bulkhead",
            Self::Adaptive => "adaptive",
            Self::Flag => "flag",
            Self::PgBouncer => "pgbouncer",
            Self::Auto => "auto",
            Self::Unbound => "unbound",
            Self::Static => "static",
            Self::Observe => "observe",
        }
    }

    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::SqlxDefault => "sqlx as it comes: pings before use, waits 30 s",
            Self::Raw30 => "sqlx, waits 30 s for a connection",
            Self::Raw1 => "sqlx, waits 1 s",
            Self::Tower => "tower: concurrency_limit(90) under load_shed",
            Self::Bulkhead => {
                "tower-resilience 0.14: bulkhead of 90 (waits 100 ms) over a circuit breaker that counts errors of the database"
            }
            Self::Adaptive => "tower-resilience 0.14: adaptive limiter (Gradient2, 20 to 90) under load_shed",
            Self::Flag => "a flag polled every 100 ms: 85 % sheds, 92 % queues, 88 % drains 10 a poll",
            Self::PgBouncer => {
                "PgBouncer in front: transaction pooling, 90 connections, query_wait_timeout 1 s, 400 clients"
            }
            Self::Auto => "selfheal",
            Self::Unbound => {
                "selfheal with end_at_deadline(false): statements of callers who have gone run on"
            }
            Self::Static => "selfheal with reserve = \"static\"",
            Self::Observe => "selfheal in mode observe: it decides and counts, and acts on nothing",
        }
    }

    /// Sets it up, with `open` connections opened already.
    pub(crate) async fn build(
        self,
        fixture: &Fixture,
        open: u32,
    ) -> Result<Arc<dyn Contender>, Box<dyn Error>> {
        let pool = async |patience| {
            let pool = pool(fixture, patience).await?;
            warm(&pool, open).await?;
            Ok::<_, sqlx::Error>(pool)
        };
        let healed = async |config, ends| {
            let healed = healed::Healed::start(fixture, open, config, ends).await?;
            Ok::<Arc<dyn Contender>, Box<dyn Error>>(Arc::new(healed))
        };
        let long = Duration::from_secs(30);
        Ok(match self {
            Self::SqlxDefault => {
                let pool =
                    PgPoolOptions::new().max_connections(SLOTS).connect_with(fixture.options()).await?;
                warm(&pool, open).await?;
                Arc::new(plain::Plain(pool))
            }
            Self::Raw30 => Arc::new(plain::Plain(pool(long).await?)),
            Self::Raw1 => Arc::new(plain::Plain(pool(Duration::from_secs(1)).await?)),
            Self::Tower => Arc::new(tower::limited(pool(long).await?)),
            Self::Bulkhead => Arc::new(resilience::bulkhead(pool(long).await?)?),
            Self::Adaptive => Arc::new(resilience::adaptive(pool(long).await?)?),
            Self::Flag => Arc::new(flag::Flagged::new(pool(long).await?)),
            Self::PgBouncer => Arc::new(bouncer::Bounced::start(fixture, open).await?),
            Self::Auto => healed("", true).await?,
            Self::Unbound => healed("", false).await?,
            Self::Static => healed(healed::STATIC, true).await?,
            Self::Observe => healed(healed::OBSERVE, true).await?,
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("no contender \"{name}\": {}", names()))
    }
}

/// Whether PgBouncer is installed.
pub(crate) fn has_bouncer() -> bool {
    bouncer::program().is_some()
}

/// A pool of sqlx, hardened like the guarded one.
pub(crate) async fn pool(fixture: &Fixture, patience: Duration) -> Result<PgPool, sqlx::Error> {
    let options = fixture.options().options([("statement_timeout", "30s")]);
    PgPoolOptions::new()
        .max_connections(SLOTS)
        .acquire_timeout(patience)
        .test_before_acquire(false)
        .connect_with(options)
        .await
}

/// Opens `count` connections and runs both statements on each: a service that has been running has them.
pub(crate) async fn warm(pool: &PgPool, count: u32) -> Result<(), sqlx::Error> {
    let opened: Vec<_> =
        stream::iter(0..count).map(|_| pool.acquire()).buffer_unordered(8).try_collect().await?;
    for mut connection in opened {
        run(&mut *connection, Query::NOTHING).await?;
        run(&mut *connection, Query { writes: Some(-1), ..Query::NOTHING }).await?;
        connection.return_to_pool().await;
    }
    Ok(())
}

const READ: &str = "select pg_sleep($1)";
/// The sleep is scanned, so that it cannot be left out.
const WRITE: &str = "insert into done (id) select $1 from pg_sleep($2)";

/// The statement of every handler.
pub(crate) async fn run<'c>(executor: impl PgExecutor<'c>, query: Query) -> Result<(), sqlx::Error> {
    let seconds = query.holds().as_secs_f64();
    let query = match query.writes {
        Some(id) => sqlx::query(WRITE).bind(id).bind(seconds),
        None => sqlx::query(READ).bind(seconds),
    };
    query.execute(executor).await.map(drop)
}

/// The handler: runs each query of a request by `run`, as many at once as the request says, and gives up at the first
/// that fails.
pub(crate) async fn each<F>(shot: &Shot, run: impl Fn(Query) -> F) -> Result<(), Fault>
where
    F: Future<Output = Result<(), Fault>>,
{
    match &shot.work {
        Work::Single(query) => run(*query).await,
        Work::Dashboard { queries, parallel } => {
            stream::iter(queries.iter().copied()).map(&run).buffer_unordered(*parallel).try_collect().await
        }
    }
}
