//! What a supervisor is told about its children.

use std::time::Duration;

use crate::{backoff::Backoff, signal::Name};

/// Who is restarted when a child ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// That child.
    #[default]
    OneForOne,
    /// All of them.
    OneForAll,
    /// That child and those started after it.
    RestForOne,
}

/// When a child is restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// Only after an abnormal end.
    Transient,
    /// Never; when it ends it is forgotten.
    Temporary,
}

/// Whether a supervisor ends when its significant children have ended by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoShutdown {
    /// No.
    #[default]
    Never,
    /// When any of them has.
    AnySignificant,
    /// When the last of them has.
    AllSignificant,
}

/// The policy of one supervisor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Who is restarted when a child ends. Default: one for one.
    pub strategy: Strategy,
    /// One restart more than this within the period ends the supervisor. Default: 5.
    pub max_restarts: u32,
    /// The period, both ends included. Default: 30 s.
    pub within: Duration,
    /// The delays before the second and later restarts within the period. Default: 100 ms, doubling, 10 s.
    pub backoff: Backoff,
    /// Whether the end of significant children ends the supervisor. Default: never.
    pub auto_shutdown: AutoShutdown,
    /// A start that takes longer has failed. Default: 5 s.
    pub start_timeout: Duration,
    /// A child that has not ended this long after it was asked is killed, and as long after that abandoned.
    /// Default: 5 s.
    pub stop_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            max_restarts: 5,
            within: Duration::from_secs(30),
            backoff: Backoff {
                initial: Duration::from_millis(100),
                factor: 2.0,
                max: Duration::from_secs(10),
            },
            auto_shutdown: AutoShutdown::default(),
            start_timeout: Duration::from_secs(5),
            stop_timeout: Duration::from_secs(5),
        }
    }
}

/// The policy of one child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildPolicy {
    /// Its name, unique within its supervisor.
    pub id: Name,
    /// When it is restarted.
    pub restart: Restart,
    /// Whether its end by itself counts for [`AutoShutdown`]. Of a permanent child it never does: such a child
    /// does not end, it is restarted.
    pub significant: bool,
}
