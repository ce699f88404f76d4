//! The ractor shell around the machine: it reads the clock, feeds the machine and does what it says. It has no
//! rules of its own and never waits in a handler, so nothing that a child does can hold it up.
//!
//! What ractor does that this file has to know:
//! - `kill` shows as a *termination* with the reason "killed"; an aborted task as "`actor_task_cancelled`".
//! - A `pre_start` that fails raises no event: only the future that was waiting for it knows. So children are
//!   started in a task of their own, which reports; dropping it gives the start up.
//! - Events go before messages, so the end of a child may be heard of before its start.
//! - An actor that stops still has its children in `post_stop`, but hears nothing of them there; after it they
//!   are killed. So a supervisor that is stopped from outside ends its children there, in reverse, gracefully.
//! - Names are global to the process and are freed late, so children have none: they are found by id here.
//! - Timers and tasks outlive the actor that made them: they are aborted when its state is dropped.

use std::{collections::HashMap, sync::Arc};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    event::{Effect, End, Event, Refused, Verb},
    handle::{Ask, Children, Command},
    machine::Machine,
    root::{Context, NotUp},
    spec::{ChildSpec, Returned, Start, StartContext},
    view::Change,
};
use crate::{
    clock::Tick,
    mailbox::{Mailbox, Wake},
    signal::{Exit, Name},
};

/// A supervisor as ractor sees it.
pub(super) struct Supervisor;

/// What it is started with.
pub(super) struct Arguments {
    pub(super) machine: Machine,
    pub(super) children: Vec<ChildSpec>,
    pub(super) context: Context,
    /// Told whether all its children are up.
    pub(super) booted: oneshot::Sender<Result<(), NotUp>>,
    /// Told how it ended, unless it died.
    pub(super) end: oneshot::Sender<End>,
}

/// What the shell's own tasks report to it. Each is in flight at most once a child, and once for the timer.
enum Report {
    Boot,
    Start {
        id: Name,
        generation: u64,
        result: Result<ActorCell, Name>,
    },
    /// A child was seen to be gone; only while the supervisor itself is being stopped from outside.
    Gone(ActorId),
    Timer(u64),
}

/// Its state.
pub(super) struct Shell {
    myself: ActorRef<Wake>,
    machine: Machine,
    context: Context,
    life: u64,
    runtime: Handle,
    starts: HashMap<Name, Start>,
    starting: HashMap<(Name, u64), AbortHandle>,
    live: HashMap<(Name, u64), Live>,
    ids: HashMap<ActorId, (Name, u64)>,
    /// Ends that were heard of while starts were under way, and may be of those.
    early: HashMap<ActorId, Exit>,
    reports: mpsc::UnboundedReceiver<Report>,
    report: mpsc::UnboundedSender<Report>,
    commands: Mailbox<Command>,
    asked: HashMap<u64, oneshot::Sender<Result<(), Refused>>>,
    requests: u64,
    timer: Option<(Tick, AbortHandle)>,
    timers: u64,
    booted: Option<oneshot::Sender<Result<(), NotUp>>>,
    end: Option<oneshot::Sender<End>>,
}

/// A child's actor.
struct Live {
    cell: ActorCell,
    killed: bool,
}

impl Actor for Supervisor {
    type Msg = Wake;
    type State = Shell;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Wake>,
        arguments: Arguments,
    ) -> Result<Shell, ActorProcessingErr> {
        let shell = Shell::new(myself, arguments);
        shell.commands.bind(shell.myself.clone());
        shell.tell(Report::Boot);
        Ok(shell)
    }

    async fn handle(&self, _: ActorRef<Wake>, _: Wake, shell: &mut Shell) -> Result<(), ActorProcessingErr> {
        while let Ok(report) = shell.reports.try_recv() {
            shell.hear(report);
        }
        while let Some(command) = shell.commands.take() {
            shell.command(command);
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Wake>,
        event: SupervisionEvent,
        shell: &mut Shell,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => shell.gone(cell.get_id(), failure(&error)),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                shell.gone(cell.get_id(), termination(reason.as_deref()));
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }

    /// Stopped from outside: the children end first, in reverse. Nothing is heard of them here, so they are
    /// watched.
    async fn post_stop(&self, _: ActorRef<Wake>, shell: &mut Shell) -> Result<(), ActorProcessingErr> {
        if shell.end.is_none() {
            return Ok(());
        }
        shell.watch_all();
        shell.feed(Event::Stop);
        while shell.end.is_some()
            && let Some(report) = shell.reports.recv().await
        {
            shell.hear(report);
        }
        Ok(())
    }
}

