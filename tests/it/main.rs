//! Integration tests.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a broken expectation is how a test fails"
)]

mod api_errors;
mod config;
mod http_layer;
#[path = "../guarded/mod.rs"]
mod guarded;
mod http_layer;
mod pool_exhaustion;
mod support;
mod admin;
mod api_errors;
mod config;
mod http_layer;
mod simulate_pool;
mod supervision;
mod support;
mod tidy;
