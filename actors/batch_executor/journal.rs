//! Where durable work is written down: what was accepted, who works on it, how far it is.
//!
//! The kernel decides *what* to write and *when*; a [`Journal`] writes it, in whatever database it keeps. What a job
//! does is not the journal's business: it is a name ([`queue`](NewJob::queue)) and bytes
//! ([`payload`](NewJob::payload)), so that a process which was started later can go on with it.
//!
//! # What a journal promises
//! - **Accepted means committed.** [`accept`](Journal::accept) returns after its commit, or with an error and then
//!   nothing was accepted (or, for [`Trouble::Unknown`], nobody knows: accept it again under its [key](Key)).
//! - **accepted = pending + leased + done + dead**, in one look at the database, at any moment. Nothing else happens to
//!   a job; what is over may be forgotten, and is then still counted.
//! - **One lease at a time.** Whoever claims a job has it for a while, by the database's clock, and holds a
//!   [token](Lease::token) that no other lease of that job ever has. Every write that concerns a leased job names its
//!   lease; a lease that was lost writes nothing and is told so ([`Fence::Lost`]): then somebody else has the job, and
//!   whoever lost it stops.
//! - **A crash costs no attempt.** A lease that ended without a word is counted apart ([`Claimed::losses`]) from
//!   attempts that failed ([`Claimed::failures`]), so that a service which is restarted often loses no work, and
//!   somebody can still notice a job that takes the process down with it.
//! - **Progress never falls**: a [checkpoint](Journal::checkpoint) of a lease is seen by the next one.
//!
//! What it does not promise: that a job is done once. It is *begun* at least once. Effects that are written in the
//! transaction which also writes the checkpoint or the end happen exactly once; effects elsewhere need the job's
//! [id](JobId), which stays the same, as a key.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;

use crate::{
    level::{Class, closed_set},
    signal::Name,
};

/// Durable jobs. Every call is one transaction or less, whatever the number of jobs in it.
///
/// **Cancel safety**: a call that is dropped may or may not have been done. Nothing is lost by it: what was accepted
/// will be worked on, what was claimed comes back when its lease is over.
pub trait Journal: Send + Sync + 'static {
    /// Writes jobs down: all of them or none. The answers are in the order of `jobs`. Calls that wait at the same time
    /// may share a commit.
    fn accept(&self, jobs: Vec<NewJob>) -> BoxFuture<'_, Result<Vec<Accepted>, JournalError>>;

    /// Leases jobs that are due, the most urgent first. None, if there is nothing to do, or if only another process may
    /// work on what this journal keeps. A job whose leases ended without a word
    /// [too often](super::Tenure::max_losses) is not among them: it is dead, with that as its error.
    fn claim<'a>(&'a self, claim: &'a Claim<'a>) -> BoxFuture<'a, Result<Vec<Claimed>, JournalError>>;

    /// Leases end `ttl` from now instead. The answers are in the order of `leases`.
    fn heartbeat<'a>(
        &'a self,
        leases: &'a [Lease],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Vec<Fence>, JournalError>>;

    /// Writes down how far a job is. The lease goes on.
    fn checkpoint<'a>(
        &'a self,
        lease: Lease,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Fence, JournalError>>;

    /// Ends leases, each in its way. The answers are in the order of `ends`. Calls that wait at the same time may share
    /// a commit.
    fn settle(&self, ends: Vec<Settle>) -> BoxFuture<'_, Result<Vec<Fence>, JournalError>>;

    /// What is known of a job; `None` if there is none, or no longer.
    fn look(&self, job: JobId) -> BoxFuture<'_, Result<Option<Job>, JournalError>>;

    /// The job that a key stands for now.
    fn find<'a>(&'a self, queue: &'a str, key: &'a str) -> BoxFuture<'a, Result<Option<Job>, JournalError>>;

    /// Waits until a job may have become due in one of `queues`. May be early, or for nothing; never much too late: in
    /// another process a job is noticed by a message of the database, or by a look every now and then. Cancel safe.
    fn due<'a>(&'a self, queues: &'a [Name]) -> BoxFuture<'a, ()>;
}

