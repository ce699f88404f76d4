//! What the drills of captures ask of their database: some or all messages, and a witness that writes down every change of
//! a status, whoever makes it.

use sqlx::{AssertSqlSafe, PgConnection, Row as _, SqliteConnection};

use super::lab::Lab;

/// Messages that are scanned, and those of them that the capture is meant for.
pub(crate) const SCANNED: i64 = 1_000;
pub(crate) const VALID: i64 = 150;

/// What the spam rule looks for.
const SPAM: &str = "body LIKE 'You have won %'";

const SQLITE_WITNESS: &str = "
CREATE TABLE history (id INTEGER, was TEXT, becomes TEXT);
CREATE TRIGGER witness AFTER UPDATE ON messages WHEN OLD.status IS NOT NEW.status
BEGIN INSERT INTO history VALUES (OLD.id, OLD.status, NEW.status); END;";

/// It writes as whoever made it: the services may not write the history.
const POSTGRES_WITNESS: &str = "
CREATE TABLE history (id bigint, was text, becomes text);
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS
$$ BEGIN INSERT INTO history VALUES (OLD.id, OLD.status, NEW.status); RETURN NULL; END $$;
CREATE TRIGGER witness AFTER UPDATE ON messages FOR EACH ROW
WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION witness();";

const RESET: &str = "
UPDATE messages SET status = (SELECT status FROM untouched WHERE untouched.id = messages.id);
DELETE FROM history;";

const CHANGES: &str = "SELECT was, becomes, CAST(count(*) AS BIGINT) AS changes FROM history GROUP BY was, becomes \
                       ORDER BY was, becomes";

/// Changes of status that were made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Changed {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) count: i64,
}

impl Lab {
    /// Leaves a thousand messages: those that may be captured, those that the bug takes for such, and others.
    pub(crate) async fn watch_messages(&mut self) -> Result<(), sqlx::Error> {
        let others = SCANNED - VALID - crate::desk::PROMOTED_SPAM;
        let leave = format!(
            "DELETE FROM messages WHERE id NOT IN ( \
             SELECT id FROM (SELECT id FROM messages WHERE status = 'READY' AND {SPAM} ORDER BY id LIMIT {VALID}) AS a \
             UNION ALL SELECT id FROM messages WHERE status = 'PROMOTED' AND {SPAM} \
             UNION ALL SELECT id FROM (SELECT id FROM messages WHERE NOT {SPAM} ORDER BY id LIMIT {others}) AS b); \
             CREATE TABLE untouched AS SELECT id, status FROM messages;"
        );
        self.script(leave.clone() + SQLITE_WITNESS, leave + POSTGRES_WITNESS).await
    }

    /// Leaves all messages, with the witness.
    pub(crate) async fn watch_captures(&mut self) -> Result<(), sqlx::Error> {
        let keep = "CREATE TABLE untouched AS SELECT id, status FROM messages;".to_owned();
        self.script(keep.clone() + SQLITE_WITNESS, keep + POSTGRES_WITNESS).await
    }

    /// Messages that were captured since.
    pub(crate) async fn captured(&mut self) -> Result<i64, sqlx::Error> {
        self.number("SELECT count(DISTINCT id) FROM history WHERE becomes = 'SPAM_REVIEW'").await
    }

    /// Those of them that were more than once.
    pub(crate) async fn captured_twice(&mut self) -> Result<i64, sqlx::Error> {
        self.number(
            "SELECT count(*) FROM (SELECT id FROM history WHERE becomes = 'SPAM_REVIEW' GROUP BY id \
             HAVING count(*) > 1) AS twice",
        )
        .await
    }

    async fn number(&mut self, sql: &'static str) -> Result<i64, sqlx::Error> {
        match self.connection() {
            Connection::Sqlite(connection) => sqlx::query_scalar(sql).fetch_one(connection).await,
            Connection::Postgres(connection) => sqlx::query_scalar(sql).fetch_one(connection).await,
        }
    }

    /// All messages as they were, and no history.
    pub(crate) async fn reset_messages(&mut self) -> Result<(), sqlx::Error> {
        self.script(RESET.to_owned(), RESET.to_owned()).await
    }

    /// Every change that was made since.
    pub(crate) async fn changes(&mut self) -> Result<Vec<Changed>, sqlx::Error> {
        let changed = |from, to, count| Changed { from, to, count };
        Ok(match self.connection() {
            Connection::Sqlite(connection) => {
                let rows = sqlx::query(CHANGES).fetch_all(connection).await?;
                rows.iter().map(|row| changed(row.get(0), row.get(1), row.get(2))).collect()
            }
            Connection::Postgres(connection) => {
                let rows = sqlx::query(CHANGES).fetch_all(connection).await?;
                rows.iter().map(|row| changed(row.get(0), row.get(1), row.get(2))).collect()
            }
        })
    }

    async fn script(&mut self, sqlite: String, postgres: String) -> Result<(), sqlx::Error> {
        // Nothing in them comes from outside.
        match self.connection() {
            Connection::Sqlite(connection) => {
                sqlx::raw_sql(AssertSqlSafe(sqlite)).execute(connection).await.map(drop)
            }
            Connection::Postgres(connection) => {
                sqlx::raw_sql(AssertSqlSafe(postgres)).execute(connection).await.map(drop)
            }
        }
    }
}

/// The lab's own connection, which no service knows.
pub(super) enum Connection<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}
