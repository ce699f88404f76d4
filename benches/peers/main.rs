//! A guarded call beside what others offer, all in one run.
//!
//! Every contender calls the same future, which is ready at once, so that what is measured is the guard. The rate
//! that fails (one in eight) opens nobody's circuit. For the open circuit each is opened as its interface allows,
//! for longer than the run.

use std::{
    error::Error,
    fmt,
    future::{Ready, ready},
    hint::black_box,
    sync::Arc,
    time::Duration,
};

use circuitbreaker_rs::{CircuitBreaker, DefaultPolicy};
use failsafe::{Config, FailurePolicy as _, backoff, failure_policy, futures::CircuitBreaker as _};
use governor::{Quota, RateLimiter};
use recloser::{AsyncRecloser, Recloser};
use selfheal::{breaker::Window, threshold::Threshold};
use selfheal_benches::{
    Busy, Machine, floors,
    ours::{breaker, call, last, policy},
    race::{Contender, Mix, race},
};
use tower::{Service, ServiceExt, service_fn};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

const LONG: Duration = Duration::from_secs(100_000);
const BASE: &str = "floor: bucketed window";

#[derive(Debug)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl Error for Failed {}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = rounds();
    println!("{}; {rounds} rounds, every contender in each, in random order", Machine::here());
    println!("cargo bench --manifest-path benches/Cargo.toml --bench peers -- --rounds {rounds}\n");
    let busy = Busy::start();
    println!("{}", race("closed, all succeed", &contenders(false)?, Mix::Same, rounds, BASE)?);
    println!("{}", race("closed, one in eight fails", &contenders(false)?, Mix::OneInEight, rounds, BASE)?);
    println!("{}", race("open", &contenders(true)?, Mix::Same, rounds, BASE)?);
    let share = busy.share();
    println!("others used {:.0} % of the machine meanwhile", 100.0 * (share.machine - share.own).max(0.0));
    Ok(())
}

fn contenders(open: bool) -> Result<Vec<Contender>, Box<dyn Error>> {
    let mut streak = policy(last(10));
    streak.consecutive_failures = Some(Threshold::AtLeast(5.0));
    Ok(vec![
        floors::nothing(),
        floors::counter(),
        floors::buckets(),
        call("selfheal, last 10 s", breaker(policy(last(10)), open)),
        call("selfheal, last 10 s or 5 in a row", breaker(streak, open)),
        call("selfheal, last 100 calls", breaker(policy(Window::Calls(100)), open)),
        failsafe_streak(open),
        failsafe_rate(open),
        recloser(open),
        circuitbreaker_rs(open),
        tower_resilience(open)?,
        governor(open),
    ])
}

/// The call that is guarded.
fn work(n: u64, mix: Mix) -> Ready<Result<u64, Failed>> {
    ready(black_box(if mix.fails(n) { Err(Failed) } else { Ok(n) }))
}

fn failing() -> Ready<Result<u64, Failed>> {
    ready(Err(Failed))
}

fn failsafe_streak(open: bool) -> Contender {
    let circuit = Config::new()
        .failure_policy(failure_policy::consecutive_failures(5, backoff::constant(LONG)))
        .build();
    if open {
        (0..6).for_each(|_| drop(futures_executor::block_on(circuit.call(failing()))));
    }
    Contender::new("failsafe 1.3, 5 in a row", move |calls, mix| {
        let circuit = circuit.clone();
        Box::pin(async move {
            for n in 0..calls {
                let _ = black_box(circuit.call(work(n, mix)).await);
            }
        })
    })
}

fn failsafe_rate(open: bool) -> Contender {
    let rate = || {
        let window = Duration::from_secs(10);
        failure_policy::success_rate_over_time_window(0.5, 1, window, backoff::constant(LONG))
    };
    let circuit = Config::new().failure_policy(rate().or_else(failure_policy::consecutive_failures(
        if open { 5 } else { u32::MAX },
        backoff::constant(LONG),
    )));
    let circuit = circuit.build();
    if open {
        (0..6).for_each(|_| drop(futures_executor::block_on(circuit.call(failing()))));
    }
    Contender::new("failsafe 1.3, rate over 10 s", move |calls, mix| {
        let circuit = circuit.clone();
        Box::pin(async move {
            for n in 0..calls {
                let _ = black_box(circuit.call(work(n, mix)).await);
            }
        })
    })
}

fn recloser(open: bool) -> Contender {
    let len = if open { 1 } else { 100 };
    let circuit =
        Recloser::custom().error_rate(0.5).closed_len(len).half_open_len(10).open_wait(LONG).build();
    let circuit = Arc::new(AsyncRecloser::from(circuit));
    if open {
        (0..6).for_each(|_| drop(futures_executor::block_on(circuit.call(failing()))));
    }
    Contender::new("recloser 1.4, last 100 calls", move |calls, mix| {
        let circuit = Arc::clone(&circuit);
        Box::pin(async move {
            for n in 0..calls {
                let _ = black_box(circuit.call(work(n, mix)).await);
            }
        })
    })
}

/// Its rate is over a lifetime: it has no window.
fn circuitbreaker_rs(open: bool) -> Contender {
    let circuit =
        CircuitBreaker::<DefaultPolicy, Failed>::builder().failure_threshold(0.5).cooldown(LONG).build();
    if open {
        circuit.force_open();
    }
    Contender::new("circuitbreaker-rs 0.1, synchronous", move |calls, mix| {
        let circuit = circuit.clone();
        Box::pin(async move {
            for n in 0..calls {
                let _ = black_box(circuit.call(|| if mix.fails(n) { Err(Failed) } else { Ok(black_box(n)) }));
            }
        })
    })
}

/// Its window does not slide: it counts until the state changes.
fn tower_resilience(open: bool) -> Result<Contender, Box<dyn Error>> {
    let (layer, handle) = CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(100)
        .wait_duration_in_open(LONG)
        .build_with_handle()?;
    let service = layer.layer_fn(service_fn(|(n, mix): (u64, Mix)| work(n, mix)));
    if open {
        futures_executor::block_on(handle.force_open());
    }
    Ok(Contender::new("tower-resilience 0.14, last 100 calls", move |calls, mix| {
        let mut service = service.clone();
        Box::pin(async move {
            for n in 0..calls {
                if let Ok(ready) = service.ready().await {
                    let _ = black_box(ready.call((n, mix)).await.is_ok());
                }
            }
        })
    }))
}

/// No circuit: a limiter, the fastest there is. "Open": it refuses.
fn governor(refusing: bool) -> Contender {
    let quota = if refusing {
        Quota::with_period(LONG).unwrap_or_else(|| Quota::per_hour(std::num::NonZeroU32::MIN))
    } else {
        Quota::per_second(std::num::NonZeroU32::MAX)
    };
    let limiter = Arc::new(RateLimiter::direct(quota));
    Contender::new("governor 0.10, a rate limiter", move |calls, mix| {
        let limiter = Arc::clone(&limiter);
        Box::pin(async move {
            for n in 0..calls {
                if limiter.check().is_ok() {
                    let _ = black_box(work(n, mix).await);
                }
            }
        })
    })
}

/// `--rounds N`; 11 without.
fn rounds() -> u32 {
    let arguments: Vec<_> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == "--rounds");
    at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(11)
}
