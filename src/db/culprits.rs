//! Statements of work that can wait, which may be ended so that critical work need not.
//!
//! The gate puts critical work first, but only when a connection comes back. If all of them are held by reports
//! that nobody had seen before, none does for seconds. Where the policy has a `cancel_after`, the monitor then asks
//! for the statements that have run longest to be ended at the server, one for each critical request that waits.
//! Whoever waits for such a statement is told SQLSTATE 57014, as at a deadline.
//!
//! **A cancel may arrive late**, and would hit whatever the session runs by then. So a session for which one was
//! asked is nobody else's afterwards: its connection is closed when it comes back. And the server is asked only
//! about a session that began before the connection was taken, so that a number which was given to another process
//! meanwhile is safe.
//!
//! What is listed are the sessions that are bound (`bound.rs`), because that is when the server says which they are.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use metrics::counter;
use parking_lot::Mutex;
use selfheal_actors::{
    clock::{Clock, Tick},
    gate::Permit,
    level::Class,
    signal::{Name, Signal},
    telemetry::STATEMENTS_CANCELLED_TOTAL,
};
use tokio::{runtime::Handle, time::timeout};

use super::{
    backend::{Backend, Session},
    health,
    pool::{HealPool, Shared},
};

/// The sessions that run statements of work that can wait.
#[derive(Debug)]
pub(super) struct Culprits {
    clock: Clock,
    listed: Mutex<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    /// By the order in which they were taken.
    sessions: BTreeMap<u64, Running>,
    taken: u64,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    session: Session,
    since: Tick,
    cancelled: bool,
}

/// A place in the list, for as long as the session is the same caller's.
#[derive(Debug)]
pub(super) struct Entry {
    culprits: Arc<Culprits>,
    place: u64,
}

impl Culprits {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { clock: Clock::tokio(), listed: Mutex::default() })
    }

    /// Lists the session that `permit` has taken, if its work can wait.
    pub(super) fn list(self: &Arc<Self>, permit: &Permit, session: Session) -> Option<Entry> {
        if permit.class() < Class::Sheddable {
            return None;
        }
        let mut listed = self.listed.lock();
        listed.taken += 1;
        let place = listed.taken;
        listed.sessions.insert(place, Running { session, since: self.clock.now(), cancelled: false });
        Some(Entry { culprits: Arc::clone(self), place })
    }

    /// Those that have run longest and are not cancelled yet, and for how long. They count as cancelled from now on.
    fn strike(&self, most: u32) -> Vec<(Session, Duration)> {
        let now = self.clock.now();
        let mut listed = self.listed.lock();
        let spared = listed.sessions.values_mut().filter(|running| !running.cancelled);
        let struck = spared.take(most as usize).map(|running| {
            running.cancelled = true;
            (running.session, now.since(running.since))
        });
        struck.collect()
    }
}

impl Entry {
    /// Takes the session off the list, and says whether a cancel was asked for it, which may still arrive.
    pub(super) fn leave(self) -> bool {
        self.take().is_some_and(|running| running.cancelled)
    }

    fn take(&self) -> Option<Running> {
        self.culprits.listed.lock().sessions.remove(&self.place)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.take();
    }
}

impl<DB: Backend> HealPool<DB> {
    /// Ends up to `most` statements of work that can wait, those that have run longest first, in a task of `host`.
    pub(crate) fn cancel_longest(&self, most: u32, host: &Handle) {
        let struck = self.shared.culprits.strike(most);
        if !struck.is_empty() {
            let shared = Arc::clone(&self.shared);
            host.spawn(async move { cancel(&shared, struck).await });
        }
    }
}

/// Over a connection beyond the gate's limit: those within it are all in use, which is the matter.
async fn cancel<DB: Backend>(shared: &Shared<DB>, struck: Vec<(Session, Duration)>) {
    let Ok(Ok(mut conn)) = timeout(health::PATIENCE, shared.pool.acquire()).await else {
        return tracing::warn!(target: "selfheal", "no connection over which statements could be cancelled");
    };
    let mut statements = 0;
    for (session, held) in struck {
        match timeout(health::PATIENCE, DB::cancel(&mut conn, session, held)).await {
            Ok(Ok(ended)) => statements += u32::from(ended),
            Ok(Err(error)) => {
                tracing::warn!(target: "selfheal", %error, "a statement could not be cancelled")
            }
            // Nobody knows what the connection is in.
            Err(_) => return conn.close_on_drop(),
        }
    }
    conn.return_to_pool().await;
    if statements > 0 {
        let pool = Name::clone(shared.attached().gate.pool());
        counter!(STATEMENTS_CANCELLED_TOTAL.name, "pool" => pool.to_string()).increment(statements.into());
        shared.attached().tell(Signal::Cancelled { pool, statements });
    }
}
