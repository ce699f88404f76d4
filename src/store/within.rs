//! What is written about jobs in a transaction of the host's own, with what belongs to it.

use selfheal_actors::batch_executor::journal::{
    Accepted, Fence, JournalError, Lease, NewJob, Progress, Settle,
};

use super::{
    answers,
    dialect::Dialect,
    jobs::{Jobs, check},
    migrations::{Schema, schema},
    trouble,
};

impl<DB: Dialect> Jobs<DB> {
    /// Writes jobs down in the transaction that is open on `conn` (`&mut tx`, or a connection of its own): they are
    /// accepted if and when it commits. A row of the host's and the job that it calls for are so both there or neither.
    ///
    /// **Cancel safety**: as that of any statement: dropped, roll back.
    ///
    /// # Errors
    /// [`JournalError`]. On PostgreSQL the transaction has then failed, too.
    pub async fn enqueue(
        &self,
        conn: &mut DB::Connection,
        jobs: &[NewJob],
    ) -> Result<Vec<Accepted>, JournalError> {
        jobs.iter().try_for_each(check)?;
        // Whoever writes in a transaction would be waited for by whoever makes the tables: so only if they are not there.
        if !self.is_used() && schema::<DB>(conn).await.map_err(trouble::of_statement)? != Schema::Usable {
            self.ready().await?;
        }
        let accepted = answers::accept::<DB>(conn, jobs).await.map_err(trouble::of_statement)?;
        self.0.bells.expect();
        let taken = || trouble::refused("a key is held by a job that this transaction does not see".into());
        accepted.into_iter().collect::<Option<_>>().ok_or_else(taken)
    }

    /// Writes down how far a job is in the transaction that is open on `conn`: what a part of the job has changed and
    /// that the part is done are one. If the lease is lost, roll back.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn checkpoint_within(
        &self,
        conn: &mut DB::Connection,
        lease: Lease,
        progress: &Progress,
    ) -> Result<Fence, JournalError> {
        let held = DB::checkpoint(conn, lease, progress).await.map_err(trouble::of_statement)?;
        Ok(if held { Fence::Held } else { Fence::Lost })
    }

    /// Ends a lease in the transaction that is open on `conn`: what the job has changed and that it is done are one, so
    /// it is done once. If the lease is lost, roll back.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn settle_within(&self, conn: &mut DB::Connection, end: Settle) -> Result<Fence, JournalError> {
        let fences = answers::settle::<DB>(conn, &[end]).await.map_err(trouble::of_statement)?;
        Ok(fences.into_iter().next().unwrap_or(Fence::Lost))
    }
}
