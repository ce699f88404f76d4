//! One acquisition, from its arrival until its connection is given back.

use crate::{
    clock::Tick,
    gate::{
        queue::{Links, List, Place},
        service::Operation,
    },
    level::Class,
    slab::Key,
    user_limit::UserKey,
};

/// Finds a claim for as long as it waits or holds.
pub type ClaimId = Key<Claim>;

/// Finds a request or job for as long as it is in flight.
pub type JobId = Key<Job>;

/// A request or job that was admitted.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub(super) class: Class,
    /// The class whose turn its claims wait for: a retry under pressure yields to first tries.
    pub(super) served_as: Class,
    pub(super) user: Option<UserKey<List>>,
    pub(super) operation: Option<Operation>,
    pub(super) entered: Tick,
    pub(super) deadline: Tick,
    /// Queries that it was admitted for as a whole; none if it was not.
    pub(super) whole: Option<u32>,
    /// Those of them that have not been done yet.
    pub(super) left: u32,
    /// Connections that it has asked for.
    pub(super) asked: u32,
}

/// One acquisition.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub(super) job: Option<JobId>,
    pub(super) class: Class,
    pub(super) served_as: Class,
    pub(super) user: Option<UserKey<List>>,
    pub(super) operation: Option<Operation>,
    pub(super) long: bool,
    pub(super) place: Place,
    pub(super) state: State,
    /// Grows with each that begins to wait.
    pub(super) sequence: u64,
    pub(super) arrived: Tick,
    /// When it began to wait for the pool: later than it arrived, if it was set aside for its user.
    pub(super) queued: Tick,
    pub(super) granted: Tick,
    pub(super) deadline: Tick,
    /// When it waits no longer.
    pub(super) expires: Tick,
    /// When it goes before others, if it is a job's.
    pub(super) due: Tick,
    pub(super) links: Links,
}

/// Where a claim is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It was not decided about yet.
    New,
    /// It waits for one of its user's own connections.
    Parked,
    /// It waits for a connection.
    Waiting,
    /// It has one.
    Held,
}
