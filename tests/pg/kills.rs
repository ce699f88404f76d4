//! The whole runtime in front of a real server, under load, while whatever it is made of is ended at random: its
//! actors, its supervisors, the root, and the very thread that they run on. Nobody who asks for a connection notices.
//!
//! Every decision of the gate is written down and, afterwards, decided again by the pure machine alone; every call
//! that was served has left its row in the database. How long each way of ending takes to heal is printed, and
//! judged in the long form only, which `.ci/run` runs by name: a machine that is busy with something else is slow.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use selfheal::{
    Heal, PgHealPool,
    clock::Clock,
    config::{Config, Source},
    db::refusal,
    fault::Fault,
    gate::Ticket,
    level::Class,
    runtime::Phase,
    supervisor::{ChildState, Children},
};

use crate::{guarded::seed, server::server};

/// More restarts are allowed than there are, and none of them waits.
const CONFIG: &str = r#"
[pools.main]
[supervision]
max_restarts = 100000
within = "1h"
backoff = { initial = "0s", factor = 1.0, max = "0s" }
"#;

/// Connections of the pool: fewer than callers, so that there is always somebody waiting.
const CONNECTIONS: u32 = 8;
const CALLERS: u32 = 24;

/// A way to end something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum End {
    /// An actor panics.
    Panic,
    /// An actor returns an error.
    Error,
    /// An actor is killed.
    Kill,
    /// A supervisor is killed, and with it whom it supervises.
    Supervisor,
    /// The root is killed, and with it everybody.
    Root,
    /// An actor never comes back from a message.
    Hang,
    /// The thread that all actors run on is blocked.
    Thread,
}

impl End {
    /// Whether it can only be told from slowness by waiting.
    const fn is_silent(self) -> bool {
        matches!(self, Self::Hang | Self::Thread)
    }
}

/// The children, and who supervises them.
const EVERYBODY: [Key; 4] =
    [("root", "alert"), ("root", "pools"), ("pools", "pool-monitor:main"), ("pools", "server-probe:main")];
/// Those of them that are no supervisors.
const ACTORS: [Key; 3] = [EVERYBODY[0], EVERYBODY[2], EVERYBODY[3]];
/// Those of them that are expected to answer within a second. The server may keep the third waiting for two.
const PROMPT: [Key; 2] = [EVERYBODY[0], EVERYBODY[2]];

type Key = (&'static str, &'static str);

