//! Everything that page, API, metrics and command line show: one reading, taken from memory.
//!
//! The admin surface is looked at when the pool is exhausted, so nothing here asks the database, waits for an
//! actor, or takes a connection. A reading is plain values; whoever wires the parts says how it is taken.
//!
//! In JSON: snake_case, durations as numbers of seconds, times as RFC 3339 in UTC.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use selfheal_actors::{
    batch_executor, breaker,
    gate::{Holder, Reason, Stats},
    level::{Class, Level, Mode, Severity},
    signal::Name,
    transition::Counted,
};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::store::Queue;

/// The runtime at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What the service is called.
    pub service: Name,
    /// The moment.
    pub at: SystemTime,
    /// For how long the runtime has run.
    pub uptime: Duration,
    /// How far it may go.
    pub mode: Mode,
    /// The worst severity of what is open; [`Severity::Info`] if nothing is.
    pub severity: Severity,
    /// Whether the control plane runs.
    pub up: bool,
    /// The pools.
    pub pools: Vec<Pool>,
    /// The circuits, by endpoint.
    pub breakers: Vec<breaker::View>,
    /// How often a circuit was asked for beyond the bound of how many there are.
    pub label_overflow: u64,
    /// The tables of statuses, and what was blocked of each.
    pub transitions: Vec<Transition>,
    /// The queues of durable jobs, with the pool whose database they are in, as they were a moment ago.
    pub queues: Vec<(Name, Queue)>,
    /// The long operations that are registered, by name.
    pub batches: Vec<Batch>,
    /// The children of all supervisors, in start order.
    pub children: Vec<Child>,
    /// The incidents that are remembered, newest first.
    pub incidents: Vec<Incident>,
}

/// A pool at one moment.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its gate.
    pub stats: Stats,
    /// Its level.
    pub level: Level,
    /// Connections that it may have.
    pub max: u32,
    /// Connections that it has, used or idle.
    pub open: u32,
    /// What the database server says about itself, if it was asked.
    pub server: Option<Server>,
}

/// A kind of long operation at one moment, in this process.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its name.
    pub operation: Name,
    /// Items of a batch.
    pub size: u32,
    /// Items that nothing has become of yet, of all operations under way.
    pub remaining: u64,
    /// What has become of all others.
    pub tally: batch_executor::Tally,
}

/// A database server's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// In use, by anybody.
    pub used: u32,
    /// That it may have.
    pub max: u32,
    /// Of these, kept for superusers.
    pub reserved: u32,
    /// The pool's fair part of it. The limit is less while others still hold some of it.
    pub share: u32,
    /// Other pools that share it in the same way.
    pub peers: u32,
}

/// A table of statuses at one moment.
#[derive(Clone, Debug)]
pub struct Transition {
    /// What kind of thing it is about.
    pub machine: Name,
    /// What was blocked so far, by edge.
    pub blocked: Vec<Counted>,
}

/// A supervised child at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Child {
    /// Its supervisor.
    pub supervisor: Name,
    /// Its id, by which it is restarted.
    pub id: Name,
    /// What it does: `up`, `starting`, `waiting`, `stopping`, `down` or `abandoned`.
    pub state: &'static str,
    /// Which start of it this is.
    pub generation: u64,
    /// How often it was started, failed attempts included.
    pub starts: u64,
    /// How often it was brought back.
    pub restarts: u64,
    /// How it ended the last time.
    pub last_exit: Option<Name>,
    /// Since when it is in this state.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
    /// Its mailbox, if it has one.
    pub mailbox: Option<Mail>,
}

impl Child {
    /// Whether it runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == "up"
    }
}

/// A mailbox at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mail {
    /// Messages that wait.
    pub depth: usize,
    /// Reports pushed out by newer ones, since the start.
    pub dropped: u64,
}

