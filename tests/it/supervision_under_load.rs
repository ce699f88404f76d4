//! The whole runtime under load while its actors are ended at random: nobody who asks for a connection notices.
//!
//! Every decision of the gate is written down and, afterwards, decided again by the pure machine alone.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use selfheal::{
    Heal, SqliteHealPool,
    clock::Clock,
    config::{Config, Source},
    fault::Fault,
    gate::{Gate, Hold, Ticket},
    level::Class,
    signal::Exit,
    supervisor::{ChildState, Children},
};

use crate::support::random;

/// More restarts are allowed than there are, and none of them waits.
const CONFIG: &str = r#"
[pools.main]
[supervision]
max_restarts = 10000
within = "1h"
backoff = { initial = "0s", factor = 1.0, max = "0s" }
"#;

/// Connections of the gate: few, so that there is always somebody waiting.
const LIMIT: u32 = 8;
const CALLERS: usize = 24;
const ENDS: u32 = 500;

/// What callers saw.
#[derive(Default)]
struct Seen {
    served: AtomicU64,
    refused: AtomicU64,
    critical_refused: AtomicU64,
    over: AtomicBool,
}

/// One caller: asks, holds for about a millisecond, and asks again, until it is over.
async fn call(gate: Gate, clock: Clock, seen: Arc<Seen>, mut random: Rng) {
    while !seen.over.load(Ordering::Acquire) {
        let class = Class::ALL[random.usize(..Class::ALL.len())];
        let ticket = Ticket::new(class)
            .with_user(format!("user {}", random.u8(..6)))
            .with_deadline(clock.now() + Duration::from_secs(5));
        let Ok(_entered) = gate.enter(&ticket) else {
            seen.refused.fetch_add(1, Ordering::Relaxed);
            seen.critical_refused.fetch_add(u64::from(class == Class::Critical), Ordering::Relaxed);
            // As a caller who was told to come back, if an impatient one.
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        match gate.acquire(Some(&ticket), Hold::here()).await {
            Ok(_permit) => {
                tokio::time::sleep(Duration::from_micros(random.u64(..2_000))).await;
                seen.served.fetch_add(1, Ordering::Relaxed);
            }
            Err(refusal) => {
                assert_ne!(class, Class::Critical, "{refusal}");
                seen.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// An actor that hangs ends nowhere and tells nobody. The guardian sees it in its mailbox.
#[tokio::test(start_paused = true)]
async fn an_actor_that_hangs_is_killed_within_a_second_or_so_and_comes_back() {
    let pool = SqliteHealPool::builder().connect_lazy_with(sqlx::sqlite::SqliteConnectOptions::new());
    let config = Config::load(&Source::text("test", CONFIG)).expect("it is valid");
    let builder = Heal::builder().config(config).pool("main", &pool).inline(Clock::tokio());
    let heal = builder.start().await.expect("it starts");
    let (children, clock) = (heal.children(), Clock::tokio());
    for (supervisor, id) in WORKERS {
        let before = children.find(supervisor, id).expect("it is known").generation;
        let planted = clock.now();
        assert!(heal.plant(id, Fault::Hang));
        up(children, &HashMap::from([(id, before)])).await;
        let took = clock.now().since(planted);
        assert!((900..=1_300).contains(&took.as_millis()), "on virtual time: {took:?}");
        assert_eq!(children.find(supervisor, id).expect("it is known").last_exit, Some(Exit::Killed));
    }
    heal.shutdown().await;
}

const POOLS: (&str, &str) = ("root", "pools");
const WORKERS: [(&str, &str); 2] = [("root", "alert"), ("pools", "pool-monitor:main")];

/// Waits until each of them runs, in a later generation than before if there was one.
async fn up(children: &Children, before: &HashMap<&str, u64>) {
    for (supervisor, id) in WORKERS.into_iter().chain([POOLS]) {
        let later = |generation: u64| before.get(id).is_none_or(|&was| generation > was);
        let there = |children: &Children| {
            let view = children.find(supervisor, id)?;
            (view.state == ChildState::Up && later(view.generation)).then_some(())
        };
        children.until(there).await;
    }
}

/// Whether messages wait for the child.
fn has_mail(heal: &Heal, id: &str) -> bool {
    let reading = heal.reading();
    let child = reading.children.iter().find(|child| *child.id == *id);
    child.and_then(|child| child.mailbox).is_some_and(|mail| mail.depth > 0)
}

/// Ends a child in one of the ways that there are, and waits until it is back.
async fn end_one(heal: &Heal, random: &mut Rng) {
    let children = heal.children();
    let (supervisor, id) = WORKERS[random.usize(..WORKERS.len())];
    let generation =
        |(supervisor, id): (&str, &str)| children.find(supervisor, id).map(|view| view.generation);
    let mut before: HashMap<&str, u64> =
        generation((supervisor, id)).map(|was| (id, was)).into_iter().collect();
    match random.u8(..10) {
        0..3 => assert!(heal.plant(id, Fault::Panic)),
        3..5 => assert!(heal.plant(id, Fault::Error)),
        5..8 => children.cell(supervisor, id).expect("it runs").kill(),
        8 => {
            assert!(heal.plant(id, Fault::Hang));
            // It hangs once it has taken that; before, its successor would.
            while has_mail(heal, id) {
                tokio::task::yield_now().await;
            }
            children.cell(supervisor, id).expect("it runs").kill();
        }
        _ => {
            // A supervisor, and with it whom it supervises.
            before = [WORKERS[1], POOLS].into_iter().filter_map(|of| Some((of.1, generation(of)?))).collect();
            children.cell(POOLS.0, POOLS.1).expect("it runs").kill();
        }
    }
    up(children, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_ends_of_actors_under_load_and_no_admission_differs_from_the_pure_decision() {
    let mut random = random(fastrand::u64(..1 << 32));
    let pool = SqliteHealPool::connect("sqlite::memory:").await.expect("a database in memory");
    let config = Config::load(&Source::text("test", CONFIG)).expect("it is valid");
    let heal = Heal::builder().config(config).pool("main", &pool).start().await.expect("it starts");
    let gate = heal.gate("main").expect("it is there");
    gate.set_limit(LIMIT);
    gate.record();

    let (seen, clock) = (Arc::new(Seen::default()), Clock::system());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(call(gate.clone(), clock.clone(), Arc::clone(&seen), random.fork()));
    }
    let storm = async {
        for _ in 0..ENDS {
            let served = seen.served.load(Ordering::Acquire);
            end_one(&heal, &mut random).await;
            // Actors may be back before any caller has had a turn: there is to be load at each end.
            while seen.served.load(Ordering::Acquire) == served {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), storm).await.expect("nothing hangs");
    seen.over.store(true, Ordering::Release);
    while let Some(caller) = callers.join_next().await {
        caller.expect("no caller fails");
    }

    let served = seen.served.load(Ordering::Acquire);
    let decisions = gate.replayed().unwrap_or_else(|difference| panic!("{difference}"));
    println!(
        "{served} served, {} refused, {decisions} calls decided again",
        seen.refused.load(Ordering::Acquire)
    );
    assert!(served >= u64::from(ENDS), "there was load: {served}");
    assert!(decisions as u64 > 3 * served, "each was decided in the gate");
    assert_eq!(seen.critical_refused.load(Ordering::Acquire), 0, "critical work is never refused by a level");
    let stats = gate.stats();
    assert_eq!((stats.in_use, stats.waiting_in_all(), stats.parked, stats.in_flight), (0, 0, 0, 0));
    assert_eq!(gate.invariants(), Vec::<&str>::new());
    assert_eq!(heal.guardian().status().lost, 0, "the tree stood");
    heal.shutdown().await;
}
