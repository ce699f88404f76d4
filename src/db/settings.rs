//! How a guarded pool is built, and what somebody else's pool lacks.
//!
//! sqlx's defaults are made for a quiet service. Under pressure each of these hurts, and was measured to:
//!
//! - `test_before_acquire = true` closes a connection whenever an acquire is dropped in its ping: a pool of 20
//!   went to 0. Here only a connection that has been idle for 5 seconds is pinged, or since another one broke.
//! - `min_connections > 0` makes every return spawn a maintenance task. Here it is 0.
//! - An acquire waits 30 seconds. Behind a gate it never waits for its turn, so a wait means that dialling is in
//!   trouble, and the cause is named within 3 seconds.
//! - A dropped query runs on at the server and keeps its connection. `statement_timeout` bounds it.
//! - A transaction whose holder is gone keeps its locks. `idle_in_transaction_session_timeout` bounds it.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use selfheal_actors::clock::Clock;
use sqlx::{Pool, pool::PoolOptions};

use super::{
    backend::{Backend, ConnectOptionsOf},
    bound,
    doubt::Doubt,
    error::Error,
    pool::{self, HealPool},
};

/// Connections beyond the gate's limit, for a task that holds one and needs another.
pub(super) const NESTED_RESERVE: u32 = 2;

/// A connection that has been idle for longer is pinged before it is used.
const STALE: Duration = Duration::from_secs(5);

/// A ping that takes longer finds the connection dead.
const PING: Duration = Duration::from_secs(1);

/// The bounds of a pool. See [`Builder`] for what each is.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) max: u32,
    pub(super) acquire_timeout: Duration,
    pub(super) statement_timeout: Duration,
    pub(super) end_at_deadline: bool,
    pub(super) idle_in_transaction: Duration,
    pub(super) busy_timeout: Duration,
    pub(super) max_lifetime: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) application_name: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max: 10,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(30),
            end_at_deadline: true,
            idle_in_transaction: Duration::from_secs(30),
            busy_timeout: Duration::from_secs(5),
            max_lifetime: Duration::from_secs(30 * 60),
            idle_timeout: Duration::from_secs(10 * 60),
            application_name: "selfheal".into(),
        }
    }
}

/// Builds a hardened pool: `PgHealPool::builder().max(90).connect(url).await`.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder<DB> {
    settings: Settings,
    database: PhantomData<fn() -> DB>,
}

impl<DB: Backend> Builder<DB> {
    pub(super) fn new() -> Self {
        Self { settings: Settings::default(), database: PhantomData }
    }

    /// The most connections in use at once. Default 10. Two more may be opened for tasks that hold one and need
    /// another, and two outside the pool: one stays open to watch the server, one asks it when it does not
    /// answer.
    pub const fn max(mut self, max: u32) -> Self {
        self.settings.max = if max == 0 { 1 } else { max };
        self
    }

