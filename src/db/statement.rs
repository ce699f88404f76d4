//! A query that owns all it needs, so that it can outlive its caller.
//!
//! In sqlx 0.9 the text and the arguments of a query are owned already; only a prepared statement is borrowed,
//! and that is an `Arc` to clone. So nothing is copied, and a task of its own can run the query to its end after
//! the caller has gone.

use sqlx::{Execute, SqlStr};

use super::backend::Backend;

/// A query, taken out of whatever it came in.
#[derive(Debug)]
pub struct Owned<DB: Backend> {
    pub(super) sql: SqlStr,
    pub(super) arguments: Option<DB::Arguments>,
    pub(super) statement: Option<DB::Statement>,
    pub(super) persistent: bool,
}

impl<DB: Backend> Owned<DB> {
    /// # Errors
    /// [`sqlx::Error::Encode`] if an argument could not be encoded.
    pub(super) fn take<'q>(mut query: impl Execute<'q, DB>) -> Result<Self, sqlx::Error> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let statement = query.statement().cloned();
        let persistent = query.persistent();
        Ok(Self { sql: query.sql(), arguments, statement, persistent })
    }
}

impl<DB: Backend> Clone for Owned<DB> {
    fn clone(&self) -> Self {
        Self {
            sql: self.sql.clone(),
            arguments: self.arguments.clone(),
            statement: self.statement.clone(),
            persistent: self.persistent,
        }
    }
}
