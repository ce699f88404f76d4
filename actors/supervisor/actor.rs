//! The ractor shell around the machine: it performs effects and reports what came of them.
//!
//! What ractor does that this file has to know: `kill` shows as a *termination* with the reason "killed"; a
//! failing `pre_start` raises no event, only an error where it was spawned; the default handling of a child's
//! end would stop the supervisor; the event of an end may arrive before the message that the child was
//! started, because events have priority; a panic and a returned error arrive as the same event.

use std::{collections::HashMap, sync::Arc};

use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent, concurrency::JoinHandle,
};
use tokio::{runtime::Handle, sync::watch, task::AbortHandle};

use super::{
    machine::{Effect, Event, Machine, State},
    policy::{ChildPolicy, Policy},
};
use crate::{
    clock::{Clock, Tick},
    signal::{ChildEvent, Exit, Name, Signal, Signals},
};

/// How a child is started: given its supervisor to link to, it spawns the actor.
pub type Start = Arc<dyn Fn(ActorCell) -> Starting + Send + Sync>;

/// A start that is under way. It may be dropped at any time.
pub type Starting = std::pin::Pin<Box<dyn Future<Output = Result<ActorCell, ActorProcessingErr>> + Send>>;

/// A child and the way to start it.
#[derive(Clone)]
pub struct ChildSpec {
    /// Its policy.
    pub policy: ChildPolicy,
    /// Starts one generation of it.
    pub start: Start,
}

/// Where a child stands, for those who look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildView {
    /// The child.
    pub id: Name,
    /// Where it stands.
    pub state: State,
    /// How often it was started, failed starts included.
    pub starts: u32,
}

/// The children of one supervisor, as they were after its last event. Read without asking the supervisor.
#[derive(Clone, Debug)]
pub struct Children(watch::Receiver<Vec<ChildView>>);

impl Children {
    /// All of them, in start order.
    #[must_use]
    pub fn all(&self) -> Vec<ChildView> {
        self.0.borrow().clone()
    }

    /// Waits until `holds` does; `None` if the supervisor has ended before. Cancel safe.
    pub async fn wait_for(&mut self, mut holds: impl FnMut(&[ChildView]) -> bool) -> Option<Vec<ChildView>> {
        self.0.wait_for(|children| holds(children)).await.ok().map(|children| children.clone())
    }
}

/// One supervisor. It ends when its policy says so, and then with the reason "shutdown".
#[derive(Debug)]
pub struct Supervisor;

impl Supervisor {
    /// Starts a supervisor that nobody supervises, on the current runtime.
    ///
    /// # Errors
    /// What ractor has against starting an actor.
    pub async fn spawn(
        arguments: Arguments,
    ) -> Result<(ActorRef<Message>, JoinHandle<()>), ractor::SpawnErr> {
        Actor::spawn(None, Self, arguments).await
    }

    /// How a supervisor is started as the child of another: anew, with the children it was given.
    #[must_use]
    pub fn as_child(arguments: Arguments) -> Start {
        Arc::new(move |parent| {
            let arguments = arguments.clone();
            Box::pin(async move {
                let (actor, _) = Actor::spawn_linked(None, Self, arguments, parent).await?;
                Ok(actor.get_cell())
            })
        })
    }
}

/// What a supervisor is started with.
#[derive(Clone)]
pub struct Arguments {
    name: Name,
    policy: Policy,
    children: Vec<ChildSpec>,
    clock: Clock,
    signals: Signals,
    view: watch::Sender<Vec<ChildView>>,
}

impl Arguments {
    /// A supervisor called `name`.
    pub fn new(
        name: impl Into<Name>,
        policy: Policy,
        children: Vec<ChildSpec>,
        clock: Clock,
        signals: Signals,
    ) -> (Self, Children) {
        let (view, seen) = watch::channel(Vec::new());
        (Self { name: name.into(), policy, children, clock, signals, view }, Children(seen))
    }
}

/// What a supervisor tells itself.
#[derive(Debug)]
pub enum Message {
    /// A start has ended.
    Started {
        /// The child.
        id: Name,
        /// The generation.
        generation: u64,
        /// The actor, or why there is none.
        result: Result<ActorCell, Name>,
    },
    /// A start was given up before there was an actor.
    GivenUp {
        /// The child.
        id: Name,
        /// The generation.
        generation: u64,
    },
    /// A timer is due.
    Timer,
    /// The supervisor is asked to end, its children first.
    Shutdown,
}

