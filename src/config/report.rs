//! What is wrong with a config, for people and for programs.

use std::{borrow::Cow, cmp::Ordering, error::Error, fmt, ops::Range};

use serde::Serialize;

use super::{
    finding::{At, Finding},
    lines::Lines,
};

/// At most this many mistakes are told; the further ones are counted.
const MOST: usize = 1_000;

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
    /// The text of the file without its secrets, to show places in it.
    #[serde(skip)]
    pub(super) text: String,
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
    /// The environment variable in which it is.
    pub variable: Option<String>,
    /// The key, as `pools.main.warning`; empty if it concerns the whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What may stand there.
    pub expected: Option<String>,
    /// What to do.
    pub suggestion: Option<String>,
    #[serde(skip)]
    pub(super) span: Option<Range<usize>>,
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
        let lines = Lines::of(text);
        let issue = |finding| Issue::new(file, text, &lines, finding);
        Self {
            valid: findings.is_empty(),
            file: file.map(str::to_owned),
            further: findings.len().saturating_sub(MOST),
            errors: findings.into_iter().take(MOST).map(issue).collect(),
            text: without_secrets(text, hidden),
        }
    }

    /// The report about a file that could not even be read.
    pub(super) fn unreadable(file: &str, why: impl fmt::Display) -> Self {
        let finding = Finding::new(At::Nowhere, super::key::Key::default(), format!("cannot read it: {why}"));
        Self::new(Some(file), "", &[], vec![finding])
    }

    /// How many mistakes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.errors.len() + self.further
    }

    /// The report as JSON: `{"valid":false,"file":"…","errors":[{"file","line","column","variable","key",
    /// "message","expected","suggestion"}],"further":0}`.
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
    fn new(file: Option<&str>, text: &str, lines: &Lines, finding: Finding) -> Self {
        let Finding { at, key, message, expected, help } = finding;
        let (span, variable) = match at {
            At::Span(span) => (Some(span), None),
            At::Variable(name) => (None, Some(printable(&name))),
            At::Nowhere => (None, None),
        };
        Self {
            file: file.filter(|_| variable.is_none()).map(str::to_owned),
            line: span.as_ref().map(|span| lines.line(span.start)),
            column: span.as_ref().map(|span| lines.column(text, span.start)),
            variable,
            key: key.to_string(),
            message,
            expected,
            suggestion: help,
            span,
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
        self.expected.as_deref().filter(|expected| !self.message.contains(expected))
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.headline())?;
        if let Some(expected) = self.more() {
            write!(f, "\n    expected: {expected}")?;
        }
        match &self.suggestion {
            Some(help) => write!(f, "\n    help: {help}"),
            None => Ok(()),
        }
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
    match String::from_utf8_lossy(&bytes) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

/// Where the value begins on a line whose key sounds like a secret.
fn value_of_secret(line: &str) -> Option<usize> {
    let key = line.to_ascii_lowercase();
    let sounds = ["tok", "secret", "passw"].iter().filter_map(|word| key.find(word)).min()?;
    Some(sounds + line[sounds..].find('=')? + 1)
}
