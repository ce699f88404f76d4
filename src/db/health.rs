//! Why there is no connection: nobody gives one back, the server is full, or the server is down.
//!
//! sqlx's pool tries again and again when the server refuses or is full, until its timeout, and then reports
//! that timeout; the cause is lost. A runtime that believed it would blame traffic for a dead database. So a
//! bare connection outside the pool is opened, which gets the server's own answer.
//!
//! One such dial answers everybody who asks within two seconds: with 90 tasks out of luck at once it must not
//! become 90 dials against a server in trouble. Once the server is known to be full or down, a task asks each
//! second until it is not, so that its recovery is noticed without traffic; the task ends with the pool.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use selfheal_actors::{
    clock::{Clock, Tick},
    signal::ServerState,
};
use sqlx::{ConnectOptions, Connection};

use super::{
    backend::Backend,
    classify::{message, sqlstate},
    error::ServerFull,
    pool::Shared,
};

/// A server that does not answer a new connection for this long is down.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A finding of this age still answers.
const FRESH: Duration = Duration::from_secs(2);

/// What is known of the server.
pub(super) struct Health {
    clock: Clock,
    /// Held while dialling, so that one dial answers all.
    last: tokio::sync::Mutex<Option<(Tick, Finding)>>,
    state: Mutex<ServerState>,
}

/// What a bare connection found out.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    /// The server takes connections: the pool is exhausted.
    Up,
    /// The server has too many clients, in its own words.
    Full(String),
    /// The server does not take connections.
    Down(io::ErrorKind, String),
}

impl Finding {
    /// The error for whoever got no connection.
    pub(super) fn into_error(self) -> sqlx::Error {
        match self {
            Self::Up => sqlx::Error::PoolTimedOut,
            Self::Full(message) => sqlx::Error::from(ServerFull { message }),
            Self::Down(kind, message) => sqlx::Error::Io(io::Error::new(kind, message)),
        }
    }

    const fn state(&self) -> ServerState {
        match self {
            Self::Up => ServerState::Up,
            Self::Full(_) => ServerState::Full,
            Self::Down(..) => ServerState::Down,
        }
    }
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            clock: Clock::tokio(),
            last: tokio::sync::Mutex::new(None),
            state: Mutex::new(ServerState::Up),
        }
    }

    pub(super) fn state(&self) -> ServerState {
        *self.state.lock()
    }
}

/// Finds out what the matter is, and tells whoever should know. Takes at most [`PATIENCE`], plus the wait for
/// the dial of somebody else.
pub(super) async fn examine<DB: Backend>(shared: &Arc<Shared<DB>>) -> Finding {
    let health = &shared.health;
    let mut last = health.last.lock().await;
    if let Some((at, finding)) = &*last
        && health.clock.now().since(*at) < FRESH
    {
        return finding.clone();
    }
    let finding = dial(shared).await;
    *last = Some((health.clock.now(), finding.clone()));
    drop(last);
    if matches!(finding, Finding::Full(_)) {
        shared.attached().gate.server_full();
    }
    note(shared, finding.state());
    finding
}

async fn dial<DB: Backend>(shared: &Shared<DB>) -> Finding {
    let options = shared.pool.connect_options();
    match tokio::time::timeout(PATIENCE, options.connect()).await {
        Ok(Ok(connection)) => {
            // It is closed politely if that works, and closed in any case.
            let _ = tokio::time::timeout(PATIENCE, connection.close()).await;
            Finding::Up
        }
        Ok(Err(error)) => diagnose(&error),
        Err(_) => Finding::Down(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}")),
    }
}

/// What a failure to connect says of the server. An error that the server itself sent, other than these, shows
/// that it is up.
fn diagnose(error: &sqlx::Error) -> Finding {
    match (error, sqlstate(error).as_deref()) {
        (_, Some("53300")) => Finding::Full(message(error).into_owned()),
        // Starting, stopping or recovering.
        (_, Some("57P03")) => Finding::Down(io::ErrorKind::ConnectionRefused, message(error).into_owned()),
        (sqlx::Error::Io(io), _) => Finding::Down(io.kind(), io.to_string()),
        _ => Finding::Up,
    }
}

/// Remembers the server's state; a change is told, and trouble is watched until it is over.
fn note<DB: Backend>(shared: &Arc<Shared<DB>>, now: ServerState) {
    let before = std::mem::replace(&mut *shared.health.state.lock(), now);
    if before == now {
        return;
    }
    shared.attached().tell_server(now);
    if before == ServerState::Up {
        let watch = watch(Arc::downgrade(shared), shared.pool.close_event());
        tokio::runtime::Handle::current().spawn(watch);
    }
}

/// Asks each second until the server is up, or the pool closed or gone.
async fn watch<DB: Backend>(shared: Weak<Shared<DB>>, mut closed: sqlx::pool::CloseEvent) {
    while closed.do_until(tokio::time::sleep(PATIENCE)).await.is_ok() {
        let Some(shared) = shared.upgrade() else { return };
        let finding = dial(&shared).await;
        let state = finding.state();
        note(&shared, state);
        if state == ServerState::Up {
            *shared.health.last.lock().await = None;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_server_and_a_dead_one_are_told_from_one_that_answers() {
        let full = sqlx::Error::from(ServerFull { message: "sorry, too many clients already".into() });
        assert!(
            matches!(diagnose(&full), Finding::Full(words) if words == "sorry, too many clients already")
        );
        let refused = sqlx::Error::Io(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(diagnose(&refused).state(), ServerState::Down);
        assert_eq!(diagnose(&sqlx::Error::PoolTimedOut).state(), ServerState::Up);
    }

    #[test]
    fn the_cause_is_what_the_caller_is_told() {
        let down = Finding::Down(io::ErrorKind::ConnectionRefused, "refused".into()).into_error();
        assert!(matches!(down, sqlx::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused));
        assert!(matches!(Finding::Up.into_error(), sqlx::Error::PoolTimedOut));
    }
}
