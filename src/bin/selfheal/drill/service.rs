//! The services that a drill puts its load on, each with its own pool, on a port of its own.

use std::{future::IntoFuture as _, net::SocketAddr, time::Duration};

use sqlx::{postgres::PgPoolOptions, sqlite::SqlitePoolOptions};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use crate::desk::{Guarded, POOL_MAX, Plain, sqlite};

/// How long each query of the desk holds its connection.
pub(crate) const HOLD: Duration = Duration::from_millis(50);
/// How long a plain pool lets its callers wait.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(500);

/// A running service.
pub(crate) struct Service {
    /// Where it listens.
    pub(crate) url: String,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

impl Service {
    /// Serves `app` on a free port of the loopback interface.
    pub(crate) async fn start(app: axum::Router) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = oneshot::channel();
        let serve = axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(async {
                // A sender that is gone asks for the same.
                let _ = stopped.await;
            });
        let ended = tokio::runtime::Handle::current().spawn(serve.into_future());
        Ok(Self { url, stop, ended })
    }

    /// Lets it finish what it has accepted.
    pub(crate) async fn stop(self) -> std::io::Result<()> {
        let _ = self.stop.send(());
        self.ended.await.map_err(std::io::Error::other)?
    }
}

/// A pool as sqlx makes it, apart from its size and patience.
pub(crate) fn plain_pool(url: &str) -> Result<Plain, sqlx::Error> {
    if url.starts_with("postgres") {
        let options = PgPoolOptions::new().max_connections(POOL_MAX).acquire_timeout(ACQUIRE_TIMEOUT);
        // Not eagerly: on a busy machine the first connection may take longer than its callers will wait.
        options.connect_lazy(url).map(Plain::Postgres)
    } else {
        let options = SqlitePoolOptions::new().max_connections(POOL_MAX).acquire_timeout(ACQUIRE_TIMEOUT);
        Ok(Plain::Sqlite(options.connect_lazy_with(sqlite::options(url)?)))
    }
}

/// As many connections as the base load needs, and twice that fits the server: the plain services share it.
pub(crate) const WARM: u32 = 40;

/// So often a connection is tried before a drill begins.
const PREPARING: u32 = 20;

/// Opens connections of a plain pool.
pub(crate) async fn warm_plain(pool: &Plain) -> Result<(), sqlx::Error> {
    match pool {
        Plain::Postgres(pool) => warm(pool, WARM).await,
        Plain::Sqlite(pool) => warm(pool, WARM).await,
    }
}

/// Opens connections of a guarded pool, as many as plain services have in all.
pub(crate) async fn warm_guarded(pool: &Guarded) -> Result<(), sqlx::Error> {
    match pool {
        Guarded::Postgres(pool) => warm(pool.unguarded(), 2 * WARM).await,
        Guarded::Sqlite(pool) => warm(pool.unguarded(), 2 * WARM).await,
    }
}

/// Connections out of a plain pool at this moment.
pub(crate) fn in_use(pool: &Plain) -> u32 {
    let (size, idle) = match pool {
        Plain::Postgres(pool) => (pool.size(), pool.num_idle()),
        Plain::Sqlite(pool) => (pool.size(), pool.num_idle()),
    };
    size.saturating_sub(u32::try_from(idle).unwrap_or(u32::MAX))
}

/// Closes every connection of a plain pool.
pub(crate) async fn close(pool: &Plain) {
    match pool {
        Plain::Postgres(pool) => pool.close().await,
        Plain::Sqlite(pool) => pool.close().await,
    }
}

/// Opens `count` connections of `pool`: a service that has been running has them.
///
/// # Errors
///
/// If one cannot be had within many times the pool's patience: a busy machine opens them slowly, and that is not what
/// is drilled.
pub(crate) async fn warm<DB: sqlx::Database>(pool: &sqlx::Pool<DB>, count: u32) -> Result<(), sqlx::Error> {
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let pool = pool.clone();
        opening.spawn(async move {
            for _ in 0..PREPARING {
                match pool.acquire().await {
                    Err(sqlx::Error::PoolTimedOut) => {}
                    outcome => return outcome,
                }
            }
            pool.acquire().await
        });
    }
    // All are held until the last one is there, so that none is handed out twice.
    let mut held = Vec::new();
    while let Some(opened) = opening.join_next().await {
        held.push(opened.map_err(|_| sqlx::Error::WorkerCrashed)??);
    }
    Ok(())
}
