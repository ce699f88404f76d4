//! Circuits of ours, to be measured.

use std::{future::ready, hint::black_box, sync::Arc, time::Duration};

use selfheal::{
    breaker::{Around, Breaker, Breakers, Command, Order, Policy, Window},
    clock::Clock,
    level::{Mode, ModeCell},
    signal::Signals,
};

use crate::race::{Contender, Lap, Mix};

/// A registry on the system's clock.
#[must_use]
pub fn breakers(most: usize, policy: Policy) -> Breakers {
    let around = Around { clock: Clock::system(), mode: ModeCell::new(Mode::Act), signals: Signals::none() };
    Breakers::at_most(most, Arc::new(policy), around, 0)
}

/// The default policy over another window.
#[must_use]
pub fn policy(window: Window) -> Policy {
    Policy { window, ..Policy::default() }
}

/// A window of time in ten buckets.
#[must_use]
pub const fn last(seconds: u64) -> Window {
    Window::Time { last: Duration::from_secs(seconds), buckets: 10 }
}

/// A circuit with `policy`; open, if so.
#[must_use]
pub fn breaker(policy: Policy, open: bool) -> Breaker {
    let breaker = breakers(1, policy).endpoint("bench");
    if open {
        // Nothing that would forbid it has happened to it.
        let command = Command::new(Order::Trip, "bench", "to be measured");
        let _ = breaker.operate(&command.lasting(Duration::from_secs(100_000)));
    }
    breaker
}

/// Calls a future under the circuit.
#[must_use]
pub fn call(name: &str, breaker: Breaker) -> Contender {
    Contender::new(name, move |calls, mix| {
        let breaker = breaker.clone();
        Box::pin(async move {
            for n in 0..calls {
                let result: Result<u64, ()> = if mix.fails(n) { Err(()) } else { Ok(n) };
                let _ = black_box(breaker.call(ready(black_box(result))).await);
            }
        })
    })
}

/// Takes a permit and settles it.
#[must_use]
pub fn permit(name: &str, breaker: Breaker) -> Contender {
    Contender::new(name, move |calls, mix| {
        let breaker = breaker.clone();
        Box::pin(async move { permits(&breaker, calls, mix) })
    })
}

/// So many permits, one after the other.
pub fn permits(breaker: &Breaker, calls: u64, mix: Mix) {
    for n in 0..calls {
        match breaker.admit() {
            Ok(permit) if mix.fails(n) => permit.failure(),
            Ok(permit) => permit.success(),
            Err(rejection) => {
                black_box(rejection);
            }
        }
    }
}

/// Calls each of many circuits in turn.
#[must_use]
pub fn many(name: &str, breakers: Vec<Breaker>) -> Contender {
    let breakers = Arc::new(breakers);
    Contender::new(name, move |calls, mix| -> Lap {
        let breakers = Arc::clone(&breakers);
        Box::pin(async move {
            let mut at = 0;
            for n in 0..calls {
                // A stride that visits all and does not please the prefetcher.
                at = (at + 7_919) % breakers.len();
                let result: Result<u64, ()> = if mix.fails(n) { Err(()) } else { Ok(n) };
                let _ = black_box(breakers[at].call(ready(black_box(result))).await);
            }
        })
    })
}

/// A circuit that is in no registry.
#[must_use]
pub fn lone(policy: Arc<Policy>) -> Breaker {
    let around = Around { clock: Clock::system(), mode: ModeCell::new(Mode::Act), signals: Signals::none() };
    Breaker::new("bench", policy, around, 0)
}
