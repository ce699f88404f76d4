//! Kinds of values: how each is written in TOML, and which of its values are allowed.
//!
//! The allowed ones are stated as JSON Schema, so that an editor knows them too. Two keywords are ours, and
//! other readers of the schema skip them: `x-at-least` and `x-at-most` bound a duration.

use std::{fmt, time::Duration};

use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use selfheal_actors::level::{Class, Mode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How durations look, in the words of JSON Schema. What counts is what [`humantime`] reads.
const DURATION: &str = r"^([0-9]+(\.[0-9]+)? *[a-zA-Zµ]+ *)+$";

/// A token is at least this long: 16 characters of a random alphabet cannot be guessed over the network.
const TOKEN_LENGTH: usize = 16;

/// A text that is never shown: not in an error, a log, the page, or `selfheal config show`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Do not pass it on to anything that prints.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    /// As `***`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": TOKEN_LENGTH, "maxLength": 1024, "writeOnly": true })
    }
}

/// A share of a whole: above 0, at most 1.
pub(super) fn ratio(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0 })
}

pub(super) fn mode(_: &mut SchemaGenerator) -> Schema {
    one_of(Mode::ALL.iter().map(|mode| mode.name()))
}

pub(super) fn class(_: &mut SchemaGenerator) -> Schema {
    one_of(Class::ALL.iter().map(|class| class.name()))
}

pub(super) fn methods(_: &mut SchemaGenerator) -> Schema {
    const ALL: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ];
    one_of(ALL.iter().map(Method::as_str))
}

/// Lists of statuses, by machine and by status.
pub(super) fn transitions(_: &mut SchemaGenerator) -> Schema {
    let status = json_schema!({ "type": "string", "minLength": 1, "maxLength": 64 });
    let table =
        json_schema!({ "type": "object", "additionalProperties": { "type": "array", "items": status } });
    let message =
        [("READY", &["SPAM_REVIEW", "PROMOTED"][..]), ("PROMOTED", &["COMPLETED"]), ("COMPLETED", &[])];
    let message: serde_json::Map<_, _> =
        message.into_iter().map(|(status, next)| (status.to_owned(), next.into())).collect();
    let example = serde_json::json!({ "message": message });
    json_schema!({ "type": "object", "additionalProperties": table, "examples": [example] })
}

fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> Schema {
    json_schema!({ "type": "string", "enum": words.collect::<Vec<_>>() })
}

pub(super) fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "x-address": true, "examples": ["127.0.0.1:9090"] })
}

pub(super) fn deadline(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = up_to_1h(generator);
    schema.insert("examples".into(), ["10s"].into());
    schema
}

pub(super) fn slow_call(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = up_to_1h(generator);
    schema.insert("examples".into(), ["2s"].into());
    schema
}

/// A window of time is at least as long as a few ticks of the clock that it is read off.
pub(super) fn window(_: &mut SchemaGenerator) -> Schema {
    span("100ms", "1d")
}

/// A share of a whole: above 0, at most 1.
pub(super) fn some_share(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = ratio(generator);
    schema.insert("examples".into(), [0.5].into());
    schema
}

pub(super) fn up_to_1m_or_none(_: &mut SchemaGenerator) -> Schema {
    span("0s", "1m")
}

pub(super) fn up_to_1h_or_none(_: &mut SchemaGenerator) -> Schema {
    span("0s", "1h")
}

pub(super) fn up_to_1h(_: &mut SchemaGenerator) -> Schema {
    span("1ms", "1h")
}

pub(super) fn item(_: &mut SchemaGenerator) -> Schema {
    span("1us", "1h")
}

pub(super) fn up_to_1d(_: &mut SchemaGenerator) -> Schema {
    span("1ms", "1d")
}

pub(super) fn up_to_1y(_: &mut SchemaGenerator) -> Schema {
    span("1ms", "365d")
}

/// A duration between two others, both included.
fn span(at_least: &str, at_most: &str) -> Schema {
    json_schema!({ "type": "string", "pattern": DURATION, "x-at-least": at_least, "x-at-most": at_most })
}

/// Durations as `"1m 30s"`.
pub(super) mod duration {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub(crate) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*span))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(serde::de::Error::custom)
    }

    /// The same where it may be unset.
    pub(crate) mod optional {
        use super::{Deserializer, Duration, Serializer};

        pub(crate) fn serialize<S: Serializer>(
            span: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match span {
                Some(span) => super::serialize(span, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }

    /// A list of them.
    pub(crate) mod list {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        pub(crate) fn serialize<S: Serializer>(spans: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(spans.iter().map(|span| humantime::format_duration(*span).to_string()))
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Vec<Duration>, D::Error> {
            let texts = Vec::<String>::deserialize(deserializer)?;
            let parse = |text: String| humantime::parse_duration(&text).map_err(serde::de::Error::custom);
            texts.into_iter().map(parse).collect()
        }
    }
}

/// HTTP methods as `"GET"`, where they may be unset.
pub(super) mod method {
    use super::{Deserialize, Deserializer, Method, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        method: &Option<Method>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match method {
            Some(method) => serializer.serialize_str(method.as_str()),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Method>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Some).map_err(serde::de::Error::custom)
    }
}