/// The name of a job within its journal. It never changes and is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A job to be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// What is to be done: the name of an operation.
    pub queue: Name,
    /// With what: opaque here. At most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
    /// Jobs with the same key in the same queue are one. `None`: it is like no other.
    pub key: Option<Key>,
    /// Who may ask about it. `None`: nobody outside.
    pub owner: Option<String>,
    /// Whose work it is. Better classes go first, without starving the others: each step from one class to the next
    /// is worth ten seconds of waiting.
    pub class: Class,
    /// Items in it, as far as is known. 1 for a job in one piece.
    pub total: u64,
    /// Not before so long from now.
    pub delay: Duration,
    /// For how long it can be asked about once it is done. Zero: it is forgotten at once, and only counted.
    pub keep: Duration,
    /// Whoever writes it down works on it at once: it is leased to them for so long, in the same commit. `None`: it
    /// waits to be claimed.
    pub hold: Option<Duration>,
}

/// The most bytes that a payload may have: it is no place for files.
pub const MAX_PAYLOAD: usize = 256 * 1024;

impl NewJob {
    /// A job in one piece, due now, of class background, forgotten when it is done.
    pub fn new(queue: impl Into<Name>, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            queue: queue.into(),
            payload: payload.into(),
            key: None,
            owner: None,
            class: Class::Background,
            total: 1,
            delay: Duration::ZERO,
            keep: Duration::ZERO,
            hold: None,
        }
    }
}

/// What makes a job the same as another one of its queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The key.
    pub text: String,
    /// For how long it stands for this job.
    pub until: KeyUntil,
}

/// For how long a key stands for its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyUntil {
    /// Until the job is done or dead: a second call joins the one that runs.
    Over,
    /// For as long as the job can be asked about: a repeated request is answered, not done again.
    Forgotten,
}

/// What became of a job that was to be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The job.
    pub id: JobId,
    /// False if a job with its key was there already; then it is that one, and it was not changed.
    pub fresh: bool,
    /// The right to work on it, if it is fresh and was to be [held](NewJob::hold).
    pub lease: Option<Lease>,
}

/// Which jobs are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Of these queues.
    pub queues: &'a [Name],
    /// At most so many.
    pub limit: u32,
    /// For how long, unless it is [prolonged](Journal::heartbeat). By the database's clock.
    pub ttl: Duration,
}

/// The right to work on a job, and to write about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// Which of the job's leases it is. Each is greater than all before it.
    pub token: i64,
}

/// Whether a lease still was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    /// It was, and what was asked for has been written.
    Held,
    /// Somebody else has the job by now, or it is over. Nothing was written.
    Lost,
}

/// A job that was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The right to work on it.
    pub lease: Lease,
    /// What is to be done.
    pub queue: Name,
    /// With what.
    pub payload: Vec<u8>,
    /// Whose work it is.
    pub class: Class,
    /// Who may ask about it.
    pub owner: Option<String>,
    /// How far it is: as the last checkpoint said.
    pub progress: Progress,
    /// Attempts that have failed.
    pub failures: u32,
    /// Leases that ended without a word: their holders crashed, hung, or were cut off from the database.
    pub losses: u32,
    /// How long ago it was accepted, by the database's clock.
    pub age: Duration,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Where to go on: opaque here. `None` before the first checkpoint.
    pub cursor: Option<Vec<u8>>,
    /// What has become of its items.
    pub counts: Counts,
}

/// What has become of a job's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All there are.
    pub total: u64,
    /// Done.
    pub done: u64,
    /// Left as they were, because they must not be changed.
    pub blocked: u64,
    /// Not done, and not tried again.
    pub failed: u64,
}

