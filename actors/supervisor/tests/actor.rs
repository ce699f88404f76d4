//! Real actors on tokio's paused clock: whatever a child does, the tree answers again or says why not.

use std::sync::Arc;

use parking_lot::Mutex;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};

use super::*;
use crate::clock::Clock;

/// What a worker does when it is told to.
#[derive(Clone, Copy, Debug)]
enum Do {
    Panic,
    Fail,
    End,
    Hang,
}

/// Takes its orders from tests, and says what becomes of it.
struct Worker {
    id: Name,
    told: Arc<Mutex<Vec<String>>>,
}

impl Actor for Worker {
    type Msg = Do;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Do>, (): ()) -> Result<(), ActorProcessingErr> {
        self.told.lock().push(format!("+{}", self.id));
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Do>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.told.lock().push(format!("-{}", self.id));
        Ok(())
    }

    async fn handle(&self, me: ActorRef<Do>, what: Do, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match what {
            Do::Panic => panic!("planted"),
            Do::Fail => return Err("planted".into()),
            Do::End => me.stop(None),
            Do::Hang => std::future::pending().await,
        }
        Ok(())
    }
}

/// A tree under test.
struct World {
    context: Context,
    signals: Arc<Mutex<Vec<Signal>>>,
    told: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new() -> Self {
        let signals = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&signals);
        let listen = crate::signal::Signals::new(move |signal| heard.lock().push(signal));
        let context = Context { clock: Clock::tokio(), signals: listen, children: Children::new() };
        Self { context, signals, told: Arc::default() }
    }

    fn worker(&self, policy: ChildPolicy) -> ChildSpec {
        let (id, told) = (policy.id.clone(), Arc::clone(&self.told));
        ChildSpec::actor(policy, move || (Worker { id: id.clone(), told: told.clone() }, ()))
    }

    fn workers(&self, ids: &str) -> Vec<ChildSpec> {
        workers(ids).into_iter().map(|policy| self.worker(policy)).collect()
    }

    fn spec(&self, name: &str, policy: Policy, ids: &str) -> SupervisorSpec {
        SupervisorSpec { name: name.into(), policy, children: self.workers(ids) }
    }

    async fn start(&self, spec: SupervisorSpec) -> Root {
        Root::start(spec, self.context.clone()).await.expect("it comes up")
    }

    /// Waits until a later generation than this one runs.
    async fn again(&self, supervisor: &str, id: &str, after: u64) -> ChildView {
        let runs = |view: &ChildView| view.state == ChildState::Up && view.generation > after;
        self.context.children.until(|children| children.find(supervisor, id).filter(runs)).await
    }

    fn generation(&self, supervisor: &str, id: &str) -> u64 {
        self.context.children.find(supervisor, id).expect("it is known").generation
    }

    fn order(&self, supervisor: &str, id: &str, what: Do) {
        let cell = self.context.children.cell(supervisor, id).expect("it runs");
        cell.send_message(what).expect("it lives");
    }

    fn told(&self) -> String {
        std::mem::take(&mut *self.told.lock()).join(" ")
    }

    fn escalations(&self) -> Vec<bool> {
        let signals = self.signals.lock();
        signals
            .iter()
            .filter_map(|s| if let Signal::Escalated { root, .. } = s { Some(*root) } else { None })
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_comes_back_however_it_ended_and_the_way_is_known() {
    let world = World::new();
    let _root = world.start(world.spec("s", Policy { max_restarts: 9, ..Policy::default() }, "a b")).await;
    for (what, exit) in
        [(Some(Do::Panic), "panic"), (Some(Do::Fail), "error"), (Some(Do::End), "normal"), (None, "kill")]
    {
        let before = world.generation("s", "a");
        match what {
            Some(what) => world.order("s", "a", what),
            None => world.context.children.cell("s", "a").expect("it runs").kill(),
        }
        let view = world.again("s", "a", before).await;
        assert_eq!(view.last_exit.expect("it has ended").name(), exit);
    }
    let view = world.context.children.find("s", "a").expect("it runs");
    assert_eq!((view.starts, view.restarts), (5, 4));
    assert_eq!(world.context.children.find("s", "b").expect("it runs").starts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_hangs_is_restarted_by_hand_after_it_was_killed() {
    let world = World::new();
    let _root = world.start(world.spec("s", Policy::default(), "a")).await;
    world.order("s", "a", Do::Hang);
    let began = world.context.clock.now();
    world.context.children.restart("s", "a").await.expect("it is killed when it does not stop");
    assert_eq!(world.context.clock.now().since(began), Duration::from_secs(5));
    let view = world.context.children.find("s", "a").expect("it is known");
    assert_eq!((view.state, view.last_exit), (ChildState::Up, Some(Exit::Killed)));
}

#[tokio::test(start_paused = true)]
async fn a_tree_stops_gracefully_and_in_reverse_from_the_leaves_up() {
    let world = World::new();
    let mut spec = world.spec("root", Policy::default(), "a");
    let inner = world.spec("inner", Policy::default(), "b c");
    spec.children.push(inner.under(ChildPolicy::permanent("inner"), world.context.clone()));
    spec.children.extend(world.workers("d"));
    let mut root = world.start(spec).await;
    assert_eq!(world.told(), "+a +b +c +d");
    root.stop();
    assert_eq!(root.ended().await, RootEnd::Ended(End::Asked));
    assert_eq!(world.told(), "-d -c -b -a");
    assert!(world.context.children.all().iter().all(|view| view.state == ChildState::Down));
    assert_eq!(world.context.children.ask("root", Ask::Stop("a".into())).await, Err(Refused::Terminated));
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_gives_up_is_brought_back_by_its_parent_with_all_it_had() {
    let world = World::new();
    let mut spec = world.spec("root", Policy::default(), "a");
    let inner = world.spec("inner", Policy { max_restarts: 1, ..Policy::default() }, "b c");
    spec.children.push(inner.under(ChildPolicy::permanent("inner"), world.context.clone()));
    let _root = world.start(spec).await;
    for _ in 0..2 {
        let before = world.generation("inner", "b");
        world.order("inner", "b", Do::Panic);
        world.again("inner", "b", before).await;
    }
    assert_eq!(world.escalations(), [false], "once, and not by the root");
    let inner = world.context.children.find("root", "inner").expect("it runs");
    assert_eq!((inner.state, inner.starts, inner.last_exit), (ChildState::Up, 2, Some(Exit::Shutdown)));
    let b = world.context.children.find("inner", "b").expect("it runs");
    assert_eq!((b.starts, b.restarts), (3, 1), "counted over both lives of its supervisor");
}

#[tokio::test(start_paused = true)]
async fn a_transient_supervisor_that_gives_up_stays_down() {
    let world = World::new();
    let mut spec = world.spec("root", Policy::default(), "a");
    let inner = world.spec("inner", Policy { max_restarts: 0, ..Policy::default() }, "b");
    spec.children.push(inner.under(ChildPolicy::new("inner", Restart::Transient), world.context.clone()));
    let _root = world.start(spec).await;
    world.order("inner", "b", Do::Panic);
    let down = |view: &ChildView| view.state == ChildState::Down;
    world.context.children.until(|children| children.find("root", "inner").filter(down)).await;
    assert!(world.context.children.cell("root", "a").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_killed_comes_back_with_its_children() {
    let world = World::new();
    let mut spec = world.spec("root", Policy::default(), "a");
    let inner = world.spec("inner", Policy::default(), "b c");
    spec.children.push(inner.under(ChildPolicy::permanent("inner"), world.context.clone()));
    let _root = world.start(spec).await;
    let before = world.generation("inner", "c");
    world.context.children.cell("root", "inner").expect("it runs").kill();
    world.again("inner", "c", before).await;
    let inner = world.context.children.find("root", "inner").expect("it runs");
    assert_eq!(inner.last_exit, Some(Exit::Killed));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_or_panics_or_hangs_keeps_the_tree_from_coming_up() {
    let fails: Start = Arc::new(|_| Box::pin(async { Err("planted".into()) }));
    let panics: Start = Arc::new(|_| panic!("planted"));
    let hangs: Start = Arc::new(|_| Box::pin(std::future::pending()));
    for start in [fails, panics, hangs] {
        let world = World::new();
        let mut spec = world.spec("root", Policy::default(), "a");
        let bad = ChildSpec { policy: ChildPolicy::permanent("bad"), start };
        let inner = SupervisorSpec { name: "inner".into(), policy: Policy::default(), children: vec![bad] };
        spec.children.push(inner.under(ChildPolicy::permanent("inner"), world.context.clone()));
        let error = Root::start(spec, world.context.clone()).await.expect_err("a child of it cannot start");
        assert!(matches!(&error, NotUp::Child { id, .. } if &**id == "inner"), "{error}");
        assert!(error.to_string().contains("bad could not be started"), "{error}");
        let down =
            |children: &Children| (children.find("root", "a")?.state == ChildState::Down).then_some(());
        world.context.children.until(down).await;
        assert_eq!(world.told(), "+a -a", "whoever had started is stopped again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_hangs_holds_up_nobody_and_is_tried_again() {
    let world = World::new();
    let tries = Arc::new(Mutex::new(0));
    let real = world.worker(ChildPolicy::permanent("a"));
    let (count, start) = (Arc::clone(&tries), real.start);
    let second_hangs: Start = Arc::new(move |context| {
        *count.lock() += 1;
        if *count.lock() == 2 { Box::pin(std::future::pending()) } else { start(context) }
    });
    let mut spec = world.spec("s", Policy::default(), "b");
    spec.children.push(ChildSpec { start: second_hangs, ..real });
    let _root = world.start(spec).await;
    let (a, b) = (world.generation("s", "a"), world.generation("s", "b"));
    world.order("s", "a", Do::Panic);
    world.order("s", "b", Do::Panic);
    let began = world.context.clock.now();
    world.again("s", "b", b).await;
    assert_eq!(world.context.clock.now(), began, "b does not wait for a");
    let view = world.again("s", "a", a).await;
    assert_eq!((view.starts, *tries.lock()), (3, 3));
    assert_eq!(world.context.clock.now().since(began), Duration::from_millis(10_100));
}

#[tokio::test(start_paused = true)]
async fn the_root_that_gives_up_ends_and_says_so_once() {
    let world = World::new();
    let mut root = world.start(world.spec("root", Policy::default(), "a b")).await;
    for n in 0.. {
        let before = world.generation("root", "a");
        world.order("root", "a", Do::Panic);
        if n == 5 {
            break;
        }
        world.again("root", "a", before).await;
    }
    assert_eq!(root.ended().await, RootEnd::Ended(End::Intensity));
    assert_eq!(root.ended().await, RootEnd::Ended(End::Intensity), "it can be asked again");
    assert_eq!(world.escalations(), [true]);
}

#[tokio::test(start_paused = true)]
async fn children_are_added_stopped_and_deleted_while_it_runs() {
    let world = World::new();
    let _root = world.start(world.spec("s", Policy::default(), "a")).await;
    let children = &world.context.children;
    let ask = |ask| children.ask("s", ask);
    assert_eq!(ask(Ask::Start(world.worker(ChildPolicy::permanent("b")))).await, Ok(()));
    assert_eq!(
        ask(Ask::Start(world.worker(ChildPolicy::permanent("b")))).await,
        Err(Refused::AlreadyStarted)
    );
    assert_eq!(ask(Ask::Delete("b".into())).await, Err(Refused::Running));
    assert_eq!(ask(Ask::Stop("b".into())).await, Ok(()));
    assert_eq!(ask(Ask::Delete("b".into())).await, Ok(()));
    assert_eq!(ask(Ask::Restart("b".into())).await, Err(Refused::NotFound));
    assert_eq!(children.all().len(), 1);
    let temporary = ChildPolicy::new("t", Restart::Temporary);
    assert_eq!(ask(Ask::Start(world.worker(temporary.clone()))).await, Ok(()));
    world.order("s", "t", Do::End);
    children.until(|children| children.find("s", "t").is_none().then_some(())).await;
    assert_eq!(ask(Ask::Start(world.worker(temporary))).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_behind_when_a_tree_is_dropped_in_its_start() {
    let world = World::new();
    let hangs: Start = Arc::new(|_| Box::pin(std::future::pending()));
    let mut spec = world.spec("root", Policy::default(), "a");
    spec.children.push(ChildSpec { policy: ChildPolicy::permanent("bad"), start: hangs });
    let starting = Root::start(spec, world.context.clone());
    tokio::time::timeout(MS(10), starting).await.expect_err("it hangs");
    let gone = |children: &Children| children.cell("root", "a").is_none().then_some(());
    world.context.children.until(gone).await;
    assert_eq!(world.context.children.ask("root", Ask::Stop("a".into())).await, Err(Refused::Terminated));
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_cannot_be_killed_is_left_behind() {
    // As a loop without an await point would be: its end is never heard of.
    let world = World::new();
    let deaf: Start = Arc::new(|_| {
        Box::pin(async {
            let told = Arc::default();
            let (actor, _) = Actor::spawn(None, Worker { id: "deaf".into(), told }, ()).await?;
            Ok::<ActorCell, ActorProcessingErr>(actor.get_cell())
        })
    });
    let mut spec = world.spec("s", Policy::default(), "a");
    spec.children.push(ChildSpec { policy: ChildPolicy::permanent("deaf"), start: deaf });
    let _root = world.start(spec).await;
    assert_eq!(world.context.children.ask("s", Ask::Stop("deaf".into())).await, Ok(()));
    let view = world.context.children.find("s", "deaf").expect("it is known");
    assert_eq!(view.state, ChildState::Abandoned, "it was not linked");
    let left = |s: &Signal| matches!(s, Signal::Child { event: ChildEvent::Abandoned, .. });
    assert_eq!(world.signals.lock().iter().filter(|s| left(s)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_was_left_behind_starts_nobody_beside_its_successor() {
    let world = World::new();
    let left = world.start(world.spec("s", Policy::default(), "a")).await;
    let old = world.context.children.cell("s", "a").expect("it runs");
    let _root = world.start(world.spec("s", Policy::default(), "a")).await;
    let generation = world.generation("s", "a");
    world.told();
    old.send_message(Do::Panic).expect("it still lives");
    let mut left = left;
    assert_eq!(left.ended().await, RootEnd::Died);
    assert_eq!(world.told(), "", "nobody was started");
    assert_eq!(world.generation("s", "a"), generation);
    world.order("s", "a", Do::Panic);
    world.again("s", "a", generation).await;
}

#[tokio::test(start_paused = true)]
async fn children_beyond_those_that_are_started_at_once_start_in_order_too() {
    let world = World::new();
    let ids: Vec<_> = (0..100).map(|n| format!("w{n}")).collect();
    let root = world.start(world.spec("s", Policy::default(), &ids.join(" "))).await;
    let started: Vec<_> = ids.iter().map(|id| format!("+{id}")).collect();
    assert_eq!(world.told(), started.join(" "));
    assert!(world.context.children.all().iter().all(|view| view.state == ChildState::Up));
    assert!(ids.iter().all(|id| world.context.children.cell("s", id).is_some()));
    drop(root);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_for_ever_without_a_pause_leaves_the_supervisor_an_ear() {
    let world = World::new();
    let policy = Policy { max_restarts: u32::MAX, backoff: Backoff::NONE, ..Policy::default() };
    let works = world.worker(ChildPolicy::permanent("a")).start;
    let first = std::sync::atomic::AtomicBool::new(true);
    let start: Start =
        Arc::new(move |context| match first.swap(false, std::sync::atomic::Ordering::AcqRel) {
            true => works(context),
            false => Box::pin(async { Err("not again".into()) }),
        });
    let children = vec![ChildSpec { policy: ChildPolicy::permanent("a"), start }];
    let _root = world.start(SupervisorSpec { name: "s".into(), policy, children }).await;
    world.order("s", "a", Do::Panic);
    world.context.children.until(|children| (children.find("s", "a")?.starts > 100).then_some(())).await;
    world.context.children.ask("s", Ask::Stop("a".into())).await.expect("it is heard");
    assert_eq!(world.context.children.find("s", "a").expect("it is known").state, ChildState::Down);
}
