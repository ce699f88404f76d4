//! What is shown of the jobs.

use std::time::Duration;

use selfheal_actors::{
    batch_executor::journal::{JobId, State},
    signal::Name,
};

/// A queue at one moment, by its database's clock: `accepted = pending + leased + done + dead`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The operation that works on its jobs.
    pub name: Name,
    /// Jobs that wait.
    pub pending: u64,
    /// Jobs that somebody works on.
    pub leased: u64,
    /// Jobs that were ever accepted.
    pub accepted: u64,
    /// Of these, jobs that were done.
    pub done: u64,
    /// Of these, jobs that have failed for good.
    pub dead: u64,
    /// For how long the oldest of those that wait has waited.
    pub oldest: Option<Duration>,
    /// Whether an operator has paused it.
    pub paused: bool,
}

impl Queue {
    /// Jobs that are not over.
    #[must_use]
    pub const fn depth(&self) -> u64 {
        self.pending + self.leased
    }

    /// Whether every job that was accepted is somewhere.
    #[must_use]
    pub const fn balances(&self) -> bool {
        self.accepted == self.pending + self.leased + self.done + self.dead
    }
}

/// Which jobs are looked at.
#[derive(Debug)]
pub enum Look<'a> {
    /// This one.
    Job(JobId),
    /// The one that has this key.
    Key {
        /// Its queue.
        queue: &'a str,
        /// Its key.
        key: &'a str,
    },
    /// Those that have these keys; the lists are of one length.
    Keys {
        /// Their queues.
        queues: Vec<&'a str>,
        /// Their keys.
        keys: Vec<&'a str>,
    },
    /// The one that has this key in one of these queues, unless the time for which it is kept is over.
    Open {
        /// The queues.
        queues: Vec<&'a str>,
        /// The key.
        key: &'a str,
    },
    /// The newest.
    List {
        /// Of this queue, or of all.
        queue: Option<&'a str>,
        /// In this state, or in any.
        state: Option<State>,
        /// At most so many.
        limit: u32,
    },
}
