//! What is written to the log: one line a change, as a sentence, its values beside it as fields.

use std::{fmt, time::Duration};

use super::incident::{Kind, Peak, REVIEW};
use crate::{
    circuit::{Cause, Circuit},
    level::{Mode, Severity},
    signal::{Action, BatchEvent, Exit, Name, ServerState},
};

/// One line of the log. Its `Display` is the sentence.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A pool came to level warning.
    Pressure(Peak),
    /// What is done about it.
    Mitigation {
        /// What.
        actions: Vec<Action>,
        /// Whether it would have been done, in mode `observe`.
        would: bool,
    },
    /// A pool came to level critical.
    Critical {
        /// Its use.
        usage: Peak,
        /// What is done about it.
        actions: Vec<Action>,
        /// Whether it would have been done, in mode `observe`.
        would: bool,
    },
    /// A pool left level critical.
    Recovered(Peak),
    /// A pool came back to level normal.
    Resumed(Peak),
    /// An incident is over.
    Resolved {
        /// What it was about.
        kind: Kind,
        /// Whom it was about.
        subject: Name,
        /// Whether no other is open.
        last: bool,
    },
    /// A person closed an incident.
    Closed {
        /// Who.
        by: Name,
    },
    /// A child ended although it should not have.
    Ended {
        /// The child.
        child: Name,
        /// How.
        reason: Exit,
    },
    /// A child runs again.
    Restarted {
        /// The child.
        child: Name,
        /// After this delay.
        after: Duration,
        /// How many restarts there were within the supervisor's period.
        restarts: u32,
    },
    /// A child could not be started.
    StartFailed {
        /// The child.
        child: Name,
        /// Why.
        error: Name,
    },
    /// A child did not even end when it was killed.
    Abandoned {
        /// The child.
        child: Name,
    },
    /// A child has spent its own budget of restarts.
    GivenUp {
        /// The child.
        child: Name,
    },
    /// A supervisor gave up.
    Escalated {
        /// The supervisor.
        supervisor: Name,
        /// Whether nobody is above it.
        root: bool,
    },
    /// A connection has been held for too long.
    Leak {
        /// By which operation.
        operation: Name,
        /// Taken where.
        site: Name,
        /// For how long.
        held: Duration,
        /// Whether it is back.
        returned: bool,
    },
    /// Statements were ended at the server.
    Cancelled {
        /// How many.
        statements: u32,
    },
    /// What the database server says.
    Server(ServerState),
    /// The monitor of a pool sees nothing, or sees again.
    Blind(bool),
    /// A circuit changed what it shows.
    Circuit {
        /// Its endpoint.
        endpoint: Name,
        /// What it shows now.
        to: Circuit,
        /// Why.
        cause: Cause,
        /// Whether calls pass all the same.
        would: bool,
    },
    /// A change of status was blocked.
    Blocked {
        /// The state in which it was found.
        from: Name,
        /// The state to which it was to change.
        to: Name,
        /// Whether it would have been blocked, in mode `observe`.
        would: bool,
    },
    /// So many were that somebody should look at the code that asks for them.
    ReviewCode {
        /// How many.
        blocked: u64,
        /// Whether they would have been, in mode `observe`.
        would: bool,
    },
    /// No more are blocked.
    Prevented {
        /// How many were.
        blocked: u64,
        /// Whether they would have been, in mode `observe`.
        would: bool,
    },
    /// The mode changed.
    Mode {
        /// Before.
        from: Mode,
        /// Now.
        to: Mode,
        /// Who asked for it.
        by: Name,
        /// Why.
        reason: Name,
    },
    /// A long operation is wanted that is too long.
    LongOperation {
        /// Which.
        operation: Name,
        /// Its items.
        items: u64,
    },
    /// Why it is too long.
    TooLong {
        /// How long it takes.
        estimate: Duration,
        /// How long its caller waits.
        deadline: Duration,
    },
    /// What is done about it.
    AutoBatching {
        /// Items of a batch.
        batch: u32,
    },
    /// What is heard of it from then on.
    Batch(BatchEvent),
}

