//! What other processes accept is heard of.
//!
//! One connection listens, from the first time that somebody waits. It tells nothing that a look would not find: a
//! message that is lost with its connection costs time, never a job. So it may be late, may end, and begins again by
//! itself; and every bell is rung when it has, for what was not heard meanwhile.

use std::{sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use tokio::{runtime::Handle, task::AbortHandle};

use super::{dialect::Dialect, wake::Bells};
use crate::db::ConnectOptionsOf;

/// Between two tries to listen, at first and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Where nothing is heard for so long, it is asked whether it still can be.
const QUIET: Duration = Duration::from_secs(20);
/// A database that does not answer within this is not there.
const ANSWER: Duration = Duration::from_secs(5);

/// A connection that listens.
pub(super) type Ears = Box<dyn Hears>;

/// Hears of queues that have jobs.
#[doc(hidden)]
pub trait Hears: Send {
    /// The next queue; `None`, if something may have been missed. Cancel safe.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<String>, sqlx::Error>>;
    /// Whether anything could be heard.
    fn ping(&mut self) -> BoxFuture<'_, Result<(), sqlx::Error>>;
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Listener(AbortHandle);

impl Listener {
    /// Listens for `bells`, if the database tells anybody.
    pub(super) fn start<DB: Dialect>(
        options: ConnectOptionsOf<DB>,
        bells: Arc<Bells>,
        runtime: &Handle,
    ) -> Option<Self> {
        drop(DB::listener(options.clone())?);
        Some(Self(runtime.spawn(listen::<DB>(options, bells)).abort_handle()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn listen<DB: Dialect>(options: ConnectOptionsOf<DB>, bells: Arc<Bells>) {
    let [first, most] = AGAIN;
    let mut pause = first;
    while let Some(dial) = DB::listener(options.clone()) {
        if let Ok(Ok(ears)) = tokio::time::timeout(ANSWER, dial).await {
            pause = first;
            let error = hear(ears, &bells).await;
            tracing::debug!(target: "selfheal", %error, "What other processes accept is not heard of for a moment");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(most);
    }
}

/// Rings whatever is heard of, until nothing can be.
async fn hear(mut ears: Ears, bells: &Bells) -> sqlx::Error {
    bells.ring_all();
    loop {
        match tokio::time::timeout(QUIET, ears.next()).await {
            Ok(Ok(Some(queue))) => bells.ring_known(&queue),
            Ok(Ok(None)) => bells.ring_all(),
            Ok(Err(error)) => return error,
            Err(_) => match tokio::time::timeout(ANSWER, ears.ping()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
            },
        }
    }
}
