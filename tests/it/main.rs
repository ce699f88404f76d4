//! Integration tests.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a broken expectation is how a test fails"
)]

mod admin;
mod api_drill;
mod api_errors;
mod before;
mod config;
#[path = "../deferred/mod.rs"]
mod deferred;
mod deferred_work;
#[path = "../durable/mod.rs"]
mod durable;
#[path = "../guarded/mod.rs"]
mod guarded;
mod healing_replies;
mod http_layer;
mod jobs;
mod leaving;
mod long_operation;
mod lookup;
mod loop_of_healing;
#[path = "../operations/mod.rs"]
mod operations;
mod pool_exhaustion;
mod pool_exhaustion_drill;
mod queues;
mod serve;
mod simulate_breaker;
mod simulate_plan;
mod simulate_pool;
mod simulate_retry;
mod simulate_transition;
mod status_transitions;
mod steady_load;
mod supervision;
mod supervision_under_load;
mod support;
mod tidy;
mod timeout_drill;
mod transitions_drill;
mod traps;
mod upstream;
mod whole_layer;
