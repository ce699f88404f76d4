//! What differs between the databases, and nothing else.
//!
//! Sealed: a guarded pool relies on how exactly a driver behaves when it is interrupted, and that was read and
//! tried for these two. The methods are not for callers; they are here because sqlx's own bound ("`&mut
//! Connection` is an executor, for every lifetime") would otherwise have to be repeated by every generic
//! function of every host.

use std::{fmt::Write as _, time::Duration};

use futures_core::{future::BoxFuture, stream::BoxStream};
use sqlx::{
    Connection, Database, Describe, Either, Execute, Executor, Postgres, SqlStr, Sqlite,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{
    census::{self, Census, Wanted},
    settings::{Gap, Settings},
    statement::Owned,
};

/// The options with which a connection of `DB` is made.
pub type ConnectOptionsOf<DB> = <<DB as Database>::Connection as Connection>::Options;

/// A session, as its server calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session(i32);

/// A row, or the end of one statement's rows.
pub(super) type Step<DB> = Either<<DB as Database>::QueryResult, <DB as Database>::Row>;

/// A database that a [`HealPool`](super::HealPool) can stand in front of.
pub trait Backend: Database<Arguments: Clone + 'static, Statement: 'static> + sealed::Sealed {
    /// The options, with what a service under pressure needs and they do not say yet.
    #[doc(hidden)]
    fn harden(options: ConnectOptionsOf<Self>, settings: &Settings) -> ConnectOptionsOf<Self>;

    /// What such options lack.
    #[doc(hidden)]
    fn gaps(options: &ConnectOptionsOf<Self>) -> Vec<Gap>;

    #[doc(hidden)]
    fn fetch_many<'c>(
        conn: &'c mut Self::Connection,
        query: Owned<Self>,
    ) -> BoxStream<'c, Result<Step<Self>, sqlx::Error>>;

    #[doc(hidden)]
    fn fetch_optional<'c>(
        conn: &'c mut Self::Connection,
        query: Owned<Self>,
    ) -> BoxFuture<'c, Result<Option<Self::Row>, sqlx::Error>>;

    #[doc(hidden)]
    fn prepare<'c>(
        conn: &'c mut Self::Connection,
        sql: SqlStr,
        parameters: &'c [Self::TypeInfo],
    ) -> BoxFuture<'c, Result<Self::Statement, sqlx::Error>>;

    #[doc(hidden)]
    fn describe(
        conn: &mut Self::Connection,
        sql: SqlStr,
    ) -> BoxFuture<'_, Result<Describe<Self>, sqlx::Error>>;

    /// Whether the server only repeats what another one writes. After a failover the old primary does.
    #[doc(hidden)]
    fn is_standby(conn: &mut Self::Connection) -> BoxFuture<'_, Result<bool, sqlx::Error>>;

    /// Ends each statement of this session after `bound`, and says which session it is.
    #[doc(hidden)]
    fn bind(conn: &mut Self::Connection, bound: Duration) -> BoxFuture<'_, Result<Session, sqlx::Error>>;

    /// The session's statements end as they did when it began.
    #[doc(hidden)]
    fn loosen(conn: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// Ends the statement that a session runs which has been ours for `held`. Says whether there was one.
    #[doc(hidden)]
    fn cancel(
        conn: &mut Self::Connection,
        session: Session,
        held: Duration,
    ) -> BoxFuture<'_, Result<bool, sqlx::Error>>;

    /// Who is connected to the server; `None` where there is none. Says meanwhile, to other gates, what is
    /// `wanted` for the pool of `options`.
    #[doc(hidden)]
    fn census<'c>(
        conn: &'c mut Self::Connection,
        options: &'c ConnectOptionsOf<Self>,
        wanted: Wanted,
    ) -> BoxFuture<'c, Result<Option<Census>, sqlx::Error>>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for sqlx::Postgres {}
    impl Sealed for sqlx::Sqlite {}
}

/// The four calls that every executor of sqlx has, on a connection.
macro_rules! as_sqlx_does {
    () => {
        fn fetch_many<'c>(
            conn: &'c mut Self::Connection,
            query: Owned<Self>,
        ) -> BoxStream<'c, Result<Step<Self>, sqlx::Error>> {
            Executor::fetch_many(conn, query)
        }

        fn fetch_optional<'c>(
            conn: &'c mut Self::Connection,
            query: Owned<Self>,
        ) -> BoxFuture<'c, Result<Option<Self::Row>, sqlx::Error>> {
            Executor::fetch_optional(conn, query)
        }

        fn prepare<'c>(
            conn: &'c mut Self::Connection,
            sql: SqlStr,
            parameters: &'c [Self::TypeInfo],
        ) -> BoxFuture<'c, Result<Self::Statement, sqlx::Error>> {
            Executor::prepare_with(conn, sql, parameters)
        }

        fn describe(
            conn: &mut Self::Connection,
            sql: SqlStr,
        ) -> BoxFuture<'_, Result<Describe<Self>, sqlx::Error>> {
            Executor::describe(conn, sql)
        }
    };
}

impl Backend for Postgres {
    as_sqlx_does!();

    /// What the caller has set already stays as it is.
    fn harden(mut options: PgConnectOptions, settings: &Settings) -> PgConnectOptions {
        if options.get_application_name().is_none() {
            options = options.application_name(&settings.application_name);
        }
        let bounds = [
            ("statement_timeout", settings.statement_timeout),
            ("idle_in_transaction_session_timeout", settings.idle_in_transaction),
        ];
        let missing = bounds.into_iter().filter(|(key, _)| !is_set(&options, key));
        let missing: Vec<_> = missing.map(|(key, bound)| (key, milliseconds(bound))).collect();
        options.options(missing)
    }