/// An incident at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Incident {
    /// Its id.
    pub id: Name,
    /// What it is about.
    pub kind: Name,
    /// Whom it is about.
    pub subject: Name,
    /// What was the matter at its beginning, in words.
    pub cause: Name,
    /// Where it stands: `opened`, `escalated`, `resolved` or `failed`.
    pub phase: &'static str,
    /// The worst it has been.
    pub severity: Severity,
    /// When it began.
    #[serde(serialize_with = "rfc3339")]
    pub opened_at: SystemTime,
    /// How long it took for its cause to go away.
    #[serde(rename = "recovered_in_seconds", serialize_with = "maybe_seconds")]
    pub recovered_in: Option<Duration>,
    /// When it was closed.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub closed_at: Option<SystemTime>,
    /// Who closed it: `auto`, or a person.
    pub resolution: Option<Name>,
    /// The highest use of the pool: in use, and what it could have.
    pub peak: Option<Peak>,
    /// The changes of status that were blocked, if it is about such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Attempts>,
    /// What a person should do about it, if there is anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
    /// What was done, in order.
    pub actions: Vec<Deed>,
    /// The incident it is a consequence of.
    pub under: Option<Name>,
    /// What people noticed.
    pub impact: Noticed,
}

impl Incident {
    /// Whether it is not over yet.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }
}

/// The highest use of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Peak {
    /// Connections in use.
    pub in_use: u32,
    /// Connections that the pool could have.
    pub max: u32,
}

/// Changes of status that were blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempts {
    /// What was being done, if that was one thing.
    pub operation: Option<Name>,
    /// How many were blocked.
    pub blocked: u64,
    /// Which.
    pub edges: Vec<Edge>,
    /// How many the same calls have made.
    pub made: u64,
    /// They would have been blocked, but the mode was `observe`.
    pub would: bool,
}

/// Changes of status from one state to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// The state in which they were found.
    pub from: Name,
    /// The state to which they were to change.
    pub to: Name,
    /// How many.
    pub count: u64,
}

/// Something that was done.
#[derive(Clone, Debug, Serialize)]
pub struct Deed {
    /// What, by its name.
    pub action: &'static str,
    /// What, in words.
    pub says: String,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    pub taken_at: SystemTime,
    /// Until when.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub undone_at: Option<SystemTime>,
    /// It would have been done, but the mode was `observe`.
    pub would: bool,
}

/// What people noticed of an incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Noticed {
    /// Requests refused.
    pub shed: u64,
    /// Requests answered after their deadline.
    pub late: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Optional parts left out of replies.
    pub omitted: u64,
    /// About how many users these were.
    pub users: u64,
}

/// The whole of it on one screen.
#[derive(Serialize)]
pub(crate) struct Status<'a> {
    service: &'a str,
    version: &'static str,
    #[serde(serialize_with = "rfc3339")]
    at: SystemTime,
    #[serde(serialize_with = "seconds")]
    uptime_seconds: Duration,
    up: bool,
    mode: Mode,
    severity: Severity,
    level: Level,
    pools: Vec<Brief<'a>>,
    children: Count,
    open_incidents: Vec<&'a Incident>,
}

#[derive(Serialize)]
struct Brief<'a> {
    name: &'a str,
    level: Level,
    in_use: u32,
    max: u32,
    waiting: u32,
}

#[derive(Serialize)]
struct Count {
    up: usize,
    total: usize,
}

impl Reading {
    pub(crate) fn status(&self) -> Status<'_> {
        let brief = |pool: &'_ Pool| (pool.level, pool.stats.in_use, pool.max, pool.stats.waiting_in_all());
        Status {
            service: &self.service,
            version: env!("CARGO_PKG_VERSION"),
            at: self.at,
            uptime_seconds: self.uptime,
            up: self.up,
            mode: self.mode,
            severity: self.severity,
            level: self.pools.iter().map(|pool| pool.level).max().unwrap_or_default(),
            pools: self
                .pools
                .iter()
                .map(|pool| {
                    let (level, in_use, max, waiting) = brief(pool);
                    Brief { name: &pool.stats.pool, level, in_use, max, waiting }
                })
                .collect(),
            children: Count {
                up: self.children.iter().filter(|child| child.is_up()).count(),
                total: self.children.len(),
            },
            open_incidents: self.incidents.iter().filter(|incident| incident.is_open()).collect(),
        }
    }
}

