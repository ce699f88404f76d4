//! All children of a tree, for those who look and those who ask: page, API, metrics, operator.
//!
//! Reading takes a short lock and asks no actor, so it works with every supervisor dead. What a supervisor
//! that has been given up still says is older than what its successor said, and is dropped.

use std::{collections::HashMap, fmt, sync::Arc};

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
    /// Children so far, those that are forgotten included.
    seen: u64,
    supervisors: HashMap<Name, Known>,
}

/// What is known of one supervisor, whichever of its lives has said so.
#[derive(Default)]
struct Known {
    /// The newest life, while it lasts, and the mailbox for its commands.
    life: Option<(u64, Mailbox<Command>)>,
    /// By id. In boxes: half of the places of such a map may be empty.
    children: HashMap<Name, Box<Entry>>,
}

struct Entry {
    /// Children come in the order in which they were first seen, which is start order.
    place: u64,
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
        let tree = self.0.tree.lock();
        let mut entries: Vec<_> =
            tree.supervisors.values().flat_map(|known| known.children.values()).collect();
        entries.sort_unstable_by_key(|entry| entry.place);
        entries.into_iter().map(|entry| entry.shown()).collect()
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
        let mailbox = self.0.tree.lock().life(supervisor).map(|(_, mailbox)| mailbox.clone());
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
        tree.supervisors.entry(Arc::clone(supervisor)).or_default().life = Some((life, mailbox.clone()));
        (life, mailbox)
    }

    /// Whether no other supervisor of this name has begun a life since.
    pub(super) fn is_newest(&self, supervisor: &str, life: u64) -> bool {
        self.0.tree.lock().life(supervisor).is_some_and(|(newest, _)| *newest == life)
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
        let mut lock = self.0.tree.lock();
        let Tree { seen, supervisors, .. } = &mut *lock;
        let known = supervisors.entry(Arc::clone(supervisor)).or_default();
        for change in changes {
            gone.extend(match change {
                Change::Shown(view) => {
                    let of = come.iter().position(|(generation, _)| *generation == view.generation);
                    let cell = of.map(|of| come.swap_remove(of).1);
                    known.show(view, life, cell, seen)
                }
                Change::Gone(id) => known.forget(&id, life),
            });
        }
        drop(lock);
        drop(gone);
        come.clear();
        self.0.changed.notify_waiters();
    }

    /// A supervisor's life is over, and with it those of its children, however it ended.
    pub(super) fn end(&self, supervisor: &Name, life: u64, now: Tick) {
        let mut tree = self.0.tree.lock();
        let Some(known) = tree.supervisors.get_mut(supervisor) else { return };
        known.life.take_if(|(of, _)| *of == life);
        let mut gone = Vec::new();
        for entry in known.children.values_mut().filter(|entry| entry.life == life) {
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
    fn life(&self, supervisor: &str) -> Option<&(u64, Mailbox<Command>)> {
        self.supervisors.get(supervisor)?.life.as_ref()
    }

    fn entry(&self, supervisor: &str, id: &str) -> Option<&Entry> {
        self.supervisors.get(supervisor)?.children.get(id).map(|entry| &**entry)
    }
}

impl Known {
    /// `cell`: the actor, if it has come since the last time. Returns the one that is not shown any more. `seen`
    /// counts children that are new.
    fn show(
        &mut self,
        view: ChildView,
        life: u64,
        cell: Option<ActorCell>,
        seen: &mut u64,
    ) -> Option<ActorCell> {
        if let Some(entry) = self.children.get_mut(&view.id) {
            return entry.show(view, life, cell);
        }
        *seen += 1;
        let id = Arc::clone(&view.id);
        self.children.insert(id, Box::new(Entry { place: *seen, view, life, before: (0, 0), cell }));
        None
    }

    /// Returns the actor that was shown.
    fn forget(&mut self, id: &Name, life: u64) -> Option<ActorCell> {
        self.children.get(id).filter(|entry| entry.life <= life)?;
        self.children.remove(id)?.cell
    }
}

impl Entry {
    fn show(&mut self, view: ChildView, life: u64, cell: Option<ActorCell>) -> Option<ActorCell> {
        if self.life > life {
            return cell;
        }
        if self.life < life {
            self.before.0 += self.view.starts;
            self.before.1 += self.view.restarts;
            self.life = life;
        }
        let changes = cell.is_some() || self.view.generation < view.generation || !view.state.has_actor();
        let gone = if changes { std::mem::replace(&mut self.cell, cell) } else { None };
        let last_exit = view.last_exit.clone().or_else(|| self.view.last_exit.take());
        self.view = ChildView { last_exit, generation: view.generation.max(self.view.generation), ..view };
        gone
    }

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
