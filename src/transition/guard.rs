//! Writes changes of status, and only those that are allowed.

use std::{collections::BTreeMap, fmt};

use selfheal_actors::{
    level::Mode,
    signal::Name,
    transition::{Attempt, Blocked, Transition},
};
use sqlx::Executor;

use super::{
    dialect::{Change, Dialect, Seen},
    error::Error,
    statements::Statements,
    target::Target,
};

/// The statuses of one table of a database, under the rules of one machine. Cheap to clone.
///
/// What is blocked is left alone, counted and told; the rest is done. In mode `observe` everything is done, and what
/// would have been blocked is counted; in mode `off` everything is done.
#[derive(Clone)]
pub struct Guard {
    transition: Transition,
    target: Target,
    statements: Statements,
    operation: Option<Name>,
}

impl Guard {
    pub(super) fn new(transition: Transition, target: Target) -> Self {
        let statements = Statements::of(&target);
        Self { transition, target, statements, operation: None }
    }

    /// The same guard; what is blocked is told as part of `name`: "spam-capture".
    #[must_use]
    pub fn operation(&self, name: impl Into<Name>) -> Self {
        Self { operation: Some(name.into()), ..self.clone() }
    }

    /// Whose statuses they are.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Changes the status of the row with `key`. Of several who do so at once, one makes the change, and the others
    /// are told the state that it left.
    ///
    /// `executor` is whatever sqlx takes: `&pool`, `&mut *connection`, `&mut *transaction`; in a transaction the change
    /// is part of it. **Cancel safety**: that of the executor; a dropped call may have made the change.
    ///
    /// # Errors
    /// [`Error::Blocked`] or [`Error::Missing`], after which nothing has changed; [`Error::Sqlx`].
    pub async fn apply<'c, E, K>(&self, executor: E, key: K, to: impl AsRef<str> + Send) -> Result<(), Error>
    where
        E: Executor<'c>,
        E::Database: Dialect<K>,
        K: Clone + Send + Sync,
    {
        let to = to.as_ref();
        let outcome = self.apply_many(executor, std::slice::from_ref(&key), to).await?;
        match (outcome.blocked.first(), outcome.missing.first()) {
            (Some(found), _) => Err(Error::Blocked(self.transition.table().blocked(&found.state, to))),
            (None, Some(_)) => Err(Error::Missing),
            (None, None) => Ok(()),
        }
    }

    /// Changes the status of the rows with `keys`, in one statement. A key that is given twice counts once. How many
    /// that may be is bounded by the database alone; some thousands are one round trip of some milliseconds.
    ///
    /// # Errors
    /// Those of the database; then nothing has changed, and nothing is counted.
    pub async fn apply_many<'c, E, K>(
        &self,
        executor: E,
        keys: &[K],
        to: impl AsRef<str> + Send,
    ) -> Result<Outcome<K>, sqlx::Error>
    where
        E: Executor<'c>,
        E::Database: Dialect<K>,
        K: Clone + Send + Sync,
    {
        if keys.is_empty() {
            return Ok(Outcome::default());
        }
        let (to, mode) = (to.as_ref(), self.transition.mode());
        let change = Change {
            statements: &self.statements,
            keys,
            to,
            allowed: self.transition.table().leading_to(to).map(|state| (**state).to_owned()).collect(),
            enforced: mode == Mode::Act,
        };
        let seen = E::Database::change(executor, change).await?;
        self.record(mode, to, &seen);
        Ok(Outcome::of(keys, seen))
    }

    /// Counts and tells what was blocked, or would have been.
    fn record(&self, mode: Mode, to: &str, seen: &[Seen]) {
        if mode == Mode::Off {
            return;
        }
        let table = self.transition.table();
        let blocked = |seen: &&Seen| match mode {
            Mode::Act => !seen.moved,
            Mode::Observe | Mode::Off => {
                seen.state.as_ref().is_some_and(|from| table.check(from, to).is_err())
            }
        };
        let mut found: BTreeMap<&str, u64> = BTreeMap::new();
        for state in seen.iter().filter(blocked).filter_map(|seen| seen.state.as_deref()) {
            *found.entry(state).or_default() += 1;
        }
        let count = |(state, count): (&str, u64)| (Name::from(state), count);
        self.transition.record(&Attempt {
            operation: self.operation.clone(),
            to: to.into(),
            found: found.into_iter().map(count).collect(),
            made: seen.iter().filter(|seen| seen.moved).count() as u64,
            would: mode == Mode::Observe,
        });
    }

    /// Why a change was blocked that [`Outcome::blocked`] lists.
    #[must_use]
    pub fn why<K>(&self, found: &Found<K>, to: impl AsRef<str>) -> Blocked {
        self.transition.table().blocked(&found.state, to.as_ref())
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.transition.table().machine();
        f.debug_struct("Guard")
            .field("machine", machine)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// What became of many. Each key is in one of the lists, once, in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<K> {
    /// Rows that changed.
    pub applied: Vec<K>,
    /// Rows that may not change so.
    pub blocked: Vec<Found<K>>,
    /// Keys without a row.
    pub missing: Vec<K>,
}

/// A row that may not change, and the state in which it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<K> {
    /// Its key.
    pub key: K,
    /// Its state.
    pub state: Name,
}

impl<K> Default for Outcome<K> {
    fn default() -> Self {
        Self { applied: Vec::new(), blocked: Vec::new(), missing: Vec::new() }
    }
}

impl<K: Clone> Outcome<K> {
    fn of(keys: &[K], seen: Vec<Seen>) -> Self {
        let mut outcome = Self::default();
        for Seen { index, state, moved } in seen {
            let Some(key) = keys.get(index).cloned() else { continue };
            match state {
                _ if moved => outcome.applied.push(key),
                Some(state) => outcome.blocked.push(Found { key, state: state.into() }),
                None => outcome.missing.push(key),
            }
        }
        outcome
    }
}
