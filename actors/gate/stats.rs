//! What a gate looks like at one moment.

use std::time::Duration;

use crate::{
    clock::Tick,
    gate::{ByClass, Params, Tally},
    level::Mode,
    signal::Name,
};

/// A gate at one moment. While it only watches, everything but [`Stats::real_in_use`] speaks of what would be.
#[derive(Clone, Debug)]
pub struct Stats {
    /// The pool.
    pub pool: Name,
    /// The mode in force.
    pub mode: Mode,
    /// Connections that may be in use at most.
    pub limit: u32,
    /// Connections in use: held through the gate, and by others.
    pub in_use: u32,
    /// Connections held through the gate in truth, whatever the mode.
    pub real_in_use: u32,
    /// Those that wait for a connection, by class. Whoever waits for their own user's is not among them.
    pub waiting: ByClass<u32>,
    /// Those that wait for one of their own user's connections.
    pub parked: u32,
    /// Since when somebody's wait is pressure: at once, but for work that may be shed only once it has lasted
    /// [`standing`](crate::gate::Policy::standing). May lie ahead.
    pub pressed_since: Option<Tick>,
    /// Since when the critical one who waits longest has waited.
    pub critical_waiting_since: Option<Tick>,
    /// For how long the one who waits longest has waited, deferred work aside.
    pub oldest_wait: Duration,
    /// Requests and jobs in flight.
    pub in_flight: usize,
    /// Users who have anything in flight.
    pub users: usize,
    /// Connections held, by those who can be listed.
    pub holders: usize,
    /// Acquisitions without a ticket, since the start.
    pub ticketless: u64,
    /// Leaks told, since the start.
    pub leaks: u64,
    /// The parameters in force.
    pub params: Params,
    /// What was done since the start.
    pub acted: Tally,
    /// What would have been done while the gate only watched, since the start.
    pub would: Tally,
}

impl Stats {
    /// Those that wait for a connection, of all classes.
    #[must_use]
    pub fn waiting_in_all(&self) -> u32 {
        self.waiting.iter().sum()
    }
}
