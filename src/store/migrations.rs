//! How the tables come to be, and how versions of this program live with them side by side.
//!
//! Each step is one file of SQL and one transaction, written down in a table of its own, so that a host's own
//! migrations are not met. **Steps only add**: a program of the version before goes on working with the tables of the
//! next one. Each step says which version it works with at least ([`Migration::works_with`]); a program that finds steps
//! it does not know goes on if all of them say that they work with what it knows.
//!
//! Once the tables are there nothing but reading and writing rows is needed: a service may run under a role that must
//! not create tables, after `selfheal migrate` was run under one that may.

use std::fmt;

use super::dialect::Dialect;
use crate::db::message;

/// A step from one set of tables to the next.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number: 1, 2, 3…
    pub version: i64,
    /// What it adds.
    pub name: &'static str,
    /// The oldest version of which a program knows enough to work with the tables after this step.
    pub works_with: i64,
    /// What it does.
    pub sql: &'static str,
}

/// The table of steps.
pub(super) const TABLE: &str = "\
create table if not exists selfheal_migrations (
    version bigint primary key,
    name text not null,
    works_with bigint not null,
    at timestamp not null default current_timestamp
);
";

pub(super) const STEPS: &str = "select version, works_with from selfheal_migrations order by version";

pub(super) const POSTGRES: &[Migration] =
    &[Migration { version: 1, name: "jobs", works_with: 1, sql: include_str!("sql/postgres/001_jobs.sql") }];

pub(super) const SQLITE: &[Migration] =
    &[Migration { version: 1, name: "jobs", works_with: 1, sql: include_str!("sql/sqlite/001_jobs.sql") }];

/// How the tables of a database stand to what this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// They are what it knows, or newer and made to work with it.
    Usable,
    /// Steps are missing.
    Behind {
        /// The last step that was taken; 0 if none was.
        at: i64,
    },
    /// A newer program has changed them so that this one cannot work with them.
    TooNew {
        /// The last step that was taken.
        at: i64,
    },
}

/// Why the tables cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum MigrateError {
    /// They are made for newer programs only.
    TooNew {
        /// The last step that was taken.
        at: i64,
    },
    /// The database said no.
    Sqlx(sqlx::Error),
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooNew { at } => {
                write!(f, "the tables are of version {at}, which is too new for this program")
            }
            Self::Sqlx(error) => write!(f, "make the tables of durable work: {}", message(error)),
        }
    }
}

impl std::error::Error for MigrateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TooNew { .. } => None,
            Self::Sqlx(error) => Some(error),
        }
    }
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx(error)
    }
}

/// How the tables stand that `conn` sees.
///
/// # Errors
/// Those of the database.
pub async fn schema<DB: Dialect>(conn: &mut DB::Connection) -> Result<Schema, sqlx::Error> {
    Ok(judge(&DB::steps(conn).await?, DB::MIGRATIONS))
}

fn judge(taken: &[(i64, i64)], known: &[Migration]) -> Schema {
    let newest = known.iter().map(|step| step.version).max().unwrap_or(0);
    let at = taken.iter().map(|(version, _)| *version).max().unwrap_or(0);
    let unknown = taken.iter().filter(|(version, _)| *version > newest);
    if unknown.clone().any(|(_, works_with)| *works_with > newest) {
        Schema::TooNew { at }
    } else if known.iter().all(|step| taken.iter().any(|(version, _)| *version == step.version)) {
        Schema::Usable
    } else {
        Schema::Behind { at }
    }
}

/// Takes the steps that are missing, each in a transaction of its own; says which. Several at once wait for one
/// another. Where none is missing it only reads.
///
/// **Cancel safety**: dropped, it leaves the connection in a transaction. Drop the connection, too.
///
/// # Errors
/// [`MigrateError`]; the steps before the one that failed were taken.
pub async fn migrate<DB: Dialect>(
    conn: &mut DB::Connection,
) -> Result<Vec<&'static Migration>, MigrateError> {
    let mut taken = Vec::new();
    loop {
        match schema::<DB>(conn).await? {
            Schema::Usable => return Ok(taken),
            Schema::TooNew { at } => return Err(MigrateError::TooNew { at }),
            Schema::Behind { .. } => {}
        }
        DB::begin_migration(conn).await?;
        match step::<DB>(conn).await {
            Ok(step) => {
                DB::run(conn, "commit").await?;
                taken.extend(step);
            }
            Err(error) => {
                // What failed is what is told.
                let _ = DB::run(conn, "rollback").await;
                return Err(error.into());
            }
        }
    }
}

/// Takes the first step that is missing. Nobody else takes one meanwhile; somebody may have before.
async fn step<DB: Dialect>(conn: &mut DB::Connection) -> Result<Option<&'static Migration>, sqlx::Error> {
    let taken = DB::steps(conn).await?;
    let missing = |step: &&Migration| taken.iter().all(|(version, _)| *version != step.version);
    let Some(step) = DB::MIGRATIONS.iter().find(missing) else { return Ok(None) };
    DB::run(conn, TABLE).await?;
    DB::run(conn, step.sql).await?;
    DB::took(conn, step).await?;
    Ok(Some(step))
}

/// All of it as one script, for somebody who runs it by hand.
#[must_use]
pub fn script<DB: Dialect>() -> String {
    let mut script = format!("begin;\n{TABLE}");
    for Migration { version, name, works_with, sql } in DB::MIGRATIONS {
        script.push_str(&format!(
            "\n-- {version}: {name}\n{sql}\ninsert into selfheal_migrations (version, name, works_with) \
             values ({version}, '{name}', {works_with});\n"
        ));
    }
    script + "commit;\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn step(version: i64, works_with: i64) -> Migration {
        Migration { version, name: "a step", works_with, sql: "" }
    }

    #[test]
    fn a_program_lives_with_newer_tables_if_they_say_so() {
        let known = [step(1, 1), step(2, 1)];
        assert_eq!(judge(&[], &known), Schema::Behind { at: 0 });
        assert_eq!(judge(&[(1, 1)], &known), Schema::Behind { at: 1 });
        assert_eq!(judge(&[(1, 1), (2, 1)], &known), Schema::Usable);
        assert_eq!(judge(&[(1, 1), (2, 1), (3, 2)], &known), Schema::Usable, "the next version side by side");
        assert_eq!(judge(&[(1, 1), (2, 1), (3, 2), (4, 3)], &known), Schema::TooNew { at: 4 });
    }

    #[test]
    fn steps_are_numbered_without_gaps_alike_in_both_databases() {
        for known in [POSTGRES, SQLITE] {
            let versions: Vec<_> = known.iter().map(|step| step.version).collect();
            assert_eq!(versions, (1..=known.len() as i64).collect::<Vec<_>>());
            assert!(known.iter().all(|step| step.works_with <= step.version));
        }
        assert_eq!(POSTGRES.len(), SQLITE.len());
    }
}
