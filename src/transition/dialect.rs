//! What differs between the databases.

use std::collections::HashSet;

use futures_core::future::BoxFuture;
use futures_util::{FutureExt as _, future};
use serde::Serialize;
use sqlx::{
    AssertSqlSafe, Database, Encode, Executor, Postgres, Row as _, Sqlite, Type, postgres::PgRow,
    sqlite::SqliteRow,
};

use super::statements::Statements;

/// A change that is asked for.
pub struct Change<'a, K> {
    pub(super) statements: &'a Statements,
    pub(super) keys: &'a [K],
    pub(super) to: &'a str,
    /// Statuses that may become it.
    pub(super) allowed: Vec<String>,
    /// Whether others may not.
    pub(super) enforced: bool,
}

/// What became of the row of one key.
#[derive(Debug)]
pub struct Seen {
    /// The key's place in the list, from 0.
    pub(super) index: usize,
    /// Its state, if there is such a row: before the change, or if that was not made.
    pub(super) state: Option<String>,
    pub(super) moved: bool,
}

/// A database whose rows are found by keys of type `K`. Sealed: PostgreSQL takes what sqlx can send as an array
/// (`i64`, `String`, …), SQLite what serde writes as a number or a string of JSON.
pub trait Dialect<K>: Database + sealed::Sealed {
    #[doc(hidden)]
    fn change<'c, E>(executor: E, change: Change<'_, K>) -> BoxFuture<'c, Result<Vec<Seen>, sqlx::Error>>
    where
        E: Executor<'c, Database = Self>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for sqlx::Postgres {}
    impl Sealed for sqlx::Sqlite {}
}

impl<K> Dialect<K> for Postgres
where
    K: Clone + Sync,
    Vec<K>: for<'q> Encode<'q, Self> + Type<Self> + Send,
{
    fn change<'c, E>(executor: E, change: Change<'_, K>) -> BoxFuture<'c, Result<Vec<Seen>, sqlx::Error>>
    where
        E: Executor<'c, Database = Self>,
    {
        // Its only names are those of the target, which were checked and are quoted.
        let query = sqlx::query(AssertSqlSafe(change.statements.postgres.clone()))
            .bind(change.keys.to_vec())
            .bind(change.to.to_owned())
            .bind(change.allowed)
            .bind(!change.enforced);
        let seen = |row: &PgRow| {
            let n: i64 = row.try_get("n")?;
            Ok(Seen { index: index(n - 1), state: row.try_get("status")?, moved: row.try_get("moved")? })
        };
        executor.fetch_all(query).map(move |rows| rows?.iter().map(seen).collect()).boxed()
    }
}

impl<K: Serialize + Sync> Dialect<K> for Sqlite {
    fn change<'c, E>(executor: E, change: Change<'_, K>) -> BoxFuture<'c, Result<Vec<Seen>, sqlx::Error>>
    where
        E: Executor<'c, Database = Self>,
    {
        let Statements { sqlite, sqlite_observing, .. } = change.statements;
        let text = if change.enforced { sqlite } else { sqlite_observing };
        // As above.
        let (keys, allowed) = match (json(change.keys), json(&change.allowed)) {
            (Ok(keys), Ok(allowed)) => (keys, allowed),
            (Err(error), _) | (_, Err(error)) => return future::ready(Err(error)).boxed(),
        };
        let query = sqlx::query(AssertSqlSafe(text.clone()))
            .bind(keys)
            .bind(change.to.to_owned())
            .bind(allowed)
            .bind(!change.enforced);
        executor.fetch_all(query).map(|rows| together(&rows?)).boxed()
    }
}

/// What the two statements say of each key.
fn together(rows: &[SqliteRow]) -> Result<Vec<Seen>, sqlx::Error> {
    let (mut looked, mut moved) = (Vec::new(), HashSet::new());
    for row in rows {
        let (n, key, status): (Option<i64>, Option<String>, Option<String>) =
            (row.try_get("n")?, row.try_get("key")?, row.try_get("status")?);
        match (n, key) {
            (Some(n), key) => looked.push((n, key, status)),
            (None, key) => moved.extend(key),
        }
    }
    let seen = looked.into_iter().map(|(n, key, state)| Seen {
        index: index(n),
        moved: key.is_some_and(|key| moved.contains(&key)),
        state,
    });
    Ok(seen.collect())
}

fn index(n: i64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn json(list: &(impl Serialize + ?Sized)) -> Result<String, sqlx::Error> {
    serde_json::to_string(list).map_err(|error| sqlx::Error::Encode(error.into()))
}
