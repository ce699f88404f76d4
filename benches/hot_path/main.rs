//! What a guarded call costs, where it could depend on something: its window, how many circuits there are, what it
//! measures, whether it fails. And whether it allocates.

use std::{alloc::System, error::Error, sync::Arc, time::Duration};

use selfheal::breaker::{Breaker, Policy, Window};
use selfheal_benches::{
    Busy, Machine, Table, floors,
    ours::{breaker, breakers, call, last, many, permit, permits, policy},
    race::{Contender, Mix, race},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CIRCUITS: usize = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = rounds();
    println!("{}; {rounds} rounds, every contender in each, in random order", Machine::here());
    println!("cargo bench --manifest-path benches/Cargo.toml --bench hot_path -- --rounds {rounds}\n");
    let busy = Busy::start();
    println!("{}", race("closed, all succeed", &closed(), Mix::Same, rounds, BASE)?);
    println!("{}", race("closed, one in eight fails", &mixed(), Mix::OneInEight, rounds, BASE)?);
    println!("{}", race("open", &open(), Mix::Same, rounds, BASE)?);
    println!("{}", memory());
    let share = busy.share();
    println!("others used {:.0} % of the machine meanwhile", 100.0 * (share.machine - share.own).max(0.0));
    Ok(())
}

const BASE: &str = "floor: bucketed window";

fn closed() -> Vec<Contender> {
    let slow = Policy { slow_call: Some(Duration::from_secs(2)), ..policy(last(10)) };
    vec![
        floors::nothing(),
        floors::counter(),
        floors::buckets(),
        permit("admit + settle, 10 s", breaker(policy(last(10)), false)),
        call("call, 10 s", breaker(policy(last(10)), false)),
        call("call, 10 min", breaker(policy(last(600)), false)),
        call(
            "call, 10 s in 1,000 buckets",
            breaker(policy(Window::Time { last: Duration::from_secs(10), buckets: 1_000 }), false),
        ),
        call("call, 100 calls", breaker(policy(Window::Calls(100)), false)),
        call("call, 10,000 calls", breaker(policy(Window::Calls(10_000)), false)),
        call("call, 10 s, slow_call", breaker(slow, false)),
        call("call, one of 100,000", one_of_many()),
        many("call, 100,000 in turn", all(CIRCUITS)),
        many("call, 16 in turn", all(16)),
    ]
}

fn mixed() -> Vec<Contender> {
    vec![
        floors::nothing(),
        floors::buckets(),
        call("call, 10 s", breaker(policy(last(10)), false)),
        call("call, 10 min", breaker(policy(last(600)), false)),
        call("call, 100 calls", breaker(policy(Window::Calls(100)), false)),
    ]
}

fn open() -> Vec<Contender> {
    vec![
        floors::nothing(),
        floors::buckets(),
        permit("admit", breaker(policy(last(10)), true)),
        call("call", breaker(policy(last(10)), true)),
    ]
}

fn all(count: usize) -> Vec<Breaker> {
    let breakers = breakers(count, policy(last(10)));
    (0..count).map(|n| breakers.endpoint(&format!("/api/{n}"))).collect()
}

/// The others live as long as it does: they are in its registry.
fn one_of_many() -> Breaker {
    let breakers: &'static _ = Box::leak(Box::new(breakers(CIRCUITS, policy(last(10)))));
    for n in 0..CIRCUITS - 1 {
        let _ = breakers.endpoint(&format!("/api/{n}"));
    }
    breakers.endpoint("bench")
}

/// Allocations on the path, and what a circuit takes.
fn memory() -> Table {
    let mut table = Table::new(["allocations", "in 1,000,000 calls"]);
    let paths = [
        ("closed, all succeed", breaker(policy(last(10)), false), Mix::Same),
        ("closed, one in eight fails", breaker(policy(last(10)), false), Mix::OneInEight),
        ("100 calls, one in eight fails", breaker(policy(Window::Calls(100)), false), Mix::OneInEight),
        ("open", breaker(policy(last(10)), true), Mix::Same),
    ];
    for (name, breaker, mix) in paths {
        permits(&breaker, 1_000, mix);
        let region = Region::new(ALLOCATOR);
        permits(&breaker, 1_000_000, mix);
        let allocations = region.change().allocations;
        table.row([name.to_owned(), allocations.to_string()]);
    }
    let policy = Arc::new(policy(last(10)));
    let region = Region::new(ALLOCATOR);
    let circuits: Vec<_> = (0..1_000).map(|_| selfheal_benches::ours::lone(Arc::clone(&policy))).collect();
    let change = region.change();
    let bytes = (change.bytes_allocated - change.bytes_deallocated) / circuits.len() - size_of::<Breaker>();
    table.row(["bytes a circuit, without its name in a registry".to_owned(), bytes.to_string()]);
    table
}

/// `--rounds N`; 11 without.
fn rounds() -> u32 {
    let arguments: Vec<_> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == "--rounds");
    at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(11)
}
