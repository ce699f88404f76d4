//! The layers of tower-resilience around the query.
//!
//! They are set as somebody would who has read their documentation: the breaker is inside the bulkhead, so that it
//! does not count what the bulkhead refuses (with the defaults, and outside, it opens for 30 seconds as soon as half of
//! a hundred calls were refused), and stays open for a second.

use std::{error::Error, time::Duration};

use sqlx::PgPool;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_resilience_adaptive::{AdaptiveError, AdaptiveLimiterLayer, Gradient2};
use tower_resilience_bulkhead::{BulkheadLayer, BulkheadServiceError};
use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer};

use super::tower::{Layered, Stack, query};
use crate::SLOTS;

/// How long a call may wait for its place.
const WAIT: Duration = Duration::from_millis(100);

pub(crate) fn bulkhead(pool: PgPool) -> Result<Layered, Box<dyn Error>> {
    let bulkhead =
        BulkheadLayer::builder().max_concurrent_calls(SLOTS as usize).max_wait_duration(WAIT).build()?;
    let breaker = CircuitBreakerLayer::builder().wait_duration_in_open(Duration::from_secs(1)).build()?;
    let stack = ServiceBuilder::new().layer(bulkhead).layer(breaker).service(query(pool));
    Ok(Layered(Stack::new(stack.map_err(|error| -> BoxError {
        match error {
            BulkheadServiceError::Inner(CircuitBreakerError::Inner(error)) => error.into(),
            refused @ (BulkheadServiceError::Bulkhead(_)
            | BulkheadServiceError::Inner(CircuitBreakerError::OpenCircuit)) => refused.into(),
        }
    }))))
}

pub(crate) fn adaptive(pool: PgPool) -> Result<Layered, Box<dyn Error>> {
    let most = SLOTS as usize;
    let algorithm = Gradient2::builder().initial_limit(most).min_limit(20).max_limit(most).build()?;
    let stack =
        ServiceBuilder::new().load_shed().layer(AdaptiveLimiterLayer::new(algorithm)).service(query(pool));
    Ok(Layered(Stack::new(stack.map_err(|error| match error.downcast::<AdaptiveError<sqlx::Error>>() {
        Ok(error) => match *error {
            AdaptiveError::Service(error) => error.into(),
            refused @ AdaptiveError::LimitReached => refused.into(),
        },
        Err(error) => error,
    }))))
}