    /// How long it may take to get a connection once it is one's turn; then the cause is named. Default 3 s.
    pub const fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.settings.acquire_timeout = timeout;
        self
    }

    /// How long a statement may run at the server: the longest deadline of any class that uses this pool.
    /// Default 30 s. PostgreSQL only: nothing stops a statement of SQLite.
    pub const fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.settings.statement_timeout = timeout;
        self
    }

    /// Whether the server ends a statement at the deadline of the request that it is for, under pressure and for
    /// work that can wait. Default true. It sets the session's `statement_timeout` and resets it afterwards;
    /// turn it off behind a PgBouncer that pools transactions, where a session belongs to nobody. PostgreSQL only,
    /// and not where the connect options have a `statement_timeout` of their own.
    pub const fn end_at_deadline(mut self, end: bool) -> Self {
        self.settings.end_at_deadline = end;
        self
    }

    /// How long a transaction may stand idle at the server. Default 30 s. PostgreSQL only.
    pub const fn idle_in_transaction_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_in_transaction = timeout;
        self
    }

    /// How long a write waits for another one. Default 5 s. SQLite only.
    pub const fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.settings.busy_timeout = timeout;
        self
    }

    /// How old a connection may grow. Default 30 minutes.
    pub const fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.max_lifetime = lifetime;
        self
    }

    /// How long a connection may be idle before it is closed. Default 10 minutes.
    pub const fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// What the server's list of sessions calls us, unless the URL says it. Default "selfheal".
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.settings.application_name = name.into();
        self
    }

    /// Opens the pool, with one connection to see that it can be reached.
    ///
    /// Through PgBouncer the start-up options must be let through: `ignore_startup_parameters = options`, and
    /// the timeouts set for the role. If it pools transactions, turn [`end_at_deadline`](Self::end_at_deadline) off.
    ///
    /// # Errors
    /// [`Error::Sqlx`] if the URL cannot be read, or the database not be reached within the acquire timeout.
    pub async fn connect(self, url: &str) -> Result<HealPool<DB>, Error> {
        let options = url.parse()?;
        self.connect_with(options).await
    }

    /// The same, with options instead of a URL.
    ///
    /// # Errors
    /// [`Error::Sqlx`] if the database cannot be reached within the acquire timeout.
    pub async fn connect_with(self, options: ConnectOptionsOf<DB>) -> Result<HealPool<DB>, Error> {
        let pool = self.connect_lazy_with(options);
        // Not sqlx's eager `connect`: it would report a full or a dead server as a timeout.
        pool.verify().await?;
        Ok(pool)
    }

    /// The same, without opening a connection now. Must be called on a tokio runtime.
    pub fn connect_lazy_with(self, options: ConnectOptionsOf<DB>) -> HealPool<DB> {
        // A bound that the caller has set is not known to us, and may be none.
        let bounded = DB::gaps(&options).contains(&Gap::StatementTimeout);
        let doubt = Arc::new(Doubt::new(Clock::system()));
        HealPool::own(self.pool(options, Arc::clone(&doubt)), &self.settings, doubt, bounded)
    }

    fn pool(&self, options: ConnectOptionsOf<DB>, doubt: Arc<Doubt>) -> Pool<DB> {
        let settings = &self.settings;
        PoolOptions::new()
            .max_connections(settings.max.saturating_add(NESTED_RESERVE))
            .min_connections(0)
            .acquire_timeout(pool::UNORDERED)
            .max_lifetime(settings.max_lifetime)
            .idle_timeout(settings.idle_timeout)
            .test_before_acquire(false)
            .after_release(|conn, _| bound::on_release::<DB>(conn))
            .before_acquire(move |conn, meta| {
                let sound = meta.idle_for <= STALE && !doubt.covers(meta.idle_for);
                Box::pin(async move {
                    if sound {
                        return Ok(true);
                    }
                    let ping = tokio::time::timeout(PING, sqlx::Connection::ping(conn)).await;
                    Ok(matches!(ping, Ok(Ok(()))))
                })
            })
            .connect_lazy_with(DB::harden(options, settings))
    }
}

/// Something that a pool built elsewhere lacks, and what that costs under pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// `test_before_acquire` is on.
    TestBeforeAcquire,
    /// `acquire_timeout` is this long.
    AcquireTimeout(Duration),
    /// `min_connections` is this.
    MinConnections(u32),
    /// `max_lifetime` is not set.
    MaxLifetime,
    /// `statement_timeout` is not among the connect options.
    StatementTimeout,
    /// `idle_in_transaction_session_timeout` is not among the connect options.
    IdleInTransaction,
    /// `application_name` is not among the connect options.
    ApplicationName,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TestBeforeAcquire => {
                f.write_str("test_before_acquire is on: each acquire takes a round trip more")
            }
            Self::AcquireTimeout(timeout) => {
                write!(f, "acquire_timeout is {timeout:?}: cut to 5 s, so that a dead database is noticed")
            }
            Self::MinConnections(min) => {
                write!(f, "min_connections is {min}: each return of a connection spawns a task more")
            }
            Self::MaxLifetime => f.write_str("max_lifetime is not set: a connection that degrades is kept for ever"),
            Self::StatementTimeout => {
                f.write_str("statement_timeout is not set: an abandoned query keeps its connection until it ends")
            }
            Self::IdleInTransaction => f.write_str(
                "idle_in_transaction_session_timeout is not set: a forgotten transaction keeps its locks for ever",
            ),
            Self::ApplicationName => {
                f.write_str("application_name is not set: the server cannot tell our sessions from others")
            }
        }
    }
}

/// The longest that we wait for a connection, whatever the pool says.
pub(super) const LONGEST_ACQUIRE: Duration = Duration::from_secs(5);

/// What `pool`, which somebody else has built, lacks.
pub(super) fn gaps<DB: Backend>(pool: &Pool<DB>) -> Vec<Gap> {
    let options = pool.options();
    let timeout = options.get_acquire_timeout();
    let min = options.get_min_connections();
    let mut gaps = Vec::new();
    gaps.extend(options.get_test_before_acquire().then_some(Gap::TestBeforeAcquire));
    gaps.extend((timeout > LONGEST_ACQUIRE).then_some(Gap::AcquireTimeout(timeout)));
    gaps.extend((min > 0).then_some(Gap::MinConnections(min)));
    gaps.extend(options.get_max_lifetime().is_none().then_some(Gap::MaxLifetime));
    gaps.extend(DB::gaps(&pool.connect_options()));
    gaps
}
