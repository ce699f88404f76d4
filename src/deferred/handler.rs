//! What is done with a payload, whatever it is.

use std::{any::Any, fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use futures_util::FutureExt as _;
use selfheal_actors::{
    batch_executor::{
        Attempts, Did, MAX_RESULT, NotDone, Work,
        journal::{Claimed, Journal},
    },
    error_class::ErrorClass,
    signal::Name,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Context, Failed};
use crate::{
    HealPool,
    batch::{in_transaction, unawaited},
    store::Dialect,
};

/// For how long a job can be asked about once it is done.
const KEEP: Duration = Duration::from_secs(3_600);
/// How long an attempt may take.
const LIMIT: Duration = Duration::from_secs(60);

type Prepare = dyn Fn(&Name, Arc<[u8]>, Context) -> Work + Send + Sync;
type Check = dyn Fn(&[u8]) -> Result<(), serde_json::Error> + Send + Sync;

/// What is done with the payloads of deferred work: made by [`run`] or [`run_tx`], and registered under a name.
#[derive(Clone)]
pub struct Handler {
    prepare: Arc<Prepare>,
    check: Arc<Check>,
    pub(crate) home: Home,
    pub(crate) attempts: Attempts,
    keep: Duration,
    limit: Duration,
}

/// Where the jobs of a handler are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the pool of this address, of which its transactions are.
    At(usize),
    /// In the pool that is called so.
    Named(Name),
    /// In the only pool, or in the one called main.
    Usual,
}

/// `work` is done with each payload, **at least once**: if the process ends after it was done and before that was written
/// down, it is done again, and so it is if it fails half way.
///
/// A payload is whatever serde can read; it is written down as JSON. So is what `work` comes to, at most 64 KiB, for its
/// caller to see.
pub fn run<T, R, F, W>(work: F) -> Handler
where
    T: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: Fn(T, Context) -> W + Send + Sync + 'static,
    W: Future<Output = Result<R, Failed>> + Send + 'static,
{
    let work = Arc::new(work);
    let prepare = move |_: &Name, payload: Arc<[u8]>, context: Context| -> Work {
        let work = Arc::clone(&work);
        Arc::new(move |_| {
            let (work, payload, context) = (Arc::clone(&work), Arc::clone(&payload), context.clone());
            Box::pin(async move {
                let working = work(read::<T>(&payload)?, context);
                let result = working.await?;
                Ok(Did { done: 1, result: kept(&result)?, ..Did::default() })
            })
        })
    };
    Handler::new::<T>(Arc::new(prepare), Home::Usual)
}