/// The state of a [`Supervisor`].
pub struct Shell {
    arguments: Arguments,
    machine: Machine,
    first: Vec<Effect>,
    starts: HashMap<Name, Start>,
    starting: HashMap<(Name, u64), AbortHandle>,
    live: HashMap<ActorId, (Name, u64)>,
    cells: HashMap<(Name, u64), ActorCell>,
    /// Ends of actors whose start has not been reported yet.
    early: HashMap<ActorId, Exit>,
    ended_at: HashMap<Name, Tick>,
    timer: Option<AbortHandle>,
}

impl Actor for Supervisor {
    type Msg = Message;
    type State = Shell;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<Shell, ActorProcessingErr> {
        let children: Vec<_> = arguments.children.iter().map(|child| child.policy.clone()).collect();
        let starts = arguments.children.iter().map(|c| (c.policy.id.clone(), Arc::clone(&c.start))).collect();
        let (machine, first) = Machine::start(arguments.policy, children, arguments.clock.now());
        Ok(Shell {
            arguments,
            machine,
            first,
            starts,
            starting: HashMap::new(),
            live: HashMap::new(),
            cells: HashMap::new(),
            early: HashMap::new(),
            ended_at: HashMap::new(),
            timer: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Message>,
        shell: &mut Shell,
    ) -> Result<(), ActorProcessingErr> {
        let first = std::mem::take(&mut shell.first);
        shell.perform(&myself, first);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        shell: &mut Shell,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Started { id, generation, result } => shell.started(&myself, id, generation, result),
            Message::GivenUp { id, generation } => {
                shell.feed(&myself, Event::Exited { id, generation, reason: Exit::Shutdown });
            }
            Message::Timer => shell.feed(&myself, Event::Timer),
            Message::Shutdown => shell.feed(&myself, Event::Shutdown),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        shell: &mut Shell,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, reason) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, Exit::Error(error.to_string().into())),
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, exit_of(reason.as_deref())),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        match shell.live.remove(&cell.get_id()) {
            Some((id, generation)) => shell.exited(&myself, id, generation, reason),
            None => {
                shell.early.insert(cell.get_id(), reason);
            }
        }
        Ok(())
    }
}

impl Shell {
    fn feed(&mut self, myself: &ActorRef<Message>, event: Event) {
        let effects = self.machine.on(event, self.arguments.clock.now());
        self.perform(myself, effects);
    }

    fn started(
        &mut self,
        myself: &ActorRef<Message>,
        id: Name,
        generation: u64,
        result: Result<ActorCell, Name>,
    ) {
        self.starting.remove(&(id.clone(), generation));
        let result = match result {
            Ok(cell) => {
                let actor = cell.get_id();
                self.cells.insert((id.clone(), generation), cell);
                let early = self.early.remove(&actor);
                self.tell_started(&id);
                self.feed(myself, Event::Started { id: id.clone(), generation, result: Ok(()) });
                match early {
                    Some(reason) => self.exited(myself, id, generation, reason),
                    None => {
                        self.live.insert(actor, (id, generation));
                    }
                }
                return;
            }
            Err(error) => {
                self.tell(&id, ChildEvent::StartFailed { error: Arc::clone(&error) });
                Err(error)
            }
        };
        self.feed(myself, Event::Started { id, generation, result });
    }

    fn exited(&mut self, myself: &ActorRef<Message>, id: Name, generation: u64, reason: Exit) {
        self.cells.remove(&(id.clone(), generation));
        self.ended_at.insert(id.clone(), self.arguments.clock.now());
        self.tell(&id, ChildEvent::Stopped { reason: reason.clone() });
        self.feed(myself, Event::Exited { id, generation, reason });
    }

