//! A mistake, before the report has worked out its line.

use std::{collections::BTreeMap, ops::Range};

use super::key::Key;

/// What is wrong, what would be right, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) message: String,
    pub(super) expected: String,
    pub(super) help: String,
}

impl Mistake {
    pub(super) fn new(message: impl Into<String>, expected: impl Into<String>) -> Self {
        let help = "`selfheal config reference` explains every key".into();
        Self { message: message.into(), expected: expected.into(), help }
    }

    /// With a better remedy than to read the reference, if there is one.
    pub(super) fn help(self, help: impl Into<Option<String>>) -> Self {
        match help.into() {
            Some(help) => Self { help, ..self },
            None => self,
        }
    }
}

/// A mistake and where it is.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) at: At,
    /// The key that it concerns; the root if it concerns none.
    pub(super) key: Key,
    pub(super) mistake: Mistake,
}

impl Finding {
    pub(super) fn new(at: At, key: Key, mistake: Mistake) -> Self {
        Self { at, key, mistake }
    }

    /// Whether it leaves `key` with another value than the one that was meant for it.
    pub(super) fn spoils(&self, key: &Key) -> bool {
        !self.key.is_root() && self.key.touches(key)
    }
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
