//! The cell, the machine and the reference are asked the same, and must say the same.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        AfterMaxWait, Command, HalfOpen, Machine, Order, Outcome, Pass, Policy, Totals, Window, cell::Cell,
        shard,
    },
    MS, OnPanic,
    reference::Reference,
    seeds,
};
use crate::{circuit::Circuit, clock::Tick, threshold::Threshold};

const STEPS: usize = 150;

fn threshold(random: &mut fastrand::Rng, limits: &[f64]) -> Threshold {
    let limit = limits[random.usize(0..limits.len())];
    if random.bool() { Threshold::Above(limit) } else { Threshold::AtLeast(limit) }
}

fn policy(random: &mut fastrand::Rng) -> Policy {
    let rates = [0.0, 0.2, 0.5, 0.5, 0.75, 1.0];
    let window = match random.u32(0..4) {
        0 => Window::Calls(random.u32(1..12)),
        1 => Window::Calls(random.u32(1..200)),
        _ => {
            let buckets = random.u32(1..12);
            Window::Time { last: Duration::from_millis(u64::from(buckets) * random.u64(1..300)), buckets }
        }
    };
    let half_open = if random.bool() {
        HalfOpen::Count {
            probes: random.u32(1..4),
            successes: random.u32(1..4),
            failures: random.u32(1..4),
            probe_timeout: Duration::from_millis(random.u64(1..400)),
        }
    } else {
        HalfOpen::Rate {
            probes: random.u32(1..6),
            max_wait: Duration::from_millis(random.u64(1..400)),
            after_max_wait: if random.bool() { AfterMaxWait::Open } else { AfterMaxWait::Closed },
        }
    };
    Policy {
        window,
        failure_rate: threshold(random, &rates),
        failures: threshold(random, &[0.0, 1.0, 2.0, 5.0, 5.0]),
        calls: threshold(random, &[1.0, 1.0, 2.0, 5.0, 10.0, 30.0]),
        consecutive_failures: random.bool().then(|| threshold(random, &[1.0, 2.0, 3.0, 5.0])),
        slow_call: Some(Duration::from_millis(10)),
        slow_rate: random.bool().then(|| threshold(random, &rates)),
        open_for: Duration::from_millis(random.u64(1..500)),
        open_growth: [1.0, 1.5, 2.0][random.usize(0..3)],
        open_max: Duration::from_millis(random.u64(1..2_000)),
        open_jitter: 0.0,
        half_open_automatically: random.bool(),
        half_open,
    }
}

/// Three circuits of one policy.
struct Trio {
    cell: Cell,
    machine: Machine,
    reference: Reference,
    now: Tick,
    /// Passes of calls that have not ended.
    out: Vec<Pass>,
}

impl Trio {
    fn new(policy: Policy) -> Self {
        let shared = Arc::new(policy.clone());
        Self {
            cell: Cell::new(Arc::clone(&shared), 1),
            machine: Machine::new(shared, 1),
            reference: Reference::new(policy),
            now: Tick::ZERO,
            out: Vec::new(),
        }
    }

    fn pass(&mut self, step: Duration) {
        self.now = self.now + step;
        self.reference.pass(self.now);
    }

    fn admit(&mut self) {
        let now = self.now;
        let asked = (self.cell.admit(|| now), self.machine.admit(now), self.reference.admit());
        assert_eq!(asked.0, asked.2, "the cell");
        assert_eq!(asked.1, asked.2, "the machine");
        self.out.extend(asked.2);
    }

    fn settle(&mut self, random: &mut fastrand::Rng, failing: u32) {
        if self.out.is_empty() {
            return;
        }
        let pass = self.out.swap_remove(random.usize(0..self.out.len()));
        let (now, slow) = (self.now, random.u32(0..8) == 0);
        let outcome = match random.u32(0..100) {
            0..4 => Outcome::Ignored,
            4..8 => {
                self.cell.cancel(pass);
                self.machine.cancel(pass);
                self.reference.cancel(pass);
                return;
            }
            other if other % 10 < failing => Outcome::Failure,
            _ => Outcome::Success,
        };
        self.cell.settle(pass, outcome, slow, || now);
        self.machine.settle(pass, outcome, slow, now);
        self.reference.settle(pass, outcome, slow);
    }

