//! The real guardian, the real threads, real actors: whatever is done to them, every child answers again.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use selfheal::{
    backoff::Backoff,
    clock::Clock,
    runtime::{Build, Cause, Epoch, Failure, Guardian, Options, Phase},
    signal::{ChildEvent, Name, Signal, Signals},
    supervisor::{
        ChildPolicy, ChildSpec, ChildState, ChildView, Children, Context, NotUp, Policy, SupervisorSpec,
    },
};
use tokio::sync::oneshot;

/// What a worker does when it is told to.
enum Do {
    Answer(oneshot::Sender<()>),
    Panic,
    Fail,
    Hang,
    Block(Arc<Dam>),
}

/// Holds a thread until it is opened.
#[derive(Default)]
struct Dam {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Dam {
    fn wait(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
    }

    fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }
}

struct Worker;

impl Actor for Worker {
    type Msg = Do;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Do>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Do>, what: Do, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match what {
            Do::Answer(to) => drop(to.send(())),
            // As a panic, but without its text on the terminal.
            Do::Panic => std::panic::resume_unwind(Box::new("planted".to_owned())),
            Do::Fail => return Err("planted".into()),
            Do::Hang => std::future::pending().await,
            Do::Block(dam) => dam.wait(),
        }
        Ok(())
    }
}

/// `root { alert, pools { p0 p1 p2 }, breakers { b0 b1 b2 b3 } }`
const TREE: [(&str, &[&str]); 3] = [
    ("root", &["alert", "pools", "breakers"]),
    ("pools", &["p0", "p1", "p2"]),
    ("breakers", &["b0", "b1", "b2", "b3"]),
];

fn tree(policy: Policy, context: &Context) -> Build {
    fn spec(name: &str, policy: Policy, context: &Context) -> SupervisorSpec {
        let ids = TREE.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, ids)| *ids);
        let child = |id: &&str| {
            let child = ChildPolicy::permanent(*id);
            if TREE.iter().any(|(supervisor, _)| supervisor == id) {
                spec(id, policy, context).under(child, context.clone())
            } else {
                ChildSpec::actor(child, || (Worker, ()))
            }
        };
        SupervisorSpec { name: name.into(), policy, children: ids.iter().map(child).collect() }
    }
    let context = context.clone();
    Arc::new(move |_| spec("root", policy, &context))
}

fn context(clock: Clock) -> (Context, Arc<Mutex<Vec<Signal>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&heard);
    let signals = Signals::new(move |signal| to.lock().expect("nobody panics with it").push(signal));
    (Context { clock, signals, children: Children::new() }, heard)
}

/// Options that tell of a failure, and where it is told.
fn options(context: Context) -> (Options, Arc<Mutex<Vec<Failure>>>) {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&failures);
    let on_failure = Arc::new(move |failure| to.lock().expect("nobody panics with it").push(failure));
    (Options { on_failure, ..Options::new(context) }, failures)
}

type Key = (&'static str, &'static str);

fn all_below(name: &'static str) -> Vec<Key> {
    let ids = TREE.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, ids)| *ids);
    ids.iter().flat_map(|id| std::iter::once((name, *id)).chain(all_below(id))).collect()
}

fn up(children: &Children, (supervisor, id): Key) -> Option<ChildView> {
    children.find(supervisor, id).filter(|view| view.state == ChildState::Up)
}

/// Waits until each of them runs in a later generation than before, and answers.
async fn answer(children: &Children, keys: &[Key], before: &HashMap<Key, u64>) {
    for &key in keys {
        let later = |view: &ChildView| before.get(&key).is_none_or(|&was| view.generation > was);
        children.until(|children| up(children, key).filter(later)).await;
    }
    for &(supervisor, id) in keys.iter().filter(|(_, id)| TREE.iter().all(|(name, _)| name != id)) {
        let (to, answered) = oneshot::channel();
        order(children, (supervisor, id), Do::Answer(to));
        answered.await.unwrap_or_else(|_| panic!("{id} took the question and died"));
    }
}

fn order(children: &Children, (supervisor, id): Key, what: Do) {
    let cell = children.cell(supervisor, id).expect("it runs");
    cell.send_message(what).unwrap_or_else(|error| panic!("{id}: {error}"));
}

fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "which seed a random test plays is asked from outside")]
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..1 << 32))
}

/// What was done, how often.
#[derive(Debug, Default)]
struct Done {
    panics: u32,
    errors: u32,
    kills: u32,
    hangs: u32,
    supervisors: u32,
    roots: u32,
    threads: u32,
    /// From the order to panic to the answer of the next generation.
    took: Vec<Duration>,
}

