//! The config as a text: every key with its default (`config/reference.toml`), or what is in force (`show`).

use std::fmt::Write;

use serde_json::Value as Json;

use super::{
    policy::Config,
    shape::{Kind, Scalar, Shape},
};

/// Comments are wrapped at this width.
const WIDTH: usize = 96;

const HEAD: &str = "\
# Every key with its default. A key whose line begins with \"#\" has no default: it is unset, or
# stands in an example of a table. Any line can be copied to your own file, without its \"#\".
#
# Unknown keys are errors. Environment variables override keys: SELFHEAL__RUNTIME__MODE=observe.
# Durations are \"250ms\", \"2s\", \"1m 30s\", \"1h\". Check a file with `selfheal check FILE`.
";

/// The text of `config/reference.toml`: every key with its meaning and its default.
#[must_use]
pub fn reference() -> String {
    let mut out = Writer { text: HEAD.to_owned() };
    for (name, shape) in Shape::config().keys() {
        out.table(name, shape);
    }
    out.text
}

impl Config {
    /// The config as TOML, with secrets as `***`.
    #[must_use]
    pub fn show(&self) -> String {
        // Every part of a config can be written as TOML, so that an error here would be a bug.
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }
}

struct Writer {
    text: String,
}

impl Writer {
    /// A table, or the example of one.
    fn table(&mut self, name: &str, shape: &Shape) {
        self.text.push('\n');
        self.comment(&shape.doc);
        match &shape.kind {
            Kind::Map(inner) if matches!(inner.kind, Kind::Map(_)) => self.example(name, shape),
            Kind::Map(inner) => self.keys(&format!("#[{name}.main]"), inner, "#"),
            Kind::List(inner) => self.keys(&format!("#[[{name}]]"), inner, "#"),
            Kind::Table { .. } | Kind::Value(_) | Kind::WordOrList(..) => {
                self.keys(&format!("[{name}]"), shape, "")
            }
        }
    }

    fn keys(&mut self, header: &str, shape: &Shape, prefix: &str) {
        self.line(header);
        for (name, shape) in shape.keys() {
            self.comment(&shape.doc);
            let set = if shape.default.is_some() { prefix } else { "#" };
            self.line(&format!("{set}{name} = {}", sample(shape)));
        }
    }

    /// A table whose keys are chosen by whoever writes it, too.
    fn example(&mut self, name: &str, shape: &Shape) {
        let tables = shape.example.as_ref().and_then(Json::as_object).into_iter().flatten();
        for (table, keys) in tables {
            self.line(&format!("#[{name}.{table}]"));
            for (key, value) in keys.as_object().into_iter().flatten() {
                self.line(&format!("#{key} = {}", toml_of(value)));
            }
        }
    }

    fn comment(&mut self, doc: &str) {
        let mut line = String::from("#");
        for word in doc.split_whitespace() {
            if line.len() + 1 + word.len() > WIDTH {
                self.line(&line);
                line.truncate(1);
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(&line);
    }

    fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// The default of a key, or an example.
fn sample(shape: &Shape) -> String {
    match (&shape.kind, &shape.default, &shape.example) {
        (Kind::List(item), Some(Json::Array(items)), _) if items.is_empty() => format!("[{}]", sample(item)),
        (Kind::Table { .. }, None, None) => inline(shape),
        (_, Some(value), _) | (_, None, Some(value)) => toml_of(value),
        (Kind::Value(Scalar::Word(words)), None, None) => {
            words.first().map_or_else(String::new, |word| format!("{word:?}"))
        }
        // A key with neither default nor example: this is no TOML, so that the tests find it.
        (kind, None, None) => format!("{kind:?}"),
    }
}

/// A table on one line, with the defaults of its keys, and with examples where it must have a key.
fn inline(shape: &Shape) -> String {
    let Kind::Table { keys, required } = &shape.kind else { return sample(shape) };
    let is_shown = |name: &String, shape: &Shape| shape.default.is_some() || required.contains(name);
    let keys = keys.iter().filter(|(name, shape)| is_shown(name, shape));
    let keys: Vec<_> = keys.map(|(name, shape)| format!("{name} = {}", sample(shape))).collect();
    format!("{{ {} }}", keys.join(", "))
}

/// A value as TOML writes it on one line.
fn toml_of(value: &Json) -> String {
    match value {
        Json::Object(keys) => {
            let keys: Vec<_> =
                keys.iter().map(|(name, value)| format!("{name} = {}", toml_of(value))).collect();
            format!("{{ {} }}", keys.join(", "))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        // JSON and TOML write these alike, and null does not occur.
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => value.to_string(),
    }
}
