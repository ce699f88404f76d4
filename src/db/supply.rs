//! How a pool comes by its connections, and which it gives up.
//!
//! A connection is opened only for whoever finds none idle, and sixteen at a time: a server that has just come back must
//! not meet everybody who waits for it. Why none is to be had is found out while there is still time to wait. Idle ones
//! are given up when they are of no use (their server has become a standby), or are somebody else's part of it.

use std::sync::{Arc, atomic::Ordering};

use selfheal_actors::level::Mode;
use sqlx::pool::PoolConnection;
use tokio::{runtime::Handle, sync::SemaphorePermit, time::timeout};

use super::{
    backend::Backend,
    health::{self, Finding},
    pool::Shared,
};

/// Connections that are opened at once. A server that has just come back must not meet everybody who waits for it, each
/// trying again and again.
pub(super) const DIALS: usize = 16;

impl<DB: Backend> Shared<DB> {
    /// A connection, for whoever has a permit. Not cancel safe: run it in a task.
    ///
    /// # Errors
    /// The cause, if there is none in time: SQLSTATE 53300 if the server is full, an I/O error if it is down,
    /// `PoolTimedOut` if neither.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<PoolConnection<DB>, sqlx::Error> {
        let mut acquire = std::pin::pin!(self.paced());
        if let Ok(outcome) = timeout(self.acquire_timeout / 2, acquire.as_mut()).await {
            return self.named(outcome).await;
        }
        // Half of the time is gone: find out meanwhile, so that the cause is known when the rest is.
        let shared = Arc::clone(self);
        Handle::current().spawn(async move { health::examine(&shared).await });
        if let Ok(outcome) = timeout(self.acquire_timeout / 2, acquire.as_mut()).await {
            return self.named(outcome).await;
        }
        let finding = health::examine(self).await;
        // Where the gate orders nothing, sqlx's queue is where one waits for one's turn: as long as ever.
        let unordered = self.attached().mode.get() != Mode::Act;
        if unordered && matches!(finding, Finding::Up) {
            return acquire.await;
        }
        Err(finding.into_error())
    }

    /// A connection of sqlx's pool; if one has to be opened for it, in turn.
    async fn paced(&self) -> Result<PoolConnection<DB>, sqlx::Error> {
        let _dial = self.may_dial().await;
        self.pool.acquire().await
    }

    /// Waits until there is an idle connection, or may be opened one. Where all are open, nobody dials, and sqlx's own
    /// queue is where one waits.
    async fn may_dial(&self) -> Option<SemaphorePermit<'_>> {
        while self.usage().in_use == self.usage().size
            && self.pool.size() < self.pool.options().get_max_connections()
        {
            tokio::select! {
                biased;
                dial = self.dials.acquire() => return dial.ok(),
                () = self.returned.notified() => {}
            }
        }
        None
    }

    /// The outcome, with the cause in the place of a timeout.
    async fn named(
        self: &Arc<Self>,
        outcome: Result<PoolConnection<DB>, sqlx::Error>,
    ) -> Result<PoolConnection<DB>, sqlx::Error> {
        match outcome {
            Err(sqlx::Error::PoolTimedOut) => Err(health::examine(self).await.into_error()),
            outcome => outcome,
        }
    }

    /// Asks an idle connection whether its server has become a standby, and closes all idle ones if so.
    pub(super) async fn look_for_failover(&self) {
        let Some(mut connection) = self.pool.try_acquire() else { return };
        let standby = timeout(health::PATIENCE, DB::is_standby(&mut connection)).await;
        match standby {
            Ok(Ok(standby)) if !self.failover.found(standby, false) => connection.return_to_pool().await,
            Ok(Ok(_)) => {
                connection.close_on_drop();
                self.close_idle();
            }
            // It is dead, or as good as that.
            Ok(Err(_)) | Err(_) => {
                self.doubt.raise();
                connection.close_on_drop();
            }
        }
    }

    /// Closes the connections that nobody uses.
    pub(super) fn close_idle(&self) {
        self.close_idle_above(0);
    }

    /// The pool has at most `keep` connections from now on: idle ones above that are closed now, and busy ones when
    /// they are returned.
    pub(super) fn keep_at_most(&self, keep: u32) {
        self.keep.store(keep, Ordering::Relaxed);
        self.close_idle_above(keep);
    }

    /// Whether there are more connections than are to be kept.
    pub(super) fn has_surplus(&self) -> bool {
        self.pool.size() > self.keep.load(Ordering::Relaxed)
    }

    /// Closes an idle connection and waits until it is closed. Says whether there was one.
    pub(super) async fn give_up_idle(&self) -> bool {
        let Some(connection) = self.pool.try_acquire() else { return false };
        // It is closed either way.
        let _ = timeout(health::PATIENCE, connection.close()).await;
        true
    }

    /// The size falls as the connections are closed, which takes a while, so it is counted here.
    fn close_idle_above(&self, keep: u32) {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(0);
        for _ in 0..self.pool.size().saturating_sub(keep).min(idle) {
            let Some(mut connection) = self.pool.try_acquire() else { return };
            connection.close_on_drop();
        }
    }
}
