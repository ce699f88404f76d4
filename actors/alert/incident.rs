//! What people are told: what went wrong, what was done about it, and what it cost.

use std::{fmt, time::Duration};

use crate::{
    clock::Tick,
    level::Severity,
    signal::{Action, Edge, Name},
};

/// What is to be done about code that asks for what is not allowed.
pub(super) const REVIEW: &str = "code review recommended";

/// What an incident is about. Together with its subject it is what makes two the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A pool under pressure; the subject is `pool:NAME`.
    PoolPressure,
    /// Children of a supervisor that had to be restarted; the subject is the supervisor.
    ChildRestarts,
    /// A supervisor that gave up; the subject is the supervisor.
    Escalation,
    /// Connections held for too long; the subject is `pool:NAME`.
    Leak,
    /// A database server in trouble; the subject is `pool:NAME`.
    Server,
    /// A pool that its monitor cannot see; the subject is `pool:NAME`.
    Blind,
    /// A circuit that opened; the subject is the endpoint.
    Circuit,
    /// Changes of status that were blocked; the subject is the machine.
    InvalidTransitions,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::PoolPressure,
        Self::ChildRestarts,
        Self::Escalation,
        Self::Leak,
        Self::Server,
        Self::Blind,
        Self::Circuit,
        Self::InvalidTransitions,
    ];

    /// The name used in metrics, page, log and API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PoolPressure => "pool_pressure",
            Self::ChildRestarts => "child_restarts",
            Self::Escalation => "escalation",
            Self::Leak => "leak",
            Self::Server => "server",
            Self::Blind => "blind",
            Self::Circuit => "circuit",
            Self::InvalidTransitions => "invalid_transitions",
        }
    }

    /// Whether its coming back shows that healing does not hold. What is blocked each time it is tried was healed
    /// each time.
    #[must_use]
    pub const fn can_flap(self) -> bool {
        match self {
            Self::PoolPressure
            | Self::ChildRestarts
            | Self::Escalation
            | Self::Leak
            | Self::Server
            | Self::Blind
            | Self::Circuit => true,
            Self::InvalidTransitions => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It has begun.
    Opened,
    /// It has become critical.
    Escalated,
    /// It is over.
    Resolved,
    /// Healing has failed; it waits for a person.
    Failed,
}

impl Phase {
    /// The name used in traces, page, log and API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Escalated => "escalated",
            Self::Resolved => "resolved",
            Self::Failed => "failed",
        }
    }
}

/// Who ended an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It went away by what was done automatically.
    Auto,
    /// This person closed it.
    Manual(Name),
}

impl Resolution {
    /// The name used in metrics and API.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual(_) => "manual",
        }
    }
}

/// One incident.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// Short, and unique over all runs of the process.
    pub id: Name,
    /// What it is about.
    pub kind: Kind,
    /// Whom it is about.
    pub subject: Name,
    /// What was the matter at its beginning, in words.
    pub cause: Name,
    /// Where it stands.
    pub phase: Phase,
    /// The worst it has been.
    pub severity: Severity,
    /// When it began.
    pub opened_at: Tick,
    /// When its cause went away, if it has.
    pub recovered_at: Option<Tick>,
    /// When it was closed, if it is.
    pub closed_at: Option<Tick>,
    /// Who closed it.
    pub resolution: Option<Resolution>,
    /// How often its cause came back.
    pub reopened: u32,
    /// The highest use of the pool, if it is about one.
    pub peak: Option<Peak>,
    /// The changes of status that were blocked, if it is about such.
    pub attempts: Option<Attempts>,
    /// What was done, in order.
    pub actions: Vec<Deed>,
    /// Other incidents that are its consequences, by their ids.
    pub symptoms: Vec<Name>,
    /// The incident it is a consequence of. As long as that is open nobody is alerted about this one.
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

    /// What a person should do about it, if there is anything.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        let worth = self.kind == Kind::InvalidTransitions && self.severity >= Severity::Warning;
        worth.then_some(REVIEW)
    }

    /// From its beginning until its cause went away.
    #[must_use]
    pub fn recovered_in(&self) -> Option<Duration> {
        self.recovered_at.map(|at| at.since(self.opened_at))
    }
}

/// Changes of status that were blocked, and those that were made beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// What was being done, if that was said and it was always the same.
    pub operation: Option<Name>,
    /// How many were blocked.
    pub blocked: u64,
    /// Which: at most 64 different ones.
    pub edges: Vec<Edge>,
    /// How many the same calls have made.
    pub made: u64,
    /// True if they would have been blocked, but the mode was `observe`.
    pub would: bool,
}

/// The highest use of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// Connections in use.
    pub in_use: u32,
    /// Connections that the pool could have.
    pub max: u32,
}

/// An action, and the time for which it was in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// What was done.
    pub action: Action,
    /// Since when.
    pub taken_at: Tick,
    /// Until when; `None` while it is in force.
    pub undone_at: Option<Tick>,
    /// True if it would have been done, but the mode was `observe`.
    pub would: bool,
}

/// What people noticed of an incident. "No user impact" may only be claimed if [`Noticed::nothing`] holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

impl Noticed {
    /// Whether nobody was refused, kept waiting too long, or failed.
    #[must_use]
    pub const fn nothing(&self) -> bool {
        self.shed == 0 && self.late == 0 && self.failed == 0
    }
}