    fn gaps(options: &PgConnectOptions) -> Vec<Gap> {
        let bounds = [
            ("statement_timeout", Gap::StatementTimeout),
            ("idle_in_transaction_session_timeout", Gap::IdleInTransaction),
        ];
        let unset = bounds.into_iter().filter(|(key, _)| !is_set(options, key)).map(|(_, gap)| gap);
        unset.chain(options.get_application_name().is_none().then_some(Gap::ApplicationName)).collect()
    }

    fn is_standby(conn: &mut Self::Connection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        Box::pin(sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(conn))
    }

    fn bind(conn: &mut Self::Connection, bound: Duration) -> BoxFuture<'_, Result<Session, sqlx::Error>> {
        Box::pin(async move {
            let bind =
                "select pg_backend_pid() from (select set_config('statement_timeout', $1, false)) as bound";
            sqlx::query_scalar(bind).bind(milliseconds(bound)).fetch_one(conn).await.map(Session)
        })
    }

    fn loosen(conn: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async { sqlx::query("reset statement_timeout").execute(conn).await.map(drop) })
    }

    /// A process that began later than the session was ours has only its number.
    fn cancel(
        conn: &mut Self::Connection,
        Session(process): Session,
        held: Duration,
    ) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        Box::pin(async move {
            let cancel = "select coalesce(bool_or(pg_cancel_backend(pid)), false) from pg_stat_activity \
                          where pid = $1 and state = 'active' and backend_start <= now() - make_interval(secs => $2)";
            sqlx::query_scalar(cancel).bind(process).bind(held.as_secs_f64()).fetch_one(conn).await
        })
    }

    fn census<'c>(
        conn: &'c mut Self::Connection,
        options: &'c PgConnectOptions,
        wanted: Wanted,
    ) -> BoxFuture<'c, Result<Option<Census>, sqlx::Error>> {
        let name = options.get_application_name().unwrap_or_default();
        Box::pin(async move { census::take(conn, name, wanted).await.map(Some) })
    }
}

impl Backend for Sqlite {
    as_sqlx_does!();

    /// A write-ahead log, so that readers and the one writer do not wait for each other; writers wait for one
    /// another instead of failing at once; foreign keys are kept.
    fn harden(options: SqliteConnectOptions, settings: &Settings) -> SqliteConnectOptions {
        options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(settings.busy_timeout)
            .foreign_keys(true)
    }

    /// sqlx shows none of SQLite's options.
    fn gaps(_: &SqliteConnectOptions) -> Vec<Gap> {
        Vec::new()
    }

    fn is_standby(_: &mut Self::Connection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        Box::pin(async { Ok(false) })
    }

    /// Nothing stops a statement of SQLite, and no pool of it is told to.
    fn bind(_: &mut Self::Connection, _: Duration) -> BoxFuture<'_, Result<Session, sqlx::Error>> {
        Box::pin(async { Ok(Session(0)) })
    }

    fn loosen(_: &mut Self::Connection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async { Ok(()) })
    }

    fn cancel(_: &mut Self::Connection, _: Session, _: Duration) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        Box::pin(async { Ok(false) })
    }

    fn census<'c>(
        _: &'c mut Self::Connection,
        _: &'c SqliteConnectOptions,
        _: Wanted,
    ) -> BoxFuture<'c, Result<Option<Census>, sqlx::Error>> {
        Box::pin(async { Ok(None) })
    }
}

impl<DB: Backend> Execute<'static, DB> for Owned<DB> {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&DB::Statement> {
        self.statement.as_ref()
    }

    fn take_arguments(&mut self) -> Result<Option<DB::Arguments>, sqlx::error::BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

/// Whether the start-up options set `key`, as `-c key=value` or `--key=value`.
fn is_set(options: &PgConnectOptions, key: &str) -> bool {
    let words = options.get_options().unwrap_or_default().split([' ', '=']);
    words.map(|word| word.trim_start_matches("--").trim_start_matches("-c")).any(|word| word == key)
}

fn milliseconds(bound: Duration) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail. Zero would mean "no bound" to PostgreSQL.
    let _ = write!(text, "{}", bound.as_millis().max(1));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardening_sets_what_is_missing_and_leaves_what_is_said() {
        let settings = Settings::default();
        let bare = PgConnectOptions::new_without_pgpass();
        assert_eq!(Postgres::gaps(&bare).len(), 3);
        assert!(Postgres::gaps(&Postgres::harden(bare.clone(), &settings)).is_empty());

        let said = bare.application_name("desk").options([("statement_timeout", "5min")]);
        let hardened = Postgres::harden(said, &settings);
        assert_eq!(hardened.get_application_name(), Some("desk"));
        let options = hardened.get_options().expect("some are set");
        assert_eq!(options.matches("statement_timeout").count(), 1, "{options}");
        assert!(options.contains("idle_in_transaction_session_timeout=30000"), "{options}");
    }

    #[test]
    fn another_key_with_the_same_end_is_not_that_key() {
        let options = PgConnectOptions::new_without_pgpass().options([("my.statement_timeout", "1s")]);
        assert!(Postgres::gaps(&options).contains(&Gap::StatementTimeout));
    }
}
