//! The database under test, and what befalls it.

use std::{error::Error, net::TcpListener, process::Command, time::Duration};

use sqlx::{Connection, Executor, PgConnection, postgres::PgConnectOptions};

use crate::{
    scenario::Trouble,
    server::{Database, Server, server},
};

/// A private PostgreSQL with one database, in which callers write down what they have done.
pub(crate) struct Fixture {
    server: &'static Server,
    database: Database,
}

/// A trouble that lasts.
pub(crate) enum Troubled {
    No,
    Outsider { _sessions: Vec<PgConnection> },
    Stopped(Vec<String>),
}

/// Writes that were said to be done and are not there, and such as are there twice.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Written {
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
}

impl Fixture {
    pub(crate) async fn start() -> Result<Self, Box<dyn Error>> {
        let server = server().ok_or("PostgreSQL is needed: install the package `postgresql`")?;
        let database = server.alone().await;
        let mut owner = PgConnection::connect_with(&database.options()).await?;
        // Not logged: what it costs to write must not be what is measured.
        owner.execute("create unlogged table done (id bigint not null)").await?;
        owner.close().await?;
        Ok(Self { server, database })
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        self.database.options()
    }

    pub(crate) fn url(&self) -> String {
        self.database.url()
    }

    pub(crate) async fn version(&self) -> Result<String, sqlx::Error> {
        sqlx::query_scalar("show server_version").fetch_one(&mut self.server.admin().await).await
    }

    /// Nobody is connected, and nothing is written.
    pub(crate) async fn clear(&self) -> Result<(), Box<dyn Error>> {
        // A superuser's connection takes no slot from anybody.
        let mut admin = self.server.admin().await;
        for _ in 0..100 {
            let left: i64 = sqlx::query_scalar(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'app'",
            )
            .fetch_one(&mut admin)
            .await?;
            if left == 0 {
                let mut owner = PgConnection::connect_with(&self.options()).await?;
                owner.execute("truncate done").await?;
                return Ok(owner.close().await?);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("sessions of the last run do not end".into())
    }

    /// Compares what was said to be done with what is.
    pub(crate) async fn written(&self, acknowledged: &[i64]) -> Result<Written, sqlx::Error> {
        let mut reader = PgConnection::connect_with(&self.options()).await?;
        let mut there: Vec<i64> =
            sqlx::query_scalar("select id from done where id >= 0").fetch_all(&mut reader).await?;
        reader.close().await?;
        there.sort_unstable();
        let doubled = there.windows(2).filter(|pair| pair[0] == pair[1]).count();
        let lost = acknowledged.iter().filter(|id| there.binary_search(id).is_err()).count();
        Ok(Written { lost, doubled })
    }

    /// Trouble begins.
    pub(crate) async fn trouble(&self, trouble: Trouble) -> Result<Troubled, Box<dyn Error>> {
        Ok(match trouble {
            Trouble::None => Troubled::No,
            Trouble::Outsider(sessions) => {
                let mut taken = Vec::new();
                // It takes what it gets.
                while let Ok(session) = PgConnection::connect_with(&self.options()).await
                    && taken.len() < sessions as usize
                {
                    taken.push(session);
                }
                Troubled::Outsider { _sessions: taken }
            }
            Trouble::Stall => {
                let pids = self.pids().await?;
                signal("-STOP", &pids)?;
                Troubled::Stopped(pids)
            }
        })
    }

    /// How many sessions callers have.
    pub(crate) async fn sessions(&self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("select count(*) from pg_stat_activity where usename = 'app'")
            .fetch_one(&mut self.server.admin().await)
            .await
    }

    async fn pids(&self) -> Result<Vec<String>, sqlx::Error> {
        sqlx::query_scalar("select pid::text from pg_stat_activity where usename = 'app'")
            .fetch_all(&mut self.server.admin().await)
            .await
    }
}

impl Drop for Troubled {
    /// It is over. A session that is left standing could not even be ended.
    fn drop(&mut self) {
        if let Self::Stopped(pids) = self {
            // Sessions that have ended meanwhile cannot be told.
            let _ = signal("-CONT", pids);
        }
    }
}

fn signal(signal: &str, pids: &[String]) -> std::io::Result<()> {
    Command::new("kill").arg(signal).args(pids).status().map(drop)
}

pub(crate) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}
