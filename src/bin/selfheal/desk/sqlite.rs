//! The desk on SQLite.

use std::{str::FromStr as _, time::Duration};

use futures_core::future::BoxFuture;
use sqlx::{
    SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::ask::{Arg, Ask, Count};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY,
    channel INTEGER NOT NULL,
    body TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('READY', 'PROMOTED', 'COMPLETED', 'SPAM_REVIEW'))
) STRICT;
CREATE INDEX IF NOT EXISTS messages_by_channel ON messages (channel, status);
CREATE INDEX IF NOT EXISTS messages_by_status ON messages (status, id);
CREATE TABLE IF NOT EXISTS tasks (
    id INTEGER PRIMARY KEY,
    message_id INTEGER NOT NULL REFERENCES messages,
    assignee TEXT NOT NULL,
    request_id TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'OPEN' CHECK (status IN ('OPEN', 'DONE'))
) STRICT;
CREATE INDEX IF NOT EXISTS tasks_by_assignee ON tasks (assignee, status);";

/// 7919 has no divisor in common with the number of messages, so it deals the kinds out over all ids.
const MESSAGES: &str = "
WITH RECURSIVE numbers (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < $2),
     dealt AS (SELECT id, (id * 7919) % $2 AS kind FROM numbers)
INSERT INTO messages (id, channel, body, status)
SELECT id, id % $1,
       CASE WHEN kind < $3 + $4 THEN 'You have won prize number ' || id ELSE 'Where is my order ' || id || '?' END,
       CASE WHEN kind < $3 THEN 'READY'
            WHEN kind < $3 + $4 THEN 'PROMOTED'
            WHEN kind / 10 % 4 = 0 THEN 'READY'
            WHEN kind / 10 % 4 = 1 THEN 'PROMOTED'
            ELSE 'COMPLETED' END
FROM dealt
WHERE NOT EXISTS (SELECT 1 FROM messages)";

/// How the desk opens its file: readers do not wait for the writer, and a writer waits for its turn.
///
/// # Errors
///
/// If `url` is not the address of an SQLite database.
pub(crate) fn options(url: &str) -> Result<SqliteConnectOptions, sqlx::Error> {
    Ok(SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(5)))
}

/// Makes the tables and fills them, unless they are there and filled. All of it or nothing.
///
/// # Errors
///
/// What the database answers, unchanged.
pub(crate) async fn prepare(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut transaction = sqlx::Connection::begin_with(connection, "BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
    sqlx::query(MESSAGES)
        .bind(super::PANELS)
        .bind(super::MESSAGES)
        .bind(super::READY_SPAM)
        .bind(super::PROMOTED_SPAM)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// Answers one statement, after holding the connection for `hold`.
///
/// # Errors
///
/// What the database answers, unchanged.
pub(crate) async fn answer(
    connection: &mut SqliteConnection,
    ask: Ask,
    hold: Duration,
) -> Result<Vec<Count>, sqlx::Error> {
    if !hold.is_zero() {
        tokio::time::sleep(hold).await;
    }
    let mut query = sqlx::query_as(ask.sql);
    for arg in ask.args {
        query = match arg {
            Arg::Text(text) => query.bind(text),
            Arg::Number(number) => query.bind(number),
        };
    }
    query.fetch_all(connection).await
}

/// How many messages of each of these channels are ready, after holding the connection for `hold`. A channel without any
/// is not among them.
pub(crate) fn panels(
    connection: &mut SqliteConnection,
    channels: Vec<i64>,
    hold: Duration,
) -> BoxFuture<'_, Result<Vec<(i64, i64)>, sqlx::Error>> {
    Box::pin(async move {
        if !hold.is_zero() {
            tokio::time::sleep(hold).await;
        }
        let query = "SELECT channel, count(*) FROM messages \
                     WHERE channel IN (SELECT value FROM json_each($1)) AND status = 'READY' GROUP BY channel";
        sqlx::query_as(query).bind(serde_json::json!(channels).to_string()).fetch_all(connection).await
    })
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    async fn count(connection: &mut SqliteConnection, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(connection).await.expect("a count")
    }

    #[tokio::test]
    async fn a_fresh_database_has_the_rows_of_the_incident_and_preparing_it_again_changes_nothing() {
        let mut desk = SqliteConnection::connect("sqlite::memory:").await.expect("a database in memory");
        for _ in 0..2 {
            prepare(&mut desk).await.expect("the schema is sound");
            assert_eq!(count(&mut desk, "SELECT count(*) FROM messages").await, crate::desk::MESSAGES);
            let spam = "SELECT count(*) FROM messages WHERE status = 'READY' AND body LIKE 'You have won %'";
            assert_eq!(count(&mut desk, spam).await, crate::desk::READY_SPAM);
            let promoted =
                "SELECT count(*) FROM messages WHERE status = 'PROMOTED' AND body LIKE 'You have won %'";
            assert_eq!(count(&mut desk, promoted).await, crate::desk::PROMOTED_SPAM);
            let channels = "SELECT count(DISTINCT channel) FROM messages";
            assert_eq!(count(&mut desk, channels).await, crate::desk::PANELS);
        }
    }
}
