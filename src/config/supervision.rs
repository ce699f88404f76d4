//! The part of the config that speaks of supervisors: the runtime's own, and trees to try out.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::{self, duration};

/// `[supervision]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Supervision {
    /// Who is restarted with a child that ended: nobody else, all others, or those started after it.
    pub strategy: Strategy,
    /// More restarts than this `within` that time, and the supervisor gives up and tells its own.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_restarts: u32,
    /// The time in which restarts are counted.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1d")]
    pub within: Duration,
    /// The wait before a restart. The first one is immediate; these are for the second and later ones.
    pub backoff: Backoff,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            max_restarts: 5,
            within: Duration::from_secs(30),
            backoff: Backoff::default(),
        }
    }
}

/// How the wait between restarts grows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Backoff {
    /// The first wait. "0s": none at all.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1h_or_none")]
    pub initial: Duration,
    /// By how much each wait is longer than the one before it.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub factor: f64,
    /// No wait is longer than this.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1h_or_none")]
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(10) }
    }
}

/// `[[tree]]`: a supervisor and its children, for `selfheal simulate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
#[non_exhaustive]
pub struct Tree {
    /// What traces and children call the supervisor.
    #[schemars(length(min = 1, max = 64), extend("examples" = ["s"]))]
    pub name: String,
    /// Who is restarted with a child that ended.
    pub strategy: Strategy,
    /// More restarts than this `within` that time, and the supervisor gives up.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_restarts: u32,
    /// The time in which restarts are counted.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1y")]
    pub within: Duration,
    /// Whether the supervisor ends when its significant children have ended by themselves.
    pub auto_shutdown: AutoShutdown,
    /// The wait before the second and later restarts; unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// The children, in the order in which they start.
    pub children: Vec<Child>,
}

impl Default for Tree {
    fn default() -> Self {
        let Supervision { strategy, max_restarts, within, .. } = Supervision::default();
        Self {
            name: String::new(),
            strategy,
            max_restarts,
            within,
            auto_shutdown: AutoShutdown::Never,
            backoff: None,
            children: Vec::new(),
        }
    }
}

/// A child of a `[[tree]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["id"]))]
#[non_exhaustive]
pub struct Child {
    /// What traces call the child.
    #[schemars(length(min = 1, max = 64), extend("examples" = ["c1"]))]
    pub id: String,
    /// After which ends it is restarted: any, only failures, or none.
    pub restart: Restart,
    /// Whether its end by itself counts for `auto_shutdown`.
    pub significant: bool,
    /// What its successive starts result in; the last one repeats.
    pub start: Vec<Start>,
    /// The child is the supervisor of that name, from a `[[tree]]` of its own; unset: a plain child.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("examples" = ["s2"]))]
    pub supervisor: Option<String>,
}

impl Default for Child {
    fn default() -> Self {
        Self {
            id: String::new(),
            restart: Restart::Permanent,
            significant: false,
            start: vec![Start::Ok],
            supervisor: None,
        }
    }
}

/// Who is restarted with a child that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Nobody else.
    #[default]
    OneForOne,
    /// All children.
    OneForAll,
    /// The children started after it.
    RestForOne,
}

/// After which ends a child is restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// After any.
    #[default]
    Permanent,
    /// After a failure only.
    Transient,
    /// Never.
    Temporary,
}

/// Whether a supervisor ends with its significant children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AutoShutdown {
    /// It does not.
    #[default]
    Never,
    /// When the first of them has ended by itself.
    AnySignificant,
    /// When the last of them has ended by itself.
    AllSignificant,
}

/// What a start results in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The child runs.
    Ok,
    /// It could not be started.
    Fail,
}
