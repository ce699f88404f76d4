//! Integration tests on a private PostgreSQL.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a broken expectation is how a test fails, and figures are to be seen"
)]

mod before;
mod culprits;
#[path = "../deferred/mod.rs"]
mod deferred;
mod deferred_work;
mod drill;
#[path = "../durable/mod.rs"]
mod durable;
mod failover;
mod faults;
#[path = "../guarded/mod.rs"]
mod guarded;
mod heard;
mod jobs;
mod keeper;
mod kills;
mod long_operation;
mod lookup;
mod operation_siege;
#[path = "../operations/mod.rs"]
mod operations;
mod pool;
mod proxy;
mod server;
mod server_kills;
mod server_truth;
mod sharing;
mod soak;
mod status_transitions;
mod store;
