//! A pool's durable jobs as the runtime needs them, whatever database they are in.

use std::{any::Any, sync::Arc};

use futures_core::future::BoxFuture;
use selfheal_actors::{
    batch_executor::journal::{Job, Journal, JournalError, State},
    signal::Name,
};

use crate::{
    admin::{QueueAction, QueueOrder},
    store::{Dialect, Jobs, Queue},
};

/// A journal, and what operators see of it.
pub(super) trait AnyJobs: Journal {
    /// Whether anybody has used it. Until then it has no connections and perhaps no tables, and nobody should look.
    fn is_used(&self) -> bool;
    /// Sees to it that the tables are there.
    fn ready(&self) -> BoxFuture<'_, Result<(), JournalError>>;
    /// Forgets what need not be kept any longer, and looks at all queues.
    fn tidy(&self) -> BoxFuture<'_, Result<Vec<Queue>, JournalError>>;
    /// Does what an operator asks of a queue.
    fn operate(&self, asked: QueueOrder) -> BoxFuture<'_, Result<(), JournalError>>;
    /// The newest jobs, of one queue or of all, in one state or in any.
    fn list(
        &self,
        queue: Option<String>,
        state: Option<State>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Job>, JournalError>>;
    /// The job that has this key in one of these queues, if it may still be asked about.
    fn open(&self, queues: Vec<Name>, key: String) -> BoxFuture<'_, Result<Option<Job>, JournalError>>;
    /// Waits until all is written that was asked for.
    fn rest(&self) -> BoxFuture<'_, Result<(), JournalError>>;
    /// As what it is.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<DB: Dialect> AnyJobs for Jobs<DB> {
    fn is_used(&self) -> bool {
        Self::is_used(self)
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(Self::ready(self))
    }

    fn tidy(&self) -> BoxFuture<'_, Result<Vec<Queue>, JournalError>> {
        Box::pin(async {
            self.sweep().await?;
            self.queues().await
        })
    }

    fn operate(&self, asked: QueueOrder) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            let QueueOrder { queue, action, by, reason } = asked;
            match action {
                QueueAction::Pause => self.pause(&queue, true, by, reason).await,
                QueueAction::Resume => self.pause(&queue, false, by, reason).await,
                QueueAction::Drain => self.drain(&queue, by, reason).await,
            }
        })
    }

    fn list(
        &self,
        queue: Option<String>,
        state: Option<State>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Job>, JournalError>> {
        Box::pin(Self::list(self, queue, state, limit))
    }

    fn open(&self, queues: Vec<Name>, key: String) -> BoxFuture<'_, Result<Option<Job>, JournalError>> {
        Box::pin(async move { Self::open(self, &queues, &key).await })
    }

    fn rest(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(Self::rest(self))
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
