//! What is counted while the gate only watches is what it would have done.

use tokio::task::JoinSet;

use super::*;
use crate::gate::Tally;

/// One request: when it comes, what it is, and how long each of its queries takes.
#[derive(Clone, Copy)]
struct Request {
    at: Duration,
    class: Class,
    user: u32,
    deadline: Duration,
    queries: u32,
    hold: Duration,
}

/// A load of twice what 20 connections can do, 10 s long, with a dashboard of 40 queries now and then.
fn overload(seed: u64) -> Vec<Request> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut at = Duration::ZERO;
    let mut requests = Vec::new();
    while at < Duration::from_secs(10) {
        at += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / 800.0);
        let dashboard = random.u32(0..200) == 0;
        let (class, deadline) = match random.u32(0..5) {
            _ if dashboard => (Class::Normal, 3_000),
            0 => (Class::Critical, 250),
            1..3 => (Class::Normal, 1_000),
            _ => (Class::Sheddable, 1_000),
        };
        let deadline = Duration::from_millis(deadline);
        let hold = Duration::from_secs_f64(0.050 * -(1.0 - random.f64()).ln());
        let queries = if dashboard { 40 } else { 1 };
        requests.push(Request { at, class, user: random.u32(0..50), deadline, queries, hold });
    }
    requests
}

async fn serve(gate: Gate, clock: Clock, request: Request) {
    tokio::time::sleep(request.at).await;
    let mut ticket = Ticket::new(request.class)
        .with_user(format!("user {}", request.user))
        .with_deadline(clock.now() + request.deadline);
    if request.queries > 1 {
        ticket = ticket.with_queries(request.queries);
    }
    let Ok(_entered) = gate.enter(&ticket) else { return };
    let mut queries = JoinSet::new();
    for _ in 0..request.queries {
        let (gate, ticket) = (gate.clone(), ticket.clone());
        queries.spawn(async move {
            let Ok(permit) = gate.acquire(Some(&ticket), Hold::here()).await else { return };
            permit.connected();
            tokio::time::sleep(request.hold).await;
        });
    }
    queries.join_all().await;
}

/// The whole load, with Warning from the third second to the seventh, as the gate counted it.
async fn counted(seed: u64, mode: Mode) -> Tally {
    let (gate, clock) = (gate(20, &ModeCell::new(mode)).0, Clock::tokio());
    let mut requests = JoinSet::new();
    for request in overload(seed) {
        requests.spawn(serve(gate.clone(), clock.clone(), request));
    }
    for (seconds, on) in [(3, true), (4, false)] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        gate.apply(Change::Shed(on));
        gate.apply(Change::UserLimit(on.then_some(5)));
    }
    requests.join_all().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let stats = gate.stats();
    assert_eq!((stats.in_use, stats.real_in_use, stats.in_flight, stats.users), (0, 0, 0, 0));
    assert_eq!(gate.invariants(), Vec::<&str>::new());
    match mode {
        Mode::Act => stats.acted,
        Mode::Observe => {
            assert_eq!(stats.acted.refused.total(), 0, "nothing was refused in truth");
            stats.would
        }
        Mode::Off => panic!("nothing is counted"),
    }
}

fn near(what: &str, acted: u64, would: u64) {
    // A tenth, and what is rare may differ by ten.
    let off = acted.abs_diff(would);
    assert!(off <= 10.max(acted / 10), "{what}: {acted} acted, {would} observed");
}

#[tokio::test(start_paused = true)]
async fn observing_counts_what_acting_does() {
    for seed in 0..3 {
        let (acted, would) = (counted(seed, Mode::Act).await, counted(seed, Mode::Observe).await);
        assert!(acted.refused.total() > 2_000, "SEED={seed}: twice the capacity was sent: {acted:?}");
        for &class in Class::ALL {
            let of = |tally: &Tally| tally.entered[class.index()];
            near(&format!("SEED={seed} {class} entered"), of(&acted), of(&would));
            for reason in Reason::ALL {
                let what = format!("SEED={seed} {class} {reason}");
                near(&what, acted.refused.of(class, reason), would.refused.of(class, reason));
            }
            let waited = |tally: &Tally| tally.wait[class.index()].count();
            near(&format!("SEED={seed} {class} granted"), waited(&acted), waited(&would));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_brings_the_shadow_no_load_and_keeps_its_own_real_connection() {
    let (gate, _) = gate(1, &ModeCell::new(Mode::Observe));
    gate.apply(Change::Shed(true));
    let report = Ticket::new(Class::Sheddable);
    let entered = gate.enter(&report).expect("it only watches");
    let permit = gate.acquire(Some(&report), Hold::here()).await.expect("it only watches");
    let stats = gate.stats();
    assert_eq!((stats.in_use, stats.real_in_use, stats.in_flight), (0, 1, 0));
    assert_eq!(stats.would.refused.of(Class::Sheddable, Reason::Shed), 1);
    assert!(!gate.params().shed, "nothing is asked of anybody");
    drop((permit, entered));
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_shadow_is_held_from_its_virtual_grant_for_as_long_as_the_real_work_took() {
    let (gate, _) = gate(1, &ModeCell::new(Mode::Observe));
    let first = gate.acquire(None, Hold::here()).await.expect("it only watches");
    let second = gate.acquire(None, Hold::here()).await.expect("it only watches");
    assert_eq!((gate.stats().in_use, gate.stats().real_in_use, gate.stats().waiting_in_all()), (1, 2, 1));
    tokio::time::advance(Duration::from_millis(40)).await;
    drop(second);
    assert_eq!((gate.stats().real_in_use, gate.stats().waiting_in_all()), (1, 1), "it still waits there");
    tokio::time::advance(Duration::from_millis(20)).await;
    drop(first);
    tokio::time::advance(Duration::from_millis(39)).await;
    assert_eq!((gate.stats().in_use, gate.stats().real_in_use), (1, 0), "granted at 60 ms, for 40 ms");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(gate.stats().in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_the_pool_behind_is_not_taken_for_work() {
    let (gate, _) = gate(1, &ModeCell::new(Mode::Observe));
    let permit = gate.acquire(None, Hold::here()).await.expect("it only watches");
    tokio::time::advance(Duration::from_millis(500)).await;
    permit.connected();
    tokio::time::advance(Duration::from_millis(20)).await;
    drop(permit);
    assert_eq!(gate.stats().would.hold.sum(), Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn counts_survive_a_change_of_mode() {
    let mode = ModeCell::new(Mode::Observe);
    let (gate, _) = gate(1, &mode);
    gate.apply(Change::Shed(true));
    drop(gate.enter(&Ticket::new(Class::Sheddable)));
    mode.set(Mode::Act);
    assert!(gate.enter(&Ticket::new(Class::Sheddable)).is_err(), "what was published is in force");
    mode.set(Mode::Observe);
    drop(gate.enter(&Ticket::new(Class::Sheddable)));
    let stats = gate.stats();
    assert_eq!((stats.acted.refused.total(), stats.would.refused.total()), (1, 2));
}
