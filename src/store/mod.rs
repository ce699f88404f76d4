//! What must outlive the process: durable jobs, in the database whose work they are.
//!
//! [`Jobs`] is a [`Journal`](selfheal_actors::batch_executor::journal::Journal) beside a [`HealPool`](crate::HealPool):
//! in the same database, so that what a job does and that it is done are one transaction
//! ([`Jobs::settle_within`], [`Jobs::checkpoint_within`], [`Jobs::enqueue`]), and past its gate, because work is deferred
//! just when the pool is exhausted.
//!
//! - **One connection writes for many callers** (`writer.rs`). Whoever comes while it writes waits for the next round,
//!   and all of a round share one statement and one commit. Nobody lingers for company: a lone caller is written at
//!   once. A commit is a wait for a disk, 150 µs and more, whatever is in it: where plain inserts with a commit
//!   each are 6,000 a second, 200 callers who share commits are 50,000 (`benches/queue`).
//! - **Set-wise everything.** A claim leases up to as many jobs as it is asked for in one statement, in the order of one
//!   index; ends are written a set at a time. A job that need not be kept is deleted by the statement that counts it.
//! - **The books** (`selfheal_job_counts`). Each statement that accepts or ends jobs also says how many, in the same
//!   snapshot. So `accepted = pending + leased + done + dead` is no tautology: a job that was lost is missed.
//! - **One index for who is next and who is overdue.** A lease is a job that is due again when the lease ends, so a
//!   process that was killed needs nobody to clean up after it. Each class waits ten seconds longer than the one before,
//!   so the better goes first and nobody starves.
//! - **No plan is left to chance.** The connections here tell PostgreSQL's planner to follow the index: one that knows
//!   nothing of the table (it was empty when it was last analyzed) would read and sort a whole backlog for each claim.
//! - **Who waits is told** (`listen.rs`, `wake.rs`): in this process by a bell, in others by a notification in the
//!   transaction that accepts. PostgreSQL lets commits that bear one pass one by one, so it is only sent where a queue has
//!   nothing that is due: where something waits already, somebody works. On SQLite another process looks every second.
//! - **Leases by the database's clock.** SQLite has none of its own: there one process holds a lock file, which the
//!   system takes from it however it ends, and the next one takes its jobs over at once.
//!
//! What was refused: a table for each queue (creating one needs rights that a service should not have); a notification
//! for each job (under load all commits of a server would wait for each other); keeping what is done (a second row to
//! write for each, which nobody reads).
//!
//! Not protected: a database that loses what it has committed. SQLite is told to sync each commit of its own here,
//! whatever the pool is content with; a PostgreSQL that runs with `synchronous_commit = off` is taken at its word. What is enqueued in a host's own transaction is as safe as that transaction.

mod answers;
mod dialect;
mod jobs;
mod listen;
mod lock;
mod migrations;
mod overview;
mod postgres;
mod sqlite;
mod trouble;
mod wake;
mod within;
mod writer;

pub use dialect::Dialect;
pub use jobs::Jobs;
pub(crate) use jobs::LONGEST;
pub use migrations::{MigrateError, Migration, Schema, migrate, schema, script};
pub use overview::Queue;
pub(crate) use trouble::by_code;
