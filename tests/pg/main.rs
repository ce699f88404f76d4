//! Integration tests on a private PostgreSQL.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a broken expectation is how a test fails, and figures are to be seen"
)]

mod culprits;
mod drill;
#[path = "../guarded/mod.rs"]
mod guarded;
mod kills;
mod pool;
mod server;
mod server_truth;
mod sharing;
mod soak;
