//! What a caller waits for runs in a task of its own, which owns the permit and the connection.
//!
//! The answer goes to the caller first, then the connection goes back, then the permit. A caller who has gone before
//! there was a connection is found out when there is one, and nothing is sent for it: while the gate orders nothing
//! (mode `observe`, `off`) callers wait in sqlx's own queue, and those who gave up there must cost those behind them
//! no query. A caller who goes later changes nothing for the task: the query runs to its end at the server anyway, so
//! its connection is of no use to anybody before that.
//!
//! The task's first step is taken at once, where the caller is, and only what is left of it is spawned. An idle
//! connection is had in that step and the statement sent, so the spawned task is woken once, by the answer.
//!
//! A server that has died without a word would never answer. Where its statements are bounded, one that has
//! said nothing for that bound and five seconds is given up, with an I/O error of kind `TimedOut`.

use std::{
    panic::Location,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt, TryFutureExt, stream};
use sqlx::{Database, Error};
use sqlx_core::transaction::TransactionManager;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};
use tracing::Instrument;

use super::{
    backend::{Backend, Step},
    error,
    lease::{Lease, State, is_poisoned},
    pool::{HealPool, Shared},
    statement::Owned,
};

/// Rows on their way to a caller who takes them one by one. At the bound the task waits, and so does the server.
const ROWS: usize = 64;

/// How one statement is run on a connection, with an outcome in one piece.
pub(super) type Run<DB, T> =
    for<'c> fn(&'c mut <DB as Database>::Connection, Owned<DB>) -> BoxFuture<'c, Result<T, Error>>;

/// What a task says to a caller who takes row by row.
enum Said<T> {
    Item(T),
    Failed(Error),
    /// The rows are complete. Silence is not the end: the task may have been killed.
    Done,
}

impl<DB: Backend> HealPool<DB> {
    /// Does `work` on a connection, in a task, and answers with its outcome.
    pub(super) async fn call<T, F>(self, site: &'static Location<'static>, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Lease<DB>) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        let runtime = runtime()?;
        let permit = self.permit(site).await?;
        let (answer, answered) = oneshot::channel();
        let lease = Lease::take(self.shared, permit, runtime.clone());
        let task = async move {
            let mut lease = match lease.await {
                Ok(lease) => lease,
                Err(error) => return drop(answer.send(Err(error))),
            };
            if answer.is_closed() {
                return lease.give_back().await;
            }
            let outcome = work(&mut lease).await;
            let conclusion = outcome.as_ref().err().map(|error| lease.weigh(error));
            let _ = answer.send(outcome);
            if let Some(conclusion) = conclusion {
                lease.conclude(conclusion).await;
            }
            lease.give_back().await;
        };
        finish(&runtime, task);
        answered.await.unwrap_or(Err(Error::WorkerCrashed))
    }

    /// The rows of `query`, one by one.
    pub(super) fn stream(
        self,
        site: &'static Location<'static>,
        query: Owned<DB>,
    ) -> BoxStream<'static, Result<Step<DB>, Error>> {
        let rows = async move {
            let runtime = runtime()?;
            let permit = self.permit(site).await?;
            let (rows, taken) = mpsc::channel(ROWS);
            let lease = Lease::take(self.shared, permit, runtime.clone());
            let task = async move {
                match lease.await {
                    Ok(lease) if rows.is_closed() => lease.give_back().await,
                    Ok(lease) => send_rows(lease, query, rows).await,
                    Err(error) => drop(rows.send(Said::Failed(error)).await),
                }
            };
            finish(&runtime, task);
            Ok(until_done(taken))
        };
        rows.try_flatten_stream().boxed()
    }

    /// A connection that the caller holds, inside a transaction if `begin`.
    pub(super) async fn lease(
        self,
        site: &'static Location<'static>,
        begin: bool,
    ) -> Result<Lease<DB>, error::Error> {
        let runtime = runtime()?;
        let permit = self.permit(site).await?;
        let (answer, answered) = oneshot::channel();
        let lease = Lease::take(self.shared, permit, runtime.clone());
        let task = async move {
            let outcome = match lease.await {
                Ok(lease) if begin && !answer.is_closed() => begin_on(lease).await,
                outcome => outcome,
            };
            // A lease whose caller has gone comes back from the channel, and goes back to the pool by its drop.
            drop(answer.send(outcome));
        };
        finish(&runtime, task);
        Ok(answered.await.unwrap_or(Err(Error::WorkerCrashed))?)
    }
}

