//! The environment layer: `SELFHEAL__POOLS__MAIN__WARNING=0.8`.
//!
//! A variable can only set a key that is there: one with a default, or one in a table that the file names. So a
//! slip is a mistake with the variable's name, instead of a setting that silently does nothing. Each value is
//! read as its target wants it: the text `5` is a number for `max` and a text for `name`.
//!
//! Names are compared without case and with `_` for `-`, since a shell can write them in no other way. Items of
//! lists have no names and cannot be addressed.

use std::{collections::BTreeMap, ffi::OsString, fmt};

use ::config::{Map, Value, ValueKind};

use super::{
    accept::{Form, Found},
    finding::{At, Finding, Places},
    key::{Key, shown},
    later,
    shape::{Kind, Shape},
    suggest::{fold, nearest},
};

/// What the names of all variables of the config begin with. `SELFHEAL_URL` and `SELFHEAL_TOKEN`, with one
/// underscore, are the operator client's own and are not looked at.
const PREFIX: &str = "selfheal__";

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
            let name = name.to_string_lossy();
            match targets.set(&name, value.to_str(), places) {
                Ok((key, value)) => {
                    insert(&mut layer.values, &key, Value::new(Some(&name.to_string()), value));
                    places.set(key, At::Variable(name.into_owned()));
                }
                Err(finding) => layer.findings.push(*finding),
            }
        }
        layer
    }
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

/// Every name that a variable may have, without the prefix and folded, and what it stands for.
struct Targets(BTreeMap<String, Vec<Target>>);

struct Target {
    key: Key,
    shape: &'static Shape,
}

impl Targets {
    fn of(file: &Map<String, Value>) -> Self {
        let mut targets = Self(BTreeMap::new());
        targets.collect(Shape::config(), Some(file), &Key::default(), "");
        targets
    }

    fn collect(&mut self, shape: &'static Shape, file: Option<&Map<String, Value>>, at: &Key, prefix: &str) {
        let names: Vec<&str> = match &shape.kind {
            Kind::Table { keys, .. } => keys.iter().map(|(name, _)| name.as_str()).collect(),
            Kind::Map(_) => file.into_iter().flat_map(Map::keys).map(String::as_str).collect(),
            Kind::List(_)
            | Kind::Word(_)
            | Kind::Text { .. }
            | Kind::Address
            | Kind::Duration { .. }
            | Kind::Integer { .. }
            | Kind::Number { .. }
            | Kind::Boolean => Vec::new(),
        };
        for name in names {
            let Some(inner) = shape.key(name) else { continue };
            let variable = format!("{prefix}{}", fold(name));
            let key = at.child(name);
            let below = file.and_then(|file| table(file.get(name)?));
            self.collect(inner, below, &key, &format!("{variable}__"));
            self.0.entry(variable).or_default().push(Target { key, shape: inner });
        }
    }

    /// The key that the variable `name` sets, and the value it sets it to.
    fn set(
        &self,
        name: &str,
        value: Option<&str>,
        places: &Places,
    ) -> Result<(Key, ValueKind), Box<Finding>> {
        let refuse =
            |key: &Key, message: String| Finding::new(At::Variable(name.to_owned()), key.clone(), message);
        let target = match self.find(name) {
            Ok(target) => target,
            Err(unknown) => return Err(Box::new(Finding { at: At::Variable(name.to_owned()), ..unknown })),
        };
        if let Some(At::Variable(other)) = places.of(&target.key) {
            return Err(refuse(&target.key, format!("{} sets the same key", shown(other)))
                .help("unset one")
                .into());
        }
        let Some(text) = value else {
            return Err(refuse(&target.key, "the value is not UTF-8".into()).into());
        };
        let kind = target.shape.accept(read(text, target.shape), Form::Variable(name));
        kind.map(|kind| (target.key.clone(), kind)).map_err(|complaint| {
            Box::new(Finding::complaint(At::Variable(name.to_owned()), target.key.clone(), complaint))
        })
    }

