//! What other circuit breakers were found to get wrong, each as a scenario that this one passes. Those about what
//! stands around a circuit (d6, d7, d8, d13) are in `tests/it/traps.rs`.

use std::{sync::Arc, time::Duration};

use super::{
    super::{Command, HalfOpen, Machine, Order, Outcome, Pass, Policy, Reason, Window, cell::Cell},
    MS,
};
use crate::{
    circuit::{Cause, Circuit},
    clock::Tick,
    threshold::Threshold,
};

/// A machine whose time the test sets.
struct Desk {
    machine: Machine,
    now: Tick,
}

impl Desk {
    fn new(policy: Policy) -> Self {
        policy.check().expect("a policy that makes sense");
        Self { machine: Machine::new(Arc::new(policy), 0), now: Tick::ZERO }
    }

    fn at(&mut self, ms: u64) -> &mut Self {
        self.now = MS(ms);
        self
    }

    fn admit(&mut self) -> Option<Pass> {
        self.machine.admit(self.now).ok()
    }

    fn settle(&mut self, pass: Pass, outcome: Outcome) {
        self.machine.settle(pass, outcome, false, self.now);
    }

    fn calls(&mut self, count: u32, outcome: Outcome) -> u32 {
        (0..count)
            .filter(|_| {
                let pass = self.admit();
                pass.inspect(|&pass| self.settle(pass, outcome)).is_some()
            })
            .count() as u32
    }

    fn order(&mut self, order: Order) {
        self.machine.operate(&Command::new(order, "test", "a trap"), self.now).expect("it makes sense");
    }

    fn changes(&mut self) -> Vec<(Circuit, Circuit, Cause)> {
        std::iter::from_fn(|| self.machine.take_untold()).map(|c| (c.from, c.to, c.cause)).collect()
    }
}

fn calls(size: u32) -> Policy {
    Policy { window: Window::Calls(size), calls: Threshold::AtLeast(10.0), ..Policy::default() }
}

/// Opens with the first failure, for a second.
fn brittle() -> Policy {
    let consecutive_failures = Some(Threshold::AtLeast(1.0));
    Policy { consecutive_failures, open_for: Duration::from_secs(1), ..Policy::default() }
}

const SUCCESS: Outcome = Outcome::Success;
const FAILURE: Outcome = Outcome::Failure;

#[test]
fn d1_a_window_of_calls_slides_so_a_long_good_life_does_not_hide_an_outage() {
    let mut desk = Desk::new(calls(10));
    desk.calls(10_000, SUCCESS);
    assert_eq!(desk.calls(1_000, FAILURE), 6, "six of the last ten are more than half");
}

#[test]
fn d2_a_reset_of_a_closed_circuit_forgets_what_it_had_counted() {
    let mut desk = Desk::new(calls(10));
    desk.calls(5, FAILURE);
    desk.order(Order::Reset);
    assert_eq!(desk.machine.counts(MS(0)).calls, 0);
    desk.calls(5, FAILURE);
    assert_eq!((desk.machine.shows(), desk.changes()), (Circuit::Closed, Vec::new()));
}

#[test]
fn d3_forced_open_stays_open_however_long_ago_it_should_have_been_tried() {
    let mut desk = Desk::new(brittle());
    desk.order(Order::ForceOpen);
    for ms in [1_000, 10_000, 86_400_000] {
        let rejection = desk.at(ms).machine.admit(MS(ms)).expect_err("it is pinned");
        assert_eq!((rejection.reason, rejection.retry_after), (Reason::ForcedOpen, None));
    }
    desk.order(Order::ForceClosed);
    assert_eq!(desk.calls(100, FAILURE), 100, "forced closed stays closed");
}

#[test]
fn d4_a_straggler_from_before_neither_opens_nor_closes_a_half_open_circuit() {
    for outcome in [SUCCESS, FAILURE] {
        let mut desk = Desk::new(brittle());
        let straggler = desk.admit().expect("it is closed");
        desk.calls(1, FAILURE);
        let probe = desk.at(1_000).admit().expect("its time is over");
        desk.settle(straggler, outcome);
        assert_eq!(desk.machine.shows(), Circuit::HalfOpen);
        desk.settle(probe, SUCCESS);
        assert_eq!((desk.machine.shows(), desk.machine.totals().stale), (Circuit::Closed, 1));
    }
}