/// A pool as it is shown.
#[derive(Serialize)]
pub(crate) struct PoolView<'a> {
    name: &'a str,
    level: Level,
    /// Of those that the gate may hand out; while it only watches, of those it would have.
    in_use: u32,
    real_in_use: u32,
    limit: u32,
    max: u32,
    open: u32,
    utilization_ratio: f64,
    waiting: ByClass<u32>,
    parked: u32,
    #[serde(serialize_with = "seconds")]
    oldest_wait_seconds: Duration,
    in_flight: usize,
    users: usize,
    holders: usize,
    ticketless: u64,
    leaks: u64,
    refused: ByClass<Reasons>,
    would_refuse: ByClass<Reasons>,
    in_force: InForce,
    server: Option<Server>,
}

#[derive(Serialize)]
struct InForce {
    shed: bool,
    user_limit: Option<u32>,
    critical_only: bool,
    omit_optional: bool,
    pause_durable: bool,
    batch: u32,
}

impl Pool {
    /// Connections in use per connection that the pool may have.
    #[must_use]
    pub fn utilization(&self) -> f64 {
        if self.max == 0 { 0.0 } else { f64::from(self.stats.in_use) / f64::from(self.max) }
    }

    pub(crate) fn view(&self) -> PoolView<'_> {
        let stats = &self.stats;
        let params = stats.params;
        let reasons = |tally: &selfheal_actors::gate::Tally, class: usize| {
            Reasons(std::array::from_fn(|reason| tally.refused.of(Class::ALL[class], Reason::ALL[reason])))
        };
        PoolView {
            name: &stats.pool,
            level: self.level,
            in_use: stats.in_use,
            real_in_use: stats.real_in_use,
            limit: stats.limit,
            max: self.max,
            open: self.open,
            utilization_ratio: self.utilization(),
            waiting: ByClass(stats.waiting),
            parked: stats.parked,
            oldest_wait_seconds: stats.oldest_wait,
            in_flight: stats.in_flight,
            users: stats.users,
            holders: stats.holders,
            ticketless: stats.ticketless,
            leaks: stats.leaks,
            refused: ByClass(std::array::from_fn(|class| reasons(&stats.acted, class))),
            would_refuse: ByClass(std::array::from_fn(|class| reasons(&stats.would, class))),
            in_force: InForce {
                shed: params.shed,
                user_limit: params.user_limit,
                critical_only: params.critical_only,
                omit_optional: params.omit_optional,
                pause_durable: params.pause_durable,
                batch: params.batch,
            },
            server: self.server,
        }
    }
}

/// A connection's holder as it is shown.
#[derive(Serialize)]
pub(crate) struct HolderView<'a> {
    operation: Option<&'a str>,
    site: String,
    user: Option<&'a str>,
    class: Class,
    #[serde(serialize_with = "seconds")]
    held_seconds: Duration,
    leaked: bool,
}

impl<'a> From<&'a Holder> for HolderView<'a> {
    fn from(holder: &'a Holder) -> Self {
        Self {
            operation: holder.operation.as_deref(),
            site: format!("{}:{}", holder.site.file(), holder.site.line()),
            user: holder.user.as_deref(),
            class: holder.class,
            held_seconds: holder.held,
            leaked: holder.leaked,
        }
    }
}

/// One value for each class, under its name.
struct ByClass<T>([T; 4]);

impl<T: Serialize> Serialize for ByClass<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Class::ALL.iter().map(|class| class.name()).zip(&self.0))
    }
}

/// Counts of refusals; a reason that never was is not shown.
struct Reasons([u64; Reason::ALL.len()]);

impl Serialize for Reasons {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (reason, count) in Reason::ALL.iter().zip(self.0).filter(|(_, count)| *count > 0) {
            map.serialize_entry(reason.name(), &count)?;
        }
        map.end()
    }
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Shown(*at))
}

fn maybe_rfc3339<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| Shown(at).to_string()).serialize(serializer)
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn maybe_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

/// A wall time; one that the format cannot show (before 1970, after 9999) is shown as the nearest it can.
struct Shown(SystemTime);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LAST: Duration = Duration::from_secs(253_402_300_799);
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST);
        humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_whatever_the_clock_says() {
        let at = |seconds| Shown(SystemTime::UNIX_EPOCH + Duration::from_millis(seconds)).to_string();
        assert_eq!(at(1_767_225_600_250), "2026-01-01T00:00:00.250Z");
        assert_eq!(
            Shown(SystemTime::UNIX_EPOCH - Duration::from_secs(9)).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
        assert_eq!(at(u64::MAX), "9999-12-31T23:59:59.000Z");
    }
}
