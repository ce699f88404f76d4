//! The children of one supervisor: in start order, found by name, and with what each is waiting for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeInclusive,
    time::Duration,
};

use super::{
    plan::Lane,
    policy::{ChildPolicy, Restart},
    view::{Change, ChildState, ChildView},
};
use crate::{
    clock::Tick,
    signal::{Exit, Name},
    window::Intensity,
};

/// A child's place in the start order. It is never used again.
pub(super) type Key = u64;

/// One child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) policy: ChildPolicy,
    pub(super) life: Life,
    pub(super) generation: u64,
    /// Restarts in a row, without a calm period between them.
    pub(super) streak: u32,
    /// What of its own budget is spent, if it has one and was restarted.
    budget: Option<Box<Intensity>>,
    pub(super) last_exit: Option<Exit>,
    pub(super) restarts: u64,
    /// What is done to it alone (under `one_for_one`): nothing yet, of most.
    pub(super) lane: Option<Box<Lane>>,
    since: Tick,
    due: Option<Tick>,
    starts: u64,
    abandoned: bool,
    /// Whether it is to be shown otherwise than before.
    changed: bool,
}

/// What a child does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Life {
    /// It has ended, and nobody is about to start it.
    Down,
    /// It has ended by itself, and nothing has been decided yet.
    Ended(Exit),
    /// A restart of it failed; it is about to be tried again.
    Failed,
    /// It waits for its restart, which is announced as this.
    Waiting(Again),
    /// It is being started. An exit that is heard of before the start is kept.
    Starting { early: Option<Exit> },
    /// It runs.
    Up,
    /// It was asked to end, or killed.
    Stopping { killed: bool },
}

/// A restart, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Again {
    /// The delay before it.
    pub(super) after: Duration,
    /// Restarts within the period, this one included.
    pub(super) restarts: u32,
}

impl Child {
    /// Whether it is between two states and will say so when it has arrived.
    pub(super) const fn is_moving(&self) -> bool {
        matches!(self.life, Life::Starting { .. } | Life::Stopping { .. })
    }

    pub(super) const fn is_temporary(&self) -> bool {
        matches!(self.policy.restart, Restart::Temporary)
    }

    /// When what it waits for is due.
    pub(super) const fn due(&self) -> Option<Tick> {
        self.due
    }

    /// How long it has been as it is.
    pub(super) const fn lasted(&self, now: Tick) -> Duration {
        now.since(self.since)
    }

    /// Its own budget, if it has one.
    pub(super) fn budget(&mut self) -> Option<&mut Intensity> {
        let own = self.policy.budget?;
        let new = || Box::new(Intensity::new(own.max_restarts, own.within));
        Some(self.budget.get_or_insert_with(new))
    }

    fn has_changed(&mut self, key: Key, changed: &mut Vec<Key>) {
        if !std::mem::replace(&mut self.changed, true) {
            changed.push(key);
        }
    }

    fn view(&self, supervisor: &Name) -> ChildView {
        ChildView {
            supervisor: supervisor.clone(),
            id: self.policy.id.clone(),
            state: self.state(),
            generation: self.generation,
            starts: self.starts,
            restarts: self.restarts,
            last_exit: self.last_exit.clone(),
            since: self.since,
        }
    }

    fn state(&self) -> ChildState {
        match self.life {
            Life::Down | Life::Ended(_) if self.abandoned => ChildState::Abandoned,
            Life::Down | Life::Ended(_) => ChildState::Down,
            Life::Failed | Life::Waiting(_) => ChildState::Waiting,
            Life::Starting { .. } => ChildState::Starting,
            Life::Up => ChildState::Up,
            Life::Stopping { .. } => ChildState::Stopping,
        }
    }
}

/// The children of one supervisor. Everything but the listing is logarithmic in their number.
///
/// In boxes: who comes in start order leaves half of the places of such a map empty behind it.
#[derive(Debug, Default)]
pub(super) struct Table {
    children: BTreeMap<Key, Box<Child>>,
    keys: HashMap<Name, Key>,
    next: Key,
    timers: BTreeSet<(Tick, Key)>,
    /// Each once.
    changed: Vec<Key>,
    gone: Vec<Name>,
}

