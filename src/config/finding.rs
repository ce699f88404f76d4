//! A mistake, before the report has worked out its line.

use std::{collections::BTreeMap, ops::Range};

use super::{accept::Complaint, key::Key};

/// A mistake and where it is.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) at: At,
    pub(super) key: Key,
    pub(super) message: String,
    pub(super) expected: Option<String>,
    pub(super) help: Option<String>,
}

/// Where a mistake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// At these bytes of the file.
    Span(Range<usize>),
    /// In this variable of the environment.
    Variable(String),
    /// In no place that can be pointed at.
    Nowhere,
}

/// Where each key was set: the last layer that set it.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<Key, At>);

impl Finding {
    pub(super) fn new(at: At, key: Key, message: impl Into<String>) -> Self {
        Self { at, key, message: message.into(), expected: None, help: None }
    }

    pub(super) fn complaint(at: At, key: Key, complaint: Complaint) -> Self {
        let Complaint { message, expected, help } = complaint;
        Self { at, key, message, expected: Some(expected), help }
    }

    pub(super) fn expected(self, expected: impl Into<String>) -> Self {
        Self { expected: Some(expected.into()), ..self }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    pub(super) fn maybe_help(self, help: Option<String>) -> Self {
        Self { help, ..self }
    }
}

impl Places {
    pub(super) fn set(&mut self, key: Key, at: At) {
        self.0.insert(key, at);
    }

    /// Where `key` was set; `None` if it has its default.
    pub(super) fn of(&self, key: &Key) -> Option<&At> {
        self.0.get(key)
    }

    /// The best place to point at for a mistake in which all of `keys` take part.
    ///
    /// A variable first: whoever overrides a file wonders last about the override. Then the first key that was
    /// set at all, then the table around the first key.
    pub(super) fn best(&self, keys: &[Key]) -> At {
        let set = || keys.iter().filter_map(|key| self.of(key));
        let variable = set().find(|at| matches!(at, At::Variable(_)));
        let found = variable.or_else(|| set().next()).or_else(|| self.around(keys.first()?));
        found.cloned().unwrap_or(At::Nowhere)
    }

    fn around(&self, key: &Key) -> Option<&At> {
        let around = key.parent()?;
        self.of(&around).or_else(|| self.around(&around))
    }
}