#[test]
fn d5_a_window_of_time_takes_the_same_memory_whatever_it_holds() {
    let policy = Policy { window: Window::Time { last: Duration::from_secs(600), buckets: 10 }, ..calls(10) };
    let (mut idle, mut busy) = (Desk::new(policy.clone()), Desk::new(policy));
    idle.calls(1, SUCCESS);
    for ms in (0..600_000).step_by(100) {
        busy.at(ms).calls(20, SUCCESS);
    }
    let size = |desk: &Desk| format!("{:?}", desk.machine).matches("Bucket").count();
    assert_eq!(busy.machine.counts(MS(599_900)).calls, 120_000);
    assert_eq!((size(&busy), size(&idle)), (10, 10));
}

#[test]
fn d9_a_window_of_time_is_fed_and_opens() {
    let mut desk = Desk::new(Policy::default());
    assert_eq!(desk.calls(10_000, FAILURE), 6);
    assert_eq!(desk.changes(), [(Circuit::Closed, Circuit::Open, Cause::FailureRate)]);
}

#[test]
fn d10_probes_that_are_dropped_are_given_back_and_those_that_hang_are_written_off() {
    let mut desk = Desk::new(brittle());
    desk.calls(1, FAILURE);
    desk.at(1_000);
    for _ in 0..100 {
        let dropped = desk.admit().expect("the place was given back");
        desk.machine.cancel(dropped);
    }
    let hanging = desk.admit().expect("the place was given back");
    assert_eq!(desk.at(10_999).admit(), None, "it may still come back");
    let next = desk.at(11_000).admit().expect("its lease has run out");
    desk.settle(hanging, FAILURE);
    assert_eq!(desk.machine.shows(), Circuit::HalfOpen, "too late");
    desk.settle(next, SUCCESS);
    assert_eq!(desk.machine.shows(), Circuit::Closed);
}

#[test]
fn d11_half_open_admits_as_many_as_it_says_and_not_everybody() {
    let half_open = HalfOpen::Count { probes: 3, successes: 3, failures: 1, probe_timeout: Duration::MAX };
    let mut desk = Desk::new(Policy { half_open, ..brittle() });
    desk.calls(1, FAILURE);
    desk.at(1_000);
    let probes: Vec<_> = (0..1_000).filter_map(|_| desk.admit()).collect();
    assert_eq!(probes.len(), 3);
    probes.into_iter().for_each(|probe| desk.settle(probe, SUCCESS));
    assert_eq!(desk.machine.shows(), Circuit::Closed);
}

#[test]
fn d12_what_a_call_does_while_it_runs_holds_nothing() {
    let cell = Cell::new(Arc::new(brittle()), 0);
    let outer = cell.admit(|| MS(0)).expect("it is closed");
    // A call within a call of the same circuit: a lock held across the outer one would never be given.
    let inner = cell.admit(|| MS(0)).expect("it is closed");
    cell.settle(inner, FAILURE, false, || MS(0));
    assert_eq!(cell.shows(), Circuit::Open);
    cell.settle(outer, FAILURE, false, || MS(0));
    assert_eq!(cell.totals().stale, 1);
}

#[test]
fn the_threshold_says_on_which_side_its_own_value_is() {
    let with = |failure_rate| {
        let mut desk = Desk::new(Policy { failure_rate, ..calls(20) });
        desk.calls(10, SUCCESS);
        desk.calls(10, FAILURE)
    };
    assert_eq!(with(Threshold::Above(0.5)), 10, "ten of twenty are not above half");
    let mut desk = Desk::new(Policy { failure_rate: Threshold::AtLeast(0.5), ..calls(20) });
    desk.calls(10, SUCCESS);
    desk.calls(10, FAILURE);
    assert_eq!(desk.machine.shows(), Circuit::Open);
}

#[test]
fn a_window_of_fewer_calls_than_are_needed_needs_only_its_own_size() {
    let mut desk = Desk::new(Policy {
        window: Window::Calls(10),
        calls: Threshold::AtLeast(100.0),
        ..Policy::default()
    });
    assert_eq!(desk.calls(1_000, FAILURE), 10);
}

#[test]
fn a_success_can_open_a_circuit_when_it_is_slow_and_when_it_completes_the_number() {
    let slow_rate = Some(Threshold::AtLeast(1.0));
    let slow_call = Some(Duration::from_secs(1));
    let mut desk = Desk::new(Policy { slow_rate, slow_call, ..Policy::default() });
    let pass = desk.admit().expect("it is closed");
    desk.machine.settle(pass, SUCCESS, true, MS(0));
    assert_eq!(desk.changes(), [(Circuit::Closed, Circuit::Open, Cause::SlowRate)]);

    let mut desk = Desk::new(calls(100));
    desk.calls(9, FAILURE);
    assert_eq!(desk.machine.shows(), Circuit::Closed, "nine calls are no rate");
    desk.calls(1, SUCCESS);
    assert_eq!(desk.machine.shows(), Circuit::Open);
}