impl Line {
    /// The lines that are said of a long operation.
    #[must_use]
    pub fn of_batch(operation: &Name, event: &BatchEvent) -> Vec<Self> {
        match event {
            BatchEvent::Planned { items, estimate, deadline, batch } => vec![
                Self::LongOperation { operation: Name::clone(operation), items: *items },
                Self::TooLong { estimate: *estimate, deadline: *deadline },
                Self::AutoBatching { batch: *batch },
            ],
            BatchEvent::Part { .. }
            | BatchEvent::Answered { .. }
            | BatchEvent::PassedBy { .. }
            | BatchEvent::Done { .. }
            | BatchEvent::GivenUp { .. }
            | BatchEvent::Dead { .. }
            | BatchEvent::Cancelled { .. } => vec![Self::Batch(event.clone())],
        }
    }

    /// How loud the line is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Mitigation { .. }
            | Self::Recovered(_)
            | Self::Resumed(_)
            | Self::Resolved { .. }
            | Self::Closed { .. }
            | Self::Restarted { .. }
            | Self::Leak { returned: true, .. }
            | Self::Server(ServerState::Up)
            | Self::Blind(false)
            | Self::Prevented { .. }
            | Self::LongOperation { .. }
            | Self::AutoBatching { .. }
            | Self::Mode { .. } => Severity::Info,
            Self::Batch(
                BatchEvent::PassedBy { .. } | BatchEvent::GivenUp { .. } | BatchEvent::Dead { .. },
            )
            | Self::TooLong { .. } => Severity::Warning,
            Self::Batch(_) => Severity::Info,
            Self::Pressure(_)
            | Self::Circuit { to: Circuit::Open, would: false, .. }
            | Self::Ended { .. }
            | Self::StartFailed { .. }
            | Self::Leak { returned: false, .. }
            | Self::Cancelled { .. }
            | Self::Blocked { .. }
            | Self::ReviewCode { .. }
            | Self::Server(ServerState::Full)
            | Self::Blind(true) => Severity::Warning,
            Self::Critical { .. }
            | Self::Abandoned { .. }
            | Self::GivenUp { .. }
            | Self::Server(ServerState::Down)
            | Self::Escalated { root: false, .. } => Severity::Critical,
            Self::Escalated { root: true, .. } => Severity::Failure,
            Self::Circuit { .. } => Severity::Info,
        }
    }

    /// The use of the pool that the line speaks of.
    #[must_use]
    pub const fn usage(&self) -> Option<Peak> {
        match self {
            Self::Pressure(usage)
            | Self::Critical { usage, .. }
            | Self::Recovered(usage)
            | Self::Resumed(usage) => Some(*usage),
            Self::Mitigation { .. }
            | Self::Resolved { .. }
            | Self::Closed { .. }
            | Self::Ended { .. }
            | Self::Restarted { .. }
            | Self::StartFailed { .. }
            | Self::Abandoned { .. }
            | Self::GivenUp { .. }
            | Self::Escalated { .. }
            | Self::Leak { .. }
            | Self::Cancelled { .. }
            | Self::Server(_)
            | Self::Blind(_)
            | Self::Circuit { .. }
            | Self::Blocked { .. }
            | Self::ReviewCode { .. }
            | Self::Prevented { .. }
            | Self::LongOperation { .. }
            | Self::TooLong { .. }
            | Self::AutoBatching { .. }
            | Self::Batch(_)
            | Self::Mode { .. } => None,
        }
    }

    /// The actions that the line speaks of, as one text.
    #[must_use]
    pub fn actions(&self) -> Option<String> {
        match self {
            Self::Mitigation { actions, .. } | Self::Critical { actions, .. } => Some(listed(actions)),
            Self::Pressure(_)
            | Self::Recovered(_)
            | Self::Resumed(_)
            | Self::Resolved { .. }
            | Self::Closed { .. }
            | Self::Ended { .. }
            | Self::Restarted { .. }
            | Self::StartFailed { .. }
            | Self::Abandoned { .. }
            | Self::GivenUp { .. }
            | Self::Escalated { .. }
            | Self::Leak { .. }
            | Self::Cancelled { .. }
            | Self::Server(_)
            | Self::Blind(_)
            | Self::Circuit { .. }
            | Self::Blocked { .. }
            | Self::ReviewCode { .. }
            | Self::Prevented { .. }
            | Self::LongOperation { .. }
            | Self::TooLong { .. }
            | Self::AutoBatching { .. }
            | Self::Batch(_)
            | Self::Mode { .. } => None,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pressure(usage) => {
                let Peak { in_use, max } = usage;
                write!(f, "Connection pool at {}% ({in_use}/{max}) - Warning threshold", usage.percent())
            }
            Self::Mitigation { actions, would: false } => {
                write!(f, "Mitigation activated: {}", listed(actions))
            }
            Self::Mitigation { actions, would: true } => {
                write!(f, "Would have activated mitigation: {}", listed(actions))
            }
            Self::Critical { usage, would, actions: _ } => {
                let taken = if *would { " would have been taken" } else { "" };
                write!(f, "CRITICAL: Connection pool at {}% - Emergency measures{taken}", usage.percent())
            }
            Self::Recovered(usage) => write!(f, "Connection pool recovered to {}%", usage.percent()),
            Self::Resumed(_) => f.write_str("Normal operations resumed"),
            Self::Resolved { kind: Kind::PoolPressure, last: true, subject: _ } => {
                f.write_str("System fully recovered")
            }
            Self::Resolved { kind, subject, last: _ } => write!(f, "Resolved: {kind} of {subject}"),
            Self::Closed { by } => write!(f, "Closed by {by}"),
            Self::Ended { child, reason: Exit::Panic(text) } => write!(f, "{child} panicked: {text}"),
            Self::Ended { child, reason: Exit::Error(text) } => write!(f, "{child} failed: {text}"),
            Self::Ended { child, reason: reason @ (Exit::Killed | Exit::Normal | Exit::Shutdown) } => {
                write!(f, "{child} ended: {}", reason.name())
            }
            Self::Restarted { child, after, restarts } => {
                write!(f, "Restarted {child} after {after:?} (restart {restarts} of this period)")
            }
            Self::StartFailed { child, error } => write!(f, "{child} could not be started: {error}"),
            Self::Abandoned { child } => {
                write!(f, "{child} did not end when it was killed and is left behind")
            }
            Self::GivenUp { child } => write!(f, "{child} was restarted too often and stays down"),
            Self::Escalated { supervisor, root: false } => {
                write!(f, "CRITICAL: Supervisor {supervisor} gave up after too many restarts")
            }
            Self::Escalated { supervisor, root: true } => {
                write!(f, "FAILURE: Supervisor {supervisor} gave up - manual intervention required")
            }
            Self::Leak { operation, site, held, returned: false } => {
                write!(f, "Connection held for {held:.1?} by {operation} ({site})")
            }
            Self::Leak { operation, site, held, returned: true } => {
                write!(f, "Connection returned after {held:.1?} by {operation} ({site})")
            }
            Self::Cancelled { statements: 1 } => {
                f.write_str("1 statement cancelled, for critical requests that wait")
            }
            Self::Cancelled { statements } => {
                write!(f, "{statements} statements cancelled, for critical requests that wait")
            }
            Self::Server(ServerState::Up) => f.write_str("Database server answers again"),
            Self::Server(ServerState::Full) => f.write_str("Database server has too many clients already"),
            Self::Server(ServerState::Down) => f.write_str("CRITICAL: Database server does not answer"),
            Self::Blind(true) => f.write_str("Pool monitor sees nothing: what it had forced is lifted"),
            Self::Blind(false) => f.write_str("Pool monitor sees again"),
            Self::Circuit { endpoint, to: Circuit::Open, would: true, cause } => {
                write!(f, "Circuit breaker would have opened for {endpoint}: {cause}")
            }
            Self::Circuit { endpoint, to, would: _, cause: _ } => {
                let now = match to {
                    Circuit::Open => "opened",
                    Circuit::HalfOpen => "half-open",
                    Circuit::Closed => "closed",
                    Circuit::ForcedOpen => "forced open",
                    Circuit::ForcedClosed => "forced closed",
                    Circuit::Disabled => "disabled",
                    Circuit::MetricsOnly => "only counting",
                    Circuit::Shed => "shedding",
                };
                write!(f, "Circuit breaker {now} for {endpoint}")
            }
            Self::Blocked { from, to, would } => {
                write!(
                    f,
                    "{} invalid transition: {from} → {to}",
                    did(*would, "Blocked", "Would have blocked")
                )
            }
            Self::ReviewCode { blocked, would } => {
                let did = did(*would, "Blocked", "Would have blocked");
                write!(f, "{did} {} - {REVIEW}", changes(*blocked))
            }
            Self::Prevented { blocked, would } => {
                write!(f, "{} {}", did(*would, "Prevented", "Would have prevented"), changes(*blocked))
            }
            Self::Mode { from, to, by, reason } => write!(f, "Mode {from} -> {to} by {by}: {reason}"),
            Self::LongOperation { operation, items } => {
                write!(f, "{} operation detected: {} items", titled(operation), grouped(*items))
            }
            Self::TooLong { estimate, deadline } => {
                write!(f, "Estimated time: {} (exceeds {} timeout)", seconds(*estimate), whole(*deadline))
            }
            Self::AutoBatching { batch } => write!(f, "Auto-batching to {batch} items per batch"),
            Self::Batch(event) => batch(event, f),
        }
    }
}

