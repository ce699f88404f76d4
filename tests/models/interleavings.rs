//! Threads at one circuit, in every interleaving (loom) or in very many (shuttle). `.ci/models` runs these.
//!
//! Each model is a small race whose end is checked against everything that some order of its steps could have
//! given. `SELFHEAL_PREEMPTIONS` says how many switches that no thread asked for loom tries in one interleaving;
//! `SELFHEAL_SCHEDULES` how many interleavings shuttle draws of each, and its seed is printed on failure.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "loom")]
use loom::thread;
#[cfg(feature = "shuttle")]
use shuttle::thread;

use super::{
    super::{Command, HalfOpen, Order, Outcome, Pass, Policy, Rejection, Window, cell::Cell, shard},
    MS,
};
use crate::{circuit::Circuit, threshold::Threshold};

const SUCCESS: Outcome = Outcome::Success;
const FAILURE: Outcome = Outcome::Failure;

/// Runs a model in every interleaving.
#[cfg(feature = "loom")]
fn model(race: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(asked("SELFHEAL_PREEMPTIONS").unwrap_or(3));
    builder.check(race);
}

#[expect(clippy::disallowed_methods, reason = "a test is told how long to look by the environment")]
fn asked(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a model in very many interleavings: half of them drawn evenly, half such that few switches matter.
#[cfg(feature = "shuttle")]
fn model(race: impl Fn() + Send + Sync + 'static) {
    let count = asked("SELFHEAL_SCHEDULES").unwrap_or(20_000);
    let race = Arc::new(race);
    let again = Arc::clone(&race);
    shuttle::check_random(move || race(), count / 2);
    shuttle::check_pct(move || again(), count / 2, 3);
}

/// A circuit that is shared by the threads of a model.
#[derive(Clone)]
struct Raced(Arc<Cell>);

impl Raced {
    fn new(policy: Policy) -> Self {
        Self(Arc::new(Cell::new(Arc::new(policy), 0)))
    }

    /// Runs `on` on a thread of its own shard.
    fn spawn<T: Send + 'static>(
        &self,
        number: usize,
        on: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let raced = self.clone();
        thread::spawn(move || {
            shard::pretend(number);
            on(&raced)
        })
    }

    fn admit(&self, ms: u64) -> Result<Pass, Rejection> {
        self.0.admit(|| MS(ms))
    }

    fn pass(&self, ms: u64) -> Pass {
        self.admit(ms).expect("it may")
    }

    fn settle(&self, pass: Pass, outcome: Outcome, ms: u64) {
        self.0.settle(pass, outcome, false, || MS(ms));
    }

    fn operate(&self, order: Order, ms: u64) {
        let command = Command::new(order, "model", "a race");
        self.0.ask(|machine| machine.operate(&command, MS(ms))).0.expect("it may");
    }

    fn shows(&self) -> Circuit {
        self.0.shows()
    }

    fn calls(&self, ms: u64) -> (u64, u64) {
        let counts = self.0.ask(|machine| machine.counts(MS(ms))).0;
        (counts.calls, counts.failures)
    }

    /// Successes, failures, and what came too late.
    fn totals(&self) -> (u64, u64, u64) {
        let totals = self.0.totals();
        (totals.successes, totals.failures, totals.stale)
    }

    /// What was told is a chain without a gap that ends where the circuit is.
    fn assert_told(&self) {
        let (mut number, mut shown) = (0, Circuit::Closed);
        while let Some(change) = self.0.ask(|machine| machine.take_untold()).0 {
            number += 1;
            assert_eq!((change.number, change.from), (number, shown));
            shown = change.to;
        }
        assert_eq!(shown, self.shows());
    }
}

fn join<T>(handle: thread::JoinHandle<T>) -> T {
    handle.join().expect("it does not panic")
}

/// Opens with the first failure in a row of that many, for 100 ms; has one probe at a time.
fn policy(in_a_row: f64) -> Policy {
    Policy {
        window: Window::Calls(4),
        consecutive_failures: Some(Threshold::AtLeast(in_a_row)),
        open_for: Duration::from_millis(100),
        half_open: HalfOpen::Count {
            probes: 1,
            successes: 1,
            failures: 1,
            probe_timeout: Duration::from_millis(50),
        },
        ..Policy::default()
    }
}

fn opened() -> Raced {
    let raced = Raced::new(policy(1.0));
    let pass = raced.pass(0);
    raced.settle(pass, FAILURE, 0);
    raced
}

#[test]
fn of_many_who_find_its_time_over_one_becomes_the_probe() {
    model(|| {
        let raced = opened();
        let others: Vec<_> = (1..3).map(|n| raced.spawn(n, |raced| raced.admit(100).ok())).collect();
        let mine = raced.admit(100).ok();
        let passes: Vec<_> = others.into_iter().map(join).chain([mine]).flatten().collect();
        assert_eq!(passes.len(), 1);
        raced.settle(passes[0], SUCCESS, 100);
        assert_eq!(raced.shows(), Circuit::Closed);
        raced.assert_told();
    });
}

#[test]
fn a_place_that_is_given_back_is_found_by_whoever_comes_after() {
    model(|| {
        let raced = opened();
        let probe = raced.pass(100);
        let other = raced.spawn(1, |raced| raced.admit(110).ok());
        raced.0.cancel(probe);
        match join(other) {
            Some(pass) => assert!(raced.admit(110).is_err(), "there is one place: {pass:?}"),
            None => drop(raced.pass(110)),
        }
        assert_eq!(raced.shows(), Circuit::HalfOpen);
    });
}