    /// The one key that is meant by `name`.
    fn find(&self, name: &str) -> Result<&Target, Finding> {
        let refuse = |key: Key, message: &str| Finding::new(At::Nowhere, key, message);
        let folded = fold(name).split_off(PREFIX.len());
        match self.0.get(&folded).map(Vec::as_slice) {
            Some([target]) => match &target.shape.kind {
                Kind::List(_) => Err(as_list(target)),
                Kind::Table { .. } | Kind::Map(_) => {
                    let help =
                        self.nearest(&format!("{folded}__")).map(|name| format!("one of them is {name}"));
                    let message = "this is a table: a variable sets one of its keys";
                    Err(refuse(target.key.clone(), message).maybe_help(help))
                }
                Kind::Word(_)
                | Kind::Text { .. }
                | Kind::Address
                | Kind::Duration { .. }
                | Kind::Integer { .. }
                | Kind::Number { .. }
                | Kind::Boolean => Ok(target),
            },
            Some(several) => {
                let keys: Vec<_> = several.iter().map(|target| target.key.to_string()).collect();
                let message = format!("it could mean each of {}", keys.join(", "));
                Err(refuse(Key::default(), &message).help("rename one of them in the file"))
            }
            None => Err(self.unknown(&folded)),
        }
    }

    fn unknown(&self, folded: &str) -> Finding {
        let inside = |(list, targets): (&String, &Vec<Target>)| {
            let is_list = targets.iter().any(|target| matches!(target.shape.kind, Kind::List(_)));
            (is_list && folded.starts_with(&format!("{list}__")))
                .then(|| targets.first())
                .flatten()
                .map(as_list)
        };
        if let Some(finding) = self.0.iter().find_map(inside) {
            return finding;
        }
        let names: Vec<_> = folded.split("__").collect();
        let key = names.iter().fold(Key::default(), |key, name| key.child(name));
        if later::is_planned(&key) {
            return Finding::new(At::Nowhere, key, later::message()).help("unset it");
        }
        let meant = self.nearest(folded).map(|name| format!("did you mean {name}?"));
        let no_pool = || {
            let is_pool = names.first() == Some(&"pools");
            is_pool.then(|| {
                "a variable can only set keys of a pool that the file names: [pools.NAME]".to_owned()
            })
        };
        Finding::new(At::Nowhere, Key::default(), "it stands for no key of the defaults or of the file")
            .maybe_help(meant.or_else(no_pool))
    }

    /// The settable variable that looks most like `folded`.
    fn nearest(&self, folded: &str) -> Option<String> {
        let settable =
            self.0.iter().filter(|(_, targets)| targets.iter().any(|target| target.shape.is_value()));
        let name = nearest(folded, settable.map(|(name, _)| name.as_str()))?;
        Some(format!("{PREFIX}{name}").to_uppercase())
    }
}

fn table(value: &Value) -> Option<&Map<String, Value>> {
    if let ValueKind::Table(table) = &value.kind { Some(table) } else { None }
}

fn as_list(target: &Target) -> Finding {
    let help = format!("write [[{}]] in the file", target.key);
    Finding::new(At::Nowhere, target.key.clone(), "this is a list, and the environment cannot set lists")
        .help(help)
}

/// The text as a value of the kind that the target wants.
fn read<'a>(text: &'a str, target: &Shape) -> Found<'a> {
    let typed = match target.kind {
        Kind::Integer { .. } => text.parse().ok().map(|value| Found::Integer(Some(value))),
        Kind::Number { .. } => text.parse().ok().map(Found::Float),
        Kind::Boolean => text.parse().ok().map(Found::Boolean),
        Kind::Table { .. }
        | Kind::Map(_)
        | Kind::List(_)
        | Kind::Word(_)
        | Kind::Text { .. }
        | Kind::Address
        | Kind::Duration { .. } => None,
    };
    typed.unwrap_or(Found::Text(text))
}
