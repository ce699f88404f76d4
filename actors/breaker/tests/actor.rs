//! The actor on tokio's paused clock, and what goes on without it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use ractor::{Actor, ActorRef};
use tokio::time::sleep;

use super::super::{AfterMaxWait, Around, Breakers, HalfOpen, Keeper, Message, Outcome, Policy, Watch};
use crate::{
    circuit::Circuit,
    clock::Clock,
    fault::Fault,
    level::{Mode, ModeCell},
    mailbox::Wake,
    signal::{Signal, Signals},
    threshold::Threshold,
};

const SECOND: Duration = Duration::from_secs(1);

/// A circuit that opens with the first failure, for a second, and tries again by itself.
struct Rig {
    watch: Watch,
    shown: Arc<Mutex<Vec<Circuit>>>,
}

impl Rig {
    fn new(half_open: HalfOpen) -> Self {
        let policy = Policy {
            consecutive_failures: Some(Threshold::AtLeast(1.0)),
            open_for: SECOND,
            half_open_automatically: true,
            half_open,
            ..Policy::default()
        };
        let shown = Arc::new(Mutex::new(Vec::new()));
        let signals = Signals::new({
            let shown = Arc::clone(&shown);
            move |signal| {
                if let Signal::Circuit { to, .. } = signal {
                    shown.lock().push(to);
                }
            }
        });
        let around = Around { clock: Clock::tokio(), mode: ModeCell::new(Mode::Act), signals };
        let watch = Breakers::new(Arc::default(), around, 0).watch("/api/x", Arc::new(policy));
        Self { watch, shown }
    }

    async fn start(&self) -> ActorRef<Wake> {
        Actor::spawn(None, Keeper, self.watch.clone()).await.expect("it starts").0
    }

    fn fail(&self) {
        self.watch.breaker().admit().expect("it is closed").settle(Outcome::Failure);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_due_happens_when_nobody_calls() {
    let (probes, max_wait, after_max_wait) = (2, SECOND / 2, AfterMaxWait::Open);
    let rig = Rig::new(HalfOpen::Rate { probes, max_wait, after_max_wait });
    let actor = rig.start().await;
    sleep(SECOND).await;
    rig.fail();
    sleep(Duration::from_millis(2_600)).await;
    let (open, half) = (Circuit::Open, Circuit::HalfOpen);
    assert_eq!(*rig.shown.lock(), [open, half, open, half], "at 0, 1, 1.5 and 2.5 s");
    actor.stop(None);
}

#[tokio::test(start_paused = true)]
async fn dead_or_hung_it_changes_no_answer_and_its_successor_goes_on() {
    for fault in [Fault::Panic, Fault::Error, Fault::Hang] {
        let rig = Rig::new(HalfOpen::default());
        let first = rig.start().await;
        rig.watch.mailbox().tell(Message::Fault(fault));
        sleep(Duration::from_millis(10)).await;
        rig.fail();
        assert!(rig.watch.breaker().admit().is_err(), "open, with nobody to tell");
        sleep(2 * SECOND).await;
        assert_eq!(rig.watch.breaker().shows(), Circuit::Open, "nobody tried");
        rig.watch.breaker().admit().expect("the first call after its time tries").success();
        assert_eq!(rig.watch.breaker().shows(), Circuit::Closed);
        rig.fail();
        first.kill();
        let second = rig.start().await;
        sleep(Duration::from_millis(1_010)).await;
        assert_eq!(rig.watch.breaker().shows(), Circuit::HalfOpen, "after {fault:?}");
        second.stop(None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_level_sheds_and_is_undone_exactly_even_if_the_actor_died_in_between() {
    let rig = Rig::new(HalfOpen::default());
    let first = rig.start().await;
    rig.watch.shed(true);
    sleep(Duration::from_millis(5)).await;
    assert_eq!(rig.watch.breaker().shows(), Circuit::Shed);
    first.kill();
    sleep(Duration::from_millis(5)).await;
    rig.watch.shed(false);
    rig.watch.shed(true);
    rig.watch.shed(false);
    assert_eq!(rig.watch.breaker().shows(), Circuit::Shed, "nobody is there to undo it");
    let second = rig.start().await;
    sleep(Duration::from_millis(5)).await;
    assert_eq!(*rig.shown.lock(), [Circuit::Shed, Circuit::Closed]);
    second.stop(None);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_changes_leaves_one_message() {
    let rig = Rig::new(HalfOpen::default());
    for _ in 0..10_000 {
        rig.watch.shed(true);
        rig.watch.shed(false);
    }
    assert_eq!((rig.watch.mailbox().depth(), rig.watch.mailbox().dropped()), (1, 0));
}
