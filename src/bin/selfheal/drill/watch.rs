//! Looks at pools and at the database server while a load runs, from outside.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use selfheal::clock::{Clock, Tick};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

/// How often the pools are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How often a bare connection asks whether the server still takes clients.
const KNOCK_EVERY: Duration = Duration::from_millis(25);

/// One more than a server keeps back for superusers: these fit in while they are being turned away, and the
/// next one hears what the incident's users heard.
const KNOCKERS: u32 = 4;
/// As many clients as a role without privileges can be.
const LIMIT: &str = "SELECT current_setting('max_connections')::bigint \
                     - current_setting('superuser_reserved_connections')::bigint";
/// Clients that there are, whoever's they are.
const CLIENTS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";

/// Watches until it is dropped.
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    tasks: JoinSet<()>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// As many connections as there can be in use.
    pub(crate) limit: u32,
    /// The most connections in use at once.
    pub(crate) peak: u32,
    /// When the limit was reached for the first time.
    pub(crate) exhausted: Option<Tick>,
    /// What the server said to bare connections that it did not take, the clearest words if it had several.
    pub(crate) cause: Option<String>,
}

impl Watch {
    /// Looks at a pool of the service, of which `limit` connections can be in use.
    pub(crate) fn pool(in_use: impl Fn() -> u32 + Send + 'static, limit: u32, clock: Clock) -> Self {
        Self::start(limit, |seen| async move {
            loop {
                seen.lock().look(in_use(), limit, &clock);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    /// Looks at a PostgreSQL server through `observer`, a connection that has its place already.
    ///
    /// # Errors
    ///
    /// If the server does not say how many clients it takes.
    pub(crate) async fn server(mut observer: PgConnection, clock: Clock) -> Result<Self, sqlx::Error> {
        let limit: i64 = sqlx::query_scalar(LIMIT).fetch_one(&mut observer).await?;
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        Ok(Self::start(limit, |seen| async move {
            while let Ok(clients) = sqlx::query_scalar::<_, i64>(CLIENTS).fetch_one(&mut observer).await {
                seen.lock().look(u32::try_from(clients).unwrap_or(u32::MAX), limit, &clock);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }))
    }

    fn start<F>(limit: u32, look: impl FnOnce(Arc<Mutex<Seen>>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let seen = Arc::new(Mutex::new(Seen { limit, ..Seen::default() }));
        let mut tasks = JoinSet::new();
        tasks.spawn(look(Arc::clone(&seen)));
        Self { seen, tasks }
    }

    /// Also knocks at the PostgreSQL server at `url` with bare connections, each closed at once.
    pub(crate) fn knock(&mut self, url: &str) {
        for _ in 0..KNOCKERS {
            self.tasks.spawn(knock(url.to_owned(), Arc::clone(&self.seen)));
        }
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Seen {
        self.seen.lock().clone()
    }
}

async fn knock(url: String, seen: Arc<Mutex<Seen>>) {
    loop {
        match PgConnection::connect(&url).await {
            // It is one more client only while it says so.
            Ok(connection) => drop(connection.close().await),
            Err(error) => seen.lock().refused(&error),
        }
        tokio::time::sleep(KNOCK_EVERY).await;
    }
}

impl Seen {
    fn look(&mut self, in_use: u32, limit: u32, clock: &Clock) {
        self.peak = self.peak.max(in_use);
        if in_use >= limit && self.exhausted.is_none() {
            self.exhausted = Some(clock.now());
        }
    }

    /// The server says 53300 in two ways: to whoever finds no slot at all, and to whoever finds only those
    /// that are kept for superusers.
    fn refused(&mut self, error: &sqlx::Error) {
        let Some(error) = error.as_database_error() else { return };
        let words = format!("FATAL: {} (SQLSTATE {})", error.message(), error.code().unwrap_or_default());
        if self.cause.is_none() || words.contains("too many clients") {
            self.cause = Some(words);
        }
    }
}
