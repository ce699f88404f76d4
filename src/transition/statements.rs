//! The texts of the statements that change statuses. One call is one text, however many rows it is about.
//!
//! **PostgreSQL.** Rows are locked first, in the order of their keys, and that is what makes it right: two calls
//! about the same rows cannot lock each other out, and what a row *was* is read under the lock, so that whoever lost a
//! race is told the state that the winner left behind. An `UPDATE` alone would wait for the winner and then leave the
//! row out, and a look beside it in the same statement would still see the state from before. (`FOR NO KEY UPDATE`
//! leaves foreign keys to the row alone.) The `UPDATE` asks for the state again: it holds by itself.
//!
//! **SQLite** has one writer, and no statement that writes and looks at once: the text is two statements, which run one
//! after the other on one connection. The `UPDATE` holds by itself. Outside a transaction another process may write
//! between the two, and what was found is then what the row is a moment later.
//!
//! A key that is given twice counts once. A row without a status has the state `''`, from which nothing leads.

use std::sync::Arc;

use super::target::Target;

/// The texts for one target.
#[derive(Clone, Debug)]
pub(super) struct Statements {
    pub(super) postgres: Arc<str>,
    /// Changes, then looks.
    pub(super) sqlite: Arc<str>,
    /// Claims the turn to write, looks, then changes: where nothing is held back, what a row was is seen only before.
    pub(super) sqlite_observing: Arc<str>,
}

impl Statements {
    pub(super) fn of(target: &Target) -> Self {
        let (change, look) = (sqlite_change(target), sqlite_look(target));
        Self {
            postgres: postgres(target).into(),
            sqlite: format!("{change}; {look}").into(),
            sqlite_observing: format!("{}; {look}; {change}", sqlite_claim(target)).into(),
        }
    }
}

/// `$1` keys, `$2` the new status, `$3` statuses that may become it, `$4` whether all others may, too.
fn postgres(target: &Target) -> String {
    let (table, status, key, cast) =
        (target.quoted_table(), target.quoted_status(), target.quoted_key(), target.cast());
    format!(
        "WITH wanted AS (SELECT key, min(n) AS n FROM unnest($1) WITH ORDINALITY AS given (key, n) GROUP BY key), \
         seen AS MATERIALIZED (SELECT {key} AS key, coalesce({status}::text, '') AS status FROM {table} \
         WHERE {key} = ANY ($1) ORDER BY {key} FOR NO KEY UPDATE), \
         moved AS (UPDATE {table} AS target SET {status} = $2{cast} FROM seen \
         WHERE target.{key} = seen.key AND target.{key} = ANY ($1) \
         AND ($4 OR target.{status}::text = ANY ($3)) RETURNING target.{key} AS key) \
         SELECT wanted.n, seen.status, moved.key IS NOT NULL AS moved FROM wanted \
         LEFT JOIN seen ON seen.key = wanted.key LEFT JOIN moved ON moved.key = wanted.key ORDER BY wanted.n"
    )
}

/// As for PostgreSQL, but keys and statuses are JSON.
fn sqlite_change(target: &Target) -> String {
    let (table, status, key) = (target.quoted_table(), target.quoted_status(), target.quoted_key());
    format!(
        "UPDATE {table} SET {status} = ?2 WHERE {key} IN (SELECT value FROM json_each(?1)) \
         AND (?4 OR {status} IN (SELECT value FROM json_each(?3))) \
         RETURNING NULL AS n, quote({key}) AS key, NULL AS status"
    )
}

/// Changes nothing, and makes the transaction that it is in, if it is in one, the writer: one that looked first could be
/// told afterwards that it may not write any more.
fn sqlite_claim(target: &Target) -> String {
    let (table, status) = (target.quoted_table(), target.quoted_status());
    format!("UPDATE {table} SET {status} = {status} WHERE 0")
}

fn sqlite_look(target: &Target) -> String {
    let (table, status, key) = (target.quoted_table(), target.quoted_status(), target.quoted_key());
    format!(
        "SELECT min(given.key) AS n, quote(target.{key}) AS key, \
         iif(target.{key} IS NULL, NULL, coalesce(CAST(target.{status} AS TEXT), '')) AS status \
         FROM json_each(?1) AS given LEFT JOIN {table} AS target ON target.{key} = given.value \
         GROUP BY given.value ORDER BY 1"
    )
}
