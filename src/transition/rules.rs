//! What the table of one machine says.

use std::sync::Arc;

use selfheal_actors::{
    signal::Name,
    transition::{Blocked, Counted, Table, Transition},
};

use super::{guard::Guard, target::Target};

/// A declared table, in force. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Rules(Transition);

impl Rules {
    pub(crate) const fn new(transition: Transition) -> Self {
        Self(transition)
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        self.0.table()
    }

    /// Whether `from` may become `to`. For where a status is shown or chosen: what is *written* goes through a
    /// [guard](Self::on), because between a look and a change others can write.
    ///
    /// # Errors
    /// [`Blocked`], which says what it may become instead.
    pub fn check(&self, from: impl AsRef<str>, to: impl AsRef<str>) -> Result<(), Blocked> {
        self.0.check(from, to)
    }

    /// What `state` may become.
    #[must_use]
    pub fn allowed_from(&self, state: impl AsRef<str>) -> &[Name] {
        self.table().allowed_from(state.as_ref())
    }

    /// What was blocked so far, by edge.
    #[must_use]
    pub fn counted(&self) -> Vec<Counted> {
        self.0.counted()
    }

    /// The guard of `target`'s statuses.
    #[must_use]
    pub fn on(&self, target: Target) -> Guard {
        Guard::new(self.0.clone(), target)
    }
}