impl Shell {
    fn new(myself: ActorRef<Wake>, arguments: Arguments) -> Self {
        let Arguments { machine, children, context, booted, end } = arguments;
        let (life, commands) = context.children.begin(machine.name());
        let (report, reports) = mpsc::unbounded_channel();
        Self {
            myself,
            machine: machine.after_generation(Children::before(life)),
            context,
            life,
            runtime: Handle::current(),
            starts: children.into_iter().map(|child| (child.policy.id, child.start)).collect(),
            starting: HashMap::new(),
            live: HashMap::new(),
            ids: HashMap::new(),
            early: HashMap::new(),
            reports,
            report,
            commands,
            asked: HashMap::new(),
            requests: 0,
            timer: None,
            timers: 0,
            booted: Some(booted),
            end: Some(end),
        }
    }

    fn tell(&self, report: Report) {
        post(&self.report, &self.myself, report);
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Boot => self.feed(Event::Boot),
            Report::Start { id, generation, result } => self.settled(id, generation, result),
            Report::Gone(actor) => {
                let key = self.ids.get(&actor);
                let killed = key.and_then(|key| self.live.get(key)).is_some_and(|live| live.killed);
                self.gone(actor, if killed { Exit::Killed } else { Exit::Shutdown });
            }
            Report::Timer(number) if number == self.timers => {
                self.timer = None;
                self.feed(Event::Timer);
            }
            Report::Timer(_) => {}
        }
    }

    /// Asks the machine, does what it says, and shows what has changed.
    fn feed(&mut self, event: Event) {
        let effects = self.machine.on(event, self.context.clock.now());
        for effect in effects {
            self.perform(effect);
        }
        let changes = self.machine.changes();
        for change in &changes {
            if let Change::Gone(id) = change
                && !self.machine.knows(id)
            {
                self.starts.remove(id);
            }
        }
        self.context.children.apply(self.machine.name(), self.life, changes);
        self.arm();
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Start { id, generation } => self.start(id, generation),
            Effect::Stop { id, generation, .. } => {
                if let Some(live) = self.live.get(&(id, generation)) {
                    live.cell.stop(Some(Exit::Shutdown.name().into()));
                }
            }
            Effect::Kill { id, generation } => self.kill(id, generation),
            Effect::Abandon { id, generation } => self.forget(&id, generation),
            Effect::Emit(signal) => self.context.signals.emit(signal),
            Effect::Reply { request, result } => {
                if let Some(reply) = self.asked.remove(&request) {
                    let _ = reply.send(result);
                }
            }
            Effect::Up => {
                if let Some(booted) = self.booted.take() {
                    let _ = booted.send(Ok(()));
                }
            }
            Effect::Terminated(end) => self.terminated(end),
        }
    }

    /// Starts a child in a task of its own, so that a start that hangs holds up nobody.
    ///
    /// A supervisor whose thread was blocked may come to itself when another tree has long taken its place. What it
    /// would start now would bind the mailboxes of what runs there, so it ends instead, and its children with it.
    fn start(&mut self, id: Name, generation: u64) {
        if !self.context.children.is_newest(self.machine.name(), self.life) {
            return self.myself.kill();
        }
        let Some(start) = self.starts.get(&id) else { return };
        let start = Arc::clone(start);
        let context = StartContext { supervisor: self.myself.get_cell(), generation };
        let mut answer = Answer {
            report: self.report.clone(),
            to: self.myself.clone(),
            of: Some((id.clone(), generation)),
        };
        let task = self.runtime.spawn(async move {
            let result = start(context).await;
            answer.give(result.map_err(|error| error.to_string().into()));
        });
        self.starting.insert((id, generation), task.abort_handle());
    }

    fn settled(&mut self, id: Name, generation: u64, result: Result<ActorCell, Name>) {
        self.starting.remove(&(Arc::clone(&id), generation));
        match result {
            Ok(cell) => self.started(id, generation, cell),
            Err(error) => self.feed(Event::StartFailed { id, generation, error }),
        }
        if self.starting.is_empty() {
            self.early.clear();
        }
    }

    fn started(&mut self, id: Name, generation: u64, cell: ActorCell) {
        let actor = cell.get_id();
        self.live.insert((Arc::clone(&id), generation), Live { cell: cell.clone(), killed: false });
        self.ids.insert(actor, (Arc::clone(&id), generation));
        self.context.children.set_cell(self.machine.name(), &id, generation, Some(cell.clone()));
        self.feed(Event::Started { id, generation });
        if let Some(exit) = self.early.remove(&actor) {
            self.gone(actor, exit);
        } else if self.myself.get_status() == ActorStatus::Stopping {
            self.watch(cell);
        }
    }

    /// An actor has ended. Strangers are remembered while there are starts that they may belong to.
    fn gone(&mut self, actor: ActorId, exit: Exit) {
        match self.ids.get(&actor).cloned() {
            Some((id, generation)) => {
                self.forget(&id, generation);
                self.feed(Event::Exited { id, generation, exit });
            }
            None if self.starting.is_empty() => {}
            None => {
                self.early.insert(actor, exit);
            }
        }
    }

    fn kill(&mut self, id: Name, generation: u64) {
        let key = (id, generation);
        if let Some(live) = self.live.get_mut(&key) {
            live.killed = true;
            live.cell.kill();
        } else if let Some(task) = self.starting.remove(&key) {
            task.abort();
        }
    }

    fn forget(&mut self, id: &Name, generation: u64) {
        if let Some(live) = self.live.remove(&(Arc::clone(id), generation)) {
            self.ids.remove(&live.cell.get_id());
            self.context.children.set_cell(self.machine.name(), id, generation, None);
        }
    }

    fn command(&mut self, Command { ask, reply }: Command) {
        let verb = match ask {
            Ask::Start(child) => {
                if !self.machine.knows(&child.policy.id) {
                    self.starts.insert(Arc::clone(&child.policy.id), child.start);
                }
                Verb::Start(child.policy)
            }
            Ask::Stop(id) => Verb::Stop(id),
            Ask::Restart(id) => Verb::Restart(id),
            Ask::Delete(id) => Verb::Delete(id),
        };
        self.requests += 1;
        self.asked.insert(self.requests, reply);
        self.feed(Event::Verb { request: self.requests, verb });
    }

    fn terminated(&mut self, end: End) {
        if let (End::StartFailed { child, error }, Some(booted)) = (&end, self.booted.take()) {
            let _ = booted.send(Err(NotUp::Child { id: Arc::clone(child), error: Arc::clone(error) }));
        }
        if let Some(told) = self.end.take() {
            let _ = told.send(end);
        }
        self.myself.stop(Some(Exit::Shutdown.name().into()));
    }

    fn watch_all(&self) {
        for live in self.live.values() {
            self.watch(live.cell.clone());
        }
    }

    fn watch(&self, cell: ActorCell) {
        let (report, myself) = (self.report.clone(), self.myself.clone());
        self.runtime.spawn(async move {
            let _ = cell.wait(None).await;
            post(&report, &myself, Report::Gone(cell.get_id()));
        });
    }

    /// Sets the timer anew if another moment is the next.
    fn arm(&mut self) {
        let due = self.machine.next_timer();
        if due == self.timer.as_ref().map(|(due, _)| *due) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            timer.abort();
        }
        let Some(due) = due else { return };
        self.timers += 1;
        let (wait, number) = (due.since(self.context.clock.now()), self.timers);
        let (report, myself) = (self.report.clone(), self.myself.clone());
        let task = self.runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            post(&report, &myself, Report::Timer(number));
        });
        self.timer = Some((due, task.abort_handle()));
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.starting.values().for_each(AbortHandle::abort);
        if let Some((_, timer)) = &self.timer {
            timer.abort();
        }
        self.context.children.end(self.machine.name(), self.life, self.context.clock.now());
    }
}

/// What a start has come to. It is given in any case: a start that panics or is given up has failed.
struct Answer {
    report: mpsc::UnboundedSender<Report>,
    to: ActorRef<Wake>,
    of: Option<(Name, u64)>,
}

impl Answer {
    fn give(&mut self, result: Result<ActorCell, Name>) {
        if let Some((id, generation)) = self.of.take() {
            post(&self.report, &self.to, Report::Start { id, generation, result });
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give(Err("its start panicked, or was given up".into()));
    }
}

fn post(report: &mpsc::UnboundedSender<Report>, to: &ActorRef<Wake>, what: Report) {
    let _ = report.send(what);
    let _ = to.cast(Wake);
}

fn termination(reason: Option<&str>) -> Exit {
    match reason {
        Some("killed" | "actor_task_cancelled") => Exit::Killed,
        Some("shutdown") => Exit::Shutdown,
        Some(_) | None => Exit::Normal,
    }
}

fn failure(error: &ActorProcessingErr) -> Exit {
    let text = error.to_string().into();
    if error.is::<Returned>() { Exit::Error(text) } else { Exit::Panic(text) }
}
