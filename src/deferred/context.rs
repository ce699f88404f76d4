//! What a handler may want to know beside the payload.

use std::time::Duration;

use selfheal_actors::{
    batch_executor::journal::{Claimed, JobId},
    level::Class,
    signal::Name,
};

/// The job at hand.
#[derive(Clone, Debug)]
pub struct Context {
    job: JobId,
    operation: Name,
    caller: Option<Name>,
    class: Class,
    attempt: u32,
    age: Duration,
}

impl Context {
    pub(super) fn of(job: &Claimed) -> Self {
        Self {
            job: job.lease.job,
            operation: Name::clone(&job.queue),
            caller: job.owner.as_deref().map(Name::from),
            class: job.class,
            attempt: job.failures.saturating_add(job.losses).saturating_add(1),
            age: job.age,
        }
    }

    /// The job, as operators and the log name it. Its caller has another name for it.
    #[must_use]
    pub const fn job(&self) -> JobId {
        self.job
    }

    /// A name of the job that is the same at each attempt, and of no other job in this database: for effects outside of
    /// it, which may be asked for twice.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}-{}", self.operation, self.job)
    }

    /// Whose it is.
    #[must_use]
    pub fn caller(&self) -> Option<&str> {
        self.caller.as_deref()
    }

    /// Whose work it is.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Which attempt it is, counted from 1. Those are counted that have failed, and those whose process ended.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How long ago it was accepted, by the database's clock.
    #[must_use]
    pub const fn age(&self) -> Duration {
        self.age
    }
}
