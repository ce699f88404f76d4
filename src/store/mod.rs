//! What must outlive the process: durable jobs, in the database whose work they are.
//!
//! [`Jobs`] is a [`Journal`](selfheal_actors::batch_executor::journal::Journal) beside a [`HealPool`](crate::HealPool):
//! in the same database, so that what a job does and that it is done are one transaction
//! ([`Jobs::settle_within`], [`Jobs::checkpoint_within`], [`Jobs::enqueue`]), and past its gate, because work is deferred
//! just when the pool is exhausted.
//!
//! - **One connection writes for many callers** (`writer.rs`). Whoever comes while it writes waits for the next round,
//!   and all of a round share one statement and one commit. Nobody lingers for company: a lone caller is written at once.
//!   A commit is a wait for a disk, 150 µs and more, whatever is in it: plain inserts with a commit each are 2,800 a
//!   second, and 107,000 where 200 callers share commits (bare SQL on PostgreSQL 15, `fdatasync` of 160 µs; how near
//!   this comes to it has not been measured).
//! - **Set-wise everything.** A claim leases up to as many jobs as it is asked for in one statement, in the order of one
//!   index; ends are written a set at a time. A job that need not be kept is deleted by the statement that counts it.
//! - **The books** (`selfheal_job_counts`). Each statement that accepts or ends jobs also says how many, in the same
//!   snapshot. So `accepted = pending + leased + done + dead` is no tautology: a job that was lost is missed.
//! - **One index for who is next and who is overdue.** A lease is a job that is due again when the lease ends, so a
//!   process that was killed needs nobody to clean up after it. Each class waits ten seconds longer than the one before,
//!   so the better goes first and nobody starves.
//! - **Leases by the database's clock.** SQLite has none of its own: there one process holds a lock file, which the
//!   system takes from it however it ends, and the next one takes its jobs over at once.
//!
//! What was refused: a table for each queue (creating one needs rights that a service should not have); a `NOTIFY` in
//! the transaction that accepts (its commits then pass one by one through a lock of the whole server); keeping what is
//! done (a second row to write for each, which nobody reads).
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
pub use migrations::{MigrateError, Migration, Schema, migrate, schema, script};
pub use overview::Queue;
