//! What is done with the items of an operation, whatever they are.

use std::{fmt, sync::Arc};

use futures_core::future::BoxFuture;
use selfheal_actors::{
    batch_executor::{
        Chunk, Did, NotDone, Work,
        journal::{Counts, Journal, Progress},
    },
    gate::Ticket,
    level::Class,
    signal::Name,
};
use serde::de::DeserializeOwned;

use super::part::{Failed, Part, Results};
use crate::{HealPool, store::Dialect};

type Prepared = Arc<dyn Fn(Chunk) -> BoxFuture<'static, Result<Did, NotDone>> + Send + Sync>;
type Prepare = dyn Fn(&Name, &[u8]) -> Result<(Prepared, u64), serde_json::Error> + Send + Sync;

/// What is done with the parts of an operation: made by [`run`] or [`run_tx`], and registered under a name.
#[derive(Clone)]
pub struct Handler {
    prepare: Arc<Prepare>,
    /// Which pool its transactions are of.
    pool: Option<usize>,
}

/// Parts are done by `work`, **at least once**: if the process ends after a part was done and before that was written
/// down, the part is done again, and so it is if `work` itself fails half way. `work` runs in a task that nobody drops.
///
/// Items are whatever serde can read; they are written down as JSON.
pub fn run<T, F, W>(work: F) -> Handler
where
    T: DeserializeOwned + Send + Sync + 'static,
    F: Fn(Part<T>) -> W + Send + Sync + 'static,
    W: Future<Output = Result<Results, Failed>> + Send + 'static,
{
    let work = Arc::new(work);
    let prepare = move |_: &Name, payload: &[u8]| {
        let (work, items) = (Arc::clone(&work), items_of::<T>(payload)?);
        let count = items.len() as u64;
        let prepared: Prepared = Arc::new(move |chunk| {
            let working = work(Part::of(&items, &chunk));
            Box::pin(async move { Ok(working.await?.of(&chunk)) })
        });
        Ok((prepared, count))
    };
    Handler { prepare: Arc::new(prepare), pool: None }
}

/// Parts are done by `work` in a transaction of `pool`, which also writes how far the operation is: what `work` does on
/// that connection happens **exactly once**. `pool` is the one that the operation's jobs are in.
///
/// If `work` fails the transaction is rolled back. It must not end the transaction itself.
pub fn run_tx<DB, T, F>(pool: &HealPool<DB>, work: F) -> Handler
where
    DB: Dialect,
    T: DeserializeOwned + Send + Sync + 'static,
    F: for<'c> Fn(&'c mut DB::Connection, Part<T>) -> BoxFuture<'c, Result<Results, Failed>>
        + Send
        + Sync
        + 'static,
{
    let (work, address) = (Arc::new(work), pool.address());
    let pool = pool.clone();
    let prepare = move |name: &Name, payload: &[u8]| {
        let (work, items) = (Arc::clone(&work), items_of::<T>(payload)?);
        let (pool, count) = (pool.operation(Arc::clone(name)), items.len() as u64);
        let prepared: Prepared = Arc::new(move |chunk| {
            let (pool, work, part) = (pool.clone(), Arc::clone(&work), Part::of(&items, &chunk));
            Box::pin(async move {
                in_transaction(&pool, &chunk, async |conn| Ok(work(conn, part).await?.of(&chunk))).await
            })
        });
        Ok((prepared, count))
    };
    Handler { prepare: Arc::new(prepare), pool: Some(address) }
}

fn items_of<T: DeserializeOwned>(payload: &[u8]) -> Result<Arc<[T]>, serde_json::Error> {
    serde_json::from_slice::<Vec<T>>(payload).map(Arc::from)
}

/// Does `work` in a transaction of `pool`, which also writes how far the job is, if there is one.
///
/// Tried on PostgreSQL and dropped: that update and the commit as one simple query, which fails where the lease is lost,
/// and commits `and chain` so that sqlx's count of transactions stays true. It saves a round trip, and plans the update
/// anew each time: on one machine 15 parts took no less than with both by themselves (`benches/batch`, a run of 9 rounds
/// of each, 58 % busy).
pub(crate) async fn in_transaction<DB: Dialect>(
    pool: &HealPool<DB>,
    chunk: &Chunk,
    work: impl for<'c> AsyncFnOnce(&'c mut DB::Connection) -> Result<Did, Failed>,
) -> Result<Did, NotDone> {
    let mut tx = pool.begin().await.map_err(Failed::undone)?;
    let did = match work(&mut tx).await {
        Ok(did) => did,
        Err(failed) => {
            // Undone with the end of the connection, if not by this.
            drop(tx.rollback().await);
            return Err(Failed::undone(failed).into());
        }
    };
    if let Some(lease) = chunk.lease {
        let progress = Progress { cursor: did.result.clone(), counts: after(chunk.before, &did) };
        if !DB::checkpoint(&mut tx, lease, &progress).await.map_err(Failed::undone)? {
            drop(tx.rollback().await);
            return Err(NotDone::Lost);
        }
    }
    tx.commit().await.map_err(Failed::from)?;
    Ok(Did { written: chunk.lease.is_some(), ..did })
}

/// The ticket of work that nobody waits for.
pub(crate) fn unawaited(operation: &Name, user: Option<&Name>) -> Ticket {
    let ticket = Ticket::new(Class::Background).with_operation(Name::clone(operation));
    match user {
        Some(user) => ticket.with_user(Name::clone(user)),
        None => ticket,
    }
}

fn after(before: Counts, did: &Did) -> Counts {
    Counts {
        total: before.total,
        done: before.done + u64::from(did.done),
        blocked: before.blocked + u64::from(did.blocked),
        failed: before.failed + u64::from(did.failed),
    }
}

impl Handler {
    /// Which pool its transactions are of, if it has any.
    pub(crate) const fn pool(&self) -> Option<usize> {
        self.pool
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("in_transactions", &self.pool.is_some()).finish_non_exhaustive()
    }
}

/// A handler under its name.
#[derive(Clone)]
pub(crate) struct Registered {
    pub(crate) name: Name,
    pub(crate) handler: Handler,
    /// Where its operations are written down.
    pub(crate) journal: Arc<dyn Journal>,
}

/// Whose an operation is.
pub(crate) struct Whose<'a> {
    pub(crate) caller: Option<&'a str>,
    /// That of the request which waits for it.
    pub(crate) ticket: Option<Ticket>,
}

impl Registered {
    /// The work of an operation whose items are written in `payload`, and how many those are. Parts that somebody waits
    /// for are part of their request; all others are background work of the same user.
    pub(crate) fn work(&self, payload: &[u8], whose: Whose<'_>) -> Result<(Work, u64), String> {
        let (prepared, items) = (self.handler.prepare)(&self.name, payload)
            .map_err(|error| format!("its items cannot be read: {error}"))?;
        let (name, user) = (Arc::clone(&self.name), whose.caller.map(Name::from));
        let waits = whose.ticket;
        let work: Work = Arc::new(move |chunk| {
            let waits = waits.clone().filter(|_| chunk.awaited);
            let ticket = waits.unwrap_or_else(|| unawaited(&name, user.as_ref()));
            let (prepared, (ticket, meter)) = (Arc::clone(&prepared), ticket.metered());
            // The host's own code is called inside of its task.
            Box::pin(ticket.scope(async move {
                let did = prepared(chunk).await?;
                Ok(Did { waited: meter.waited(), ..did })
            }))
        });
        Ok((work, items))
    }
}
