//! What was blocked, counted by edge, and when it is told.
//!
//! Who asks for a change may be a user, a thousand times a second. The first refusal is told at once; those that
//! follow within [`TELL_EVERY`] are told together at its end. So a storm of them costs one signal a second and
//! cannot push other signals out of a mailbox, and a batch that goes on in chunks is told in two.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::policy::{OTHER, Table};
use crate::{
    clock::Tick,
    signal::{Edge, Name, Signal},
};

/// How often a machine's refusals are told at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What came of one call that asked for changes.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// What was being done, if that was said: "spam-capture".
    pub operation: Option<Name>,
    /// The state that was asked for.
    pub to: Name,
    /// The states in which those were found that may not change to it, and how many in each.
    pub found: Vec<(Name, u64)>,
    /// How many did change.
    pub made: u64,
    /// True in mode `observe`: they were not blocked, but would have been.
    pub would: bool,
}

/// How often a change was blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The state in which it was found.
    pub from: Name,
    /// The state to which it was to change.
    pub to: Name,
    /// How often it was blocked.
    pub blocked: u64,
    /// How often it would have been, in mode `observe`.
    pub would: u64,
}

impl Counted {
    /// Whether it was where it should go: refused, so that nobody takes it for his own doing, and no mistake.
    #[must_use]
    pub fn is_repeat(&self) -> bool {
        self.from == self.to && *self.from != *OTHER
    }
}

/// What was blocked of one table.
#[derive(Clone, Debug)]
pub struct Machine {
    table: Arc<Table>,
    counts: BTreeMap<(Name, Name), (u64, u64)>,
    /// What has not been told yet.
    pending: Option<Pending>,
    /// When something was told the last time.
    told: Option<Tick>,
}

#[derive(Clone, Debug)]
struct Pending {
    operation: Option<Name>,
    edges: BTreeMap<(Name, Name), u64>,
    made: u64,
    would: bool,
}

impl Machine {
    /// Nothing was blocked yet.
    #[must_use]
    pub const fn new(table: Arc<Table>) -> Self {
        Self { table, counts: BTreeMap::new(), pending: None, told: None }
    }

    /// The table.
    #[must_use]
    pub const fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Counts an attempt, and says what is to be told now. What was where it should go already is counted and not
    /// told: it is what every second click looks like.
    pub fn on(&mut self, attempt: &Attempt, now: Tick) -> Vec<Signal> {
        // Refusals and would-be refusals are never told as one.
        let other = self.pending.as_ref().is_some_and(|pending| pending.would != attempt.would);
        let mut out: Vec<_> = other.then(|| self.tell(now)).flatten().into_iter().collect();
        let to = self.table.known(&attempt.to);
        let mut edges = BTreeMap::new();
        for (from, count) in &attempt.found {
            let edge = (self.table.known(from), Arc::clone(&to));
            let (blocked, would) = self.counts.entry(edge.clone()).or_default();
            *(if attempt.would { would } else { blocked }) += count;
            // Two states that the table does not know need not be the same.
            if *from != attempt.to {
                *edges.entry(edge).or_default() += count;
            }
        }
        if !edges.is_empty() {
            self.keep(attempt, edges);
        }
        out.extend(self.on_tick(now));
        out
    }

    /// It is `now`: what is to be told, if that is due.
    pub fn on_tick(&mut self, now: Tick) -> Option<Signal> {
        self.next_timer().filter(|due| *due <= now).and_then(|_| self.tell(now))
    }

    /// When there is something to tell.
    #[must_use]
    pub fn next_timer(&self) -> Option<Tick> {
        self.pending.as_ref().map(|_| self.told.map_or(Tick::ZERO, |told| told + TELL_EVERY))
    }

    /// What was blocked so far, by edge.
    pub fn counted(&self) -> impl Iterator<Item = Counted> {
        self.counts.iter().map(|((from, to), &(blocked, would))| Counted {
            from: Arc::clone(from),
            to: Arc::clone(to),
            blocked,
            would,
        })
    }

    fn keep(&mut self, attempt: &Attempt, edges: BTreeMap<(Name, Name), u64>) {
        let Some(pending) = &mut self.pending else {
            let (operation, made, would) = (attempt.operation.clone(), attempt.made, attempt.would);
            self.pending = Some(Pending { operation, edges, made, would });
            return;
        };
        // Of several operations none is named.
        if pending.operation != attempt.operation {
            pending.operation = None;
        }
        pending.made += attempt.made;
        for (edge, count) in edges {
            *pending.edges.entry(edge).or_default() += count;
        }
    }

    fn tell(&mut self, now: Tick) -> Option<Signal> {
        let Pending { operation, edges, made, would } = self.pending.take()?;
        self.told = Some(now);
        let edges = edges.into_iter().map(|((from, to), count)| Edge { from, to, count }).collect();
        Some(Signal::Blocked { machine: Arc::clone(self.table.machine()), operation, edges, made, would })
    }
}
