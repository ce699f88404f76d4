//! The file layer: TOML text → the values that have passed, the place of each, and every mistake.
//!
//! A file is at most [`MAX_BYTES`] long, and no key of it may contain `[` or `]`: to the crate that merges the
//! layers such a key is a place in a list, and `"a[999999999999]" = 1` makes it allocate until the process
//! dies. What is refused here never reaches it.

use std::{borrow::Cow, collections::BTreeSet, ops::Range};

use ::config::{Map, Value, ValueKind};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    accept::{Form, Found},
    finding::{At, Finding, Mistake, Places},
    key::{Key, shown},
    later,
    lines::Lines,
    shape::{Kind, Shape},
    suggest::nearest,
};

/// The longest file that is read: 256 KiB, some thousand endpoints. A longer one is refused.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// The longest name of a pool.
const MAX_NAME: usize = 64;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) values: Map<String, Value>,
    pub(super) places: Places,
    pub(super) findings: Vec<Finding>,
    /// The text is not TOML, so that what was understood of it may not be what was meant.
    pub(super) damaged: bool,
    /// Where values stand that must not be shown: secrets, and whatever a misspelt key was given.
    pub(super) hidden: Vec<Range<usize>>,
}

impl Document {
    /// Reads `text`, named `origin` for people.
    pub(super) fn read(text: &str, origin: &str) -> Self {
        if text.len() > MAX_BYTES {
            let expected = format!("at most {} KiB", MAX_BYTES / 1024);
            let mistake = Mistake::new(format!("the file is too large: {expected} are read"), expected);
            let finding = Finding::new(At::Nowhere, Key::default(), mistake);
            return Self { findings: vec![finding], damaged: true, ..Self::default() };
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        let syntax = Syntax::of(text, &errors);
        let mut reader = Reader { origin, document: Self::default() };
        if !syntax.lost {
            reader.document.values = reader.table(Shape::config(), table.get_ref(), &Key::default());
            reader.document.findings.retain(|finding| !syntax.touches(finding));
        }
        reader.document.damaged = !syntax.findings.is_empty();
        reader.document.findings.extend(syntax.findings);
        reader.document
    }
}

/// The mistakes in the grammar: the first of each line, since the others follow from it.
struct Syntax<'a> {
    findings: Vec<Finding>,
    lines: Lines<'a>,
    damaged: BTreeSet<usize>,
    /// A bracket or a quote is open, so that keys may have ended up in the wrong table.
    lost: bool,
}

impl<'a> Syntax<'a> {
    fn of(text: &'a str, errors: &[toml::de::Error]) -> Self {
        let mut syntax =
            Self { findings: Vec::new(), lines: Lines::of(text), damaged: BTreeSet::new(), lost: false };
        for error in errors {
            let span = error.span().unwrap_or(text.len()..text.len());
            syntax.lost |= ["unclosed", "multi-line"].iter().any(|sign| error.message().contains(sign));
            if syntax.damaged.insert(syntax.lines.number(span.start)) {
                syntax.findings.push(Self::finding(error.message(), span));
            }
        }
        syntax
    }

    fn finding(message: &str, span: Range<usize>) -> Finding {
        let (message, expected) = message.split_once(", expected ").unwrap_or((message, "TOML"));
        let expected = if expected == "nothing" { "nothing more here" } else { expected };
        let help = match message {
            "string values must be quoted" => "put the text in double quotes: \"…\"",
            "unclosed table" | "unclosed array table" | "unclosed array" => "close the bracket",
            "invalid basic string" | "invalid literal string" => "close the quotes, on the same line",
            "invalid mantissa" => "write digits before and after the point: 0.85",
            "unexpected leading zero" => "leave the zero out",
            "duplicate key" => "it stands above already: remove one of the two",
            _ => "https://toml.io shows how TOML is written",
        };
        let mistake = Mistake::new(format!("not valid TOML: {message}"), expected).help(help.to_owned());
        Finding::new(At::Span(span), Key::default(), mistake)
    }

    fn touches(&self, finding: &Finding) -> bool {
        match &finding.at {
            At::Span(span) => self.damaged.contains(&self.lines.number(span.start)),
            At::Variable(_) | At::Nowhere => false,
        }
    }
}

/// Walks a document along the shapes.
struct Reader<'a> {
    origin: &'a str,
    document: Document,
}

