//! All children of a tree, for those who look and those who ask: page, API, metrics, operator.
//!
//! Reading takes a short lock and asks no actor, so it works with every supervisor dead. What a supervisor
//! that has been given up still says is older than what its successor said, and is dropped.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use parking_lot::Mutex;
use ractor::ActorCell;
use tokio::sync::{Notify, oneshot};

use super::{
    event::Refused,
    spec::ChildSpec,
    view::{Change, ChildState, ChildView},
};
use crate::{clock::Tick, mailbox::Mailbox, signal::Name};

/// Generations of one supervisor's life lie this far apart from those of its next, so that they never fall.
const LIFE: u64 = 1 << 32;
/// Commands that may wait for one supervisor; one more is refused as [`Refused::Busy`].
const COMMANDS: usize = 64;

/// The children of all supervisors of a tree. Cheap to clone; clones see the same.
#[derive(Clone, Default)]
pub struct Children(Arc<Shared>);

#[derive(Default)]
struct Shared {
    tree: Mutex<Tree>,
    changed: Notify,
}

#[derive(Default)]
struct Tree {
    lives: u64,
    /// In the order in which they were first seen, which is start order. In boxes, as in the supervisor's own table.
    entries: BTreeMap<u64, Box<Entry>>,
    places: HashMap<(Name, Name), u64>,
    next: u64,
    supervisors: HashMap<Name, (u64, Mailbox<Command>)>,
}

struct Entry {
    view: ChildView,
    life: u64,
    /// Starts and restarts in earlier lives of its supervisor.
    before: (u64, u64),
    cell: Option<ActorCell>,
}

/// What an operator asks of a supervisor.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Result<(), Refused>>,
}

/// See [`super::Verb`].
#[derive(Clone, Debug)]
pub enum Ask {
    /// Add a child behind the others and start it. It is kept only if it starts.
    Start(ChildSpec),
    /// Stop a child; it stays down.
    Stop(Name),
    /// Start a child that is down.
    Restart(Name),
    /// Forget a child that is down.
    Delete(Name),
}

impl Children {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All children as they are, in start order.
    #[must_use]
    pub fn all(&self) -> Vec<ChildView> {
        self.0.tree.lock().entries.values().map(|entry| entry.shown()).collect()
    }

    /// One child.
    #[must_use]
    pub fn find(&self, supervisor: &str, id: &str) -> Option<ChildView> {
        self.0.tree.lock().entry(supervisor, id).map(Entry::shown)
    }

    /// The live actor of a child, for what is done to it by force.
    #[must_use]
    pub fn cell(&self, supervisor: &str, id: &str) -> Option<ActorCell> {
        self.0.tree.lock().entry(supervisor, id)?.cell.clone()
    }

