//! Which keys there are, and which values each takes: the JSON Schema of [`Config`], read back.
//!
//! serde stops at the first mistake and knows neither places nor suggestions. So the file and the environment
//! are checked against these shapes first, all of it at once, and serde only sees what has passed.

use std::{sync::LazyLock, time::Duration};

use schemars::{
    Schema,
    generate::SchemaSettings,
    transform::{RecursiveTransform, Transform},
};
use serde_json::Value as Json;

use super::policy::Config;

/// What may stand somewhere in a config.
#[derive(Debug)]
pub(super) struct Shape {
    /// What it means, for people.
    pub(super) doc: String,
    /// What it is worth if nobody sets it.
    pub(super) default: Option<Json>,
    /// A value to show where there is no default.
    pub(super) example: Option<Json>,
    pub(super) kind: Kind,
}

/// How it is built.
#[derive(Debug)]
pub(super) enum Kind {
    /// A table with these keys, in the order of the reference.
    Table {
        keys: Vec<(String, Shape)>,
        required: Vec<String>,
    },
    /// A table whose keys are names that the user chooses.
    Map(Box<Shape>),
    List(Box<Shape>),
    /// One of some words, or a list.
    WordOrList(Scalar, Box<Shape>),
    Value(Scalar),
}

/// The kinds of single values.
#[derive(Debug)]
pub(super) enum Scalar {
    /// One of these words.
    Word(Vec<String>),
    Text {
        at_least: usize,
        at_most: usize,
        secret: bool,
    },
    /// An IP address and a port.
    Address,
    Duration {
        at_least: Duration,
        at_most: Duration,
    },
    Integer {
        at_least: i64,
        at_most: i64,
    },
    Number {
        /// Strictly above this, if it is given; else at least `at_least`.
        above: Option<f64>,
        at_least: f64,
        at_most: f64,
    },
    Boolean,
}

impl Shape {
    /// The shape of a whole config.
    pub(super) fn config() -> &'static Self {
        static SHAPE: LazyLock<Shape> = LazyLock::new(|| Shape::of(&schema()));
        &SHAPE
    }

    fn of(schema: &Json) -> Self {
        Self {
            doc: schema["description"].as_str().unwrap_or_default().to_owned(),
            default: schema.get("default").cloned(),
            example: schema["examples"].get(0).cloned(),
            kind: Kind::of(schema),
        }
    }

    /// The keys of a table, in the order of the reference; anything else has none.
    pub(super) fn keys(&self) -> std::slice::Iter<'_, (String, Self)> {
        if let Kind::Table { keys, .. } = &self.kind { keys.iter() } else { [].iter() }
    }

    /// The key `name` of a table; in a map, whatever its name.
    pub(super) fn key(&self, name: &str) -> Option<&Self> {
        if let Kind::Map(inner) = &self.kind {
            return Some(inner);
        }
        self.keys().find(|(key, _)| key == name).map(|(_, shape)| shape)
    }

    /// Whether it is a single value, and not a table or a list.
    pub(super) fn is_value(&self) -> bool {
        matches!(self.kind, Kind::Value(_) | Kind::WordOrList(..))
    }

    /// Whether its values must not be shown.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Value(Scalar::Text { secret: true, .. }))
    }
}

impl Kind {
    fn of(schema: &Json) -> Self {
        if let Some([word, list]) = schema["anyOf"].as_array().map(Vec::as_slice) {
            return Self::WordOrList(Scalar::of(word), Box::new(Shape::of(&list["items"])));
        }
        match (schema["type"].as_str(), schema["properties"].as_object()) {
            (Some("object"), Some(properties)) => Self::Table {
                keys: properties.iter().map(|(key, schema)| (key.clone(), Shape::of(schema))).collect(),
                required: strings(&schema["required"]),
            },
            (Some("object"), None) => Self::Map(Box::new(Shape::of(&schema["additionalProperties"]))),
            (Some("array"), _) => Self::List(Box::new(Shape::of(&schema["items"]))),
            _ => Self::Value(Scalar::of(schema)),
        }
    }
}

impl Scalar {
    fn of(schema: &Json) -> Self {
        match schema["type"].as_str() {
            Some("boolean") => Self::Boolean,
            Some("integer") => Self::Integer {
                at_least: schema["minimum"].as_i64().unwrap_or(0),
                at_most: schema["maximum"].as_i64().unwrap_or(i64::MAX),
            },
            Some("number") => Self::Number {
                above: schema["exclusiveMinimum"].as_f64(),
                at_least: schema["minimum"].as_f64().unwrap_or(f64::MIN),
                at_most: schema["maximum"].as_f64().unwrap_or(f64::MAX),
            },
            _ => Self::of_string(schema),
        }
    }

    fn of_string(schema: &Json) -> Self {
        let documented = schema["oneOf"].as_array().into_iter().flatten().map(|word| &word["const"]);
        let plain = schema["enum"].as_array().into_iter().flatten();
        let words: Vec<_> = plain.chain(documented).filter_map(Json::as_str).map(str::to_owned).collect();
        if !words.is_empty() {
            return Self::Word(words);
        }
        if schema.get("x-address").is_some() {
            return Self::Address;
        }
        match (span(&schema["x-at-least"]), span(&schema["x-at-most"])) {
            (Some(at_least), Some(at_most)) => Self::Duration { at_least, at_most },
            _ => Self::Text {
                at_least: length(&schema["minLength"]).unwrap_or(0),
                at_most: length(&schema["maxLength"]).unwrap_or(usize::MAX),
                secret: schema["writeOnly"] == true,
            },
        }
    }
}

fn strings(list: &Json) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
}

fn length(number: &Json) -> Option<usize> {
    number.as_u64().and_then(|n| usize::try_from(n).ok())
}

fn span(text: &Json) -> Option<Duration> {
    humantime::parse_duration(text.as_str()?).ok()
}

/// The JSON Schema (draft-07) of the config, with every key, its meaning, its default and its range.
///
/// Editors complete and check `selfheal.toml` with it.
#[must_use]
pub fn schema() -> Json {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>();
    RecursiveTransform(tidy).transform(&mut schema);
    schema.insert("title".into(), "selfheal".into());
    schema.to_value()
}

/// TOML has no null, and a key that must be given has no default.
fn tidy(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    // Names of number types, such as "uint32", are no formats of JSON Schema.
    object.retain(|keyword, value| keyword != "format" && !(keyword == "default" && value.is_null()));
    if let Some(Json::String(text)) = object.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if let Some(Json::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    for key in strings(object.get("required").unwrap_or(&Json::Null)) {
        if let Some(Json::Object(required)) = object.get_mut("properties").and_then(|all| all.get_mut(&key)) {
            required.retain(|keyword, _| keyword != "default");
        }
    }
}
