//! Where the desk's queries go: one of two databases, healed or plain.

use std::{fmt, sync::Arc, time::Duration};

use selfheal::{
    Heal, HealPool, batch_executor, db,
    deferred::Accepted,
    transition::{self, Guard},
};
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool};

use super::{
    FIRST_PANEL_ALONE, Faults, POOL_MAX,
    ask::{self, Ask, Count},
    capture::{self, Captured, Guards},
    message,
    panels::Panels,
    postgres, report, sqlite,
};

/// A pool behind its gate.
#[derive(Clone)]
pub(crate) enum Guarded {
    Postgres(HealPool<Postgres>),
    Sqlite(HealPool<Sqlite>),
}

/// A pool as most hosts have it.
#[derive(Clone)]
pub(crate) enum Plain {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// The desk's database.
#[derive(Clone)]
pub(crate) enum Store {
    Guarded(Guarded),
    Plain(Plain),
}

impl Guarded {
    /// A guarded pool on the database at `url`, whose tables are made and filled unless they are.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached or refuses its tables.
    pub(crate) async fn open(url: &str) -> Result<Self, db::Error> {
        if url.starts_with("postgres") {
            let pool = HealPool::<Postgres>::builder().max(POOL_MAX).connect(url).await?;
            postgres::prepare(&mut *pool.acquire().await?).await?;
            Ok(Self::Postgres(pool))
        } else {
            let pool =
                HealPool::<Sqlite>::builder().max(POOL_MAX).connect_with(sqlite::options(url)?).await?;
            sqlite::prepare(&mut *pool.acquire().await?).await?;
            Ok(Self::Sqlite(pool))
        }
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}

/// What every handler of the desk needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Parts>);

struct Parts {
    store: Store,
    heal: Option<Heal>,
    /// Guards the status of messages.
    messages: Option<Guard>,
    /// Answers panels together.
    panels: Option<Panels>,
    hold: Duration,
    faults: Option<Faults>,
}

/// Why a query was not answered.
#[derive(Debug)]
pub(crate) enum Error {
    /// The pool or the database says no. The gate's refusal travels in it.
    Database(sqlx::Error),
    /// The same, said to all who asked together.
    Lookup(db::LookupError),
    /// A query's task ended without an answer.
    Task(tokio::task::JoinError),
    /// A status was not changed.
    Status(transition::Error),
    /// A long operation was not begun, or has failed.
    Batch(batch_executor::Refused),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Lookup(error) => error.fmt(f),
            Self::Task(error) => error.fmt(f),
            Self::Status(error) => error.fmt(f),
            Self::Batch(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Database(error) => Some(error),
            Self::Lookup(error) => Some(error),
            Self::Task(error) => Some(error),
            Self::Status(error) => Some(error),
            Self::Batch(error) => Some(error),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Desk {
    /// A desk behind its gate, whose queries each hold their connection for `hold` besides the time they take.
    /// `faults` strike before a query has one.
    ///
    /// # Errors
    ///
    /// If nobody has declared which status of a message may become which.
    pub(super) fn healed(
        pool: Guarded,
        heal: Heal,
        hold: Duration,
        faults: Option<Faults>,
        captures: &Guards,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let messages = message::guard(&heal)?;
        captures.get_or_init(|| messages.operation("Spam capture"));
        let (messages, panels) = (Some(messages), Some(Panels::of(&pool, hold)));
        let (store, heal) = (Store::Guarded(pool), Some(heal));
        Ok(Self(Arc::new(Parts { store, heal, messages, panels, hold, faults })))
    }

    /// A desk as most hosts would build it.
    pub(crate) fn plain(pool: Plain, hold: Duration, faults: Option<Faults>) -> Self {
        let store = Store::Plain(pool);
        Self(Arc::new(Parts { store, heal: None, messages: None, panels: None, hold, faults }))
    }

    /// Asks the database, on a connection of its own.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Vec<Count>, Error> {
        if let Some(faults) = &self.0.faults {
            faults.strike_query().await?;
        }
        let hold = self.0.hold * ask.weight;
        match &self.0.store {
            Store::Guarded(Guarded::Postgres(pool)) => {
                let mut connection = pool.operation(ask.operation).acquire().await?;
                Ok(postgres::answer(&mut connection, ask, hold).await?)
            }
            Store::Guarded(Guarded::Sqlite(pool)) => {
                let mut connection = pool.operation(ask.operation).acquire().await?;
                Ok(sqlite::answer(&mut connection, ask, hold).await?)
            }
            Store::Plain(Plain::Postgres(pool)) => {
                Ok(postgres::answer(&mut *pool.acquire().await?, ask, hold).await?)
            }
            Store::Plain(Plain::Sqlite(pool)) => {
                Ok(sqlite::answer(&mut *pool.acquire().await?, ask, hold).await?)
            }
        }
    }

    /// Asks the database for a number.
    pub(crate) async fn number(&self, ask: Ask) -> Result<i64, Error> {
        Ok(self.ask(ask).await?.first().map_or(0, |(_, number)| *number))
    }

    /// How many messages of a channel are ready: together with whoever else asks, or by a query of its own.
    pub(super) async fn panel(&self, channel: i64) -> Result<i64, Error> {
        let Some(panels) = self.0.panels.as_ref().filter(|_| channel < FIRST_PANEL_ALONE) else {
            return self.number(ask::panel(channel)).await;
        };
        if let Some(faults) = &self.0.faults {
            faults.strike_query().await?;
        }
        panels.get(channel).await.map_err(Error::Lookup)
    }

    /// Changes the status of a message, and says whether there is one.
    pub(crate) async fn change_status(&self, id: i64, to: &str) -> Result<bool, Error> {
        if let Some(faults) = &self.0.faults {
            faults.strike_query().await?;
        }
        let (pool, guard) = match (&self.0.store, &self.0.messages) {
            (Store::Guarded(pool), Some(guard)) => (pool, guard),
            (Store::Plain(pool), _) => return Ok(message::overwrite(pool, id, to).await?),
            // A guarded desk was made with a guard.
            (Store::Guarded(_), None) => return Ok(false),
        };
        match message::change(pool, guard, id, to).await {
            Ok(()) => Ok(true),
            Err(transition::Error::Missing) => Ok(false),
            Err(error) => Err(Error::Status(error)),
        }
    }

    /// Captures spam: what is ready, or with the incident's `bug` whatever matches.
    pub(super) async fn capture(&self, user: &str, bug: bool) -> Result<Captured, Error> {
        if let Some(faults) = &self.0.faults {
            faults.strike_query().await?;
        }
        match (&self.0.store, &self.0.heal) {
            (Store::Guarded(pool), Some(heal)) => capture::healed(heal, pool, user, bug).await,
            (Store::Plain(pool), _) => capture::plain(pool, bug).await,
            // A guarded desk was made with its runtime.
            (Store::Guarded(_), None) => Err(Error::Batch(batch_executor::Refused::Unknown)),
        }
    }

    /// Accepts a user's wish for a report, to be made when there is room.
    pub(super) async fn report_later(&self, user: &str) -> Result<Accepted, Error> {
        match &self.0.heal {
            Some(heal) => report::later(heal, user).await,
            None => Err(Error::Batch(batch_executor::Refused::Unknown)),
        }
    }

    /// Makes `work` optional: without an outcome if it was left out.
    pub(crate) async fn optional<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, Error> {
        match &self.0.heal {
            Some(heal) => heal.optional(work).await.transpose(),
            None => work.await.map(Some),
        }
    }
}