impl Counts {
    /// Items that nothing has become of yet.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.total.saturating_sub(self.done.saturating_add(self.blocked).saturating_add(self.failed))
    }
}

/// The end of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// Which one.
    pub lease: Lease,
    /// How.
    pub end: End,
}

/// How a lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The job is done.
    Done {
        /// How far it came: all the way, except for what was blocked or failed.
        counts: Counts,
    },
    /// The attempt has failed, and there will be another one.
    Retry {
        /// Not before so long from now.
        after: Duration,
        /// Why. At most [`MAX_ERROR`] bytes of it are kept.
        error: String,
    },
    /// It will not be tried again: a person may look at it.
    Dead {
        /// Why. At most [`MAX_ERROR`] bytes of it are kept.
        error: String,
    },
    /// It was given back as it was found, for another to go on. This is no attempt.
    Release {
        /// Not before so long from now.
        after: Duration,
    },
}

/// The most bytes of an error that are kept.
pub const MAX_ERROR: usize = 1024;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for its turn, or for its time.
    Pending,
    /// Somebody works on it.
    Leased,
    /// It is done.
    Done,
    /// It has failed for good.
    Dead,
}

closed_set!(State { Pending = "pending", Leased = "leased", Done = "done", Dead = "dead" });

impl State {
    /// Whether nothing more happens to the job.
    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            Self::Pending | Self::Leased => false,
            Self::Done | Self::Dead => true,
        }
    }
}

/// What is known of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What is to be done.
    pub queue: Name,
    /// What makes it the same as another one, while it does.
    pub key: Option<String>,
    /// Who may ask about it.
    pub owner: Option<String>,
    /// Whose work it is.
    pub class: Class,
    /// Where it is in its life.
    pub state: State,
    /// What has become of its items.
    pub counts: Counts,
    /// Attempts that have failed.
    pub failures: u32,
    /// Leases that ended without a word.
    pub losses: u32,
    /// What the last checkpoint has left; of a job in one piece that is done, what it came to. `None` in lists.
    pub cursor: Option<Vec<u8>>,
    /// Why the last attempt has failed.
    pub error: Option<String>,
    /// How long ago it was accepted, by the database's clock.
    pub age: Duration,
}

/// Why a journal could not write or read. Nothing was written, unless it is [`Trouble::Unknown`].
#[derive(Clone, Debug)]
pub struct JournalError {
    /// What is the matter.
    pub trouble: Trouble,
    /// What the database said.
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What keeps a journal from writing or reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The database does not answer, or is starting.
    Down,
    /// The database has no room left.
    Full,
    /// The database takes no writes: it repeats what another one writes, or was told so.
    ReadOnly,
    /// It took too long, or there was no connection to be had: too much is going on.
    Busy,
    /// The connection ended between the question and the answer: nobody knows what was written.
    Unknown,
    /// What was asked for cannot be: too big, or the tables are not there. Asking again will not help.
    Refused,
}

closed_set!(Trouble {
    Down = "down",
    Full = "full",
    ReadOnly = "read_only",
    Busy = "busy",
    Unknown = "unknown",
    Refused = "refused",
});

impl Trouble {
    /// Whether it can pass by itself.
    #[must_use]
    pub const fn passes(self) -> bool {
        match self {
            Self::Down | Self::Full | Self::ReadOnly | Self::Busy | Self::Unknown => true,
            Self::Refused => false,
        }
    }
}

impl JournalError {
    /// Trouble, and what the database said.
    pub fn new(trouble: Trouble, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { trouble, source: Some(Arc::from(source.into())) }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.trouble {
            Trouble::Down => "reach the store of durable work",
            Trouble::Full => "write durable work down: the disk is full",
            Trouble::ReadOnly => "write durable work down: the database is read-only",
            Trouble::Busy => "write durable work down in time",
            Trouble::Unknown => "learn whether durable work was written down",
            Trouble::Refused => "write durable work down",
        })?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

impl Error for JournalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