    fn perform(&mut self, myself: &ActorRef<Message>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Start(id, generation) => self.start(myself, id, generation),
                Effect::Stop(id, generation) => match self.cells.get(&(id.clone(), generation)) {
                    Some(cell) => cell.stop(Some(Exit::Shutdown.name().into())),
                    None => self.give_up(myself, id, generation),
                },
                Effect::Kill(id, generation) => match self.cells.get(&(id.clone(), generation)) {
                    Some(cell) => cell.kill(),
                    None => self.give_up(myself, id, generation),
                },
                Effect::Abandon(id, generation) => {
                    self.cells.remove(&(id.clone(), generation));
                    self.tell(&id, ChildEvent::Abandoned);
                }
                Effect::Ended { escalated, .. } => {
                    if escalated {
                        let supervisor = self.arguments.name.clone();
                        let root = myself.try_get_supervisor().is_none();
                        self.arguments.signals.emit(Signal::Escalated { supervisor, root });
                    }
                    myself.stop(Some(Exit::Shutdown.name().into()));
                }
            }
        }
        self.publish();
        self.arm(myself);
    }

    /// Starts a child in a task of its own, so that a start that hangs holds up nobody.
    fn start(&mut self, myself: &ActorRef<Message>, id: Name, generation: u64) {
        let Some(start) = self.starts.get(&id) else { return };
        let (starting, to, name) = (start(myself.get_cell()), myself.clone(), id.clone());
        let task = Handle::current().spawn(async move {
            let result = starting.await.map_err(|error| Name::from(error.to_string()));
            let _ = to.cast(Message::Started { id: name, generation, result });
        });
        self.starting.insert((id, generation), task.abort_handle());
    }

    /// A start that is no longer wanted: the task ends, and with it whatever it was waiting for.
    fn give_up(&mut self, myself: &ActorRef<Message>, id: Name, generation: u64) {
        if let Some(task) = self.starting.remove(&(id.clone(), generation)) {
            task.abort();
            let _ = myself.cast(Message::GivenUp { id, generation });
        }
    }

    fn arm(&mut self, myself: &ActorRef<Message>) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let Some(due) = self.machine.next_timer() else { return };
        let (wait, to) = (due.since(self.arguments.clock.now()), myself.clone());
        let timer = Handle::current().spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = to.cast(Message::Timer);
        });
        self.timer = Some(timer.abort_handle());
    }

    fn publish(&self) {
        let view =
            |(child, state, starts): (&ChildPolicy, _, _)| ChildView { id: child.id.clone(), state, starts };
        self.arguments.view.send_replace(self.machine.children().map(view).collect());
    }

    fn tell_started(&self, id: &Name) {
        let starts =
            self.machine.children().find(|(child, ..)| child.id == *id).map_or(0, |(.., starts)| starts);
        let event = match self.ended_at.get(id) {
            Some(&ended) => ChildEvent::Restarted {
                after: self.arguments.clock.now().since(ended),
                restarts: starts.saturating_sub(1),
            },
            None => ChildEvent::Started,
        };
        self.tell(id, event);
    }

    fn tell(&self, id: &Name, event: ChildEvent) {
        let (supervisor, child) = (self.arguments.name.clone(), id.clone());
        self.arguments.signals.emit(Signal::Child { supervisor, child, event });
    }
}

impl Drop for Shell {
    /// ractor's timers and tasks outlive their actor; these do not.
    fn drop(&mut self) {
        self.timer.iter().chain(self.starting.values()).for_each(AbortHandle::abort);
    }
}

