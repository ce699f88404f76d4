//! One value against its shape: taken as it is, or a complaint that says what would be right.
//!
//! Nothing is coerced: `"5"` is not the number 5, and `20` is not a duration.

use std::net::SocketAddr;

use ::config::ValueKind;
use serde_json::Value as Json;

use super::{
    finding::Mistake,
    key::shown,
    shape::{Kind, Scalar, Shape},
    suggest::nearest,
};

/// A value as it was found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    Text(&'a str),
    /// `None`: more than 64 bits.
    Integer(Option<i64>),
    Float(f64),
    Boolean(bool),
    /// Something that is never a value here: "a table", "a list", "a date".
    Other(&'static str),
}

/// How the key would be written with another value, for suggestions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form<'a> {
    /// The last part of a key in the file.
    Key(&'a str),
    /// A variable of the environment.
    Variable(&'a str),
}

impl Shape {
    /// The value, if it is of this shape.
    pub(super) fn accept(&self, found: Found<'_>, form: Form<'_>) -> Result<ValueKind, Mistake> {
        self.take(found).ok_or_else(|| self.complaint(found, form))
    }

    fn take(&self, found: Found<'_>) -> Option<ValueKind> {
        let (Kind::Value(scalar) | Kind::WordOrList(scalar, _)) = &self.kind else { return None };
        match (scalar, found) {
            (Scalar::Boolean, Found::Boolean(value)) => Some(value.into()),
            (Scalar::Integer { at_least, at_most }, Found::Integer(Some(value))) => {
                (at_least..=at_most).contains(&&value).then(|| value.into())
            }
            // Every integer that passes the range of a number here is exact as a float.
            (Scalar::Number { .. }, Found::Integer(Some(value))) => self.take(Found::Float(value as f64)),
            (Scalar::Number { above, at_least, at_most }, Found::Float(value)) => {
                let in_range =
                    above.is_none_or(|above| value > above) && (at_least..=at_most).contains(&&value);
                in_range.then(|| value.into())
            }
            (Scalar::Word(words), Found::Text(text)) => {
                words.iter().any(|word| word == text).then(|| text.into())
            }
            (Scalar::Text { at_least, at_most, .. }, Found::Text(text)) => {
                let fits = (at_least..=at_most).contains(&&text.chars().count());
                (fits && !text.contains(char::is_control)).then(|| text.into())
            }
            (Scalar::Address, Found::Text(text)) => text.parse::<SocketAddr>().is_ok().then(|| text.into()),
            (Scalar::Duration { at_least, at_most }, Found::Text(text)) => {
                let span = humantime::parse_duration(text).ok()?;
                (at_least..=at_most).contains(&&span).then(|| text.into())
            }
            _ => None,
        }
    }

    fn complaint(&self, found: Found<'_>, form: Form<'_>) -> Mistake {
        let expected = self.expected();
        let message = format!("expected {expected}, found {}", self.describe(found));
        Mistake::new(message, expected).help(self.remedy(found, form).or_else(|| self.sample(form)))
    }

    /// What may stand here, in words.
    pub(super) fn expected(&self) -> String {
        match &self.kind {
            Kind::Table { .. } | Kind::Map(_) => "a table".into(),
            Kind::List(inner) => format!("a list, each item {}", inner.expected()),
            Kind::WordOrList(word, item) => {
                format!("{}, or a list, each item {}", word.expected(), item.expected())
            }
            Kind::Value(scalar) => scalar.expected(),
        }
    }

    fn describe(&self, found: Found<'_>) -> String {
        match found {
            Found::Text(_) if self.is_secret() => "one that is shorter, or has control characters".into(),
            Found::Integer(_) | Found::Float(_) | Found::Boolean(_) if self.is_secret() => {
                "something else".into()
            }
            // What stands for a whole table may be anything, a token too.
            Found::Text(_) if !self.is_value() => "a string".into(),
            Found::Text(text) => format!("the string {}", shown(text)),
            Found::Integer(Some(value)) => format!("the number {value}"),
            Found::Integer(None) => "a number of more than 64 bits".into(),
            Found::Float(value) => format!("the number {value}"),
            Found::Boolean(value) => value.to_string(),
            Found::Other(what) => what.into(),
        }
    }

    /// What to write instead, where the mistake is a known one.
    fn remedy(&self, found: Found<'_>, form: Form<'_>) -> Option<String> {
        match (&self.kind, found) {
            (Kind::Value(scalar) | Kind::WordOrList(scalar, _), found) => {
                self.remedy_of_value(scalar, found, form)
            }
            (Kind::List(_), Found::Other("a table")) => Some(format!("double brackets: [[{}]]", form.name())),
            (Kind::Table { .. }, Found::Other("a list")) => {
                Some(format!("single brackets: [{}]", form.name()))
            }
            _ => None,
        }
    }

    fn remedy_of_value(&self, scalar: &Scalar, found: Found<'_>, form: Form<'_>) -> Option<String> {
        match (scalar, found) {
            (Scalar::Word(words), Found::Text(text)) => {
                let word = nearest(text, words.iter().map(String::as_str))?;
                Some(format!("did you mean {}?", form.with(&word.into())))
            }
            (Scalar::Duration { .. }, Found::Integer(Some(n))) => Some(form.units(n.unsigned_abs())),
            (Scalar::Duration { .. }, Found::Text(text)) => {
                if let Ok(bare) = text.trim().parse() {
                    return Some(form.units(bare));
                }
                let sample = self.sample(form).filter(|_| humantime::parse_duration(text).is_err())?;
                Some(format!("units are ns, us, ms, s, m, h, d; {sample}"))
            }
            (Scalar::Number { at_most, .. }, Found::Integer(Some(percent @ 2..=100))) if *at_most == 1.0 => {
                Some(format!("a share, not a percentage: {}", form.with(&(percent as f64 / 100.0).into())))
            }
            (Scalar::Integer { .. } | Scalar::Number { .. } | Scalar::Boolean, Found::Text(text)) => {
                self.take(unquoted(text)?)?;
                Some(format!("without quotes: {} = {text}", form.name()))
            }
            (Scalar::Text { secret: true, .. }, _) => {
                Some("generate one, for example with `openssl rand -hex 16`".into())
            }
            (Scalar::Text { .. }, Found::Integer(Some(value))) => {
                Some(format!("with quotes: {}", form.with(&value.to_string().into())))
            }
            _ => None,
        }
    }

    fn sample(&self, form: Form<'_>) -> Option<String> {
        let sample = self.default.as_ref().or(self.example.as_ref())?;
        let is_value = !sample.is_object() && !sample.is_array();
        is_value.then(|| format!("for example {}", form.with(sample)))
    }
}

impl Scalar {
    fn expected(&self) -> String {
        match self {
            Self::Word(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("one of {}", words.join(", "))
            }
            Self::Text { secret: true, at_least, .. } => {
                format!("a secret of at least {at_least} characters")
            }
            Self::Text { at_most, .. } => format!("a string of 1 to {at_most} characters on one line"),
            Self::Address => "an IP address and a port".into(),
            Self::Duration { at_least, at_most } => {
                let [at_least, at_most] = [at_least, at_most].map(|span| humantime::format_duration(*span));
                format!("a duration from {at_least} to {at_most}")
            }
            Self::Integer { at_least, at_most } => format!("a whole number from {at_least} to {at_most}"),
            Self::Number { above: Some(above), at_most, .. } => {
                format!("a number above {above} and at most {at_most}")
            }
            Self::Number { at_least, at_most, .. } => format!("a number from {at_least} to {at_most}"),
            Self::Boolean => "true or false".into(),
        }
    }
}

/// The number or boolean that stands in a string.
fn unquoted(text: &str) -> Option<Found<'_>> {
    let integer = text.parse().map(|n| Found::Integer(Some(n)));
    let number = integer.or_else(|_| text.parse().map(Found::Float));
    number.ok().or_else(|| text.parse().map(Found::Boolean).ok())
}

impl Form<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Key(name) | Self::Variable(name) => name,
        }
    }

    /// The key with `value`.
    pub(super) fn with(&self, value: &Json) -> String {
        match (self, value) {
            (Self::Key(name), value) => format!("{name} = {value}"),
            (Self::Variable(name), Json::String(text)) => format!("{name}={text}"),
            (Self::Variable(name), value) => format!("{name}={value}"),
        }
    }

    fn units(&self, number: u64) -> String {
        let (ms, s) = (self.with(&format!("{number}ms").into()), self.with(&format!("{number}s").into()));
        format!("a duration needs its unit: {ms} or {s}")
    }
}