/// Takes the first step of `task` now, and what is left of it in a task of its own, which nobody can drop.
pub(super) fn finish(runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) {
    let mut task = Box::pin(task.in_current_span());
    // Nobody need be woken for this poll: the task polls again as soon as it is spawned.
    if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        runtime.spawn(task);
    }
}

/// The runtime that polls the caller.
fn runtime() -> Result<Handle, Error> {
    Handle::try_current().map_err(|error| Error::Configuration(error.into()))
}

impl<DB: Backend> Lease<DB> {
    /// Runs the first statement on a connection. If somebody has left a failed transaction on it, the statement
    /// was refused and not run; it runs on another connection then, once.
    pub(super) async fn first<T>(&mut self, query: Owned<DB>, run: Run<DB, T>) -> Result<T, Error> {
        let again = query.clone();
        match self.answer(run, query).await {
            Err(error) if is_poisoned(&error) => {
                self.replace().await?;
                self.answer(run, again).await
            }
            outcome => outcome,
        }
    }

    async fn answer<T>(&mut self, run: Run<DB, T>, query: Owned<DB>) -> Result<T, Error> {
        let shared = Arc::clone(self.shared());
        shared.answered(run(&mut self.connection, query)).await?
    }
}

impl<DB: Backend> Shared<DB> {
    /// What the server says, if it says anything.
    pub(super) async fn answered<F: Future>(&self, answer: F) -> Result<F::Output, Error> {
        let Some(within) = self.answer_within else { return Ok(answer.await) };
        let silence = |_| Error::Io(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(within, answer).await.map_err(silence)
    }
}

async fn begin_on<DB: Backend>(mut lease: Lease<DB>) -> Result<Lease<DB>, Error> {
    // Unless it succeeds, nobody knows whether a transaction is open.
    lease.state = State::Unfit;
    let shared = Arc::clone(lease.shared());
    let begun =
        shared.answered(<DB as Database>::TransactionManager::begin(&mut lease.connection, None)).await?;
    if begun.as_ref().is_err_and(is_poisoned) {
        lease.replace().await?;
        lease.state = State::Unfit;
        shared.answered(<DB as Database>::TransactionManager::begin(&mut lease.connection, None)).await??;
    } else {
        begun?;
    }
    lease.state = State::Fit;
    Ok(lease)
}

/// Sends each row until there is none, or nobody takes them.
async fn send_rows<DB: Backend>(mut lease: Lease<DB>, query: Owned<DB>, to: mpsc::Sender<Said<Step<DB>>>) {
    let again = query.clone();
    let mut failed = pass_on(&mut lease, query, &to).await;
    if let Some((error, 0)) = &failed
        && is_poisoned(error)
    {
        failed = match lease.replace().await {
            Ok(()) => pass_on(&mut lease, again, &to).await,
            Err(error) => Some((error, 0)),
        };
    }
    let conclusion = failed.as_ref().map(|(error, _)| lease.weigh(error));
    let last = failed.map_or(Said::Done, |(error, _)| Said::Failed(error));
    let _ = to.send(last).await;
    if let Some(conclusion) = conclusion {
        lease.conclude(conclusion).await;
    }
    lease.give_back().await;
}

/// Returns the error that ended the rows, and after how many.
async fn pass_on<DB: Backend>(
    lease: &mut Lease<DB>,
    query: Owned<DB>,
    to: &mpsc::Sender<Said<Step<DB>>>,
) -> Option<(Error, u64)> {
    let shared = Arc::clone(lease.shared());
    let mut rows = DB::fetch_many(&mut lease.connection, query);
    let mut sent = 0;
    loop {
        match shared.answered(rows.next()).await {
            Ok(Some(Ok(row))) => {
                if to.send(Said::Item(row)).await.is_err() {
                    return None;
                }
                sent += 1;
            }
            Ok(Some(Err(error))) | Err(error) => return Some((error, sent)),
            Ok(None) => return None,
        }
    }
}

fn until_done<T: Send + 'static>(
    mut taken: mpsc::Receiver<Said<T>>,
) -> impl stream::Stream<Item = Result<T, Error>> + Send + 'static {
    let mut over = false;
    stream::poll_fn(move |context| {
        if over {
            return Poll::Ready(None);
        }
        let said = std::task::ready!(taken.poll_recv(context));
        over = !matches!(said, Some(Said::Item(_)));
        Poll::Ready(match said {
            Some(Said::Item(item)) => Some(Ok(item)),
            Some(Said::Failed(error)) => Some(Err(error)),
            Some(Said::Done) => None,
            None => Some(Err(Error::WorkerCrashed)),
        })
    })
}