/// `work` is done with each payload in a transaction of `pool`, which also writes that it is done: what it does on that
/// connection happens **exactly once**. Its jobs are in the database of `pool`.
///
/// If `work` fails the transaction is rolled back. It must not end the transaction itself.
pub fn run_tx<DB, T, R, F>(pool: &HealPool<DB>, work: F) -> Handler
where
    DB: Dialect,
    T: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: for<'c> Fn(&'c mut DB::Connection, T, Context) -> BoxFuture<'c, Result<R, Failed>>
        + Send
        + Sync
        + 'static,
{
    let (work, home, pool) = (Arc::new(work), Home::At(pool.address()), pool.clone());
    let prepare = move |name: &Name, payload: Arc<[u8]>, context: Context| -> Work {
        let (work, pool) = (Arc::clone(&work), pool.operation(Name::clone(name)));
        Arc::new(move |chunk| {
            let (work, pool) = (Arc::clone(&work), pool.clone());
            let (payload, context) = (Arc::clone(&payload), context.clone());
            Box::pin(async move {
                let payload = read::<T>(&payload)?;
                if chunk.lease.is_none() {
                    return Err(NotDone::Lost);
                }
                let once = async |conn: &mut DB::Connection| {
                    let result = work(conn, payload, context).await?;
                    Ok(Did { done: 1, result: kept(&result)?, ..Did::default() })
                };
                in_transaction(&pool, &chunk, once).await
            })
        })
    };
    Handler::new::<T>(Arc::new(prepare), home)
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Failed> {
    let unread = |error| Failed::new(ErrorClass::Permanent, format!("its payload cannot be read: {error}"));
    serde_json::from_slice(payload).map_err(unread)
}

/// What is kept of a result; of one that says nothing, nothing.
fn kept<R: Serialize>(result: &R) -> Result<Option<Vec<u8>>, Failed> {
    let unfit = |why: String| Failed::new(ErrorClass::Permanent, why);
    let text =
        serde_json::to_vec(result).map_err(|error| unfit(format!("its result is no JSON: {error}")))?;
    match text.len() {
        length if length > MAX_RESULT => {
            Err(unfit(format!("its result has {length} bytes, and may have {MAX_RESULT}")))
        }
        _ => Ok(Some(text).filter(|text| text != b"null")),
    }
}

impl Handler {
    fn new<T: DeserializeOwned>(prepare: Arc<Prepare>, home: Home) -> Self {
        let check = Arc::new(|payload: &[u8]| serde_json::from_slice::<T>(payload).map(drop));
        let attempts = Attempts::default();
        Self { prepare, check, home, attempts, keep: KEEP, limit: LIMIT }
    }

    /// How often a job is tried, and how long after each failure. Default: ten times, after 1 s, 2 s, 4 s…, at most 5 min.
    #[must_use]
    pub fn attempts(self, attempts: Attempts) -> Self {
        Self { attempts, ..self }
    }

    /// For how long its caller can ask about a job once it is done. Default: an hour. With none it is forgotten at once, and
    /// only counted. A dead job is kept for a week.
    #[must_use]
    pub fn keep(self, keep: Duration) -> Self {
        Self { keep, ..self }
    }

    /// An attempt that takes longer than this has failed, and is dropped where it is: what hangs must not take the place of
    /// others for ever. Default: a minute.
    #[must_use]
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// In which pool's database the jobs are, for what is not done in a transaction of one. Default: the only one, or the
    /// one called `main`.
    #[must_use]
    pub fn pool(self, name: impl Into<Name>) -> Self {
        let home = match self.home {
            Home::At(address) => Home::At(address),
            Home::Named(_) | Home::Usual => Home::Named(name.into()),
        };
        Self { home, ..self }
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { home, attempts, keep, limit, .. } = self;
        f.debug_struct("Handler")
            .field("home", home)
            .field("attempts", attempts)
            .field("keep", keep)
            .field("limit", limit)
            .finish_non_exhaustive()
    }
}

/// A handler under its name.
#[derive(Clone)]
pub(crate) struct Registered {
    pub(crate) name: Name,
    pub(crate) handler: Handler,
    /// Where its jobs are written down.
    pub(crate) journal: Arc<dyn Journal>,
    /// The same, as what it is: the `Jobs` of some database.
    pub(crate) jobs: Arc<dyn Any + Send + Sync>,
}

impl Registered {
    /// For how long a job is kept once it is done.
    pub(super) const fn keep(&self) -> Duration {
        self.handler.keep
    }

    /// Whether the handler can read this.
    pub(super) fn check(&self, payload: &[u8]) -> Result<(), String> {
        (self.handler.check)(payload).map_err(|error| format!("its payload cannot be read: {error}"))
    }

    /// An attempt at a job. Nobody waits for it, so whatever its class, in the database it is background work of its
    /// caller.
    pub(crate) fn work(&self, job: &Claimed) -> Result<Work, String> {
        self.check(&job.payload).map_err(|error| format!("{}: {error}", ErrorClass::Permanent))?;
        let (name, limit) = (Name::clone(&self.name), self.handler.limit);
        let attempt = (self.handler.prepare)(&name, job.payload.as_slice().into(), Context::of(job));
        let user = job.owner.as_deref().map(Name::from);
        Ok(Arc::new(move |chunk| {
            let ticket = unawaited(&name, user.as_ref());
            let attempt = Arc::clone(&attempt);
            Box::pin(ticket.scope(bounded(limit, async move { attempt(chunk).await })))
        }))
    }
}

/// What panics or hangs has failed.
async fn bounded(
    limit: Duration,
    attempt: impl Future<Output = Result<Did, NotDone>>,
) -> Result<Did, NotDone> {
    let failed = |class, why: String| Err(NotDone::Failed { class, why });
    match tokio::time::timeout(limit, AssertUnwindSafe(attempt).catch_unwind()).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => failed(ErrorClass::Unknown, "it has panicked".to_owned()),
        Err(_) => failed(ErrorClass::Timeout, format!("it took longer than {limit:?}")),
    }
}