impl Table {
    /// Adds a child behind the others, down.
    pub(super) fn insert(&mut self, policy: ChildPolicy, now: Tick) -> Key {
        let key = self.next;
        self.next += 1;
        self.keys.insert(policy.id.clone(), key);
        let child = Child {
            policy,
            life: Life::Down,
            generation: 0,
            streak: 0,
            budget: None,
            last_exit: None,
            restarts: 0,
            lane: None,
            since: now,
            due: None,
            starts: 0,
            abandoned: false,
            changed: true,
        };
        self.children.insert(key, Box::new(child));
        self.changed.push(key);
        key
    }

    /// Forgets a child.
    pub(super) fn remove(&mut self, key: Key) -> Option<Child> {
        let child = self.children.remove(&key)?;
        self.keys.remove(&child.policy.id);
        self.disarm(key, child.due);
        self.changed.retain(|changed| *changed != key);
        self.gone.push(child.policy.id.clone());
        Some(*child)
    }

    pub(super) fn find(&self, id: &str) -> Option<Key> {
        self.keys.get(id).copied()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Child> {
        self.children.get(&key).map(|child| &**child)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Child> {
        let child = self.children.get_mut(&key)?;
        child.has_changed(key, &mut self.changed);
        Some(child)
    }

    /// All children, in start order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Child)> {
        self.children.iter().map(|(&key, child)| (key, &**child))
    }

    /// The children whose places lie in `keys`, in start order.
    pub(super) fn range(&self, keys: RangeInclusive<Key>) -> impl Iterator<Item = (Key, &Child)> {
        self.children.range(keys).map(|(&key, child)| (key, &**child))
    }

    pub(super) fn lanes(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.children.values_mut().filter_map(|child| child.lane.as_deref_mut())
    }

    /// From now on the child is as `life` says, until `due` at the latest.
    pub(super) fn set(&mut self, key: Key, life: Life, due: Option<Tick>, now: Tick) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let before = child.due;
        child.life = life;
        child.due = due;
        child.since = now;
        child.has_changed(key, &mut self.changed);
        self.disarm(key, before);
        self.timers.extend(due.map(|due| (due, key)));
    }

    /// Begins a start of the child and gives it its generation.
    pub(super) fn begin_start(&mut self, key: Key, generation: u64, due: Option<Tick>, now: Tick) {
        self.set(key, Life::Starting { early: None }, due, now);
        let Some(child) = self.children.get_mut(&key) else { return };
        child.generation = generation;
        child.starts += 1;
        child.abandoned = false;
    }

    pub(super) fn abandon(&mut self, key: Key) {
        if let Some(child) = self.children.get_mut(&key) {
            child.abandoned = true;
        }
    }

    /// The next moment at which something is due.
    pub(super) fn next_timer(&self) -> Option<Tick> {
        self.timers.first().map(|&(due, _)| due)
    }

    /// Takes a child of which something is due at `now`.
    pub(super) fn take_due(&mut self, now: Tick) -> Option<Key> {
        let &(due, key) = self.timers.first().filter(|(due, _)| *due <= now)?;
        self.disarm(key, Some(due));
        if let Some(child) = self.children.get_mut(&key) {
            child.due = None;
        }
        Some(key)
    }

    /// What is to be shown otherwise than before.
    pub(super) fn changes(&mut self, supervisor: &Name) -> Vec<Change> {
        let mut changes: Vec<_> = self.gone.drain(..).map(Change::Gone).collect();
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        for key in changed.drain(..) {
            if let Some(child) = self.children.get_mut(&key) {
                child.changed = false;
                changes.push(Change::Shown(child.view(supervisor)));
            }
        }
        // The room is kept for the next time.
        self.changed = changed;
        changes
    }

    /// A child as it is shown.
    pub(super) fn view(&self, key: Key, supervisor: &Name) -> Option<ChildView> {
        self.children.get(&key).map(|child| child.view(supervisor))
    }

    fn disarm(&mut self, key: Key, due: Option<Tick>) {
        if let Some(due) = due {
            self.timers.remove(&(due, key));
        }
    }
}
