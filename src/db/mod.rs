//! A gate in front of sqlx: the same queries, but under pressure the important ones first.
//!
//! [`HealPool`] stands where an `sqlx::Pool` stood. Its `pool.rs` argues the design; `lease.rs` keeps a connection
//! and its permit together; `call.rs` runs what a caller waits for in a task, so that a dropped caller leaks
//! nothing; `bound.rs` has the server end what nobody waits for any more, `culprits.rs` what critical work cannot
//! wait for; `health.rs` and `probe.rs` ask the server itself, outside the pool; `share.rs` divides a server among
//! the gates of several processes; `classify.rs` says what an error means.

mod backend;
mod bound;
mod call;
mod census;
mod classify;
mod conn;
mod culprits;
mod doubt;
mod error;
mod executor;
mod failover;
mod health;
mod lease;
mod lookup;
mod nesting;
mod pool;
mod probe;
mod settings;
mod share;
mod statement;
mod supply;
mod usage;

pub use backend::{Backend, ConnectOptionsOf};
pub(crate) use classify::by_sqlstate as class_of_sqlstate;
pub use classify::{ErrorClass, classify, message};
pub use conn::{HealConn, HealTransaction};
pub use error::{Error, refusal};
pub use lookup::{Lookup, LookupError};
pub use pool::{HealPool, PgHealPool, SqliteHealPool};
pub use probe::{Probe, ServerTruth};
pub use settings::{Builder, Gap};
pub use usage::Usage;
