//! What a request touches: the table, which never changes, and a short mutex where something was blocked.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;

use super::{
    machine::{Attempt, Counted, Machine},
    policy::{Blocked, Table},
};
use crate::{
    clock::Clock,
    level::{Mode, ModeCell},
    signal::{Signal, Signals},
};

/// What stands around all transitions of a runtime.
#[derive(Clone, Debug)]
pub struct Around {
    /// By which refusals are spaced.
    pub clock: Clock,
    /// Whether refusals are acted on.
    pub mode: ModeCell,
    /// Where they are told.
    pub signals: Signals,
}

/// One table in force. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Transition(Arc<Shared>);

struct Shared {
    table: Arc<Table>,
    around: Around,
    machine: Mutex<Machine>,
}

impl Transition {
    /// `table`, with nothing blocked yet.
    #[must_use]
    pub fn new(table: Arc<Table>, around: Around) -> Self {
        let machine = Mutex::new(Machine::new(Arc::clone(&table)));
        Self(Arc::new(Shared { table, around, machine }))
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.0.table
    }

    /// Whether `from` may become `to`. It is asked and not counted: nothing was attempted.
    ///
    /// # Errors
    /// [`Blocked`], which says what it may become instead.
    pub fn check(&self, from: impl AsRef<str>, to: impl AsRef<str>) -> Result<(), Blocked> {
        self.0.table.check(from.as_ref(), to.as_ref())
    }

    /// How far refusals go: in `observe` and `off` every change is made.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.around.mode.get()
    }

    /// Counts what came of an attempt, and tells it if something was blocked.
    pub fn record(&self, attempt: &Attempt) {
        if attempt.found.is_empty() {
            return;
        }
        let now = self.0.around.clock.now();
        let told = self.0.machine.lock().on(attempt, now);
        self.tell(told);
    }

    /// Tells what has waited for long enough. To be called every second or so.
    pub fn tick(&self) {
        let now = self.0.around.clock.now();
        let told = self.0.machine.lock().on_tick(now);
        self.tell(told);
    }

    /// What was blocked so far, by edge.
    #[must_use]
    pub fn counted(&self) -> Vec<Counted> {
        self.0.machine.lock().counted().collect()
    }

    fn tell(&self, told: impl IntoIterator<Item = Signal>) {
        told.into_iter().for_each(|signal| self.0.around.signals.emit(signal));
    }
}

impl fmt::Debug for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transition").field("table", &self.0.table).finish_non_exhaustive()
    }
}
