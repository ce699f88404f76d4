//! Integration tests on a private PostgreSQL.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a broken expectation is how a test fails, and figures are to be seen"
)]

mod culprits;
mod drill;
#[path = "../durable/mod.rs"]
mod durable;
mod failover;
mod faults;
#[path = "../guarded/mod.rs"]
mod guarded;
mod jobs;
mod keeper;
mod kills;
mod long_operation;
#[path = "../operations/mod.rs"]
mod operations;
mod lookup;
mod pool;
mod proxy;
mod server;
mod server_kills;
mod server_truth;
mod sharing;
mod soak;
mod status_transitions;
mod store;
