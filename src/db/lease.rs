//! A connection and its permit, which are never apart.
//!
//! The order is the invariant: the permit is had before the connection is asked for, and goes back after the
//! connection is back. So the gate's count is never below the pool's, sqlx never queues, and whoever is granted
//! a permit finds a connection. Whatever happens to the caller, a lease ends in [`Lease::give_back`], in a task
//! where it must, and that task owns both.
//!
//! What comes back may be in any state: a query may still run at the server (then the return waits until it is
//! done, bounded), a transaction may be open (then it is rolled back first), or the session may be unfit for the
//! next caller (then it is closed, here and now, by dropping it: the server sees the end of the stream). So is one
//! that is more than the pool's part of a server that several processes share.

use std::sync::Arc;

use selfheal_actors::gate::Permit;
use sqlx::{Database, pool::PoolConnection};
use sqlx_core::transaction::TransactionManager;
use tokio::runtime::Handle;

use super::{
    backend::Backend,
    bound,
    classify::{ErrorClass, classify, sqlstate},
    culprits::Entry,
    health,
    pool::Shared,
};

/// A connection of the pool, with the permit to use it.
pub(super) struct Lease<DB: Backend> {
    pub(super) connection: PoolConnection<DB>,
    pub(super) state: State,
    /// Its session ends statements at the deadline of whoever took it.
    bound: bool,
    /// Its statement may be cancelled for the sake of others.
    listed: Option<Entry>,
    /// A caller has it, whose errors are not seen here.
    pub(super) held: bool,
    /// `None` once the lease has been given back.
    permit: Option<Permit>,
    shared: Arc<Shared<DB>>,
    runtime: Handle,
}

/// What a connection is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The next caller may have it.
    Fit,
    /// It must be closed: nobody knows what its session is in.
    Unfit,
    /// It is closed.
    Gone,
}

/// What an error of the connection asks for, besides telling the caller.
#[derive(Clone, Copy, Debug)]
pub(super) enum Conclusion {
    /// Nothing.
    Done,
    /// The server refuses writes: if it has become a standby, connections to it are of no use.
    LookForFailover,
}

impl<DB: Backend> Lease<DB> {
    const fn new(
        connection: PoolConnection<DB>,
        permit: Permit,
        shared: Arc<Shared<DB>>,
        runtime: Handle,
    ) -> Self {
        Self {
            connection,
            state: State::Fit,
            bound: false,
            listed: None,
            held: false,
            permit: Some(permit),
            shared,
            runtime,
        }
    }

    /// Takes a connection for `permit`. Not cancel safe: run it in a task.
    pub(super) async fn take(
        shared: Arc<Shared<DB>>,
        permit: Permit,
        runtime: Handle,
    ) -> Result<Self, sqlx::Error> {
        let connection = shared.connection().await?;
        // While the gate orders nothing one may have waited for it in sqlx's own queue: that is no hold.
        permit.connected();
        let mut lease = Self::new(connection, permit, shared, runtime);
        // Nothing of the caller's has been sent yet, so a connection that is of no use costs nobody anything.
        if let Err(error) = lease.bind().await {
            if classify(&error) != ErrorClass::Interrupted && !is_poisoned(&error) {
                return Err(error);
            }
            lease.shared.doubt.raise();
            lease.replace().await?;
        }
        Ok(lease)
    }

    /// Closes the connection and takes another one, for the same permit.
    pub(super) async fn replace(&mut self) -> Result<(), sqlx::Error> {
        self.state = State::Gone;
        drop(self.connection.return_to_pool());
        self.connection = self.shared.connection().await?;
        self.state = State::Fit;
        self.bind().await
    }

