//! Integration tests.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a broken expectation is how a test fails"
)]

mod config;
mod supervision;
mod api_errors;
mod http_layer;
mod support;
mod simulate_pool;
mod tidy;
