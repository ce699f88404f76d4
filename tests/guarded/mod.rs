//! What the tests on both databases share.

pub(crate) mod cancel;
pub(crate) mod drill;

use std::time::Duration;

use selfheal::db::{Backend, HealPool};
use selfheal_actors::{
    clock::Clock,
    gate::{Gate, Policy, Ticket},
    level::{Class, Mode, ModeCell},
    signal::Signals,
};

/// Puts a gate that acts in front of `pool`, which hands out at most `limit`.
pub(crate) fn guard<DB: Backend>(pool: &HealPool<DB>, limit: u32, signals: Signals) -> Gate {
    guard_in(Mode::Act, pool, limit, signals)
}

/// The same with a gate in another mode.
pub(crate) fn guard_in<DB: Backend>(mode: Mode, pool: &HealPool<DB>, limit: u32, signals: Signals) -> Gate {
    let mode = ModeCell::new(mode);
    let policy = Policy { nested_reserve: pool.nested_reserve(), ..Policy::default() };
    let gate = Gate::new("main".into(), policy, limit, Clock::system(), mode.clone(), signals.clone());
    pool.attach(gate.clone(), mode, signals);
    gate
}

/// Work that may wait for a minute, so that it is never refused.
pub(crate) fn patient() -> Ticket {
    Ticket::new(Class::Normal).with_deadline(Clock::system().now() + Duration::from_secs(60))
}

/// Connections that the gate has handed out, and acquisitions that wait.
pub(crate) fn load(gate: &Gate) -> (u32, u32) {
    let stats = gate.stats();
    (stats.in_use, stats.waiting_in_all())
}

/// Gives tasks time until `condition` holds: for the moment after the last thing that could be awaited.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let settled = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap_or_else(|_| panic!("never {what}"));
}

/// The seed of a random test: said, so that a failure can be repeated with `SEED=…`.
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a test is repeated by its seed")]
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    seed
}

/// How many calls are dropped half way: `normally`, or as many as the long form of the checks asks for.
#[expect(clippy::disallowed_methods, reason = "the long form of the checks asks for more")]
pub(crate) fn cancellations(normally: u32) -> u32 {
    std::env::var("SELFHEAL_CANCELLATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(normally)
}