    /// Waits until `holds` does. It is asked at once, and after each change. Cancel safe.
    pub async fn until<T>(&self, mut holds: impl FnMut(&Self) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if let Some(value) = holds(self) {
                return value;
            }
            changed.await;
        }
    }

    /// Asks a supervisor for something and waits for what became of it, at most as long as its policy lets a
    /// start or a stop take. Cancel safe: what was asked for is done all the same.
    ///
    /// # Errors
    /// [`Refused`]; [`Refused::Terminated`] also if there is no such supervisor.
    pub async fn ask(&self, supervisor: &str, ask: Ask) -> Result<(), Refused> {
        let mailbox = self.0.tree.lock().supervisors.get(supervisor).map(|(_, mailbox)| mailbox.clone());
        let (reply, answer) = oneshot::channel();
        let command = Command { ask, reply };
        mailbox.ok_or(Refused::Terminated)?.ask(command).map_err(|_| Refused::Busy)?;
        answer.await.unwrap_or(Err(Refused::Terminated))
    }

    /// Stops a child if it runs, and starts it anew.
    ///
    /// # Errors
    /// As [`Children::ask`]. A temporary child is forgotten when it is stopped: [`Refused::NotFound`].
    pub async fn restart(&self, supervisor: &str, id: &str) -> Result<(), Refused> {
        self.ask(supervisor, Ask::Stop(id.into())).await?;
        self.ask(supervisor, Ask::Restart(id.into())).await
    }

    /// A supervisor begins a life: the number of that life, which its generations start from, and the mailbox
    /// for its commands.
    pub(super) fn begin(&self, supervisor: &Name) -> (u64, Mailbox<Command>) {
        let mut tree = self.0.tree.lock();
        tree.lives += 1;
        let (life, mailbox) = (tree.lives, Mailbox::new(Arc::clone(supervisor), COMMANDS));
        tree.supervisors.insert(Arc::clone(supervisor), (life, mailbox.clone()));
        (life, mailbox)
    }

    /// Whether no other supervisor of this name has begun a life since.
    pub(super) fn is_newest(&self, supervisor: &str, life: u64) -> bool {
        self.0.tree.lock().supervisors.get(supervisor).is_some_and(|(newest, _)| *newest == life)
    }

    /// The generation that those of this life come after.
    pub(super) const fn before(life: u64) -> u64 {
        life * LIFE
    }

    /// Shows what has changed, with the actors that have come since, in one piece.
    pub(super) fn apply(
        &self,
        supervisor: &Name,
        life: u64,
        changes: Vec<Change>,
        come: &mut Vec<(u64, ActorCell)>,
    ) {
        if changes.is_empty() {
            return;
        }
        // With the last handle of an actor goes what it was sent, a supervisor's state among it, which ends that
        // supervisor's life here: so none is dropped under the lock.
        let mut gone = Vec::new();
        let mut tree = self.0.tree.lock();
        for change in changes {
            gone.extend(match change {
                Change::Shown(view) => {
                    let of = come.iter().position(|(generation, _)| *generation == view.generation);
                    let cell = of.map(|of| come.swap_remove(of).1);
                    tree.show(view, life, cell)
                }
                Change::Gone(id) => tree.forget(supervisor, &id, life),
            });
        }
        drop(tree);
        drop(gone);
        come.clear();
        self.0.changed.notify_waiters();
    }

    /// A supervisor's life is over, and with it those of its children, however it ended.
    pub(super) fn end(&self, supervisor: &Name, life: u64, now: Tick) {
        let mut tree = self.0.tree.lock();
        if tree.supervisors.get(supervisor).is_some_and(|(of, _)| *of == life) {
            tree.supervisors.remove(supervisor);
        }
        let own = |entry: &&mut Box<Entry>| entry.life == life && entry.view.supervisor == *supervisor;
        let mut gone = Vec::new();
        for entry in tree.entries.values_mut().filter(own) {
            gone.extend(entry.cell.take());
            if !matches!(entry.view.state, ChildState::Down | ChildState::Abandoned) {
                entry.view.state = ChildState::Down;
                entry.view.since = now;
            }
        }
        drop(tree);
        drop(gone);
        self.0.changed.notify_waiters();
    }
}

impl Tree {
    fn entry(&self, supervisor: &str, id: &str) -> Option<&Entry> {
        self.entries.get(self.places.get(&(supervisor.into(), id.into()))?).map(|entry| &**entry)
    }

    /// `cell`: the actor, if it has come since the last time. Returns the one that is not shown any more.
    fn show(&mut self, view: ChildView, life: u64, cell: Option<ActorCell>) -> Option<ActorCell> {
        let key = (Arc::clone(&view.supervisor), Arc::clone(&view.id));
        let place = *self.places.entry(key).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let Some(entry) = self.entries.get_mut(&place) else {
            self.entries.insert(place, Box::new(Entry { view, life, before: (0, 0), cell }));
            return None;
        };
        if entry.life > life {
            return cell;
        }
        if entry.life < life {
            entry.before.0 += entry.view.starts;
            entry.before.1 += entry.view.restarts;
            entry.life = life;
        }
        let changes = cell.is_some() || entry.view.generation < view.generation || !view.state.has_actor();
        let gone = if changes { std::mem::replace(&mut entry.cell, cell) } else { None };
        let last_exit = view.last_exit.clone().or_else(|| entry.view.last_exit.take());
        entry.view = ChildView { last_exit, generation: view.generation.max(entry.view.generation), ..view };
        gone
    }

    /// Returns the actor that was shown.
    fn forget(&mut self, supervisor: &Name, id: &Name, life: u64) -> Option<ActorCell> {
        self.entry(supervisor, id).filter(|entry| entry.life <= life)?;
        let place = self.places.remove(&(Arc::clone(supervisor), Arc::clone(id)))?;
        self.entries.remove(&place)?.cell
    }
}

impl Entry {
    fn shown(&self) -> ChildView {
        ChildView {
            starts: self.view.starts + self.before.0,
            restarts: self.view.restarts + self.before.1,
            ..self.view.clone()
        }
    }
}

impl fmt::Debug for Children {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}