fn exit_of(reason: Option<&str>) -> Exit {
    match reason {
        Some("killed" | "actor_task_cancelled") => Exit::Killed,
        Some("shutdown") => Exit::Shutdown,
        Some(_) | None => Exit::Normal,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;
    use crate::supervisor::{AutoShutdown, Restart, Strategy};

    /// A child that ends as it is told.
    struct Worker;

    #[derive(Clone, Copy, Debug)]
    enum End {
        Panic,
        Error,
        Normal,
        Hang,
    }

    impl Actor for Worker {
        type Msg = End;
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<End>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn handle(&self, me: ActorRef<End>, end: End, (): &mut ()) -> Result<(), ActorProcessingErr> {
            match end {
                End::Panic => panic!("planted"),
                End::Error => Err("planted".into()),
                End::Normal => {
                    me.stop(None);
                    Ok(())
                }
                End::Hang => std::future::pending().await,
            }
        }
    }

    /// The newest actor of each child, so that a test can end it.
    type Refs = Arc<Mutex<HashMap<Name, ActorRef<End>>>>;

    fn worker(id: &str, restart: Restart, refs: &Refs) -> ChildSpec {
        let (name, refs): (Name, _) = (id.into(), Arc::clone(refs));
        let start: Start = Arc::new(move |parent| {
            let (name, refs) = (name.clone(), Arc::clone(&refs));
            Box::pin(async move {
                let (actor, _) = Actor::spawn_linked(None, Worker, (), parent).await?;
                refs.lock().insert(name, actor.clone());
                Ok(actor.get_cell())
            })
        });
        ChildSpec { policy: ChildPolicy { id: id.into(), restart, significant: false }, start }
    }

    fn listen() -> (Signals, Arc<Mutex<Vec<Signal>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&heard);
        (Signals::new(move |signal| to.lock().push(signal)), heard)
    }

    fn all_run(children: &[ChildView], starts: u32) -> bool {
        !children.is_empty()
            && children.iter().all(|child| matches!(child.state, State::Running(_)))
            && children.iter().map(|child| child.starts).sum::<u32>() == starts
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_comes_back_however_it_ends() {
        let refs = Refs::default();
        let specs = ["a", "b"].map(|id| worker(id, Restart::Permanent, &refs)).into();
        let policy = Policy { max_restarts: 9, ..Policy::default() };
        let (arguments, mut children) = Arguments::new("s", policy, specs, Clock::tokio(), Signals::none());
        let (supervisor, life) = Supervisor::spawn(arguments).await.expect("it starts");
        children.wait_for(|all| all.len() == 2 && all_run(all, 2)).await.expect("it runs");
        for (n, end) in [End::Panic, End::Error, End::Normal].into_iter().enumerate() {
            let actor = refs.lock()["a"].clone();
            actor.cast(end).expect("it lives");
            let starts = u32::try_from(n).expect("few") + 3;
            children.wait_for(|all| all_run(all, starts)).await.expect("it runs");
        }
        let actor = refs.lock()["b"].clone();
        actor.cast(End::Hang).expect("it lives");
        actor.kill();
        children.wait_for(|all| all_run(all, 6)).await.expect("it runs");
        supervisor.cast(Message::Shutdown).expect("it lives");
        life.await.expect("it ends");
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_is_told_once_and_the_parent_starts_it_anew() {
        let refs = Refs::default();
        let (signals, heard) = listen();
        let policy = Policy { max_restarts: 1, ..Policy::default() };
        let inner = vec![worker("a", Restart::Permanent, &refs)];
        let (inner, mut seen) = Arguments::new("inner", policy, inner, Clock::tokio(), signals.clone());
        let spec = ChildSpec {
            policy: ChildPolicy { id: "inner".into(), restart: Restart::Permanent, significant: false },
            start: Supervisor::as_child(inner),
        };
        let (outer, mut outside) =
            Arguments::new("outer", Policy::default(), vec![spec], Clock::tokio(), signals);
        let (supervisor, life) = Supervisor::spawn(outer).await.expect("it starts");
        for starts in 1..=2 {
            seen.wait_for(|all| all_run(all, starts)).await.expect("it runs");
            let actor = refs.lock()["a"].clone();
            actor.cast(End::Panic).expect("it lives");
        }
        outside.wait_for(|all| all_run(all, 2)).await.expect("the parent starts it again");
        seen.wait_for(|all| all_run(all, 1)).await.expect("with its child");
        let escalated = heard
            .lock()
            .iter()
            .filter(|signal| matches!(signal, Signal::Escalated { root: false, .. }))
            .count();
        assert_eq!(escalated, 1);
        supervisor.cast(Message::Shutdown).expect("it lives");
        life.await.expect("it ends");
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_hangs_holds_up_no_sibling() {
        let refs = Refs::default();
        let hung: Start = Arc::new(|_| Box::pin(std::future::pending()));
        let mut specs = vec![worker("a", Restart::Permanent, &refs)];
        specs.push(ChildSpec {
            policy: ChildPolicy { id: "hung".into(), restart: Restart::Temporary, significant: false },
            start: hung,
        });
        specs.push(worker("never", Restart::Permanent, &refs));
        let policy = Policy { start_timeout: Duration::from_secs(2), ..Policy::default() };
        let (arguments, _) = Arguments::new("s", policy, specs, Clock::tokio(), Signals::none());
        let began = arguments.clock.now();
        let clock = arguments.clock.clone();
        let (_, life) = Supervisor::spawn(arguments).await.expect("it starts");
        life.await.expect("a supervisor that cannot start its children ends");
        assert_eq!(clock.now().since(began).as_secs(), 2);
        assert!(!refs.lock().contains_key("never"), "children start in order");
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_is_restarted_together_and_a_significant_end_ends_it() {
        let refs = Refs::default();
        let mut specs: Vec<_> = ["a", "b", "c"].map(|id| worker(id, Restart::Transient, &refs)).into();
        specs[2].policy.significant = true;
        let policy = Policy {
            strategy: Strategy::RestForOne,
            auto_shutdown: AutoShutdown::AnySignificant,
            ..Policy::default()
        };
        let (arguments, mut children) = Arguments::new("s", policy, specs, Clock::tokio(), Signals::none());
        let (_, life) = Supervisor::spawn(arguments).await.expect("it starts");
        children.wait_for(|all| all_run(all, 3)).await.expect("it runs");
        let actor = refs.lock()["b"].clone();
        actor.cast(End::Error).expect("it lives");
        let all = children.wait_for(|all| all_run(all, 5)).await.expect("b and c start again");
        assert_eq!(all.iter().map(|child| child.starts).collect::<Vec<_>>(), [1, 2, 2]);
        let actor = refs.lock()["c"].clone();
        actor.cast(End::Normal).expect("it lives");
        life.await.expect("it ends with its significant child");
    }
}
