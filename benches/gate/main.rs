//! What the gate adds: a connection's permit, asked for and given back, beside what others take for the like.
//!
//! Three tables. *Uncontended*: there is always a permit; on one thread, and on two that share the gate. *Handed over*:
//! one permit and many tasks that want it, so that each release wakes the next. *With a pool*: a whole connection of
//! SQLite in memory, from sqlx alone and through the gate; nothing is asked of the database, so what is seen is the two
//! pools. Each contender's rounds come in random order among those of the others.

use std::{
    collections::BTreeMap,
    env,
    process::ExitCode,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use selfheal::{
    SqliteHealPool,
    clock::Clock,
    gate::{Gate, Hold, Policy, Ticket},
    level::{Class, Mode, ModeCell},
    signal::Signals,
};
use selfheal_benches::{Busy, Dice, Machine, Spread, Table};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::JoinSet,
};

/// Permits where there shall always be one.
const PLENTY: u32 = 64;
/// Tasks that want the one permit there is.
const CROWD: usize = 64;

/// Who hands out permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    TokioTry,
    Tokio,
    Ticketless,
    Ticket,
    TicketOfUser,
    Job,
    Off,
}

impl Peer {
    const ALL: [Self; 7] = [
        Self::TokioTry,
        Self::Tokio,
        Self::Ticketless,
        Self::Ticket,
        Self::TicketOfUser,
        Self::Job,
        Self::Off,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::TokioTry => "tokio Semaphore, try_acquire",
            Self::Tokio => "tokio Semaphore, acquire",
            Self::Ticketless => "gate, no ticket",
            Self::Ticket => "gate, a request's ticket",
            Self::TicketOfUser => "gate, a user's ticket",
            Self::Job => "gate, ticket made, entered, one connection, left",
            Self::Off => "gate, mode off",
        }
    }
}

/// What hands out permits, ready for use.
#[derive(Clone)]
struct Booth {
    peer: Peer,
    semaphore: Arc<Semaphore>,
    gate: Gate,
}

impl Booth {
    fn new(peer: Peer, permits: u32) -> Self {
        let mode = ModeCell::new(if peer == Peer::Off { Mode::Off } else { Mode::Act });
        let policy = Policy::default();
        let gate = Gate::new("main".into(), policy, permits, Clock::system(), mode, Signals::none());
        Self { peer, semaphore: Arc::new(Semaphore::new(permits as usize)), gate }
    }

    /// Asks for a permit and gives it back, so many times.
    async fn use_up(&self, times: usize) {
        match self.peer {
            Peer::TokioTry => (0..times).for_each(|_| drop(self.semaphore.try_acquire())),
            Peer::Tokio => {
                for _ in 0..times {
                    drop(self.semaphore.acquire().await);
                }
            }
            Peer::Ticketless | Peer::Off => {
                for _ in 0..times {
                    drop(self.gate.acquire(None, Hold::here()).await);
                }
            }
            Peer::Ticket => self.of_one_request(&Ticket::new(Class::Normal), times).await,
            Peer::TicketOfUser => {
                self.of_one_request(&Ticket::new(Class::Normal).with_user("ada"), times).await;
            }
            Peer::Job => {
                for _ in 0..times {
                    self.of_one_request(&Ticket::new(Class::Normal), 1).await;
                }
            }
        }
    }

    async fn of_one_request(&self, ticket: &Ticket, times: usize) {
        let entered = self.gate.enter(ticket);
        for _ in 0..times {
            drop(self.gate.acquire(Some(ticket), Hold::here()).await);
        }
        drop(entered);
    }

    /// Asks, keeps the permit until everybody else has had a turn, and gives it back, so many times.
    async fn hand_over(self, times: usize) {
        let ticket = Ticket::new(Class::Critical);
        for _ in 0..times {
            match self.peer {
                Peer::Tokio | Peer::TokioTry => {
                    let permit = self.semaphore.acquire().await;
                    tokio::task::yield_now().await;
                    drop(permit);
                }
                Peer::Ticketless | Peer::Ticket | Peer::TicketOfUser | Peer::Job | Peer::Off => {
                    let permit = self.gate.acquire(Some(&ticket), Hold::here()).await;
                    tokio::task::yield_now().await;
                    drop(permit);
                }
            }
        }
    }
}

/// What is asked for on the command line.
struct Arguments {
    rounds: usize,
    times: usize,
}

fn main() -> ExitCode {
    let mut words = env::args().skip(1).filter(|word| word != "--bench");
    let mut arguments = Arguments { rounds: 11, times: 1_000_000 };
    while let Some(word) = words.next() {
        match (&*word, words.next().and_then(|number| number.parse().ok())) {
            ("--rounds", Some(n)) => arguments.rounds = n,
            ("--times", Some(n)) => arguments.times = n,
            _ => {
                eprintln!("usage: [--rounds N] [--times N]");
                return ExitCode::from(2);
            }
        }
    }
    let Arguments { rounds, times } = arguments;
    println!("{}\n{rounds} rounds in random order, {times} times each\n", Machine::here());
    let (busy, mut dice) = (Busy::start(), Dice::new(1));
    println!(
        "Uncontended, ns for a permit asked for and given back:\n\n{}",
        uncontended(&arguments, &mut dice)
    );
    println!(
        "Handed over, ns from holder to holder; one permit, {CROWD} tasks, one worker:\n\n{}",
        handed_over(&arguments, &mut dice)
    );
    match with_a_pool(&arguments, &mut dice) {
        Some(table) => println!("A connection of SQLite in memory, ns:\n\n{table}"),
        None => println!("!! SQLite could not be opened: the comparison with sqlx is MISSING"),
    }
    let share = busy.share();
    println!(
        "The machine was busy for {:.0} %, {:.0} % with this.",
        share.machine * 100.0,
        share.own * 100.0
    );
    ExitCode::SUCCESS
}

