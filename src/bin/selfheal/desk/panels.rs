//! Panels that are asked for by key: those that wait at the same time go as one query.

use std::time::Duration;

use selfheal::db::{Lookup, LookupError};
use sqlx::{Postgres, Sqlite};

use super::{postgres, sqlite, store::Guarded};

/// What the lookup is called in metrics, and by the gate.
const NAME: &str = "dashboard_panels";

/// How many messages of a channel are ready.
pub(crate) enum Panels {
    Postgres(Lookup<Postgres, i64, i64>),
    Sqlite(Lookup<Sqlite, i64, i64>),
}

impl Panels {
    /// Each query holds its connection for `hold`, besides the time that it takes.
    pub(crate) fn of(pool: &Guarded, hold: Duration) -> Self {
        match pool {
            Guarded::Postgres(pool) => Self::Postgres(
                pool.lookup(NAME, move |connection, channels| postgres::panels(connection, channels, hold)),
            ),
            Guarded::Sqlite(pool) => Self::Sqlite(
                pool.lookup(NAME, move |connection, channels| sqlite::panels(connection, channels, hold)),
            ),
        }
    }

    /// That of one channel.
    pub(crate) async fn get(&self, channel: i64) -> Result<i64, LookupError> {
        let ready = match self {
            Self::Postgres(lookup) => lookup.get(channel).await?,
            Self::Sqlite(lookup) => lookup.get(channel).await?,
        };
        Ok(ready.unwrap_or_default())
    }
}