/// How often each way.
struct Storm {
    ends: [(End, usize); 7],
    within: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_kills_under_load_and_nobody_notices() {
    let ends = [
        (End::Panic, 30),
        (End::Error, 30),
        (End::Kill, 29),
        (End::Supervisor, 8),
        (End::Root, 1),
        (End::Hang, 1),
        (End::Thread, 1),
    ];
    let _ = weather(Storm { ends, within: Duration::ZERO }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute, and judges times: run by .ci/run"]
async fn two_thousand_kills_in_a_minute_under_two_thousand_admissions_a_second() {
    let ends = [
        (End::Panic, 600),
        (End::Error, 600),
        (End::Kill, 600),
        (End::Supervisor, 172),
        (End::Root, 16),
        (End::Hang, 8),
        (End::Thread, 4),
    ];
    let Some(Outcome { lasted, admissions, took, .. }) =
        weather(Storm { ends, within: Duration::from_secs(60) }).await
    else {
        return;
    };
    let a_second = admissions as f64 / lasted.as_secs_f64();
    assert!(lasted < Duration::from_secs(66), "a minute, or little more: {lasted:?}");
    assert!(a_second >= 2_000.0, "there was load: {a_second:.0}/s");
    let loud = Times(took.iter().filter(|(end, _)| !end.is_silent()).map(|(_, took)| *took).collect());
    let silent = Times(took.iter().filter(|(end, _)| end.is_silent()).map(|(_, took)| *took).collect());
    assert!(loud.at(99) < Duration::from_millis(250), "{loud}");
    assert!(silent.at(99) <= Duration::from_millis(1_500), "{silent}");
}

/// What a storm has come to.
struct Outcome {
    lasted: Duration,
    served: u64,
    /// Decisions about callers: those who were served, and those who were refused.
    admissions: u64,
    /// From each end to the moment when all whom it took down are up again, in a later generation.
    took: Vec<(End, Duration)>,
}

/// Lets a storm pass over a runtime under load, and holds it to everything but times. `None` without a server.
async fn weather(storm: Storm) -> Option<Outcome> {
    let database = server()?.database().await;
    let mut random = Rng::with_seed(seed());
    let pool = PgHealPool::builder().max(CONNECTIONS).connect_with(database.options()).await;
    let pool = pool.expect("it connects");
    let setup = pool.unguarded();
    sqlx::query("create unlogged table served (caller int8, call int8)")
        .execute(setup)
        .await
        .expect("a table");
    let config = Config::load(&Source::text("test", CONFIG)).expect("it is valid");
    let builder = Heal::builder().config(config).pool("main", &pool).losing(1_000);
    let heal = builder.start().await.expect("it starts");
    let gate = heal.gate("main").expect("it is there");
    gate.record();

    let (seen, clock) = (Arc::new(Seen::default()), Clock::system());
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        let caller = Caller {
            number: i64::from(number),
            pool: pool.clone(),
            clock: clock.clone(),
            random: random.fork(),
        };
        callers.spawn(caller.call(Arc::clone(&seen)));
    }
    let began = clock.now();
    let storming = pass(&heal, &clock, &storm, &mut random);
    let took = tokio::time::timeout(Duration::from_secs(300), storming).await.expect("nothing hangs");
    let lasted = clock.now().since(began);
    seen.over.store(true, Ordering::Release);
    let all = async {
        while let Some(caller) = callers.join_next().await {
            caller.expect("no caller fails");
        }
    };
    // Each has a deadline of five seconds, and the server answers.
    if tokio::time::timeout(Duration::from_secs(30), all).await.is_err() {
        panic!("{} callers wait for ever: {:?}, {:#?}", callers.len(), gate.invariants(), gate.stats());
    }

    let served = seen.served.load(Ordering::Acquire);
    let decisions = gate.replayed().unwrap_or_else(|difference| panic!("{difference}"));
    let refused = seen.refused.load(Ordering::Acquire);
    let outcome = Outcome { lasted, served, admissions: served + refused, took };
    println!("{outcome}{refused} refused; {decisions} calls of the gate decided again, all alike");
    assert!(decisions as u64 > 3 * served, "each was decided in the gate");
    assert_eq!(seen.critical_refused.load(Ordering::Acquire), 0, "critical work is never refused by a level");
    let rows: (i64, i64) = sqlx::query_as("select count(*), count(distinct (caller, call)) from served")
        .fetch_one(pool.unguarded())
        .await
        .expect("a count");
    assert_eq!((rows.0 as u64, rows.1 as u64), (served, served), "none was lost, none was done twice");
    let stats = gate.stats();
    assert_eq!((stats.waiting_in_all(), stats.parked, stats.in_flight), (0, 0, 0));
    assert_eq!(gate.invariants(), Vec::<&str>::new());
    assert_eq!(heal.guardian().status().phase, Phase::Up);
    heal.shutdown().await;
    Some(outcome)
}

/// What callers saw.
#[derive(Default)]
struct Seen {
    served: AtomicU64,
    refused: AtomicU64,
    critical_refused: AtomicU64,
    over: AtomicBool,
}

/// Asks, writes a row, and asks again, until it is over.
struct Caller {
    number: i64,
    pool: PgHealPool,
    clock: Clock,
    random: Rng,
}

impl Caller {
    async fn call(mut self, seen: Arc<Seen>) {
        let gate = self.pool.gate();
        for call in 0_i64.. {
            if seen.over.load(Ordering::Acquire) {
                return;
            }
            let ticket = self.ticket();
            let class = ticket.class();
            let Ok(_entered) = gate.enter(&ticket) else {
                refused(&seen, class);
                // As a caller who was told to come back, if an impatient one.
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            let row = sqlx::query("insert into served values ($1, $2)").bind(self.number).bind(call);
            match row.execute(&self.pool.with(ticket)).await {
                Ok(_) => drop(seen.served.fetch_add(1, Ordering::Relaxed)),
                Err(error) if refusal(&error).is_some() => refused(&seen, class),
                Err(error) => panic!("{class:?}: {error}"),
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        Ticket::new(Class::ALL[self.random.usize(..Class::ALL.len())])
            .with_user(format!("user {}", self.random.u8(..6)))
            .with_deadline(self.clock.now() + Duration::from_secs(5))
    }
}

fn refused(seen: &Seen, class: Class) {
    seen.refused.fetch_add(1, Ordering::Relaxed);
    seen.critical_refused.fetch_add(u64::from(class == Class::Critical), Ordering::Relaxed);
}

/// Ends one after the other, in random order, evenly over the time that there is.
async fn pass(heal: &Heal, clock: &Clock, storm: &Storm, random: &mut Rng) -> Vec<(End, Duration)> {
    let mut deck: Vec<End> =
        storm.ends.iter().flat_map(|&(end, times)| std::iter::repeat_n(end, times)).collect();
    random.shuffle(&mut deck);
    let (began, all) = (clock.now(), deck.len() as u32);
    let mut took = Vec::with_capacity(deck.len());
    for (n, end) in (0_u32..).zip(deck) {
        let due = began + storm.within * n / all;
        tokio::time::sleep(due.since(clock.now())).await;
        let before = generations(heal.children());
        let ended = clock.now();
        let down = end_one(heal, end, random);
        up(heal.children(), &down, &before).await;
        took.push((end, clock.now().since(ended)));
        up(heal.children(), &EVERYBODY, &HashMap::new()).await;
    }
    took
}

/// Ends something, and says who goes down with it.
fn end_one(heal: &Heal, end: End, random: &mut Rng) -> Vec<Key> {
    let cell = |(supervisor, id): Key| heal.children().cell(supervisor, id).expect("it runs");
    let actor = ACTORS[random.usize(..ACTORS.len())];
    let prompt = PROMPT[random.usize(..PROMPT.len())];
    let plant = |of: Key, fault| assert!(heal.plant(of.1, fault), "{of:?}");
    match end {
        End::Panic => plant(actor, Fault::Panic),
        End::Error => plant(actor, Fault::Error),
        End::Kill => cell(actor).kill(),
        End::Hang => {
            plant(prompt, Fault::Hang);
            return vec![prompt];
        }
        End::Supervisor => {
            cell(EVERYBODY[1]).kill();
            return EVERYBODY[1..].to_vec();
        }
        End::Root => {
            // The parent of a child of the root is the root.
            cell(EVERYBODY[0]).try_get_supervisor().expect("it has one").kill();
            return EVERYBODY.to_vec();
        }
        End::Thread => {
            plant(prompt, Fault::Block);
            return EVERYBODY.to_vec();
        }
    }
    vec![actor]
}

fn generations(children: &Children) -> HashMap<Key, u64> {
    let known = |&(supervisor, id): &Key| Some(((supervisor, id), children.find(supervisor, id)?.generation));
    EVERYBODY.iter().filter_map(known).collect()
}

/// Waits until each of them runs, in a later generation than before if there was one.
async fn up(children: &Children, keys: &[Key], before: &HashMap<Key, u64>) {
    for &(supervisor, id) in keys {
        let later = |generation: u64| before.get(&(supervisor, id)).is_none_or(|&was| generation > was);
        let there = |children: &Children| {
            let view = children.find(supervisor, id)?;
            (view.state == ChildState::Up && later(view.generation)).then_some(())
        };
        children.until(there).await;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lasted, served, admissions, took } = self;
        let a_second = *admissions as f64 / lasted.as_secs_f64();
        writeln!(
            f,
            "{} ends in {lasted:.1?}; {served} calls served, {a_second:.0} admissions a second",
            took.len()
        )?;
        let mut by_end = std::collections::BTreeMap::<End, Vec<Duration>>::new();
        for &(end, took) in took {
            by_end.entry(end).or_default().push(took);
        }
        by_end
            .into_iter()
            .try_for_each(|(end, took)| writeln!(f, "  {:<10} {}", format!("{end:?}"), Times(took)))
    }
}

/// Times, as they are told.
struct Times(Vec<Duration>);

impl Times {
    fn at(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99, max) = (self.at(50), self.at(99), self.at(100));
        write!(f, "{:>4} times: p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}", self.0.len())
    }
}