#[test]
fn an_outcome_beside_the_one_that_opens_is_counted_once_or_comes_too_late() {
    model(|| {
        let raced = Raced::new(policy(1.0));
        let (first, second) = (raced.pass(0), raced.pass(0));
        let other = raced.spawn(1, move |raced| raced.settle(second, SUCCESS, 0));
        raced.settle(first, FAILURE, 0);
        join(other);
        assert_eq!(raced.shows(), Circuit::Open);
        let (successes, failures, stale) = raced.totals();
        assert_eq!((successes + stale, failures), (1, 1));
        assert_eq!(raced.calls(0).0, 1 + successes);
        raced.assert_told();
    });
}

#[test]
fn two_failures_of_which_either_opens_open_once() {
    model(|| {
        let raced = Raced::new(policy(1.0));
        let (first, second) = (raced.pass(0), raced.pass(0));
        let other = raced.spawn(1, move |raced| raced.settle(second, FAILURE, 0));
        raced.settle(first, FAILURE, 0);
        join(other);
        assert_eq!(raced.totals(), (0, 1, 1));
        raced.assert_told();
    });
}

#[test]
fn a_lease_that_is_taken_over_and_its_late_outcome_decide_once() {
    model(|| {
        let raced = opened();
        let late = raced.pass(100);
        let other = raced.spawn(1, |raced| raced.admit(150).ok());
        raced.settle(late, FAILURE, 151);
        let took_over = join(other);
        match took_over.filter(|pass| pass.lease != 0) {
            // It was written off first: what it says comes too late.
            Some(pass) if raced.totals().2 == 1 => {
                assert_eq!(raced.shows(), Circuit::HalfOpen);
                raced.settle(pass, SUCCESS, 152);
                assert_eq!(raced.shows(), Circuit::Closed);
            }
            Some(pass) => panic!("{pass:?} although the probe had decided"),
            None => assert_eq!(raced.shows(), Circuit::Open, "it came before, and decided"),
        }
        raced.assert_told();
    });
}

#[test]
fn after_an_operator_has_forced_it_nobody_is_admitted() {
    model(|| {
        let raced = Raced::new(policy(1.0));
        let pass = raced.pass(0);
        let operator = raced.spawn(1, |raced| {
            raced.operate(Order::ForceOpen, 0);
            assert!(raced.admit(0).is_err(), "it has been forced");
        });
        raced.settle(pass, FAILURE, 0);
        join(operator);
        assert_eq!(raced.shows(), Circuit::ForcedOpen);
        assert!(raced.admit(1_000).is_err());
        raced.assert_told();
    });
}

#[test]
fn a_success_that_races_with_a_reset_is_not_in_the_new_window() {
    model(|| {
        let raced = Raced::new(policy(3.0));
        // The first success is judged; those after it go past the lock.
        let first = raced.pass(0);
        raced.settle(first, SUCCESS, 0);
        let pass = raced.pass(0);
        let operator = raced.spawn(1, |raced| raced.operate(Order::Reset, 0));
        raced.settle(pass, SUCCESS, 0);
        join(operator);
        assert_eq!(raced.calls(0), (0, 0));
        let (successes, _, stale) = raced.totals();
        assert_eq!(successes + stale, 2);
    });
}

#[test]
fn successes_on_all_shards_are_seen_by_whoever_comes_after_and_none_twice() {
    model(|| {
        let raced = Raced::new(policy(3.0));
        let first = raced.pass(0);
        raced.settle(first, SUCCESS, 0);
        let other = raced.spawn(1, |raced| {
            let pass = raced.pass(0);
            raced.settle(pass, SUCCESS, 0);
            let seen = raced.calls(0).0;
            assert!((2..=3).contains(&seen), "its own, and the first");
        });
        let pass = raced.pass(0);
        raced.settle(pass, SUCCESS, 0);
        join(other);
        assert_eq!((raced.calls(0), raced.totals()), ((3, 0), (3, 0, 0)));
    });
}

#[test]
fn a_failure_and_the_success_that_completes_the_number_open_it_in_either_order() {
    model(|| {
        let raced = Raced::new(Policy {
            window: Window::Calls(4),
            failures: Threshold::AtLeast(1.0),
            failure_rate: Threshold::AtLeast(0.3),
            calls: Threshold::AtLeast(3.0),
            ..Policy::default()
        });
        let first = raced.pass(0);
        raced.settle(first, SUCCESS, 0);
        let other = raced.spawn(1, |raced| {
            let pass = raced.pass(0);
            raced.settle(pass, SUCCESS, 0);
        });
        let pass = raced.pass(0);
        raced.settle(pass, FAILURE, 0);
        join(other);
        assert_eq!(raced.shows(), Circuit::Open, "one of three has failed");
    });
}

#[test]
fn a_success_when_a_bucket_turns_is_in_one_bucket_or_the_other() {
    model(|| {
        let window = Window::Time { last: Duration::from_millis(20), buckets: 2 };
        let raced = Raced::new(Policy { window, ..policy(3.0) });
        let first = raced.pass(5);
        raced.settle(first, SUCCESS, 5);
        let other = raced.spawn(1, |raced| {
            let pass = raced.pass(9);
            raced.settle(pass, SUCCESS, 9);
        });
        let pass = raced.pass(10);
        raced.settle(pass, SUCCESS, 10);
        join(other);
        assert_eq!(raced.calls(19).0, 3);
        // The first bucket has left the window; with it the first success, and the other's unless it came late.
        let left = raced.calls(20).0;
        assert!((1..=2).contains(&left), "{left}");
        assert_eq!(raced.totals().0, 3);
    });
}
