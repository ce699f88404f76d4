//! The handle: calls, permits, streams, modes, and who is told.

use std::{
    future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_core::Stream;
use parking_lot::Mutex;

use super::super::{Around, Breaker, Breakers, CallError, Command, Order, Outcome, Policy, Reason, Totals};
use crate::{
    circuit::{Cause, Circuit},
    clock::{Clock, Hand},
    level::{Mode, ModeCell},
    signal::{Signal, Signals},
    threshold::Threshold,
};

/// From, to, why, and whether it only would.
type Told = (Circuit, Circuit, Cause, bool);

/// A circuit whose clock the test turns, and what was told of it.
struct Rig {
    breaker: Breaker,
    hand: Hand,
    mode: ModeCell,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Rig {
    fn new(policy: Policy) -> Self {
        let (clock, hand) = Clock::manual();
        let (mode, told) = (ModeCell::new(Mode::Act), Arc::new(Mutex::new(Vec::new())));
        let signals = Signals::new({
            let told = Arc::clone(&told);
            move |signal| {
                if let Signal::Circuit { from, to, cause, would, .. } = signal {
                    told.lock().push((from, to, cause, would));
                }
            }
        });
        let around = Around { clock, mode: mode.clone(), signals };
        Self { breaker: Breaker::new("payments", Arc::new(policy), around, 0), hand, mode, told }
    }

    /// It opens with the second failure in a row.
    fn touchy() -> Self {
        let consecutive_failures = Some(Threshold::AtLeast(2.0));
        Self::new(Policy { consecutive_failures, ..Policy::default() })
    }

    fn fail(&self, times: u32) {
        for _ in 0..times {
            self.breaker.admit().expect("it passes").failure();
        }
    }

    fn totals(&self) -> Totals {
        self.breaker.view().totals
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn ready<F: Future>(future: F) -> F::Output {
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn it_opens_in_the_call_that_decides_and_closes_by_the_first_that_tries() {
    let rig = Rig::touchy();
    let failing = || rig.breaker.call(future::ready(Err::<(), _>("down")));
    assert_eq!(ready(failing()), Err(CallError::Failed("down")));
    assert_eq!(ready(failing()), Err(CallError::Failed("down")));
    let Err(CallError::Rejected(rejection)) = ready(failing()) else { panic!("it is open") };
    assert_eq!((rejection.reason, rejection.retry_after), (Reason::Open, Some(30 * SECOND)));
    rig.hand.advance(29 * SECOND);
    let later = rig.breaker.admit().map(drop).expect_err("not yet");
    assert_eq!(later.retry_after, Some(SECOND));
    rig.hand.advance(SECOND);
    assert_eq!(ready(rig.breaker.call(future::ready(Ok::<_, ()>(7)))), Ok(7));
    let (closed, open, half) = (Circuit::Closed, Circuit::Open, Circuit::HalfOpen);
    let expected = [
        (closed, open, Cause::ConsecutiveFailures, false),
        (open, half, Cause::Elapsed, false),
        (half, closed, Cause::ProbesSucceeded, false),
    ];
    assert_eq!(*rig.told.lock(), expected);
    assert_eq!(rig.totals(), Totals { successes: 1, failures: 2, rejected: 2, ..Totals::default() });
}

#[test]
fn a_dropped_call_is_cancelled_and_its_probe_is_free_again() {
    let rig = Rig::touchy();
    rig.fail(2);
    rig.hand.advance(30 * SECOND);
    for _ in 0..5 {
        let mut waiting = Box::pin(rig.breaker.call(future::pending::<Result<(), ()>>()));
        assert!(poll(waiting.as_mut()).is_pending());
        assert_eq!(rig.breaker.admit().map(drop).expect_err("one at a time").reason, Reason::HalfOpenFull);
    }
    assert_eq!((rig.totals().cancelled, rig.breaker.shows()), (5, Circuit::HalfOpen));
    drop(rig.breaker.call(future::pending::<Result<(), ()>>()));
    assert_eq!(rig.totals().cancelled, 5, "one that was never polled was never admitted");
}

#[test]
fn a_panic_is_a_failure_of_the_call_that_panics_and_of_no_other() {
    let rig = Rig::touchy();
    let panicking = rig.breaker.call(future::poll_fn(|_| -> Poll<Result<(), ()>> { panic!("planted") }));
    let waiting = Box::pin(rig.breaker.call(future::pending::<Result<(), ()>>()));
    let both = AssertUnwindSafe(move || {
        let (mut waiting, panicking) = (waiting, panicking);
        assert!(poll(waiting.as_mut()).is_pending());
        let _ = ready(panicking);
    });
    assert!(catch_unwind(both).is_err());
    assert_eq!((rig.totals().failures, rig.totals().cancelled), (1, 1));
    let held = AssertUnwindSafe(|| {
        let _permit = rig.breaker.admit().expect("it passes");
        panic!("planted");
    });
    assert!(catch_unwind(held).is_err());
    assert_eq!(rig.totals().failures, 2);
    assert_eq!(rig.breaker.shows(), Circuit::Open);
}

#[test]
fn the_caller_says_what_is_a_failure() {
    let rig = Rig::touchy();
    let judge = |result: &Result<u16, &str>| match result {
        Ok(500..) => Outcome::Failure,
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Ignored,
    };
    for answer in [Ok(503), Ok(404), Err("my own mistake"), Ok(502)] {
        let _ = ready(rig.breaker.call_judged(future::ready(answer), judge));
    }
    let totals = Totals { successes: 1, failures: 2, ignored: 1, ..Totals::default() };
    assert_eq!(rig.totals(), totals);
}

#[test]
fn a_call_that_takes_too_long_is_slow_however_it_ends() {
    let policy = Policy {
        slow_call: Some(2 * SECOND),
        slow_rate: Some(Threshold::AtLeast(1.0)),
        calls: Threshold::AtLeast(2.0),
        ..Policy::default()
    };
    let rig = Rig::new(policy);
    for _ in 0..2 {
        let permit = rig.breaker.admit().expect("it passes");
        rig.hand.advance(2 * SECOND);
        permit.success();
    }
    assert_eq!(rig.breaker.view().counts.slow, 0, "as long as the limit is not longer");
    rig.breaker.operate(&Command::new(Order::Reset, "test", "")).expect("it may");
    for _ in 0..2 {
        let permit = rig.breaker.admit().expect("it passes");
        rig.hand.advance(2 * SECOND + Duration::from_nanos(1));
        permit.success();
    }
    assert_eq!(rig.told.lock().last().map(|told| told.2), Some(Cause::SlowRate));
}

#[test]
fn what_somebody_measures_is_counted_by_how_it_ended_and_nothing_else_is() {
    let rig = Rig::new(Policy { failures: Threshold::Above(100.0), ..Policy::default() });
    rig.breaker.admit().expect("it passes").success();
    rig.fail(1);
    assert_eq!(rig.breaker.view().durations, Vec::new(), "nobody has looked at a clock");
    let took =
        [(Outcome::Success, 3), (Outcome::Success, 40), (Outcome::Failure, 700), (Outcome::Ignored, 1)];
    for (outcome, ms) in took {
        let took = Duration::from_millis(ms);
        rig.breaker.admit().expect("it passes").settle_after(outcome, took);
    }
    let seen = rig.breaker.view().durations;
    let seen: Vec<_> = seen.iter().map(|(how, took)| (how.name(), took.count(), took.sum())).collect();
    let ms = Duration::from_millis;
    assert_eq!(seen, [("success", 2, ms(43)), ("failure", 1, ms(700)), ("ignored", 1, ms(1))]);
    rig.mode.set(Mode::Off);
    rig.breaker.admit().expect("it passes").settle_after(Outcome::Success, SECOND);
    assert_eq!(rig.breaker.view().durations[0].1.count(), 2, "off is off");
}

#[test]
fn under_slow_call_every_call_is_measured_and_a_caller_who_measures_is_believed() {
    let slow_call = Some(2 * SECOND);
    let rig = Rig::new(Policy { slow_call, ..Policy::default() });
    let permit = rig.breaker.admit().expect("it passes");
    rig.hand.advance(3 * SECOND);
    permit.success();
    rig.breaker.admit().expect("it passes").settle_after(Outcome::Success, 4 * SECOND);
    rig.breaker.admit().expect("it passes").settle_after(Outcome::Success, SECOND);
    let view = rig.breaker.view();
    assert_eq!((view.counts.calls, view.counts.slow), (3, 2));
    assert_eq!(view.durations[0].1.sum(), 8 * SECOND);
}

#[test]
fn in_mode_observe_it_decides_and_lets_everybody_pass_and_in_mode_off_it_is_not_there() {
    let rig = Rig::touchy();
    rig.mode.set(Mode::Observe);
    rig.fail(4);
    assert_eq!((rig.breaker.shows(), rig.breaker.view().would_reject), (Circuit::Open, 2));
    assert!(rig.told.lock().iter().all(|told| told.3), "it only would");
    let before = rig.totals();
    rig.mode.set(Mode::Off);
    rig.fail(4);
    assert_eq!(rig.totals(), before);
    rig.mode.set(Mode::Act);
    assert!(rig.breaker.admit().is_err(), "what it knew holds again");
}

/// A stream of what it was given.
struct Items(Vec<Result<u32, ()>>);

impl Stream for Items {
    type Item = Result<u32, ()>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop())
    }
}

#[test]
fn a_stream_counts_once_by_how_it_ends() {
    let rig = Rig::new(Policy::default());
    let mut cx = Context::from_waker(Waker::noop());
    let mut whole = pin!(rig.breaker.wrap(Items(vec![Ok(1), Ok(2)])).expect("it passes"));
    while let Poll::Ready(Some(_)) = whole.as_mut().poll_next(&mut cx) {}
    let mut broken = pin!(rig.breaker.wrap(Items(vec![Ok(1), Err(()), Err(())])).expect("it passes"));
    while let Poll::Ready(Some(_)) = broken.as_mut().poll_next(&mut cx) {}
    drop(rig.breaker.wrap(Items(vec![Ok(1)])).expect("it passes"));
    let totals = Totals { successes: 1, failures: 1, cancelled: 1, ..Totals::default() };
    assert_eq!(rig.totals(), totals);
}

#[test]
fn a_name_is_one_circuit_and_too_many_names_share_one_that_does_nothing() {
    let (clock, _) = Clock::manual();
    let around = Around { clock, mode: ModeCell::new(Mode::Act), signals: Signals::none() };
    let breakers = Breakers::at_most(2, Arc::new(Policy::default()), around, 0);
    let watch =
        breakers.watch("a", Arc::new(Policy { failures: Threshold::Above(0.0), ..Policy::default() }));
    breakers.endpoint("a").admit().expect("it passes").failure();
    assert_eq!(watch.breaker().shows(), Circuit::Open, "the same circuit");
    assert_eq!(**breakers.endpoint("b").name(), *"b");
    for _ in 0..100 {
        breakers.endpoint("made up by a caller").admit().expect("it always passes").failure();
    }
    assert_eq!((breakers.overflow(), breakers.all().len()), (100, 2));
}
