//! Rows by key, many questions in one query.
//!
//! ```no_run
//! # async fn example(pool: selfheal::PgHealPool) -> Result<(), Box<dyn std::error::Error>> {
//! let titles = pool.lookup("tasks.by_id", |connection, ids: Vec<i64>| {
//!     Box::pin(async move {
//!         let query = "select id, title from tasks where id = any($1)";
//!         sqlx::query_as(query).bind(ids).fetch_all(connection).await
//!     })
//! });
//! let title: Option<String> = titles.get(7).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Callers wait; somebody goes for a connection, as the ticket of the best of them. Before it goes it lets everything
//! run that can, so that 160 questions of one moment are there; when it has the connection it takes with it what waits
//! by then, and if that is more than the gate's batch size, somebody else goes for the rest. So in calm times a question
//! of its own is a query of its own, at once; when connections are short, questions gather while they wait.
//!
//! **A query that fails** is tried again in halves if it may be one key's fault, until that key is alone with its error.
//! So what it does must bear to be done twice: it is for reading. An error that is the connection's is everybody's.
//!
//! **Cancel safety**: a dropped call has left. What was asked for it goes on, if others wait for it, too.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_core::future::BoxFuture;
use metrics::counter;
use parking_lot::Mutex;
use selfheal_actors::{
    gate::Ticket,
    level::Class,
    lookup::{Machine, Policy, Share},
    signal::Name,
    telemetry::QUERIES_COMBINED_TOTAL,
};
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    backend::Backend,
    classify::{ErrorClass, classify},
    pool::HealPool,
};

type Answer<V> = Result<Option<V>, LookupError>;
type Load<DB, K, V> = dyn for<'c> Fn(
        &'c mut <DB as sqlx::Database>::Connection,
        Vec<K>,
    ) -> BoxFuture<'c, Result<Vec<(K, V)>, sqlx::Error>>
    + Send
    + Sync;

impl<DB: Backend> HealPool<DB> {
    /// A way to ask for rows by key, one at a time, of which those that wait at the same time are asked for by one
    /// query: `load` is given their keys, each once, and gives back what there is, each with its key. `name` is what
    /// the query is called; keep the lookup where it is used, clones are the same.
    ///
    /// It is of this pool, as its rows are: its connections, its gate, its batch size (10 keys, 50 under pressure). A
    /// runtime may have several pools, of several databases, so it is no method of [`Heal`](crate::Heal).
    pub fn lookup<K, V, F>(&self, name: impl Into<Name>, load: F) -> Lookup<DB, K, V>
    where
        F: for<'c> Fn(&'c mut DB::Connection, Vec<K>) -> BoxFuture<'c, Result<Vec<(K, V)>, sqlx::Error>>
            + Send
            + Sync
            + 'static,
    {
        let name = name.into();
        let (pool, load) = (self.operation(Name::clone(&name)), Box::new(load));
        Lookup(Arc::new(Shared { pool, name, load, machine: Mutex::default(), number: AtomicU64::new(0) }))
    }
}

/// Asks for `V`s by `K`. Cheap to clone; clones collect together.
pub struct Lookup<DB: Backend, K, V>(Arc<Shared<DB, K, V>>);

struct Shared<DB: Backend, K, V> {
    pool: HealPool<DB>,
    name: Name,
    load: Box<Load<DB, K, V>>,
    machine: Mutex<Machine<K, Caller<V>>>,
    /// Who was the last to ask.
    number: AtomicU64,
}

/// Who waits.
#[derive(Debug)]
struct Caller<V> {
    /// Tells callers apart.
    number: u64,
    ticket: Option<Ticket>,
    answer: oneshot::Sender<Answer<V>>,
}

impl<V> Caller<V> {
    fn is_here(&self) -> bool {
        !self.answer.is_closed()
    }
}

impl<DB, K, V> Lookup<DB, K, V>
where
    DB: Backend,
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// What there is under `key`; `None` if there is nothing.
    ///
    /// # Errors
    /// [`LookupError`]: the gate's refusal, or what the database has against this key or against the query.
    pub async fn get(&self, key: K) -> Result<Option<V>, LookupError> {
        let ticket = Ticket::current();
        let class = ticket.as_ref().map_or(Class::Normal, Ticket::class);
        let (answer, answered) = oneshot::channel();
        let number = self.0.number.fetch_add(1, Ordering::Relaxed);
        self.0.machine.lock().ask(key, class, Caller { number, ticket, answer });
        self.send_somebody();
        answered.await.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
    }

    /// Somebody goes for a connection, if there is a reason to and nobody as good is going.
    fn send_somebody(&self) {
        let Some(class) = self.0.machine.lock().go() else { return };
        let going = Going { lookup: self.clone(), class, began: false, came: false };
        Handle::current().spawn(going.go());
    }

    /// Asks for all of `shares` at once and answers everybody; in halves, if that fails and may be one key's fault.
    fn ask<'c>(
        &'c self,
        connection: &'c mut DB::Connection,
        shares: Vec<Share<K, Caller<V>>>,
    ) -> BoxFuture<'c, ()>
    where
        DB::Connection: Send,
    {
        Box::pin(async move {
            let keys = shares.iter().map(|share| share.key.clone()).collect();
            match (self.0.load)(&mut *connection, keys).await {
                Ok(found) => answer(shares, found.into_iter().collect()),
                Err(error) if shares.len() > 1 && may_be_one_keys_fault(&error) => {
                    let mut left = shares;
                    let right = left.split_off(left.len() / 2);
                    self.ask(&mut *connection, left).await;
                    self.ask(connection, right).await;
                }
                Err(error) => refuse(shares.into_iter().flat_map(|share| share.callers), error.into()),
            }
        })
    }
}

