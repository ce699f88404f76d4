//! What the database server itself says, asked outside the pool.
//!
//! A pool's maximum is a wish. What there is to hand out is what the server has left: its slots, less those kept
//! for superusers, less our two outside the pool, less what others hold; and of that, where other processes do the
//! same, a fair part (`share.rs`). "Others" are counted, not guessed. A role or a database may have a limit of its
//! own, which is treated alike.
//!
//! The question is asked over a connection that was opened when nothing was wrong and stays open, so that it can
//! be asked when no new connection is to be had. It must live on the runtime of whoever asks. If it cannot be opened
//! because the server is full, then by connections of the same pool as well: an idle one is given up for it.

use std::{fmt, sync::Arc, time::Duration};

use selfheal_actors::level::Mode;
use sqlx::{ConnectOptions, Connection};

use super::{
    backend::{Backend, ConnectOptionsOf},
    census::{Census, Wanted},
    classify::sqlstate,
    error::Error,
    health,
    pool::Shared,
    share::Want,
};

/// How often, and how soon one after the other, a slot that was given up is tried for.
const TRIES: u32 = 50;
const SOON: Duration = Duration::from_millis(20);

/// What the server has, and what of it the pool may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerTruth {
    /// Connections that the server accepts at all (`max_connections`).
    pub max: u32,
    /// Of these, connections kept for superusers and privileged roles.
    pub reserved: u32,
    /// Connections in use, by us and by others.
    pub used: u32,
    /// Connections that the pool's gate may hand out: at most the pool's maximum, at least one.
    pub limit: u32,
    /// Connections that are the pool's fair part: at least the limit. The limit is less while others still hold what
    /// they have to give back.
    pub share: u32,
    /// Other pools on this server that share it in the same way.
    pub peers: u32,
}

/// A question to the server, over a connection of its own that stays open.
pub struct Probe<DB: Backend> {
    shared: Arc<Shared<DB>>,
    want: Want,
    connection: Option<DB::Connection>,
}

impl<DB: Backend> Probe<DB> {
    pub(super) fn new(shared: Arc<Shared<DB>>) -> Self {
        let want = Want::newcomer(shared.max, shared.failover.clock().now());
        Self { shared, want, connection: None }
    }

    /// Asks the server, and says to other pools meanwhile how many connections this one wants. `None` where there is
    /// no server to ask (SQLite). The first call opens the connection, on the runtime that polls it; one that is lost
    /// is replaced by the next call. Takes at most 2 seconds.
    ///
    /// Cancel safety: a dropped call loses the connection, and the next one opens another.
    ///
    /// # Errors
    /// [`Error::Sqlx`] if the server cannot be asked: then the limit should stay as it is, and be no more than the
    /// connections that the pool has if that is because the server is full.
    pub async fn server_truth(&mut self) -> Result<Option<ServerTruth>, Error> {
        let (max, wanted) = (self.shared.max, self.wanted());
        let said = Wanted { pool: self.shared.number, connections: wanted };
        let (census, connection) = tokio::time::timeout(health::PATIENCE * 2, self.ask(said))
            .await
            .map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))??;
        self.connection = Some(connection);
        let open = self.shared.pool.size();
        Ok(census.map(|census| truth(&census, max, wanted, open)))
    }

    /// Does what follows from the truth, if the gate acts: the gate's limit, and idle connections above the pool's
    /// share are given back, as are others when they are returned.
    pub fn apply(&self, truth: &ServerTruth) {
        let attached = self.shared.attached();
        attached.gate.set_limit(truth.limit);
        // Who only watches closes nothing.
        let share = if attached.mode.get() == Mode::Act { truth.share } else { u32::MAX };
        self.shared.keep_at_most(share);
    }

    /// Does what follows from not having been answered: if the server has no slot even for this question, the gate
    /// hands out no more than the connections that the pool has.
    pub fn make_do(&self, error: &Error) {
        let Error::Sqlx(error) = error else { return };
        if is_full(error) {
            self.shared.attached().gate.set_limit(self.shared.pool.size().max(1));
        }
    }

    /// How many connections the pool wants now.
    fn wanted(&mut self) -> u32 {
        let attached = self.shared.attached();
        let stats = attached.gate.stats();
        let demand = stats.real_in_use.saturating_add(stats.waiting_in_all());
        self.want.hear(demand, self.shared.max, self.shared.failover.clock().now())
    }

    /// The connection is put back by the caller, once it is known to be at rest.
    async fn ask(&mut self, wanted: Wanted) -> Result<(Option<Census>, DB::Connection), sqlx::Error> {
        let options = self.shared.pool.connect_options();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => dial(&self.shared, &options).await?,
        };
        let census = DB::census(&mut connection, &options, wanted).await?;
        Ok((census, connection))
    }

    /// Closes the connection.
    pub async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            // It ends either way.
            let _ = tokio::time::timeout(health::PATIENCE, connection.close()).await;
        }
    }
}

impl<DB: Backend> fmt::Debug for Probe<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("open", &self.connection.is_some()).finish_non_exhaustive()
    }
}

/// Opens the connection, in the place of an idle one of the pool if the server is full.
async fn dial<DB: Backend>(
    shared: &Shared<DB>,
    options: &ConnectOptionsOf<DB>,
) -> Result<DB::Connection, sqlx::Error> {
    match options.connect().await {
        Err(error) if is_full(&error) && shared.give_up_idle().await => {}
        outcome => return outcome,
    }
    // The server has the slot free a moment after the connection is closed.
    for _ in 1..TRIES {
        match options.connect().await {
            Err(error) if is_full(&error) => tokio::time::sleep(SOON).await,
            outcome => return outcome,
        }
    }
    options.connect().await
}

/// Whether the server said that it has too many clients.
fn is_full(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("53300")
}

/// What a census means for a pool of at most `max`, which wants `wanted` and has `open` connections.
fn truth(census: &Census, max: u32, wanted: u32, open: u32) -> ServerTruth {
    let part = census.part(wanted, open);
    ServerTruth {
        max: census.max(),
        reserved: census.reserved(),
        used: census.used(),
        limit: part.limit.min(max),
        share: part.share.min(max),
        peers: u32::try_from(census.peers()).unwrap_or(u32::MAX),
    }
}