#[test]
fn an_ignored_call_leaves_a_half_open_circuit_undecided() {
    let mut desk = Desk::new(brittle());
    desk.calls(1, FAILURE);
    desk.at(1_000);
    assert_eq!(desk.calls(50, Outcome::Ignored), 50, "each gave its place back");
    assert_eq!(desk.machine.shows(), Circuit::HalfOpen);
}

#[test]
fn an_open_circuit_shows_why_it_opened() {
    let mut desk = Desk::new(calls(100));
    desk.calls(4, SUCCESS);
    desk.calls(6, FAILURE);
    assert_eq!(desk.machine.shows(), Circuit::Open);
    let counts = desk.machine.counts(desk.now);
    assert_eq!((counts.calls, counts.failures, counts.rate(counts.failures)), (10, 6, Some(0.6)));
}

#[test]
fn a_clock_that_goes_back_is_taken_as_standing_still() {
    let mut desk = Desk::new(Policy::default());
    desk.at(60_000).calls(3, FAILURE);
    desk.at(10).calls(2, FAILURE);
    assert_eq!(desk.machine.counts(MS(10)).failures, 5);
    assert_eq!(desk.at(60_000).calls(9, FAILURE), 1);
    assert_eq!(desk.machine.admit(MS(0)).expect_err("it is open").reason, Reason::Open);
}

#[test]
fn each_opening_lasts_longer_up_to_the_most_until_it_is_closed() {
    let mut desk = Desk::new(Policy { open_growth: 2.0, open_max: Duration::from_secs(5), ..brittle() });
    let mut now = 0;
    let mut opened_for = |desk: &mut Desk, outcome| {
        desk.at(now).calls(1, outcome);
        let wait = desk.machine.retry_after(MS(now));
        now += wait.map_or(0, |wait| wait.as_millis() as u64);
        wait.map(|wait| wait.as_secs())
    };
    let lasted: Vec<_> = (0..5).map(|_| opened_for(&mut desk, FAILURE)).collect();
    assert_eq!(lasted, [Some(1), Some(2), Some(4), Some(5), Some(5)]);
    assert_eq!(opened_for(&mut desk, SUCCESS), None);
    assert_eq!(opened_for(&mut desk, FAILURE), Some(1), "closed, it starts anew");
}

#[test]
fn a_shed_a_pin_and_the_rule_are_three_things() {
    let mut desk = Desk::new(brittle());
    desk.calls(1, FAILURE);
    desk.machine.shed(true, MS(0));
    desk.order(Order::ForceClosed);
    desk.machine.shed(false, MS(0));
    assert_eq!(desk.machine.shows(), Circuit::ForcedClosed);
    desk.machine.shed(true, MS(0));
    desk.order(Order::Auto);
    assert_eq!(desk.machine.shows(), Circuit::Shed);
    desk.machine.shed(false, MS(0));
    assert_eq!(desk.machine.shows(), Circuit::Open, "the rule's own state was kept");
}

#[test]
fn jitter_spreads_both_ways_and_stays_within_its_share() {
    let policy = Arc::new(Policy { open_jitter: 0.2, ..brittle() });
    let lasted: Vec<_> = (0..200)
        .map(|seed| {
            let mut machine = Machine::new(Arc::clone(&policy), seed);
            let pass = machine.admit(MS(0)).expect("it is closed");
            machine.settle(pass, FAILURE, false, MS(0));
            machine.retry_after(MS(0)).expect("it is open").as_secs_f64()
        })
        .collect();
    assert!(lasted.iter().all(|&seconds| (0.8..=1.2).contains(&seconds)));
    assert!(lasted.iter().any(|&seconds| seconds < 0.85) && lasted.iter().any(|&seconds| seconds > 1.15));
}

#[test]
fn a_look_at_the_window_when_a_bucket_turns_does_not_hide_what_the_next_success_decides() {
    let window = Window::Time { last: Duration::from_millis(20), buckets: 2 };
    let cell = Cell::new(Arc::new(Policy { window, ..Policy::default() }), 0);
    let calls = |count, ms, outcome| {
        for _ in 0..count {
            let pass = cell.admit(|| MS(ms)).expect("it is closed");
            cell.settle(pass, outcome, false, || MS(ms));
        }
    };
    calls(10, 0, SUCCESS);
    calls(6, 10, FAILURE);
    assert_eq!(cell.shows(), Circuit::Closed, "six of sixteen");
    assert_eq!(cell.ask(|machine| machine.counts(MS(20)).calls).0, 6, "the successes have left");
    calls(1, 21, SUCCESS);
    assert_eq!(cell.shows(), Circuit::Open, "six of seven");
}
