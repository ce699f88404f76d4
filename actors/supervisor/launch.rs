//! Starting children without waiting for any.
//!
//! Most starts have nothing to wait for: the first poll of the future completes it, so it is polled once right here.
//! That is a restart without a task, a report and a turn of the supervisor. One that is not done then goes on in a task
//! of its own, which reports: so a start that hangs holds up nobody, and aborting the task gives it up. After
//! [`AT_ONCE`] of them in one turn the rest go the slow way, so that neither ten thousand children nor one whose
//! start fails for ever keep a supervisor from hearing what else there is.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use ractor::{ActorCell, ActorProcessingErr, ActorRef};
use tokio::{runtime::Handle, sync::mpsc, task::AbortHandle};

use super::{
    actor::{Report, post},
    spec::{ChildSpec, Start, StartContext},
};
use crate::{mailbox::Wake, signal::Name};

/// Starts that are tried on the spot in one turn of the supervisor.
const AT_ONCE: u32 = 16;

/// How children are started, and which starts are under way.
pub(super) struct Launcher {
    starts: HashMap<Name, Start>,
    /// By generation.
    starting: BTreeMap<u64, AbortHandle>,
    launched: VecDeque<Launched>,
    this_turn: u32,
}

/// What a start has come to.
pub(super) struct Launched {
    pub(super) id: Name,
    pub(super) generation: u64,
    pub(super) result: Result<ActorCell, Name>,
}

impl Launcher {
    pub(super) fn new(children: Vec<ChildSpec>) -> Self {
        Self {
            starts: children.into_iter().map(|child| (child.policy.id, child.start)).collect(),
            starting: BTreeMap::new(),
            launched: VecDeque::new(),
            this_turn: 0,
        }
    }

    pub(super) fn add(&mut self, child: ChildSpec) {
        self.starts.insert(child.policy.id, child.start);
    }

    pub(super) fn forget(&mut self, id: &Name) {
        self.starts.remove(id);
    }

    /// The supervisor has another turn.
    pub(super) const fn refresh(&mut self) {
        self.this_turn = 0;
    }

    /// Whether no start is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.starting.is_empty()
    }

    /// The next start that was over at once.
    pub(super) fn launched(&mut self) -> Option<Launched> {
        self.launched.pop_front()
    }

    /// A start is over.
    pub(super) fn settle(&mut self, generation: u64) {
        self.starting.remove(&generation);
    }

    /// Gives up a start. What it has come to is reported all the same.
    pub(super) fn give_up(&mut self, generation: u64) {
        if let Some(task) = self.starting.remove(&generation) {
            task.abort();
        }
    }

    /// Starts a child of `supervisor`.
    pub(super) fn launch(
        &mut self,
        id: Name,
        generation: u64,
        supervisor: &ActorRef<Wake>,
        report: &mpsc::UnboundedSender<Report>,
        runtime: &Handle,
    ) {
        let Some(start) = self.starts.get(&id) else { return };
        let context = StartContext { supervisor: supervisor.get_cell(), generation };
        let at_once = self.this_turn < AT_ONCE;
        self.this_turn += 1;
        let first = catch_unwind(AssertUnwindSafe(|| {
            let mut starting = start(context);
            let mut polled = Poll::Pending;
            if at_once {
                // Whoever polls it next, as the task does, is woken instead.
                polled = starting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            (starting, polled)
        }));
        let result = match first {
            Ok((starting, Poll::Pending)) => {
                let of = Some((Arc::clone(&id), generation));
                let mut answer = Answer { report: report.clone(), to: supervisor.clone(), of };
                let task = runtime.spawn(async move { answer.give(told(starting.await)) });
                self.starting.insert(generation, task.abort_handle());
                return;
            }
            Ok((_, Poll::Ready(result))) => told(result),
            Err(_) => Err("its start panicked".into()),
        };
        self.launched.push_back(Launched { id, generation, result });
    }
}

fn told(result: Result<ActorCell, ActorProcessingErr>) -> Result<ActorCell, Name> {
    result.map_err(|error| error.to_string().into())
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.starting.values().for_each(AbortHandle::abort);
    }
}

/// Reports what a start has come to, in any case: one that panics or is given up has failed.
struct Answer {
    report: mpsc::UnboundedSender<Report>,
    to: ActorRef<Wake>,
    of: Option<(Name, u64)>,
}

impl Answer {
    fn give(&mut self, result: Result<ActorCell, Name>) {
        if let Some((id, generation)) = self.of.take() {
            post(&self.report, &self.to, Report::Start(Launched { id, generation, result }));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give(Err("its start panicked, or was given up".into()));
    }
}
