//! What a supervisor does when a child ends, as plain values.

use std::{collections::HashSet, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{backoff::Backoff, signal::Name};

/// How a supervisor treats its children. [`Default`] is what the runtime's own tree uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Who is restarted along with a child that failed. Default: only the child.
    pub strategy: Strategy,
    /// More restarts than this within [`within`](Self::within), and the supervisor gives up: it stops its
    /// children, ends, and leaves the decision to the supervisor above. Default 5; 0 gives up at the first.
    pub max_restarts: u32,
    /// The stretch of time that `max_restarts` speaks of, both ends included. Default 30 s.
    pub within: Duration,
    /// The wait before a restart, from the second one in a row on. The first is immediate, and a child that
    /// stayed up for `within` starts anew. Default 100 ms, doubled up to 10 s. [`Backoff::NONE`]: as OTP.
    pub backoff: Backoff,
    /// Whether the supervisor ends when its significant children have. Default: never.
    pub auto_shutdown: AutoShutdown,
    /// A worker that has not started after this has failed to start. Default 10 s. A supervisor takes as long
    /// as the children below it, each of which is bounded.
    pub start_timeout: Duration,
    /// A worker that was asked to stop is killed after this. Default 5 s. A supervisor takes as long as the
    /// children below it.
    pub stop_timeout: Duration,
    /// A child that was killed and has not ended after this is left behind, and counted. Default 1 s.
    pub kill_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            max_restarts: 5,
            within: Duration::from_secs(30),
            backoff: Backoff {
                initial: Duration::from_millis(100),
                factor: 2.0,
                max: Duration::from_secs(10),
            },
            auto_shutdown: AutoShutdown::Never,
            start_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(5),
            kill_timeout: Duration::from_secs(1),
        }
    }
}

impl Policy {
    /// Whether `children` can live under this policy.
    ///
    /// # Errors
    /// [`Invalid`], naming the first child that cannot.
    pub fn check<'a>(&self, children: impl IntoIterator<Item = &'a ChildPolicy>) -> Result<(), Invalid> {
        let mut ids = HashSet::new();
        for child in children {
            if !ids.insert(&child.id) {
                return Err(Invalid::Duplicate(child.id.clone()));
            }
            if child.significant && child.restart == Restart::Permanent {
                return Err(Invalid::SignificantPermanent(child.id.clone()));
            }
            if child.significant && self.auto_shutdown == AutoShutdown::Never {
                return Err(Invalid::SignificantWithoutAutoShutdown(child.id.clone()));
            }
        }
        Ok(())
    }
}

/// Who is restarted along with a child that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The child alone.
    #[default]
    OneForOne,
    /// All children: they depend on one another.
    OneForAll,
    /// The child and those that were started after it: each depends on those before it.
    RestForOne,
}

/// Whether a supervisor ends when its significant children have ended by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoShutdown {
    /// It stays.
    #[default]
    Never,
    /// It ends with the first of them.
    AnySignificant,
    /// It ends with the last of them.
    AllSignificant,
}

/// One child, as its supervisor knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildPolicy {
    /// Its name, unique among its siblings.
    pub id: Name,
    /// When it is restarted.
    pub restart: Restart,
    /// Whether its end counts for [`Policy::auto_shutdown`]; never for a permanent child.
    pub significant: bool,
    /// Whether there are children below it.
    pub kind: Kind,
    /// A budget of its own. Its restarts then do not count for its supervisor, and when they exceed the
    /// budget the child alone stays down. For dynamic children, of which one must not take down the others.
    pub budget: Option<Budget>,
}

impl ChildPolicy {
    /// A worker named `id`, without significance or a budget of its own.
    #[must_use]
    pub fn new(id: impl Into<Name>, restart: Restart) -> Self {
        Self { id: id.into(), restart, significant: false, kind: Kind::Worker, budget: None }
    }

    /// A worker that is always restarted.
    #[must_use]
    pub fn permanent(id: impl Into<Name>) -> Self {
        Self::new(id, Restart::Permanent)
    }

    /// The same child, with children below it.
    #[must_use]
    pub fn supervisor(self) -> Self {
        Self { kind: Kind::Supervisor, ..self }
    }

    /// The same child, whose end counts for [`Policy::auto_shutdown`].
    #[must_use]
    pub fn significant(self) -> Self {
        Self { significant: true, ..self }
    }

    /// The same child, with a budget of its own.
    #[must_use]
    pub fn budget(self, max_restarts: u32, within: Duration) -> Self {
        Self { budget: Some(Budget { max_restarts, within }), ..self }
    }
}

/// When a child is restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// However it ended.
    #[default]
    Permanent,
    /// Unless it ended with nothing left to do, or was asked to end.
    Transient,
    /// Never; and once it has ended it is forgotten.
    Temporary,
}

/// Whether there are children below a child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// None.
    #[default]
    Worker,
    /// It is a supervisor.
    Supervisor,
}

/// How many restarts a child may have of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// More than this within [`within`](Self::within), and the child stays down.
    pub max_restarts: u32,
    /// The stretch of time, both ends included.
    pub within: Duration,
}

/// Why a child cannot live under a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Two children have this id.
    Duplicate(Name),
    /// A permanent child never ends for good, so its end cannot be significant.
    SignificantPermanent(Name),
    /// Nothing would follow from its significance.
    SignificantWithoutAutoShutdown(Name),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(id) => write!(f, "two children are named {id}"),
            Self::SignificantPermanent(id) => write!(f, "{id} is permanent and cannot be significant"),
            Self::SignificantWithoutAutoShutdown(id) => {
                write!(f, "{id} is significant, but auto_shutdown is never")
            }
        }
    }
}

impl std::error::Error for Invalid {}