    fn operate(&mut self, random: &mut fastrand::Rng) {
        let order = Order::ALL[random.usize(0..Order::ALL.len())];
        let lasts = random.bool().then(|| Duration::from_millis(random.u64(1..300)));
        let command = Command { lasts, ..Command::new(order, "test", "random") };
        let now = self.now;
        let expected = self.reference.operate(order, lasts);
        assert_eq!(self.cell.ask(|machine| machine.operate(&command, now)).0, expected, "{order}");
        assert_eq!(self.machine.operate(&command, now), expected, "{order}");
        // What it released may be due already.
        self.pass(Duration::ZERO);
    }

    fn shed(&mut self, on: bool) {
        let now = self.now;
        self.reference.shed(on);
        self.machine.shed(on, now);
        self.cell.ask(|machine| machine.shed(on, now));
    }

    fn compare(&mut self) {
        let now = self.now;
        self.machine.tick(now);
        let totals = self.machine.totals();
        compare(&mut self.machine, totals, &self.reference, now);
        let totals = self.cell.totals();
        self.cell.ask(|machine| {
            machine.tick(now);
            compare(machine, totals, &self.reference, now);
        });
    }
}

fn compare(machine: &mut Machine, totals: Totals, reference: &Reference, now: Tick) {
    assert_eq!(machine.shows(), reference.shows());
    assert_eq!(machine.counts(now), reference.counts());
    assert_eq!(machine.consecutive_failures(), reference.consecutive_failures());
    assert_eq!(machine.retry_after(now), reference.retry_after());
    assert_eq!(totals, reference.totals);
}

/// What was told is a chain of changes, numbered without a gap, that ends where the circuit is.
fn follow(machine: &mut Machine, shown: &mut Circuit, number: &mut u64) {
    while let Some(change) = machine.take_untold() {
        *number += 1;
        assert_eq!((change.number, change.from), (*number, *shown));
        assert_ne!(change.from, change.to);
        if !change.would {
            *shown = change.to;
        }
    }
    assert_eq!(*shown, machine.shows());
}

fn life(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut trio = Trio::new(policy(&mut random));
    let (mut failing, operated) = (random.u32(0..10), random.bool());
    let (mut shown, mut number) = (Circuit::Closed, 0);
    for _ in 0..STEPS {
        shard::pretend(random.usize(0..8));
        match random.u32(0..40) {
            0 if operated => trio.operate(&mut random),
            1 if operated => trio.shed(random.bool()),
            2 => failing = random.u32(0..10),
            3 => trio.pass(Duration::from_millis(random.u64(0..1_000))),
            4..6 => trio.compare(),
            6..16 => trio.pass(Duration::from_millis(random.u64(0..20))),
            16..28 => trio.admit(),
            _ => trio.settle(&mut random, failing),
        }
        follow(&mut trio.machine, &mut shown, &mut number);
    }
    trio.compare();
}

#[test]
fn the_cell_and_the_machine_are_the_plain_reference_whatever_happens() {
    for seed in seeds(20_000) {
        let _told = OnPanic(seed);
        life(seed);
    }
}

#[test]
fn time_that_jumps_leaves_an_empty_window() {
    let mut trio = Trio::new(Policy::default());
    for _ in 0..3 {
        trio.admit();
        trio.settle(&mut fastrand::Rng::with_seed(3), 10);
    }
    trio.pass(Duration::from_secs(86_400 * 365));
    trio.compare();
    assert_eq!(trio.machine.counts(trio.now).calls, 0);
    assert!(trio.now > MS(0));
}
