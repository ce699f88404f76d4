//! What is wrong with a config, for people and for programs.

use std::{cmp::Ordering, error::Error, fmt, ops::Range};

use serde::Serialize;

use super::{
    finding::{At, Finding, Mistake},
    key::Key,
    lines::Lines,
};

/// At most this many mistakes are told; the further ones are counted.
const MOST: usize = 1_000;

/// The longest line that is shown, in bytes.
const SHOWN: usize = 400;

/// Every mistake of a config, in the order of the file, then those of the environment.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Whether there is no mistake.
    pub valid: bool,
    /// The file, as it was named; `None` if only the defaults and the environment were looked at.
    pub file: Option<String>,
    /// The mistakes; at most 1,000 of them.
    pub errors: Vec<Issue>,
    /// How many more there are.
    pub further: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Issue {
    /// The file in which it is; `None` if it is in the environment.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: Option<usize>,
    /// Its column, from 1, in characters.
    pub column: Option<usize>,
    /// The column after its last one.
    pub end_column: Option<usize>,
    /// The line, with asterisks for secrets. A line of more than 400 bytes is not shown.
    pub excerpt: Option<String>,
    /// The environment variable in which it is.
    pub variable: Option<String>,
    /// The key, as `pools.main.warning`; empty if it concerns the whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What may stand there.
    pub expected: String,
    /// What to do.
    pub suggestion: String,
}

impl Report {
    /// The report about `text`, in which the bytes of `hidden` must not be shown.
    pub(super) fn new(
        file: Option<&str>,
        text: &str,
        hidden: &[Range<usize>],
        mut findings: Vec<Finding>,
    ) -> Self {
        findings.sort_by(in_order);
        let text = without_secrets(text, hidden);
        let lines = Lines::of(&text);
        let issue = |finding| Issue::new(file, &lines, finding);
        Self {
            valid: findings.is_empty(),
            file: file.map(str::to_owned),
            further: findings.len().saturating_sub(MOST),
            errors: findings.into_iter().take(MOST).map(issue).collect(),
        }
    }

    /// The report about a file that could not even be read.
    pub(super) fn unreadable(file: &str, why: impl fmt::Display) -> Self {
        let mistake = Mistake::new(format!("cannot read it: {why}"), "a file that can be read");
        let mistake = mistake.help("`selfheal config reference` prints a file to start from".to_owned());
        let finding = Finding::new(At::Nowhere, Key::default(), mistake);
        Self::new(Some(file), "", &[], vec![finding])
    }

    /// How many mistakes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.errors.len() + self.further
    }

    /// The report as JSON: `{"valid":false,"file":"…","errors":[…],"further":0}`, with the fields of [`Issue`].
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// "2 mistakes in config/selfheal.toml", or that there is none.
    #[must_use]
    pub fn summary(&self) -> String {
        let file = self.file.as_deref().unwrap_or("the environment");
        match self.count() {
            0 => format!("{file} is valid"),
            1 => format!("1 mistake in {file}"),
            count => format!("{count} mistakes in {file}"),
        }
    }
}

/// One mistake a paragraph, without pictures: what a log can hold.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        for issue in &self.errors {
            write!(f, "\n{issue}")?;
        }
        match self.further {
            0 => Ok(()),
            further => write!(f, "\nand {further} more"),
        }
    }
}

fn in_order(a: &Finding, b: &Finding) -> Ordering {
    match (&a.at, &b.at) {
        (At::Span(a), At::Span(b)) => a.start.cmp(&b.start),
        (At::Variable(a), At::Variable(b)) => a.cmp(b),
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn rank(at: &At) -> u8 {
    match at {
        At::Nowhere => 0,
        At::Span(_) => 1,
        At::Variable(_) => 2,
    }
}

impl Issue {
    fn new(file: Option<&str>, lines: &Lines<'_>, finding: Finding) -> Self {
        let Finding { at, key, mistake: Mistake { message, expected, help } } = finding;
        let (span, variable) = match at {
            At::Span(span) => (Some(span), None),
            At::Variable(name) => (None, Some(printable(&name))),
            At::Nowhere => (None, None),
        };
        Self {
            file: file.filter(|_| variable.is_none()).map(str::to_owned),
            line: span.as_ref().map(|span| lines.number(span.start)),
            column: span.as_ref().map(|span| lines.column(span.start)),
            end_column: span.as_ref().map(|span| lines.end_column(span)),
            excerpt: span
                .as_ref()
                .map(|span| lines.text(span.start))
                .filter(|line| line.len() <= SHOWN)
                .map(str::to_owned),
            variable,
            key: key.to_string(),
            message,
            expected,
            suggestion: help,
        }
    }

    /// What is wrong, with the key: "pools.main.warning: expected a number, found …".
    #[must_use]
    pub fn headline(&self) -> String {
        if self.key.is_empty() { self.message.clone() } else { format!("{}: {}", self.key, self.message) }
    }

    /// "config/selfheal.toml:7:11", or the name of the variable.
    #[must_use]
    pub fn place(&self) -> String {
        match (&self.variable, &self.file, self.line, self.column) {
            (Some(variable), ..) => variable.clone(),
            (None, Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}"),
            (None, Some(file), ..) => file.clone(),
            (None, None, ..) => "the defaults".into(),
        }
    }

    /// What may stand there, unless the message says so itself.
    pub(super) fn more(&self) -> Option<&str> {
        (!self.message.contains(&self.expected)).then_some(&self.expected)
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.headline())?;
        if let (Some(line), Some(excerpt)) = (self.line, &self.excerpt) {
            write!(f, "\n    {line} | {excerpt}")?;
        }
        if let Some(expected) = self.more() {
            write!(f, "\n    expected: {expected}")?;
        }
        write!(f, "\n    help: {}", self.suggestion)
    }
}

/// A config that cannot be used. Its text lists every mistake.
#[derive(Clone, Debug)]
pub struct ConfigError(Box<Report>);

impl ConfigError {
    pub(super) fn new(report: Report) -> Self {
        Self(Box::new(report))
    }

    /// The mistakes.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ConfigError {}

/// A name from outside, without what could fake a line of the report.
fn printable(name: &str) -> String {
    let cut = name.char_indices().nth(200).map_or(name.len(), |(offset, _)| offset);
    name[..cut].escape_debug().to_string()
}

/// `text` with asterisks, byte for byte, for what must not be shown.
///
/// Where the grammar is broken the ranges are not known. So whatever is assigned on a line that speaks of a
/// token or a password is hidden too.
fn without_secrets(text: &str, hidden: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut hide = |range: Range<usize>| {
        for byte in bytes.get_mut(range).into_iter().flatten().filter(|byte| **byte != b'\n') {
            *byte = b'*';
        }
    };
    hidden.iter().cloned().for_each(&mut hide);
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(value) = value_of_secret(line) {
            hide(start + value..start + line.len());
        }
        start += line.len();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where the value begins on a line whose key sounds like a secret.
fn value_of_secret(line: &str) -> Option<usize> {
    let key = line.to_ascii_lowercase();
    let sounds = ["tok", "secret", "passw"].iter().filter_map(|word| key.find(word)).min()?;
    Some(sounds + line[sounds..].find('=')? + 1)
}
