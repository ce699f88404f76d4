//! `[retry]`: whether what has failed is tried again, and when.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::value::{self, duration};

/// `[retry]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Retry {
    /// How the waits between calls grow: "exponential", each longer by `factor`; "linear", by `initial`;
    /// "constant", not at all; or a list of waits, ["1s", "2s"], of which the last one is used again and again.
    #[schemars(schema_with = "delays")]
    pub delays: Delays,
    /// The first wait.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1h_or_none")]
    pub initial: Duration,
    /// By how much each exponential wait is longer than the one before it.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub factor: f64,
    /// No wait of ours is longer than this; not below `initial`. A server's own Retry-After may be.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1h_or_none")]
    pub max: Duration,
    /// Calls in all, the first one included; 1: none is made again.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// The same while a caller waits for the reply. The others are made in the background, for a fallback.
    #[schemars(range(min = 1, max = 100))]
    pub inline_attempts: u32,
    /// How a wait of d is spread: "none", d; "equal", from d/2 to d; "full", from 0 to d. Unset: full, and not
    /// at all in a simulation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = ["full"]))]
    pub jitter: Option<Jitter>,
    /// How many calls may be made again, over ten seconds: `ratio` of all calls, and `per_second` besides. Each
    /// endpoint has its own; a timeout counts twice.
    pub budget: Budget,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            delays: Delays::Growing(Growth::Exponential),
            initial: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(8),
            attempts: 5,
            inline_attempts: 2,
            jitter: None,
            budget: Budget::default(),
        }
    }
}

/// The waits between calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Delays {
    /// They follow a rule.
    Growing(Growth),
    /// They are listed.
    Listed(#[serde(with = "duration::list")] Vec<Duration>),
}

/// A rule by which waits grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Growth {
    /// Each is longer than the one before it by a factor.
    Exponential,
    /// Each is longer than the one before it by the first one.
    Linear,
    /// They do not grow.
    Constant,
}

/// How a wait is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// Not at all.
    None,
    /// Over its second half.
    Equal,
    /// Over all of it.
    Full,
}

/// `[retry] budget`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Calls made again for each call.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub ratio: f64,
    /// Calls made again a second besides, so that a quiet endpoint may do it at all.
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub per_second: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { ratio: 0.1, per_second: 1.0 }
    }
}

fn delays(generator: &mut SchemaGenerator) -> Schema {
    let wait = value::up_to_1h_or_none(generator);
    json_schema!({ "anyOf": [
        { "type": "string", "enum": ["exponential", "linear", "constant"] },
        { "type": "array", "items": wait, "minItems": 1, "maxItems": 100 },
    ] })
}