#[tokio::test]
async fn five_hundred_random_ends_and_every_child_answers_again() {
    let seed = seed();
    println!("SEED={seed}");
    let clock = Clock::system();
    let (context, heard) = context(clock.clone());
    let policy = Policy {
        max_restarts: 100_000,
        backoff: Backoff::NONE,
        stop_timeout: Duration::from_millis(10),
        kill_timeout: Duration::from_secs(5),
        ..Policy::default()
    };
    let (options, failures) = options(context.clone());
    let options = Options {
        heartbeat: Duration::from_millis(10),
        missed: NonZeroU32::MIN.saturating_add(59),
        max_lost: 1_000,
        ..options
    };
    let guardian = Guardian::start(tree(policy, &context), options).await.expect("it comes up");
    let storm = storm(&guardian, &clock, Rng::with_seed(seed));
    let done = tokio::time::timeout(Duration::from_secs(120), storm).await.expect("nothing hangs");
    let everybody = all_below("root");
    answer(guardian.children(), &everybody, &HashMap::new()).await;

    let Done { panics, errors, kills, hangs, supervisors, roots, threads, mut took } = done;
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!(
        "{panics} panics, {errors} errors, {kills} kills, {hangs} hangs, {supervisors} supervisors, {roots} roots, {threads} threads"
    );
    println!("from panic to the next generation's answer: p50 {:?}, p99 {:?} (unoptimised)", at(50), at(99));
    assert_eq!(panics + errors + kills + hangs + supervisors + roots + threads, 500);
    assert!(guardian.status().lost >= u64::from(roots + threads), "each of those cost an epoch");
    assert_eq!(*failures.lock().expect("nobody panics with it"), []);
    let escalated = |signal: &Signal| matches!(signal, Signal::Escalated { .. });
    assert!(!heard.lock().expect("nobody panics with it").iter().any(escalated));
    guardian.stop().await;
    assert!(guardian.children().all().iter().all(|view| view.state == ChildState::Down));
}

async fn storm(guardian: &Guardian, clock: &Clock, mut random: Rng) -> Done {
    let (children, everybody, mut done) = (guardian.children(), all_below("root"), Done::default());
    let workers: Vec<_> =
        everybody.iter().copied().filter(|(_, id)| TREE.iter().all(|(name, _)| name != id)).collect();
    for _ in 0..500 {
        answer(children, &everybody, &HashMap::new()).await;
        let before = everybody.iter().filter_map(|&key| Some((key, up(children, key)?.generation))).collect();
        let victim = workers[random.usize(..workers.len())];
        let began = clock.now();
        match random.u8(0..100) {
            0..30 => {
                order(children, victim, Do::Panic);
                answer(children, &[victim], &before).await;
                done.panics += 1;
                done.took.push(clock.now().since(began));
                continue;
            }
            30..55 => {
                order(children, victim, Do::Fail);
                done.errors += 1;
            }
            55..75 => {
                children.cell(victim.0, victim.1).expect("it runs").kill();
                done.kills += 1;
            }
            75..85 => {
                order(children, victim, Do::Hang);
                children.restart(victim.0, victim.1).await.expect("it is killed when it does not stop");
                done.hangs += 1;
            }
            85..96 => {
                let supervisor = if random.bool() { "pools" } else { "breakers" };
                children.cell("root", supervisor).expect("it runs").kill();
                answer(children, &all_below(supervisor), &before).await;
                done.supervisors += 1;
                continue;
            }
            96..98 => {
                // The parent of a child of the root is the root.
                let alert = children.cell("root", "alert").expect("it runs");
                alert.try_get_supervisor().expect("it has one").kill();
                answer(children, &everybody, &before).await;
                done.roots += 1;
                continue;
            }
            _ => {
                let dam = Arc::new(Dam::default());
                order(children, victim, Do::Block(Arc::clone(&dam)));
                answer(children, &everybody, &before).await;
                dam.open();
                done.threads += 1;
                continue;
            }
        }
        answer(children, &[victim], &before).await;
    }
    done
}

#[tokio::test(start_paused = true)]
async fn one_crash_too_many_escalates_exactly_once_and_the_tree_is_built_anew() {
    let (context, heard) = context(Clock::tokio());
    let (options, failures) = options(context.clone());
    let guardian = Guardian::inline(tree(Policy::default(), &context), options).await.expect("it comes up");
    for crashes in 1..=6 {
        let before = guardian.children().find("root", "alert").expect("it is known").generation;
        order(guardian.children(), ("root", "alert"), Do::Panic);
        answer(guardian.children(), &[("root", "alert")], &HashMap::from([(("root", "alert"), before)]))
            .await;
        assert_eq!(guardian.status().epoch, Epoch(if crashes < 6 { 1 } else { 2 }));
    }
    answer(guardian.children(), &all_below("root"), &HashMap::new()).await;
    let heard = heard.lock().expect("nobody panics with it").clone();
    let escalated: Vec<_> =
        heard.iter().filter(|signal| matches!(signal, Signal::Escalated { .. })).collect();
    assert_eq!(escalated, [&Signal::Escalated { supervisor: "root".into(), root: true }]);
    assert_eq!(*failures.lock().expect("nobody panics with it"), []);
}