    /// Has the server end what runs for too long for this caller, where that has to be said.
    async fn bind(&mut self) -> Result<(), sqlx::Error> {
        (self.bound, self.listed) = (false, None);
        let Some(within) = self.permit.as_ref().and_then(|permit| self.shared.bound(permit)) else {
            return Ok(());
        };
        // Until the server has said so, nobody knows how the session is bound.
        self.state = State::Unfit;
        let shared = Arc::clone(&self.shared);
        let session = shared.answered(DB::bind(&mut self.connection, within)).await??;
        self.bound = true;
        self.listed = self.permit.as_ref().and_then(|permit| shared.culprits.list(permit, session));
        self.state = State::Fit;
        Ok(())
    }

    pub(super) const fn shared(&self) -> &Arc<Shared<DB>> {
        &self.shared
    }

    pub(super) const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// What is to be concluded from an error that the connection gave.
    pub(super) fn weigh(&mut self, error: &sqlx::Error) -> Conclusion {
        if self.state == State::Gone {
            return Conclusion::Done;
        }
        let broken = classify(error) == ErrorClass::Interrupted;
        if broken {
            self.shared.doubt.raise();
        }
        if broken || is_poisoned(error) {
            self.state = State::Unfit;
        }
        // A transaction may be read-only because its owner wanted it so: only a standby is a failover.
        let read_only = sqlstate(error).as_deref() == Some("25006");
        if read_only && self.shared.failover.may_look_refused() {
            Conclusion::LookForFailover
        } else {
            Conclusion::Done
        }
    }

    /// Does what was concluded, once the caller has its answer.
    pub(super) async fn conclude(&mut self, conclusion: Conclusion) {
        match conclusion {
            Conclusion::Done => {}
            Conclusion::LookForFailover => {
                let standby = DB::is_standby(&mut self.connection);
                let standby = tokio::time::timeout(health::PATIENCE, standby).await;
                if matches!(standby, Ok(Ok(standby)) if self.shared.failover.found(standby, true)) {
                    self.state = State::Unfit;
                    self.shared.close_idle();
                }
            }
        }
    }

    /// Gives the connection back, then the permit.
    pub(super) async fn give_back(mut self) {
        if let Some(permit) = self.permit.take() {
            let back = self.send_back();
            returned(back, Arc::clone(&self.shared), permit).await;
        }
    }

    /// Starts the way back; what is left to do is the future's. Dropping the future closes the connection.
    fn send_back(&mut self) -> impl Future<Output = ()> + Send + use<DB> {
        if self.listed.take().is_some_and(Entry::leave) {
            self.state = State::Unfit;
        }
        if self.state == State::Fit {
            let depth = <DB as Database>::TransactionManager::get_transaction_depth(&self.connection);
            for _ in 0..depth {
                <DB as Database>::TransactionManager::start_rollback(&mut self.connection);
            }
        }
        let keep = self.state == State::Fit && !self.shared.has_surplus();
        let bound = self.bound;
        self.state = State::Gone;
        // What is not kept is closed now, so that the next one that comes back is judged by the size after that.
        let back = Some(self.connection.return_to_pool()).filter(|_| keep);
        let look = (self.held && keep && self.shared.failover.may_look()).then(|| Arc::clone(&self.shared));
        async move {
            match back {
                Some(back) if bound => bound::loosened(back).await,
                Some(back) => back.await,
                None => {}
            }
            if let Some(shared) = look {
                shared.look_for_failover().await;
            }
        }
    }
}

/// The permit outlives the return.
async fn returned<DB: Backend>(back: impl Future<Output = ()>, shared: Arc<Shared<DB>>, permit: Permit) {
    // Out of time, the connection is dropped with the future: a dead peer must not keep the permit for ever.
    let _ = tokio::time::timeout(shared.give_back_within, back).await;
    shared.returned.notify_one();
    drop(permit);
}

impl<DB: Backend> Drop for Lease<DB> {
    /// On the runtime on which it was taken, wherever it is dropped. If that runtime is gone, so is the
    /// connection, and the permit with it.
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            let back = self.send_back();
            self.runtime.spawn(returned(back, Arc::clone(&self.shared), permit));
        }
    }
}

/// The session's transaction has failed and somebody has left it so (SQLSTATE 25P02).
pub(super) fn is_poisoned(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("25P02")
}
