//! Callers that go away at any moment, on real threads.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
};

use tokio::task::JoinSet;

use super::*;

const TASKS: u64 = 8;

/// Calls of each task: a hundred thousand in all, or as many as the long form of the checks asks for.
#[expect(clippy::disallowed_methods, reason = "the long form of the checks asks for more")]
fn each() -> u64 {
    let asked = std::env::var("SELFHEAL_CANCELLATIONS").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(100_000_u64) / TASKS
}

/// Polls `future` at most `times` times, giving way between; `None` if that was not enough.
async fn poll_at_most<F: Future + Unpin>(future: &mut F, times: u32) -> Option<F::Output> {
    for _ in 0..times {
        let mut once = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx)));
        if let Poll::Ready(output) = (&mut once).await {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn caller(gate: Gate, clock: Clock, seed: u64, granted: Arc<AtomicU64>, dropped: Arc<AtomicU64>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut kept = Vec::new();
    for i in 0..each() {
        let class = random.choice(Class::ALL.iter().copied()).unwrap_or_default();
        let ticket = Ticket::new(class)
            .with_user(format!("user {}", random.u32(0..6)))
            .with_deadline(clock.now() + Duration::from_micros(random.u64(0..20_000)));
        let entered = if random.bool() { gate.enter(&ticket).ok() } else { None };
        let hold = Hold { nested: random.u32(0..20) == 0, ..Hold::here() };
        let ticket = Some(&ticket).filter(|_| random.u32(0..10) > 0);
        let mut acquire = gate.acquire(ticket, hold);
        match poll_at_most(&mut acquire, random.u32(0..4)).await {
            Some(Ok(permit)) => {
                granted.fetch_add(1, Ordering::Relaxed);
                kept.push((permit, entered));
            }
            Some(Err(_)) => {}
            None => _ = dropped.fetch_add(1, Ordering::Relaxed),
        }
        if random.u32(0..2) == 0 && !kept.is_empty() {
            drop(kept.swap_remove(random.usize(0..kept.len())));
        }
        if i % 1_000 == 0 {
            gate.apply(Change::UserLimit(random.bool().then_some(2)));
            gate.apply(Change::CriticalOnly(random.bool()));
            gate.set_limit(random.u32(1..8));
            gate.tick();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_thousand_callers_that_go_away_at_any_poll_leave_nothing_behind() {
    let clock = Clock::system();
    let mode = ModeCell::new(Mode::Act);
    let gate = Gate::new("main".into(), Policy::default(), 4, clock.clone(), mode, Signals::none());
    let (granted, dropped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut callers = JoinSet::new();
    for seed in 0..TASKS {
        let (gate, clock) = (gate.clone(), clock.clone());
        callers.spawn(caller(gate, clock, seed, Arc::clone(&granted), Arc::clone(&dropped)));
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no caller panics");
    }
    let stats = gate.stats();
    assert_eq!((stats.in_use, stats.waiting_in_all(), stats.parked), (0, 0, 0));
    assert_eq!((stats.in_flight, stats.users, stats.holders), (0, 0, 0));
    assert_eq!((gate.invariants(), stats.acted.violations), (vec![], 0));
    let (granted, dropped) = (granted.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed));
    assert!(granted > 10_000 && dropped > 10_000, "both ends were tried: {granted} {dropped}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_granted_to_somebody_who_is_gone_goes_to_the_next() {
    let gate = acting(1);
    let held = gate.acquire(None, Hold::here()).await.expect("it is free");
    let mut gone = task(gate.acquire(None, Hold::here()));
    let mut next = task(gate.acquire(None, Hold::here()));
    assert!(gone.poll().is_none() && next.poll().is_none());
    drop(held);
    drop(gone);
    let permit = next.poll().expect("it was woken").expect("it is its turn");
    drop(permit);
    assert_eq!((gate.stats().in_use, gate.stats().acted.abandoned), (0, 1));
}

/// Comes straight back into the gate when it is woken.
struct Intruder(Gate);

impl std::task::Wake for Intruder {
    fn wake(self: Arc<Self>) {
        let mut acquire = self.0.acquire(None, Hold::here());
        let _ = Pin::new(&mut acquire).poll(&mut Context::from_waker(Waker::noop()));
    }
}

#[test]
fn a_waker_may_come_straight_back_in_and_no_runtime_is_needed() {
    let (clock, _hand) = Clock::manual();
    let mode = ModeCell::new(Mode::Act);
    let gate = Gate::new("main".into(), Policy::default(), 1, clock, mode, Signals::none());
    let intruder = Waker::from(Arc::new(Intruder(gate.clone())));
    let mut cx = Context::from_waker(&intruder);
    let mut first = gate.acquire(None, Hold::here());
    let Poll::Ready(Ok(permit)) = Pin::new(&mut first).poll(&mut cx) else { panic!("it is free") };
    let mut second = gate.acquire(None, Hold::here());
    assert!(Pin::new(&mut second).poll(&mut cx).is_pending());
    drop(permit);
    assert!(matches!(Pin::new(&mut second).poll(&mut cx), Poll::Ready(Ok(_))));
    assert_eq!(gate.stats().in_use, 0);
}
