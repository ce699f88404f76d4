//! The actor on tokio's paused clock. Time moves only when everybody waits, so nothing here is a matter of luck.

use std::{
    collections::VecDeque,
    future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use ractor::{Actor, ActorRef};
use tokio::{sync::Notify, task::JoinHandle, time::sleep};

use super::super::{Message, Monitor, Policy, Pool, PoolMonitor, Sample};
use crate::{
    clock::{Clock, Tick},
    fault::Fault,
    level::{Level, Mode, ModeCell},
    mailbox::{Mailbox, Wake},
    signal::{Signal, Signals, Step},
};

/// A pool whose use the test sets, and the books of all that was done to it.
struct Rig {
    monitor: Monitor,
    mailbox: Mailbox<Message>,
    mode: ModeCell,
    sample: Arc<Mutex<Option<Sample>>>,
    looks: Arc<AtomicU32>,
    call: Arc<Notify>,
    applied: Arc<Mutex<Vec<(&'static str, Step)>>>,
    signals: Arc<Mutex<VecDeque<Signal>>>,
}

impl Rig {
    fn new(mode: Mode) -> Self {
        let sample = Arc::new(Mutex::new(Some(Sample { max: 100, ..Sample::default() })));
        let (looks, call) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let (applied, signals) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(VecDeque::new())));
        let mode = ModeCell::new(mode);
        let pool = Pool {
            name: "main".into(),
            clock: Clock::tokio(),
            mode: mode.clone(),
            signals: Signals::new({
                let signals = Arc::clone(&signals);
                move |signal| signals.lock().push_back(signal)
            }),
            look: Box::new({
                let (sample, looks) = (Arc::clone(&sample), Arc::clone(&looks));
                move || {
                    looks.fetch_add(1, Ordering::Relaxed);
                    *sample.lock()
                }
            }),
            cancel: Box::new(|_| {}),
            apply: Box::new({
                let applied = Arc::clone(&applied);
                move |action, step| applied.lock().push((action.name(), step))
            }),
            pressed: Box::new({
                let call = Arc::clone(&call);
                move || {
                    let call = Arc::clone(&call);
                    Box::pin(async move { call.notified().await })
                }
            }),
        };
        let monitor = Monitor::new(pool, Policy::default());
        let mailbox = Mailbox::new("pool-monitor:main", 64);
        Self { monitor, mailbox, mode, sample, looks, call, applied, signals }
    }

    async fn start(&self) -> (ActorRef<Wake>, JoinHandle<()>) {
        Actor::spawn(None, PoolMonitor, (self.monitor.clone(), self.mailbox.clone()))
            .await
            .expect("it starts")
    }

    fn use_is(&self, in_use: u32, waiting: u32) {
        *self.sample.lock() = Some(Sample { in_use, max: 100, waiting, ..Sample::default() });
    }

    /// Every action was done once and undone once, in reverse.
    fn assert_done_and_undone_once(&self) {
        let applied = self.applied.lock();
        let (taken, undone): (Vec<_>, Vec<_>) = applied.iter().partition(|(_, step)| *step == Step::Taken);
        let names = |steps: &[&(&'static str, Step)]| steps.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let mut back = names(&undone);
        back.reverse();
        assert_eq!(names(&taken).len(), 6);
        assert_eq!(names(&taken), back);
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_noticed_by_the_gates_call_and_over_when_it_is_over() {
    let rig = Rig::new(Mode::Act);
    let (actor, _) = rig.start().await;
    sleep(ms(1_005)).await;
    assert!(rig.looks.load(Ordering::Relaxed) <= 12, "when calm ten looks a second are enough");
    let burst = Clock::tokio().now();
    rig.use_is(100, 60);
    rig.call.notify_one();
    sleep(ms(30)).await;
    assert_eq!(rig.monitor.level(), Level::Warning, "the call came long before the next planned look");
    sleep(ms(1_000)).await;
    assert_eq!(rig.monitor.level(), Level::Critical);
    assert!(rig.monitor.sampled_at().is_some_and(|at| Clock::tokio().now().since(at) <= ms(10)));
    rig.use_is(3, 0);
    sleep(ms(2_300)).await;
    assert_eq!(rig.monitor.level(), Level::Normal);
    rig.assert_done_and_undone_once();
    assert!(rig.monitor.sampled_at() > Some(burst));
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn killed_under_pressure_its_successor_neither_repeats_nor_forgets() {
    for fault in [Fault::Panic, Fault::Error, Fault::Hang] {
        let rig = Rig::new(Mode::Act);
        let (first, ended) = rig.start().await;
        rig.use_is(100, 60);
        sleep(ms(1_000)).await;
        assert_eq!(rig.monitor.level(), Level::Critical);
        rig.mailbox.tell(Message::Fault(fault));
        sleep(ms(200)).await;
        first.kill();
        ended.await.expect("ractor catches panics");
        assert_eq!(rig.monitor.level(), Level::Critical, "its last word stands");
        let looks = rig.looks.load(Ordering::Relaxed);
        sleep(ms(1_000)).await;
        assert_eq!(rig.looks.load(Ordering::Relaxed), looks, "its timer died with it");

        let (second, _) = rig.start().await;
        sleep(ms(1_000)).await;
        assert_eq!(rig.applied.lock().len(), 6, "nothing was done twice");
        rig.use_is(3, 0);
        sleep(ms(2_500)).await;
        assert_eq!(rig.monitor.level(), Level::Normal, "after {fault:?}");
        rig.assert_done_and_undone_once();
        second.stop(None);
    }
}

#[tokio::test(start_paused = true)]
async fn with_the_actor_hung_anyone_can_make_a_blind_monitor_let_go() {
    let rig = Rig::new(Mode::Act);
    let (actor, _) = rig.start().await;
    rig.use_is(100, 60);
    sleep(ms(1_000)).await;
    rig.mailbox.tell(Message::Fault(Fault::Hang));
    sleep(ms(29_000)).await;
    rig.monitor.tick();
    assert_eq!(rig.monitor.level(), Level::Critical);
    sleep(ms(2_000)).await;
    rig.monitor.tick();
    assert_eq!(rig.monitor.level(), Level::Normal);
    rig.assert_done_and_undone_once();
    assert!(rig.signals.lock().contains(&Signal::Blind { pool: "main".into(), blind: true }));
    actor.kill();
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_be_looked_at_makes_it_blind_until_it_can() {
    let rig = Rig::new(Mode::Act);
    let (actor, _) = rig.start().await;
    rig.use_is(100, 60);
    sleep(ms(1_000)).await;
    *rig.sample.lock() = None;
    sleep(ms(30_100)).await;
    assert_eq!(rig.monitor.level(), Level::Normal);
    rig.use_is(100, 60);
    sleep(ms(200)).await;
    assert_eq!(rig.monitor.level(), Level::Critical, "it sees again");
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn what_was_only_pretended_is_undone_as_pretended_when_the_mode_changes() {
    let rig = Rig::new(Mode::Observe);
    let (actor, _) = rig.start().await;
    rig.use_is(100, 60);
    sleep(ms(1_000)).await;
    rig.mode.set(Mode::Act);
    sleep(ms(500)).await;
    assert_eq!(rig.monitor.level(), Level::Critical, "it started afresh, for real");
    rig.mode.set(Mode::Off);
    sleep(ms(500)).await;
    assert_eq!(rig.monitor.level(), Level::Normal, "the kill switch undoes everything");
    let steps: Vec<_> = rig
        .signals
        .lock()
        .iter()
        .filter_map(|signal| {
            if let Signal::Action { step, would, .. } = signal { Some((*step, *would)) } else { None }
        })
        .collect();
    let (taken, undone) = (Step::Taken, Step::Undone);
    let six = |step, would| vec![(step, would); 6];
    assert_eq!(steps, [six(taken, true), six(undone, true), six(taken, false), six(undone, false)].concat());
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_acting_leaves_the_action_to_be_done_by_the_next() {
    let faults = Arc::new(AtomicU32::new(1));
    let applied = Arc::new(Mutex::new(Vec::new()));
    let monitor = Monitor::new(
        Pool {
            name: "main".into(),
            clock: Clock::tokio(),
            mode: ModeCell::new(Mode::Act),
            signals: Signals::none(),
            look: Box::new(|| Some(Sample { in_use: 100, max: 100, waiting: 9, ..Sample::default() })),
            cancel: Box::new(|_| {}),
            apply: Box::new({
                let (faults, applied) = (Arc::clone(&faults), Arc::clone(&applied));
                move |action, _| {
                    let faulty = action.name() == "batch_size" && faults.swap(0, Ordering::Relaxed) > 0;
                    assert!(!faulty, "planted");
                    applied.lock().push(action.name());
                }
            }),
            pressed: Box::new(|| Box::pin(future::pending())),
        },
        Policy::default(),
    );
    let mailbox = Mailbox::new("pool-monitor:main", 64);
    let arguments = (monitor.clone(), mailbox);
    let (_, first) = Actor::spawn(None, PoolMonitor, arguments.clone()).await.expect("it starts");
    first.await.expect("ractor catches the panic");
    assert_eq!(*applied.lock(), ["shed"]);
    let (second, _) = Actor::spawn(None, PoolMonitor, arguments).await.expect("it starts");
    sleep(ms(5)).await;
    assert_eq!(applied.lock()[..3], ["shed", "batch_size", "user_limit"]);
    assert!(monitor.sampled_at() > Some(Tick::ZERO));
    second.stop(None);
}
