//! A pool's durable jobs as the runtime needs them, whatever database they are in.

use futures_core::future::BoxFuture;
use selfheal_actors::{
    batch_executor::journal::{Journal, JournalError},
    signal::Name,
};

use crate::store::{Dialect, Jobs, Queue};

/// A journal, and what operators see of it.
pub(super) trait AnyJobs: Journal {
    /// Whether anybody has used it. Until then it has no connections and perhaps no tables, and nobody should look.
    fn is_used(&self) -> bool;
    /// Forgets what need not be kept any longer, and looks at all queues.
    fn tidy(&self) -> BoxFuture<'_, Result<Vec<Queue>, JournalError>>;
    fn pause(
        &self,
        queue: Name,
        paused: bool,
        by: Name,
        reason: Name,
    ) -> BoxFuture<'_, Result<(), JournalError>>;
}

impl<DB: Dialect> AnyJobs for Jobs<DB> {
    fn is_used(&self) -> bool {
        Self::is_used(self)
    }

    fn tidy(&self) -> BoxFuture<'_, Result<Vec<Queue>, JournalError>> {
        Box::pin(async {
            self.sweep().await?;
            self.queues().await
        })
    }

    fn pause(
        &self,
        queue: Name,
        paused: bool,
        by: Name,
        reason: Name,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move { Self::pause(self, &queue, paused, by, reason).await })
    }
}
