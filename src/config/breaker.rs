//! The part of the config that speaks of circuits: `[breaker]` for all, `[endpoints.breaker]` for one.
//!
//! An endpoint's table has the same keys, and only those that differ are set. So it is kept as the keys that were
//! written and laid over `[breaker]`; each key is declared, bounded and explained once.

use std::{borrow::Cow, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::value::{self, duration};

/// `[breaker]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Breaker {
    /// Which calls are looked at: those of the `last` while, which leave the window in so many `buckets`; or, with
    /// { calls = 100 }, the last so many.
    pub window: Window,
    /// A circuit opens when `failure_rate`, `failures` and `calls` hold together. The share of the calls that
    /// failed; each threshold is `above` a number or `at_least` one.
    pub failure_rate: Share,
    /// How many of them failed.
    pub failures: Count,
    /// How many there were; below, there is no rate.
    pub calls: Count,
    /// It also opens when so many calls failed one after another; unset: however many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{ "at_least": 5 }]))]
    pub consecutive_failures: Option<Count>,
    /// A call that takes strictly longer is slow, whatever comes of it; unset: none is. Setting it costs two
    /// precise clock readings a call.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::slow_call")]
    pub slow_call: Option<Duration>,
    /// It also opens when `slow_rate` and `calls` hold together: the share of the calls that were slow; unset:
    /// however many. It needs `slow_call`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{ "at_least": 1.0 }]))]
    pub slow_rate: Option<Share>,
    /// How long it stays open before calls may try it again.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1d")]
    pub open_for: Duration,
    /// By how much longer it stays open each time that it opens again without having been closed.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub open_growth: f64,
    /// It never stays open for longer.
    #[serde(with = "duration")]
    #[schemars(schema_with = "value::up_to_1d")]
    pub open_max: Duration,
    /// The time is made shorter or longer by up to this share, at random, so that circuits that opened together
    /// do not try again together.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub open_jitter: f64,
    /// Half-open when the time has come. If not: with the next call after it.
    pub half_open_automatically: bool,
    /// What closes it: it admits `probes` at a time, closes after so many `successes` and opens again after so many
    /// `failures`; a probe that is not back in time is written off. Or, with { decide = "rate", probes = 4,
    /// max_wait = "1s", after_max_wait = "open" }: it admits exactly so many, judges them by the rates above once
    /// all are back, and opens (or is "closed") if they are not by then.
    pub half_open: HalfOpen,
}

/// Which calls are looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Window {
    /// Those of the last while.
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::window")]
    pub last: Option<Duration>,
    /// In how many steps they leave the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub buckets: Option<u32>,
    /// The last so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000), extend("examples" = [100]))]
    pub calls: Option<u32>,
}

/// A threshold on a share of the calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Share {
    /// The share must be larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0), extend("examples" = [0.5]))]
    pub above: Option<f64>,
    /// The share must be this or larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::some_share")]
    pub at_least: Option<f64>,
}

/// A threshold on a number of calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Count {
    /// There must be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000), extend("examples" = [5]))]
    pub above: Option<u32>,
    /// There must be this many or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000), extend("examples" = [5]))]
    pub at_least: Option<u32>,
}

/// What decides while a circuit is half-open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HalfOpen {
    /// What decides: each probe by itself, or all of them together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decide: Option<Decide>,
    /// Calls admitted at a time; with "rate", in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub probes: Option<u32>,
    /// It closes after so many. Only with "count".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub successes: Option<u32>,
    /// It opens again after so many. Only with "count".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub failures: Option<u32>,
    /// A probe that is not back after this gives its place to the next caller. Only with "count".
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::up_to_1h")]
    pub probe_timeout: Option<Duration>,
    /// The probes must be back within this time. Only with "rate".
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value::up_to_1h")]
    pub max_wait: Option<Duration>,
    /// What it becomes if they are not. Only with "rate".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_max_wait: Option<AfterMaxWait>,
}

/// What decides while a circuit is half-open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decide {
    /// Each probe by itself.
    #[default]
    Count,
    /// All of them together.
    Rate,
}

/// What a half-open circuit becomes whose probes are not back in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AfterMaxWait {
    /// It opens again.
    #[default]
    Open,
    /// It closes.
    Closed,
}

impl Default for Breaker {
    fn default() -> Self {
        let probes = Some(1);
        Self {
            window: Window { last: Some(Duration::from_secs(10)), buckets: Some(10), calls: None },
            failure_rate: Share { above: Some(0.5), at_least: None },
            failures: Count { above: Some(5), at_least: None },
            calls: Count { above: None, at_least: Some(1) },
            consecutive_failures: None,
            slow_call: None,
            slow_rate: None,
            open_for: Duration::from_secs(30),
            open_growth: 1.0,
            open_max: Duration::from_secs(300),
            open_jitter: 0.0,
            half_open_automatically: false,
            half_open: HalfOpen {
                probes,
                successes: probes,
                failures: probes,
                probe_timeout: Some(Duration::from_secs(10)),
                ..HalfOpen::default()
            },
        }
    }
}

/// `[endpoints.breaker]`: the keys of `[breaker]` that differ for one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BreakerKeys(Map<String, Json>);

impl BreakerKeys {
    /// All keys: these, and for the others those of `all`.
    #[must_use]
    pub fn over(&self, all: &Breaker) -> Breaker {
        let Ok(Json::Object(mut keys)) = serde_json::to_value(all) else { return all.clone() };
        keys.extend(self.0.clone());
        // Each key has passed the check of its own, and any combination of them is one that can be read.
        serde_json::from_value(Json::Object(keys)).unwrap_or_else(|_| all.clone())
    }

    /// Whether `key` is set.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

impl JsonSchema for BreakerKeys {
    fn schema_name() -> Cow<'static, str> {
        "BreakerKeys".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Breaker::json_schema(generator);
        // What is not set here is as in `[breaker]`: no key has a default of its own.
        if let Some(Json::Object(keys)) = schema.get_mut("properties") {
            for key in keys.values_mut().filter_map(Json::as_object_mut) {
                if let Some(default) = key.remove("default").filter(|default| !default.is_null()) {
                    key.insert("examples".into(), Json::Array(vec![default]));
                }
            }
        }
        schema.remove("default");
        schema
    }
}
