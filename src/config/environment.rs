//! The environment layer: `SELFHEAL__POOLS__MAIN__WARNING=0.8`.
//!
//! A variable can only set a key that is there: one with a default, or one in a table that the file names. So a
//! slip is a mistake with the variable's name, instead of a setting that silently does nothing. Each value is
//! read as its target wants it: the text `5` is a number for `max` and a text for `name`.
//!
//! Names are compared without case and with `_` for `-`, since a shell can write them in no other way. Items of
//! lists have no names and cannot be addressed.

use std::{ffi::OsString, fmt};

use ::config::{Map, Value, ValueKind};

use super::{
    accept::{Form, Found},
    finding::{At, Finding, Mistake, Places},
    key::{Key, shown},
    shape::{Kind, Scalar, Shape},
    suggest::fold,
    target::{PREFIX, Target, Targets},
};

/// The environment variables that speak to the config. All others are forgotten at once.
#[derive(Clone, Default)]
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// No variables.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(variables.filter(|(name, _)| fold(&name.to_string_lossy()).starts_with(PREFIX)).collect())
    }
}

impl fmt::Debug for Environment {
    /// The names only: a value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// What the environment says.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) values: Map<String, Value>,
    pub(super) findings: Vec<Finding>,
}

impl Layer {
    /// Reads `environment` on top of a file with `values`; notes in `places` what it overrides.
    pub(super) fn read(environment: &Environment, file: &Map<String, Value>, places: &mut Places) -> Self {
        let targets = Targets::of(file);
        let mut layer = Self::default();
        for (name, value) in &environment.0 {
            let name = name.to_string_lossy().into_owned();
            let at = At::Variable(name.clone());
            let target = match targets.find(&name) {
                Ok(target) => target,
                Err(mistake) => {
                    layer.findings.push(Finding::new(at, Key::default(), mistake));
                    continue;
                }
            };
            match target.read(&name, value.to_str(), places) {
                Ok(value) => {
                    insert(&mut layer.values, &target.key, Value::new(Some(&name), value));
                    places.set(target.key.clone(), at);
                }
                Err(mistake) => layer.findings.push(Finding::new(at, target.key.clone(), mistake)),
            }
        }
        layer
    }
}

impl Target {
    /// The value that the variable `name` gives to the target.
    fn read(&self, name: &str, text: Option<&str>, places: &Places) -> Result<ValueKind, Mistake> {
        if let Some(At::Variable(other)) = places.of(&self.key) {
            let message = format!("{} sets the same key", shown(other));
            return Err(
                Mistake::new(message, "one variable for each key").help("unset one of the two".to_owned())
            );
        }
        let Some(text) = text else {
            return Err(Mistake::new("the value is not UTF-8", self.shape.expected()));
        };
        self.shape.accept(typed(text, self.shape), Form::Variable(name))
    }
}

/// The text as a value of the kind that the target wants.
fn typed<'a>(text: &'a str, target: &Shape) -> Found<'a> {
    let Kind::Value(scalar) = &target.kind else { return Found::Text(text) };
    let typed = match scalar {
        Scalar::Integer { .. } => text.parse().ok().map(|value| Found::Integer(Some(value))),
        Scalar::Number { .. } => text.parse().ok().map(Found::Float),
        Scalar::Boolean => text.parse().ok().map(Found::Boolean),
        Scalar::Word(_) | Scalar::Text { .. } | Scalar::Address | Scalar::Duration { .. } => None,
    };
    typed.unwrap_or(Found::Text(text))
}

fn insert(values: &mut Map<String, Value>, key: &Key, value: Value) {
    let names: Vec<_> = key.names().collect();
    let Some((last, tables)) = names.split_last() else { return };
    let mut table = values;
    for name in tables {
        let entry =
            table.entry((*name).to_owned()).or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
        let ValueKind::Table(inner) = &mut entry.kind else { return };
        table = inner;
    }
    table.insert((*last).to_owned(), value);
}
