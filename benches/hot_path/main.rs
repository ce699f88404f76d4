//! What a guarded call costs, where it could depend on something: its window, how many circuits there are, what it
//! measures, whether it fails. And whether it allocates.

use std::{alloc::System, error::Error, sync::Arc, time::Duration};

use selfheal::{
    Heal, SqliteHealPool,
    breaker::{Breaker, Policy, Window},
    config::{Config, Source},
};
use selfheal_benches::{
    Busy, Machine, Table, floors,
    ours::{breaker, breakers, call, last, lone, many, permit, permits, policy},
    race::{Contender, Mix, race},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CIRCUITS: usize = 100_000;
const ENDPOINTS: usize = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = after("--rounds").and_then(|rounds| rounds.parse().ok()).unwrap_or(11);
    let only = after("--only");
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only.split(',').any(|one| one == part));
    println!("{}; {rounds} rounds, every contender in each, in random order", Machine::here());
    println!("cargo bench --manifest-path benches/Cargo.toml --bench hot_path -- --rounds {rounds}\n");
    let busy = Busy::start();
    if wanted("closed") {
        println!("{}", race("closed, all succeed", &closed(), Mix::Same, rounds, BASE)?);
    }
    if wanted("mixed") {
        println!("{}", race("closed, one in eight fails", &mixed(), Mix::OneInEight, rounds, BASE)?);
    }
    if wanted("slow") {
        println!("{}", race("closed, slow_call set", &slow(), Mix::Same, rounds, READINGS)?);
    }
    if wanted("open") {
        println!("{}", race("open", &open(), Mix::Same, rounds, REFUSAL)?);
    }
    if wanted("allocations") {
        println!("{}", memory());
    }
    if wanted("bytes") {
        println!("{}", bytes()?);
    }
    let share = busy.share();
    println!("others used {:.0} % of the machine meanwhile", 100.0 * (share.machine - share.own).max(0.0));
    Ok(())
}

const BASE: &str = "floor: bucketed window";
const READINGS: &str = "floor: two readings, Clock";
const REFUSAL: &str = "floor: load + coarse clock + sharded add";

fn closed() -> Vec<Contender> {
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

/// How long a call takes is measured only where somebody wants to know.
fn slow() -> Vec<Contender> {
    let slow = || Policy { slow_call: Some(Duration::from_secs(2)), ..policy(last(10)) };
    vec![
        floors::nothing(),
        floors::two_instants(),
        floors::two_readings(),
        permit("admit + settle, slow_call", breaker(slow(), false)),
        call("call, slow_call", breaker(slow(), false)),
        call("call, without", breaker(policy(last(10)), false)),
    ]
}

fn open() -> Vec<Contender> {
    vec![
        floors::nothing(),
        floors::refusal(),
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

/// Allocations on the path.
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
    table
}

/// What circuits and their actors take, in bytes that are allocated and have not been given back.
fn bytes() -> Result<Table, Box<dyn Error>> {
    let mut table = Table::new(["memory", "bytes each"]);
    let policy = Arc::new(policy(last(10)));
    let region = Region::new(ALLOCATOR);
    let circuits: Vec<_> = (0..CIRCUITS).map(|_| lone(Arc::clone(&policy))).collect();
    let each = held(&region) / CIRCUITS as f64 - size_of::<Breaker>() as f64;
    table.row(["a circuit, of 100,000".to_owned(), format!("{each:.0}")]);
    drop(circuits);
    let region = Region::new(ALLOCATOR);
    let circuits = all(CIRCUITS);
    let each = held(&region) / CIRCUITS as f64 - size_of::<Breaker>() as f64;
    table.row(["the same with its name, in a registry".to_owned(), format!("{each:.0}")]);
    drop(circuits);
    let each = (started(ENDPOINTS + 1)? - started(1)?) / ENDPOINTS as f64;
    table.row(["a configured endpoint with its actor, of 1,000".to_owned(), format!("{each:.0}")]);
    Ok(table)
}

fn held(region: &Region<'_, System>) -> f64 {
    let change = region.change();
    change.bytes_allocated as f64 - change.bytes_deallocated as f64
}

/// What a runtime with so many endpoints has taken once its actors are up.
fn started(endpoints: usize) -> Result<f64, Box<dyn Error>> {
    let text: String = (0..endpoints).map(|n| format!("[[endpoints]]\npath = \"/api/{n}\"\n")).collect();
    let config = Config::load(&Source::text("hot_path.toml", format!("[pools.main]\n{text}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let pool = SqliteHealPool::builder().max(1).connect("sqlite::memory:").await?;
        let region = Region::new(ALLOCATOR);
        let heal = Heal::builder().config(config).pool("main", &pool).start().await?;
        let taken = held(&region);
        heal.shutdown().await;
        Ok(taken)
    })
}

/// What stands after `flag`: `--rounds` (11 without), and `--only` for some parts of closed, mixed, slow, open,
/// allocations, bytes.
fn after(flag: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag);
    arguments.nth(1)
}