/// Somebody on the way to a connection. However it ends, what it leaves behind is seen to.
struct Going<DB, K, V>
where
    DB: Backend,
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    lookup: Lookup<DB, K, V>,
    class: Class,
    began: bool,
    came: bool,
}

impl<DB, K, V> Going<DB, K, V>
where
    DB: Backend,
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    async fn go(mut self) {
        self.began = true;
        // Everything that can run comes first: it may want to come along.
        tokio::task::yield_now().await;
        let first = {
            let machine = self.lookup.0.machine.lock();
            machine.first(self.class).map(|caller| (caller.number, caller.ticket.clone()))
        };
        // Those it went for have left, or have been answered.
        let Some((number, ticket)) = first else { return };
        let pool = match ticket {
            Some(ticket) => self.lookup.0.pool.with(ticket),
            None => self.lookup.0.pool.clone(),
        };
        match pool.acquire().await {
            Ok(mut connection) => {
                let flight = self.leave();
                flight.fly(&mut connection).await;
            }
            // It is that caller's refusal; the others go on their own.
            Err(error) => {
                let refused = self.lookup.0.machine.lock().withdraw(|caller| caller.number == number);
                refuse(refused, sqlx::Error::from(error).into());
            }
        }
    }

    /// It has a connection: what waits comes along, and somebody else may go for the rest.
    fn leave(&mut self) -> Flight<DB, K, V> {
        let Shared { pool, machine, .. } = &*self.lookup.0;
        let policy = Policy { most: pool.gate().params().batch };
        let shares = {
            let mut machine = machine.lock();
            machine.came(self.class);
            self.came = true;
            machine.leave(policy, Caller::is_here)
        };
        self.lookup.send_somebody();
        Flight {
            keys: shares.iter().map(|share| share.key.clone()).collect(),
            shares,
            lookup: self.lookup.clone(),
        }
    }
}

impl<DB, K, V> Drop for Going<DB, K, V>
where
    DB: Backend,
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        if self.came {
            return;
        }
        self.lookup.0.machine.lock().came(self.class);
        if self.began {
            return self.lookup.send_somebody();
        }
        // It was never run: its runtime has ended, and whoever were sent now would not run, either.
        let waiting = self.lookup.0.machine.lock().withdraw(|_| true);
        refuse(waiting, sqlx::Error::WorkerCrashed.into());
    }
}

/// A query on its way. However it ends, its keys can be asked for again.
struct Flight<DB, K, V>
where
    DB: Backend,
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    lookup: Lookup<DB, K, V>,
    keys: Vec<K>,
    shares: Vec<Share<K, Caller<V>>>,
}

impl<DB, K, V> Flight<DB, K, V>
where
    DB: Backend,
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    async fn fly(mut self, connection: &mut DB::Connection) {
        let shares = std::mem::take(&mut self.shares);
        let callers: usize = shares.iter().map(|share| share.callers.len()).sum();
        if let Some(saved) = callers.checked_sub(1) {
            let name = Name::clone(&self.lookup.0.name);
            counter!(QUERIES_COMBINED_TOTAL.name, "op" => name).increment(saved as u64);
            self.lookup.ask(connection, shares).await;
        }
    }
}

impl<DB, K, V> Drop for Flight<DB, K, V>
where
    DB: Backend,
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        self.lookup.0.machine.lock().done(&self.keys);
        self.lookup.send_somebody();
    }
}

/// An error about what was asked for, and not about the connection or the database as a whole.
fn may_be_one_keys_fault(error: &sqlx::Error) -> bool {
    match classify(error) {
        ErrorClass::Permanent | ErrorClass::Unknown => true,
        ErrorClass::Transient
        | ErrorClass::Interrupted
        | ErrorClass::Shutdown
        | ErrorClass::Overload
        | ErrorClass::Timeout => false,
    }
}

/// Everybody is told what there is under their key. Who has gone needs no answer.
fn answer<K: Eq + Hash, V: Clone>(shares: Vec<Share<K, Caller<V>>>, found: HashMap<K, V>) {
    for Share { key, callers } in shares {
        let value = found.get(&key);
        callers.into_iter().for_each(|caller| drop(caller.answer.send(Ok(value.cloned()))));
    }
}

fn refuse<V>(callers: impl IntoIterator<Item = Caller<V>>, error: LookupError) {
    callers.into_iter().for_each(|caller| drop(caller.answer.send(Err(error.clone()))));
}

impl<DB: Backend, K, V> Clone for Lookup<DB, K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<DB: Backend, K, V> fmt::Debug for Lookup<DB, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// Why a key was not answered. Several callers may be told the same one.
#[derive(Clone, Debug)]
pub struct LookupError(Arc<sqlx::Error>);

impl From<sqlx::Error> for LookupError {
    fn from(error: sqlx::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for LookupError {
    /// The error of sqlx, in which a gate's refusal travels.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}
