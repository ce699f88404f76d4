//! A connection, and a transaction, that a caller holds.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    panic::Location,
};

use futures_core::future::BoxFuture;
use futures_util::{FutureExt, future};
use sqlx::{Acquire, Transaction};
use sqlx_core::transaction::TransactionManager;
use tokio::sync::oneshot;

use super::{
    backend::Backend,
    call::finish,
    error::Error,
    lease::{Lease, State},
    nesting::Held,
    pool::HealPool,
};

impl<DB: Backend> HealPool<DB> {
    /// A connection of one's own: one wait for many statements. It goes back when dropped.
    ///
    /// **Cancel safety**: a dropped call has left the queue, or what it had been given goes back by itself.
    ///
    /// # Errors
    /// [`Error::Refused`] by the gate; [`Error::Sqlx`] with the cause if the database cannot be reached.
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = Result<HealConn<DB>, Error>> + Send + 'static {
        let (pool, site) = (self.clone(), Location::caller());
        async move { pool.held(site, false).await }
    }

    /// A transaction. It is rolled back unless it is [committed](HealTransaction::commit).
    ///
    /// **Cancel safety**: as for [`acquire`](Self::acquire); a transaction that nobody takes is rolled back.
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire).
    #[track_caller]
    pub fn begin(&self) -> impl Future<Output = Result<HealTransaction<DB>, Error>> + Send + 'static {
        let (pool, site) = (self.clone(), Location::caller());
        async move { pool.held(site, true).await.map(HealTransaction) }
    }

    async fn held(self, site: &'static Location<'static>, begin: bool) -> Result<HealConn<DB>, Error> {
        let nesting = self.shared.nesting.clone();
        let mut lease = self.lease(site, begin).await?;
        lease.held = true;
        Ok(HealConn { _held: nesting.book(), lease })
    }
}

/// A connection of a [`HealPool`], held by the caller. Use it as sqlx's own: `fetch_one(&mut *conn)`.
///
/// Dropped, it goes back to the pool: first the connection, after what runs on it is done and an open transaction
/// is rolled back; then its permit.
pub struct HealConn<DB: Backend> {
    // First, so that the booking ends before the way back begins.
    _held: Held,
    lease: Lease<DB>,
}

impl<DB: Backend> HealConn<DB> {
    /// A transaction on this connection. It is rolled back unless it is committed.
    ///
    /// **Cancel safety**: if the call is dropped, nobody knows whether the server has begun one. The connection is
    /// then closed instead of going back to the pool.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn begin(&mut self) -> Result<Transaction<'_, DB>, sqlx::Error> {
        let Lease { connection, state, .. } = &mut self.lease;
        *state = State::Unfit;
        let transaction = connection.begin().await?;
        *state = State::Fit;
        Ok(transaction)
    }
}

impl<DB: Backend> Deref for HealConn<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &Self::Target {
        &self.lease.connection
    }
}

impl<DB: Backend> DerefMut for HealConn<DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.lease.connection
    }
}

impl<'c, DB: Backend> Acquire<'c> for &'c mut HealConn<DB> {
    type Database = DB;
    type Connection = &'c mut DB::Connection;

    fn acquire(self) -> BoxFuture<'c, Result<Self::Connection, sqlx::Error>> {
        Box::pin(future::ok(&mut **self))
    }

    fn begin(self) -> BoxFuture<'c, Result<Transaction<'c, DB>, sqlx::Error>> {
        HealConn::begin(self).boxed()
    }
}

impl<DB: Backend> fmt::Debug for HealConn<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealConn").finish_non_exhaustive()
    }
}

/// A transaction of a [`HealPool`]. Use it as sqlx's own: `execute(&mut *tx)`; `Connection::begin(&mut *tx)` makes a
/// savepoint.
///
/// Dropped, it is rolled back, then its connection goes back to the pool, then its permit.
pub struct HealTransaction<DB: Backend>(HealConn<DB>);

impl<DB: Backend> HealTransaction<DB> {
    /// Makes it permanent.
    ///
    /// **Cancel safety**: once it has been polled, the commit goes on to its end without the caller, who then does
    /// not learn how it ended. Dropped before that, it is a rollback.
    ///
    /// # Errors
    /// Those of the database. After one of class
    /// [`Interrupted`](super::ErrorClass::Interrupted) nobody knows whether it is permanent.
    pub async fn commit(self) -> Result<(), Error> {
        self.end(|connection| DB::TransactionManager::commit(connection).boxed()).await
    }

    /// Undoes it, and waits until it is undone.
    ///
    /// **Cancel safety**: it goes on without the caller.
    ///
    /// # Errors
    /// Those of the database; it is undone all the same, with the end of the connection.
    pub async fn rollback(self) -> Result<(), Error> {
        self.end(|connection| DB::TransactionManager::rollback(connection).boxed()).await
    }

    async fn end(
        self,
        how: for<'c> fn(&'c mut DB::Connection) -> BoxFuture<'c, Result<(), sqlx::Error>>,
    ) -> Result<(), Error> {
        let Self(HealConn { _held: held, mut lease }) = self;
        // The caller's next acquire is not nested in this one.
        drop(held);
        let runtime = lease.runtime().clone();
        let (answer, answered) = oneshot::channel();
        let task = async move {
            let within = lease.shared().give_back_within;
            // A server that has died without a word would never say how it ended, and the permit would be lost.
            let outcome = tokio::time::timeout(within, how(&mut lease.connection)).await;
            let outcome =
                outcome.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
            let conclusion = outcome.as_ref().err().map(|error| lease.weigh(error));
            let _ = answer.send(outcome);
            if let Some(conclusion) = conclusion {
                lease.conclude(conclusion).await;
            }
            lease.give_back().await;
        };
        finish(&runtime, task);
        Ok(answered.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))?)
    }
}

impl<DB: Backend> Deref for HealTransaction<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<DB: Backend> DerefMut for HealTransaction<DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<DB: Backend> fmt::Debug for HealTransaction<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealTransaction").finish_non_exhaustive()
    }
}
