//! The ractor shell around the machine: it reads the clock, feeds the machine and does what it says. It has no
//! rules of its own and never waits in a handler, so nothing that a child does can hold it up.
//!
//! What ractor does that this file has to know:
//! - `kill` shows as a *termination* with the reason "killed"; an aborted task as "`actor_task_cancelled`".
//! - A `pre_start` that fails raises no event: only the future that was waiting for it knows. `launch.rs` has it.
//! - Events go before messages, so the end of a child may be heard of before its start.
//! - An actor that stops still has its children in `post_stop`, but hears nothing of them there; after it they
//!   are killed. So a supervisor that is stopped from outside ends its children there, in reverse, gracefully.
//! - Names are global to the process and are freed late, so children have none: they are found by id here.
//! - Timers and tasks outlive the actor that made them: they are aborted when its state is dropped.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    event::{Effect, End, Event, Refused, Verb},
    handle::{Ask, Children, Command},
    launch::{Launched, Launcher},
    machine::Machine,
    root::{Context, NotUp},
    spec::{ChildSpec, Returned},
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
pub(super) enum Report {
    Boot,
    Start(Launched),
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
    launcher: Launcher,
    /// By generation, of which no two children have the same.
    live: BTreeMap<u64, Live>,
    ids: BTreeMap<ActorId, (Name, u64)>,
    /// Ends that were heard of while starts were under way, and may be of those.
    early: HashMap<ActorId, Exit>,
    /// Actors that have come, with their generation, to be shown.
    come: Vec<(u64, ActorCell)>,
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
        shell.launcher.refresh();
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
        shell.launcher.refresh();
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
            shell.launcher.refresh();
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
            launcher: Launcher::new(children),
            live: BTreeMap::new(),
            ids: BTreeMap::new(),
            early: HashMap::new(),
            come: Vec::new(),
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
            Report::Start(launched) => {
                let now = self.context.clock.now();
                self.settled(launched, now);
                self.finish(now);
            }
            Report::Gone(actor) => {
                let of = self.ids.get(&actor);
                let killed = of.and_then(|(_, of)| self.live.get(of)).is_some_and(|live| live.killed);
                self.gone(actor, if killed { Exit::Killed } else { Exit::Shutdown });
            }
            Report::Timer(number) if number == self.timers => {
                self.timer = None;
                self.feed(Event::Timer);
            }
            Report::Timer(_) => {}
        }
    }

    /// Asks the machine, does what it says and what follows from it at once, and shows what has changed. All of
    /// it is one moment.
    fn feed(&mut self, event: Event) {
        let now = self.context.clock.now();
        self.decide(event, now);
        self.finish(now);
    }

    fn decide(&mut self, event: Event, now: Tick) {
        for effect in self.machine.on(event, now) {
            self.perform(effect);
        }
    }

    fn finish(&mut self, now: Tick) {
        while let Some(launched) = self.launcher.launched() {
            self.settled(launched, now);
        }
        let changes = self.machine.changes();
        for change in &changes {
            if let Change::Gone(id) = change
                && !self.machine.knows(id)
            {
                self.launcher.forget(id);
            }
        }
        self.context.children.apply(self.machine.name(), self.life, changes, &mut self.come);
        self.arm();
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Start { id, generation } => self.start(id, generation),
            Effect::Stop { generation, .. } => {
                if let Some(live) = self.live.get(&generation) {
                    live.cell.stop(Some(Exit::Shutdown.name().into()));
                }
            }
            Effect::Kill { generation, .. } => self.kill(generation),
            Effect::Abandon { generation, .. } => self.forget(generation),
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

    /// Starts a child.
    ///
    /// A supervisor whose thread was blocked may come to itself when another tree has long taken its place. What it
    /// would start now would bind the mailboxes of what runs there, so it ends instead, and its children with it.
    fn start(&mut self, id: Name, generation: u64) {
        if self.context.children.is_newest(self.machine.name(), self.life) {
            self.launcher.launch(id, generation, &self.myself, &self.report, &self.runtime);
        } else {
            self.myself.kill();
        }
    }

    fn settled(&mut self, Launched { id, generation, result }: Launched, now: Tick) {
        self.launcher.settle(generation);
        match result {
            Ok(cell) => self.started(id, generation, cell, now),
            Err(error) => self.decide(Event::StartFailed { id, generation, error }, now),
        }
        if self.launcher.is_idle() {
            self.early.clear();
        }
    }

    fn started(&mut self, id: Name, generation: u64, cell: ActorCell, now: Tick) {
        let actor = cell.get_id();
        self.live.insert(generation, Live { cell: cell.clone(), killed: false });
        self.ids.insert(actor, (Arc::clone(&id), generation));
        self.come.push((generation, cell.clone()));
        self.decide(Event::Started { id, generation }, now);
        if let Some(exit) = self.early.remove(&actor) {
            self.ended(actor, exit, now);
        } else if self.myself.get_status() == ActorStatus::Stopping {
            self.watch(cell);
        }
    }

    fn gone(&mut self, actor: ActorId, exit: Exit) {
        let now = self.context.clock.now();
        self.ended(actor, exit, now);
        self.finish(now);
    }

    /// An actor has ended. Strangers are remembered while there are starts that they may belong to.
    fn ended(&mut self, actor: ActorId, exit: Exit, now: Tick) {
        match self.ids.get(&actor).cloned() {
            Some((id, generation)) => {
                self.forget(generation);
                self.decide(Event::Exited { id, generation, exit }, now);
            }
            None if self.launcher.is_idle() => {}
            None => {
                self.early.insert(actor, exit);
            }
        }
    }

    fn kill(&mut self, generation: u64) {
        if let Some(live) = self.live.get_mut(&generation) {
            live.killed = true;
            live.cell.kill();
        } else {
            self.launcher.give_up(generation);
        }
    }

    fn forget(&mut self, generation: u64) {
        if let Some(live) = self.live.remove(&generation) {
            self.ids.remove(&live.cell.get_id());
        }
    }

    fn command(&mut self, Command { ask, reply }: Command) {
        let verb = match ask {
            Ask::Start(child) => {
                let policy = child.policy.clone();
                if !self.machine.knows(&policy.id) {
                    self.launcher.add(child);
                }
                Verb::Start(policy)
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

    /// Sees to it that the timer goes off when something is due. One that goes off too early finds nothing to do,
    /// and is set anew: that is once in a while, where calling it off would be at every start that succeeds.
    fn arm(&mut self) {
        let Some(due) = self.machine.next_timer() else { return };
        if self.timer.as_ref().is_some_and(|(armed, _)| *armed <= due) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            timer.abort();
        }
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
        if let Some((_, timer)) = &self.timer {
            timer.abort();
        }
        self.context.children.end(self.machine.name(), self.life, self.context.clock.now());
    }
}

pub(super) fn post(report: &mpsc::UnboundedSender<Report>, to: &ActorRef<Wake>, what: Report) {
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
