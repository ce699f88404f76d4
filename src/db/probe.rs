//! What the database server itself says, asked outside the pool.
//!
//! A pool's maximum is a wish. What there is to hand out is what the server has left: its slots, less those kept
//! for superusers, less our two outside the pool, less what others hold. "Others" are counted, not guessed: all
//! client sessions less our own. A role or a database may have a limit of its own, which is treated alike.
//!
//! The question is asked over a connection that was opened when nothing was wrong and stays open, so that it can
//! be asked when no new connection is to be had. It must live on the runtime of whoever asks.

use std::fmt;

use sqlx::{ConnectOptions, Connection, PgConnection, Pool, Row};

use super::{backend::Backend, error::Error, health};

/// Connections that we keep outside the pool: this one, and the one that finds out why there is none.
const CONTROL: u32 = 2;

/// Who is connected to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    max: u32,
    reserved: u32,
    server: Share,
    role: Share,
    database: Share,
}

/// Sessions in use, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    used: u32,
    /// `None`: no limit.
    of: Option<u32>,
}

/// What the server has, and what of it the pool may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerTruth {
    /// Connections that the server accepts at all (`max_connections`).
    pub max: u32,
    /// Of these, connections kept for superusers and privileged roles.
    pub reserved: u32,
    /// Connections in use, by us and by others.
    pub used: u32,
    /// Connections that the pool's gate may hand out: at most the pool's maximum, at least one.
    pub limit: u32,
}

/// A question to the server, over a connection of its own that stays open.
pub struct Probe<DB: Backend> {
    pool: Pool<DB>,
    max: u32,
    connection: Option<DB::Connection>,
}

impl<DB: Backend> Probe<DB> {
    pub(super) const fn new(pool: Pool<DB>, max: u32) -> Self {
        Self { pool, max, connection: None }
    }

    /// Asks the server. `None` where there is no server to ask (SQLite). The first call opens the connection,
    /// on the runtime that polls it; one that is lost is replaced by the next call. Takes at most 2 seconds.
    ///
    /// Cancel safety: a dropped call loses the connection, and the next one opens another.
    ///
    /// # Errors
    /// [`Error::Sqlx`] if the server cannot be asked: then the limit should stay as it is.
    pub async fn server_truth(&mut self) -> Result<Option<ServerTruth>, Error> {
        let (census, connection) = tokio::time::timeout(health::PATIENCE * 2, self.ask())
            .await
            .map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))??;
        self.connection = Some(connection);
        Ok(census.map(|census| census.truth(self.max, self.pool.size() + 1)))
    }

    /// The connection is put back by the caller, once it is known to be at rest.
    async fn ask(&mut self) -> Result<(Option<Census>, DB::Connection), sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.pool.connect_options().connect().await?,
        };
        let census = DB::census(&mut connection).await?;
        Ok((census, connection))
    }

    /// Closes the connection.
    pub async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            // It ends either way.
            let _ = tokio::time::timeout(health::PATIENCE, connection.close()).await;
        }
    }
}

impl<DB: Backend> fmt::Debug for Probe<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("open", &self.connection.is_some()).finish()
    }
}

impl Census {
    /// What that leaves a pool of at most `max`, of whose sessions `ours` are open.
    fn truth(&self, max: u32, ours: u32) -> ServerTruth {
        let shares = [self.server, self.role, self.database];
        let room = shares.iter().filter_map(|share| share.room(ours)).min().unwrap_or(max);
        ServerTruth {
            max: self.max,
            reserved: self.reserved,
            used: self.server.used,
            limit: room.clamp(1, max.max(1)),
        }
    }
}

impl Share {
    fn room(self, ours: u32) -> Option<u32> {
        let others = self.used.saturating_sub(ours);
        Some(self.of?.saturating_sub(others).saturating_sub(CONTROL))
    }
}

/// Every role sees that a session exists and whose it is. What kind it is ("client backend") only privileged
/// roles see of others; workers of the server itself are left out by having no database or no user.
const CENSUS: &str = "\
    with clients as (
        select usesysid, datid from pg_stat_activity
        where usesysid is not null and datid is not null
        and coalesce(backend_type, 'client backend') = 'client backend'
    )
    select
        current_setting('max_connections')::int8 as max,
        current_setting('superuser_reserved_connections')::int8
            + coalesce(current_setting('reserved_connections', true), '0')::int8 as reserved,
        (select count(*) from clients) as used,
        r.rolconnlimit::int8 as role_of,
        (select count(*) from clients where usesysid = r.oid) as role_used,
        d.datconnlimit::int8 as database_of,
        (select count(*) from clients where datid = d.oid) as database_used
    from pg_roles r, pg_database d
    where r.rolname = current_user and d.datname = current_database()";

pub(super) async fn postgres_census(conn: &mut PgConnection) -> Result<Census, sqlx::Error> {
    let row = sqlx::query(CENSUS).fetch_one(conn).await?;
    let number = |column: &str| row.try_get::<i64, _>(column);
    let count = |column: &str| Ok::<_, sqlx::Error>(u32::try_from(number(column)?).unwrap_or(0));
    // A negative limit means that there is none.
    let limit = |column: &str| Ok::<_, sqlx::Error>(u32::try_from(number(column)?).ok());
    let (max, reserved) = (count("max")?, count("reserved")?);
    Ok(Census {
        max,
        reserved,
        server: Share { used: count("used")?, of: Some(max.saturating_sub(reserved)) },
        role: Share { used: count("role_used")?, of: limit("role_of")? },
        database: Share { used: count("database_used")?, of: limit("database_of")? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(used: u32) -> Census {
        let unlimited = Share { used, of: None };
        Census {
            max: 100,
            reserved: 3,
            server: Share { used, of: Some(97) },
            role: unlimited,
            database: unlimited,
        }
    }

    #[test]
    fn a_pool_may_use_what_the_server_has_left_for_it() {
        // 97 slots, 2 for control: a pool of 100 alone on the server gets 95.
        assert_eq!(census(41).truth(100, 41).limit, 95);
        // Others hold 30.
        assert_eq!(census(71).truth(100, 41).limit, 65);
        assert_eq!(census(71).truth(20, 5).limit, 20, "the pool's own maximum");
    }

    #[test]
    fn a_limit_never_falls_below_one_and_never_wraps() {
        assert_eq!(census(97).truth(100, 1).limit, 1);
        assert_eq!(census(3).truth(100, 50).limit, 95, "sessions that are still dialling are not seen yet");
    }

    #[test]
    fn a_limit_of_the_role_counts_too() {
        let mut census = census(60);
        census.role = Share { used: 15, of: Some(25) };
        assert_eq!(census.truth(100, 10).limit, 18, "25, less 5 of others, less 2");
    }
}
