//! The database of a drill: made for it, counted afterwards, and dropped.
//!
//! On PostgreSQL it is a schema of its own on the given server. If the given role is a superuser, the services
//! of the drill get a normal role, also made for it: the server keeps connections back for superusers, so with
//! one of them nobody would ever be told that there are too many clients.

use std::{
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use sqlx::{Connection as _, PgConnection, SqliteConnection};

use super::transitions_lab::Connection;
use crate::desk::{postgres, sqlite};

/// More rows than requests that made them.
const DOUBLED: &str = "SELECT CAST(coalesce(sum(made - 1), 0) AS BIGINT) FROM \
                       (SELECT count(*) AS made FROM tasks GROUP BY request_id) AS requests";

/// A drill's database. Call [`Lab::close`] to drop it.
pub(crate) enum Lab {
    Sqlite(SqliteLab),
    Postgres(PostgresLab),
}

pub(crate) struct SqliteLab {
    folder: PathBuf,
    url: String,
    connection: SqliteConnection,
}

pub(crate) struct PostgresLab {
    given: String,
    schema: String,
    /// The role made for the drill, if one was.
    role: Option<String>,
    url: String,
    connection: PgConnection,
}

impl Lab {
    /// A fresh database with the desk's rows: on the server at `url`, or on SQLite in a temporary folder.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, or its role may not make a schema; what was made is dropped again.
    pub(crate) async fn open(url: Option<&str>) -> Result<Self, Box<dyn std::error::Error>> {
        match url {
            None => SqliteLab::open().await.map(Self::Sqlite),
            Some(url) if url.starts_with("postgres") => PostgresLab::open(url).await.map(Self::Postgres),
            Some(url) => {
                Err(format!("{url} is not the address of a PostgreSQL server (postgres://…)").into())
            }
        }
    }

    /// Where the drill's services find it.
    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Sqlite(lab) => &lab.url,
            Self::Postgres(lab) => &lab.url,
        }
    }

    /// The database's name and version.
    pub(crate) async fn version(&mut self) -> Result<String, sqlx::Error> {
        let (name, version): (_, String) = match self {
            Self::Sqlite(lab) => {
                let version = sqlx::query_scalar("SELECT sqlite_version()");
                ("sqlite", version.fetch_one(&mut lab.connection).await?)
            }
            Self::Postgres(lab) => {
                let version = sqlx::query_scalar("SHOW server_version");
                ("postgresql", version.fetch_one(&mut lab.connection).await?)
            }
        };
        let digits: Vec<_> = version.split([' ', '.']).take(2).collect();
        Ok(format!("{name} {}", digits.join(".")))
    }

    /// How many effects there are beyond one a request.
    pub(crate) async fn doubled(&mut self) -> Result<i64, sqlx::Error> {
        match self {
            Self::Sqlite(lab) => sqlx::query_scalar(DOUBLED).fetch_one(&mut lab.connection).await,
            Self::Postgres(lab) => sqlx::query_scalar(DOUBLED).fetch_one(&mut lab.connection).await,
        }
    }

    /// Takes away what a run has written.
    pub(crate) async fn wipe(&mut self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(lab) => {
                sqlx::query("DELETE FROM tasks").execute(&mut lab.connection).await.map(drop)
            }
            Self::Postgres(lab) => sqlx::query("TRUNCATE tasks").execute(&mut lab.connection).await.map(drop),
        }
    }

    /// The connection by which the lab is made and looked at.
    pub(super) fn connection(&mut self) -> Connection<'_> {
        match self {
            Self::Sqlite(lab) => Connection::Sqlite(&mut lab.connection),
            Self::Postgres(lab) => Connection::Postgres(&mut lab.connection),
        }
    }

    /// A connection to look at the server with, where there is one. It must have its place before the load.
    pub(crate) async fn observer(&self) -> Result<Option<PgConnection>, sqlx::Error> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(lab) => PgConnection::connect(&lab.given).await.map(Some),
        }
    }

    /// Drops all that was made.
    pub(crate) async fn close(self) -> Result<(), Box<dyn std::error::Error>> {
        match self {
            Self::Sqlite(lab) => lab.close().await,
            Self::Postgres(lab) => lab.close().await,
        }
    }
}

/// Tells drills apart that run at the same time.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("selfheal_drill_{}_{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl SqliteLab {
    async fn open() -> Result<Self, Box<dyn std::error::Error>> {
        let folder = std::env::temp_dir().join(unique());
        std::fs::create_dir_all(&folder)?;
        let url = format!("sqlite://{}", folder.join("desk.db").display());
        let mut connection = SqliteConnection::connect_with(&sqlite::options(&url)?).await?;
        sqlite::prepare(&mut connection).await?;
        Ok(Self { folder, url, connection })
    }

    async fn close(self) -> Result<(), Box<dyn std::error::Error>> {
        self.connection.close().await?;
        Ok(std::fs::remove_dir_all(self.folder)?)
    }
}

impl PostgresLab {
    async fn open(given: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let mut connection = PgConnection::connect(given).await?;
        let superuser = sqlx::query_scalar("SELECT rolsuper FROM pg_roles WHERE rolname = current_user");
        let superuser: bool = superuser.fetch_one(&mut connection).await?;
        let schema = unique();
        // A password that whoever can read this process's memory could read anyway, for a role of seconds.
        let secret: String = sqlx::query_scalar("SELECT md5(random()::text || clock_timestamp()::text)")
            .fetch_one(&mut connection)
            .await?;
        let separator = if given.contains('?') { '&' } else { '?' };
        let mut url = format!("{given}{separator}options=-c%20search_path%3D{schema}");
        if superuser {
            url.push_str(&format!("&user={schema}&password={secret}"));
        }
        let role = superuser.then(|| schema.clone());
        let mut lab = Self { given: given.to_owned(), schema, role, url, connection };
        if let Err(error) = lab.fill(&secret).await {
            lab.close().await?;
            return Err(error.into());
        }
        Ok(lab)
    }

    async fn fill(&mut self, secret: &str) -> Result<(), sqlx::Error> {
        let schema = &self.schema;
        let mut setup = format!("CREATE SCHEMA {schema}; SET search_path = {schema};");
        if let Some(role) = &self.role {
            setup.push_str(&format!(
                "CREATE ROLE {role} LOGIN PASSWORD '{secret}'; GRANT USAGE, CREATE ON SCHEMA {schema} TO {role};"
            ));
        }
        // Every name in it was made above.
        sqlx::raw_sql(sqlx::AssertSqlSafe(setup)).execute(&mut self.connection).await?;
        // The services of the drill own their tables, as they would anywhere.
        let mut services = PgConnection::connect(&self.url).await?;
        postgres::prepare(&mut services).await?;
        services.close().await
    }

    async fn close(mut self) -> Result<(), Box<dyn std::error::Error>> {
        let mut teardown = format!("DROP SCHEMA IF EXISTS {} CASCADE;", self.schema);
        if let Some(role) = &self.role {
            teardown.push_str(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role};"));
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(teardown)).execute(&mut self.connection).await?;
        Ok(self.connection.close().await?)
    }
}