fn batch(event: &BatchEvent, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match event {
        BatchEvent::Part { number, of, items, took, left } => {
            let (took, left) = (seconds(*took), seconds(*left));
            write!(f, "Batch {number}/{of} completed: {items} items in {took}, {left} left")
        }
        BatchEvent::Answered { done, total } => write!(f, "Prevented timeout by batching ({done}/{total})"),
        BatchEvent::PassedBy { item, why } => {
            write!(f, "Item {item} fails by itself and is passed by: {why}")
        }
        BatchEvent::Done { items, took } => {
            write!(f, "Operation complete: {} items processed in {}", grouped(*items), seconds(*took))
        }
        BatchEvent::GivenUp { failed, why } => {
            write!(f, "Operation given up: {} items failed, the last one: {why}", grouped(*failed))
        }
        BatchEvent::Dead { job, why } => write!(f, "Job {job} has failed for good: {why}"),
        BatchEvent::Cancelled { left } => write!(f, "Operation cancelled, {} items left", grouped(*left)),
        BatchEvent::Planned { items, estimate, .. } => {
            write!(f, "{} items take {}", grouped(*items), seconds(*estimate))
        }
    }
}

fn seconds(span: Duration) -> String {
    format!("{:.2}s", span.as_secs_f64())
}

/// What is left of ten seconds when a request has come so far is ten seconds.
fn whole(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{span:.0?}")
    } else {
        format!("{:.0}s", span.as_secs_f64().ceil())
    }
}

/// "Spam capture" for "spam-capture".
fn titled(name: &str) -> String {
    let mut letters = name.chars().map(|letter| if letter == '-' || letter == '_' { ' ' } else { letter });
    letters.next().map(char::to_uppercase).into_iter().flatten().chain(letters).collect()
}

/// 1,418 for 1418.
fn grouped(number: u64) -> String {
    if number < 1_000 {
        number.to_string()
    } else {
        format!("{},{:03}", grouped(number / 1_000), number % 1_000)
    }
}

impl Peak {
    /// In whole percent.
    #[must_use]
    pub fn percent(self) -> u32 {
        match self {
            Self { in_use: 0, .. } => 0,
            Self { max: 0, .. } => 100,
            Self { in_use, max } => (f64::from(in_use) * 100.0 / f64::from(max)).round() as u32,
        }
    }
}

const fn did(would: bool, done: &'static str, not_done: &'static str) -> &'static str {
    if would { not_done } else { done }
}

fn changes(count: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} invalid status transition{plural}")
}

fn listed(actions: &[Action]) -> String {
    actions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
