//! Integration tests.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken expectation is how a test fails")]

mod config;
mod supervision;
mod tidy;
