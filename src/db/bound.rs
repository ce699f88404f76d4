//! A statement ends at the server when its answer is of no use any more.
//!
//! A dropped query runs on, and keeps its connection until it ends. With a database that has become four times
//! slower most of what it does is then for callers who have gone: measured on PostgreSQL at .7 of the former
//! capacity, goodput .71, and .82 with statements that end at their caller's deadline. A session's
//! `statement_timeout` does not do that: it must allow for the slowest that anybody may ask for.
//!
//! So a connection that is taken under pressure, or by work that can wait, is *bound*: the server is told to end
//! each statement on it after the time that its taker has left. That is one round trip, and another one to
//! loosen it on the way back: .2 ms of a query of 50. Calm critical and normal work pays nothing.
//!
//! sqlx keeps no notes beside a connection, so the way back cannot be told what to do; but it runs in our task,
//! and the pool's hook looks whether that task asks for it.

use std::time::Duration;

use futures_core::future::BoxFuture;
use selfheal_actors::{
    gate::Permit,
    level::{Class, Level},
};

use super::backend::Backend;

tokio::task_local! {
    /// The connection that goes back in this task is bound.
    static BOUND: ();
}

/// How long statements for `permit` may run, if that has to be said.
pub(super) fn needed(permit: &Permit, level: Level) -> Option<Duration> {
    let can_wait = permit.class() >= Class::Sheddable;
    let left = permit.time_left().filter(|_| can_wait || level > Level::Normal)?;
    // The server knows whole milliseconds, and takes 0 for "no bound".
    Some(left.max(Duration::from_millis(1)))
}

/// The way back of a bound connection: loosened before it is anybody's.
pub(super) async fn loosened(back: impl Future<Output = ()>) {
    BOUND.scope((), back).await;
}

/// What the pool does with a connection that comes back.
pub(super) fn on_release<DB: Backend>(conn: &mut DB::Connection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
    Box::pin(async {
        if BOUND.try_with(|()| ()).is_ok() {
            DB::loosen(conn).await?;
        }
        Ok(true)
    })
}