/// Nanoseconds for each of `times`, in rounds, by contender and column.
struct Found<K>(BTreeMap<K, Vec<f64>>);

impl<K: Ord + Copy> Found<K> {
    fn measure(keys: &[K], rounds: usize, dice: &mut Dice, mut one: impl FnMut(K) -> f64) -> Self {
        let (mut turns, mut found) = (keys.to_vec(), BTreeMap::<K, Vec<f64>>::new());
        // Once for nothing, so that whatever is there only once is there.
        for &key in keys {
            one(key);
        }
        for _ in 0..rounds {
            dice.shuffle(&mut turns);
            turns.iter().for_each(|&key| found.entry(key).or_default().push(one(key)));
        }
        Self(found)
    }

    fn cell(&self, key: K) -> String {
        let spread = Spread::of(self.0.get(&key).into_iter().flatten().copied());
        spread.map_or("-".into(), |spread| format!("{spread:.0}"))
    }
}

fn uncontended(arguments: &Arguments, dice: &mut Dice) -> Table {
    let keys: Vec<_> = Peer::ALL.into_iter().flat_map(|peer| [(peer, 1), (peer, 2)]).collect();
    let found = Found::measure(&keys, arguments.rounds, dice, |(peer, threads)| {
        on_threads(&Booth::new(peer, PLENTY), threads, arguments.times)
    });
    let mut table = Table::new(["", "one thread", "two threads"]);
    for peer in Peer::ALL {
        table.row([peer.name().to_owned(), found.cell((peer, 1)), found.cell((peer, 2))]);
    }
    table
}

/// Nanoseconds for each of `times` on each of `threads` that begin together.
fn on_threads(booth: &Booth, threads: usize, times: usize) -> f64 {
    let together = Arc::new(Barrier::new(threads));
    let one = |_| {
        let (booth, together) = (booth.clone(), Arc::clone(&together));
        thread::spawn(move || {
            let Some(runtime) = single() else { return Duration::ZERO };
            let clock = Clock::system();
            together.wait();
            let began = clock.now();
            runtime.block_on(booth.use_up(times));
            clock.now().since(began)
        })
    };
    let running: Vec<_> = (0..threads).map(one).collect();
    let took: Duration = running.into_iter().filter_map(|thread| thread.join().ok()).sum();
    took.as_nanos() as f64 / (threads * times) as f64
}

fn handed_over(arguments: &Arguments, dice: &mut Dice) -> Table {
    let peers = [Peer::Tokio, Peer::Ticket];
    let times = arguments.times / 10 / CROWD;
    let found = Found::measure(&peers, arguments.rounds, dice, |peer| {
        let (Some(runtime), booth) = (single(), Booth::new(peer, 1)) else { return f64::NAN };
        let clock = Clock::system();
        let began = clock.now();
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for _ in 0..CROWD {
                tasks.spawn(booth.clone().hand_over(times));
            }
            while tasks.join_next().await.is_some() {}
        });
        clock.now().since(began).as_nanos() as f64 / (times * CROWD) as f64
    });
    let mut table = Table::new(["", "ns"]);
    for peer in peers {
        table.row([peer.name().to_owned(), found.cell(peer)]);
    }
    table
}

fn with_a_pool(arguments: &Arguments, dice: &mut Dice) -> Option<Table> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().ok()?;
    let pool = runtime.block_on(SqliteHealPool::connect("sqlite::memory:")).ok()?;
    let mode = ModeCell::new(Mode::Act);
    let policy = Policy { nested_reserve: pool.nested_reserve(), ..Policy::default() };
    let gate = Gate::new("main".into(), policy, pool.max(), Clock::system(), mode.clone(), Signals::none());
    pool.attach(gate, mode, Signals::none());
    let times = arguments.times / 100;
    let found = Found::measure(&[false, true], arguments.rounds, dice, |guarded| {
        let clock = Clock::system();
        let began = clock.now();
        runtime.block_on(async {
            for _ in 0..times {
                if guarded {
                    drop(pool.acquire().await);
                } else {
                    drop(pool.unguarded().acquire().await);
                }
            }
        });
        clock.now().since(began).as_nanos() as f64 / times as f64
    });
    let mut table = Table::new(["", "ns"]);
    table.row(["sqlx alone".to_owned(), found.cell(false)]);
    table.row(["through the gate".to_owned(), found.cell(true)]);
    Some(table)
}

fn single() -> Option<Runtime> {
    Builder::new_current_thread().enable_all().build().ok()
}
