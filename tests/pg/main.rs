//! Integration tests on a private PostgreSQL.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken expectation is how a test fails")]

mod drill;
#[path = "../guarded/mod.rs"]
mod guarded;
mod pool;
mod server;
mod server_truth;