impl Reader<'_> {
    fn table(&mut self, shape: &Shape, table: &DeTable<'_>, at: &Key) -> Map<String, Value> {
        let mut values = Map::new();
        for (name, value) in table {
            let key = at.child(name.get_ref());
            let Some(inner) = self.known(shape, name, &key) else {
                self.hide(value);
                continue;
            };
            if let Some(value) = self.value(inner, value, &key) {
                values.insert(name.get_ref().to_string(), value);
            }
        }
        values
    }

    /// The shape of the key `name`, unless no such key may stand there.
    fn known<'s>(&mut self, shape: &'s Shape, name: &Spanned<Cow<'_, str>>, key: &Key) -> Option<&'s Shape> {
        match known(shape, name.get_ref(), key) {
            Ok(inner) => Some(inner),
            Err(mistake) => {
                self.note(At::Span(name.span()), key.clone(), mistake);
                None
            }
        }
    }

    fn value(&mut self, shape: &Shape, value: &Spanned<DeValue<'_>>, key: &Key) -> Option<Value> {
        let at = At::Span(value.span());
        self.document.places.set(key.clone(), at.clone());
        let kind = match (&shape.kind, value.get_ref()) {
            (Kind::Table { required, .. }, DeValue::Table(table)) => {
                self.missing(shape, required, table, key, &at);
                self.table(shape, table, key).into()
            }
            (Kind::Map(_), DeValue::Table(table)) => self.table(shape, table, key).into(),
            (Kind::List(item) | Kind::WordOrList(_, item), DeValue::Array(items)) => {
                let values =
                    items.iter().enumerate().filter_map(|(i, value)| self.item(item, value, &key.item(i)));
                ValueKind::Array(values.collect())
            }
            (_, scalar) => {
                if shape.is_secret() || !shape.is_value() {
                    self.hide(value);
                }
                let name = key.names().last().unwrap_or_default();
                match shape.accept(found(scalar), Form::Key(name)) {
                    Ok(kind) => kind,
                    Err(mistake) => {
                        self.note(at, key.clone(), mistake);
                        return None;
                    }
                }
            }
        };
        Some(Value::new(Some(&self.origin.to_owned()), kind))
    }

    /// An item of a list. A table that was refused stays as an empty one, so that the others keep their places.
    fn item(&mut self, shape: &Shape, value: &Spanned<DeValue<'_>>, key: &Key) -> Option<Value> {
        let is_table = matches!(shape.kind, Kind::Table { .. });
        let empty = || is_table.then(|| Value::new(None, ValueKind::Table(Map::new())));
        self.value(shape, value, key).or_else(empty)
    }

    fn missing(&mut self, shape: &Shape, required: &[String], table: &DeTable<'_>, key: &Key, at: &At) {
        for name in required.iter().filter(|name| !table.contains_key(name.as_str())) {
            let example = shape.key(name).and_then(|shape| shape.example.as_ref());
            let help =
                example.map(|example| format!("add it, for example {}", Form::Key(name).with(example)));
            let expected = shape.key(name).map(Shape::expected).unwrap_or_default();
            let mistake = Mistake::new(format!("the key \"{name}\" is missing"), expected).help(help);
            self.note(at.clone(), key.child(name), mistake);
        }
    }

    /// Keeps the texts in `value` from being shown.
    fn hide(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => table.values().for_each(|value| self.hide(value)),
            DeValue::Array(items) => items.iter().for_each(|value| self.hide(value)),
            DeValue::String(_) => self.document.hidden.push(value.span()),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }

    fn note(&mut self, at: At, key: Key, mistake: Mistake) {
        self.document.findings.push(Finding::new(at, key, mistake));
    }
}

fn known<'s>(shape: &'s Shape, name: &str, key: &Key) -> Result<&'s Shape, Mistake> {
    if name.contains(['[', ']']) {
        let help = "a list of tables is written without quotes: [[endpoints]]".to_owned();
        return Err(Mistake::new("a key must not contain \"[\" or \"]\"", expected_keys(shape)).help(help));
    }
    if matches!(shape.kind, Kind::Map(_)) && !is_name(name) {
        let expected = format!("a name of 1 to {MAX_NAME} characters on one line");
        return Err(Mistake::new(format!("expected {expected}, found {}", shown(name)), expected));
    }
    shape.key(name).ok_or_else(|| unknown(shape, name, key))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= MAX_NAME && !name.contains(char::is_control)
}

fn unknown(shape: &Shape, name: &str, key: &Key) -> Mistake {
    if later::is_planned(&key.names().collect::<Vec<_>>()) {
        return later::mistake(name, expected_keys(shape));
    }
    let meant = nearest(name, shape.keys().map(|(key, _)| key.as_str()))
        .map(|meant| format!("did you mean {meant}?"));
    let elsewhere =
        || home_of(Shape::config(), name, &Key::default()).map(|home| format!("{name} belongs to {home}"));
    Mistake::new(format!("there is no key {}", shown(name)), expected_keys(shape))
        .help(meant.or_else(elsewhere))
}

fn expected_keys(shape: &Shape) -> String {
    let keys: Vec<_> = shape.keys().map(|(key, _)| key.as_str()).collect();
    match keys.as_slice() {
        [] => "a name".into(),
        [only] => format!("only {only}"),
        keys => format!("one of {}", keys.join(", ")),
    }
}

/// The table in which a key called `name` would be right: `[runtime]`, `[pools.NAME]`, `[[endpoints]]`.
fn home_of(shape: &Shape, name: &str, at: &Key) -> Option<String> {
    match &shape.kind {
        Kind::Table { keys, .. } => keys.iter().find_map(|(key, inner)| {
            let is_here = key == name && !at.is_root();
            if is_here { Some(format!("[{at}]")) } else { home_of(inner, name, &at.child(key)) }
        }),
        Kind::Map(inner) => home_of(inner, name, &at.child("NAME")),
        Kind::List(inner) => home_of(inner, name, at).map(|home| format!("[{home}]")),
        Kind::Value(_) | Kind::WordOrList(..) => None,
    }
}

fn found<'a>(value: &'a DeValue<'_>) -> Found<'a> {
    match value {
        DeValue::String(text) => Found::Text(text),
        DeValue::Integer(digits) => Found::Integer(i64::from_str_radix(digits.as_str(), digits.radix()).ok()),
        // Only what TOML takes for a float comes here, and Rust reads all of that; "inf" and "nan" are in no range.
        DeValue::Float(digits) => Found::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Found::Boolean(*value),
        DeValue::Datetime(_) => Found::Other("a date"),
        DeValue::Array(_) => Found::Other("a list"),
        DeValue::Table(_) => Found::Other("a table"),
    }
}