#[tokio::test(start_paused = true)]
async fn the_third_epoch_lost_in_a_minute_is_a_failure_told_once_and_a_person_revives_it() {
    let (context, _) = context(Clock::tokio());
    let (options, failures) = options(context.clone());
    let policy = Policy { max_restarts: 0, ..Policy::default() };
    let guardian = Guardian::inline(tree(policy, &context), options).await.expect("it comes up");
    for epoch in 1..=3 {
        let there = |s: &selfheal::runtime::Status| s.phase == Phase::Up && s.epoch == Epoch(epoch);
        guardian.until(there).await;
        order(guardian.children(), ("root", "alert"), Do::Panic);
    }
    guardian.until(|status| status.phase == Phase::Failed).await;
    assert!(!guardian.is_up());
    let another = guardian.until(|status| status.epoch > Epoch(3));
    tokio::time::timeout(Duration::from_secs(3600), another).await.expect_err("nothing more is started");
    let told = failures.lock().expect("nobody panics with it").clone();
    assert_eq!(told, [Failure { epoch: Epoch(3), cause: Cause::Escalated }]);
    guardian.revive();
    guardian.until(|status| status.phase == Phase::Up).await;
    answer(guardian.children(), &all_below("root"), &HashMap::new()).await;
    guardian.stop().await;
    assert_eq!(guardian.status().phase, Phase::Stopped);
}

#[tokio::test(start_paused = true)]
async fn epochs_lost_far_apart_are_no_failure() {
    let (context, _) = context(Clock::tokio());
    let (options, failures) = options(context.clone());
    let policy = Policy { max_restarts: 0, ..Policy::default() };
    let guardian = Guardian::inline(tree(policy, &context), options).await.expect("it comes up");
    for epoch in 1..=5 {
        let there = |s: &selfheal::runtime::Status| s.phase == Phase::Up && s.epoch == Epoch(epoch);
        guardian.until(there).await;
        tokio::time::advance(Duration::from_secs(31)).await;
        order(guardian.children(), ("root", "alert"), Do::Panic);
    }
    guardian.until(|status| status.epoch == Epoch(6)).await;
    assert_eq!(*failures.lock().expect("nobody panics with it"), []);
}

#[tokio::test]
async fn a_tree_that_cannot_come_up_is_refused_and_leaves_nothing_behind() {
    let (context, _) = context(Clock::system());
    let (options, _) = options(context.clone());
    let build: Build = Arc::new(|_| {
        let start: selfheal::supervisor::Start = Arc::new(|_| Box::pin(async { Err("no database".into()) }));
        let children = vec![
            ChildSpec::actor(ChildPolicy::permanent("alert"), || (Worker, ())),
            ChildSpec { policy: ChildPolicy::permanent("store"), start },
        ];
        SupervisorSpec { name: "root".into(), policy: Policy::default(), children }
    });
    let error = Guardian::start(build, options).await.expect_err("the store cannot start");
    assert!(matches!(&error, NotUp::Child { id, .. } if &**id == "store"));
    assert_eq!(error.to_string(), "store could not be started: no database");
    let stopped = |children: &Children| up(children, ("root", "alert")).is_none().then_some(());
    context.children.until(stopped).await;
}

#[tokio::test]
async fn a_thread_that_does_not_come_back_holds_up_neither_its_successor_nor_the_end() {
    let (context, _) = context(Clock::system());
    let (options, _) = options(context.clone());
    let options = Options {
        heartbeat: Duration::from_millis(10),
        missed: NonZeroU32::MIN.saturating_add(59),
        stop_within: Duration::from_millis(200),
        ..options
    };
    let guardian = Guardian::start(tree(Policy::default(), &context), options).await.expect("it comes up");
    let dams: [Arc<Dam>; 2] = Default::default();
    order(guardian.children(), ("pools", "p1"), Do::Block(Arc::clone(&dams[0])));
    guardian.until(|status| status.epoch >= Epoch(2) && status.phase == Phase::Up).await;
    answer(guardian.children(), &all_below("root"), &HashMap::new()).await;
    let second = guardian.children().all();
    dams[0].open();
    answer(guardian.children(), &all_below("root"), &HashMap::new()).await;
    let same = |a: &ChildView, b: &ChildView| (&a.id, a.generation) == (&b.id, b.generation);
    assert!(
        guardian.children().all().iter().zip(&second).all(|(a, b)| same(a, b)),
        "the first says nothing more"
    );
    order(guardian.children(), ("pools", "p1"), Do::Block(Arc::clone(&dams[1])));
    guardian.stop().await;
    assert_eq!(guardian.status().phase, Phase::Stopped);
    dams[1].open();
}

#[tokio::test]
async fn the_first_start_is_told_by_name() {
    let (context, heard) = context(Clock::system());
    let (options, _) = options(context.clone());
    let guardian = Guardian::start(tree(Policy::default(), &context), options).await.expect("it comes up");
    guardian.stop().await;
    let heard = heard.lock().expect("nobody panics with it").clone();
    let started = heard.iter().filter_map(|signal| {
        let Signal::Child { child, event: ChildEvent::Started, .. } = signal else { return None };
        Some(Name::clone(child))
    });
    let started: Vec<_> = started.collect();
    let expected = ["alert", "p0", "p1", "p2", "pools", "b0", "b1", "b2", "b3", "breakers"];
    assert_eq!(started.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
}
