//! A burst, as the control plane sees it: how long after its condition has held is a level published, and how long after
//! the load has gone is everything as before.
//!
//! The whole runtime runs, with the gate of a pool of which no connection is ever used: what is measured is the way from
//! a waiter to the parameters in force. In each burst every permit is taken at once and one more request comes; it must be
//! parked at the gate at that very moment (else the burst is counted as missed). From then on a thread of its own looks
//! every few dozen microseconds. After Critical has been published, or a while later, all is given back.

use std::{env, error::Error, process::ExitCode, time::Duration};

use selfheal::{
    Heal, SqliteHealPool,
    clock::{Clock, Tick},
    config::{Config, Source},
    gate::{Acquire, Gate, Hold, Permit, Ticket},
    level::{Class, Level},
};
use selfheal_benches::{Busy, Machine, Table, quantile};

const POOL: &str = "main";
const PERMITS: u32 = 100;
/// How long someone must have waited before a level is raised (`up`), how long Warning stays (`down`), and Critical
/// (`down_critical`). The last two are shorter than by default, so that many bursts take little time.
const UP: Duration = Duration::from_millis(20);
const DOWN: Duration = Duration::from_millis(100);
const DOWN_CRITICAL: Duration = Duration::from_millis(50);
/// How long a burst lasts.
const LASTS: Duration = Duration::from_millis(80);
/// Between two looks.
const LOOK: Duration = Duration::from_micros(20);
/// What should have happened by then is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut bursts = 500;
    let mut words = env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        match (&*word, words.next().and_then(|number| number.parse().ok())) {
            ("--bursts", Some(n)) => bursts = n,
            _ => {
                eprintln!("usage: [--bursts N]");
                return ExitCode::from(2);
            }
        }
    }
    match measure(bursts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(bursts: usize) -> Result<(), Box<dyn Error>> {
    println!("{}\n{bursts} bursts on {PERMITS} permits, up = {UP:?}\n", Machine::here());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let heal = runtime.block_on(start())?;
    let gate = heal.gate(POOL).ok_or("the runtime has lost its pool")?;
    let (busy, clock) = (Busy::start(), Clock::system());
    let mut seen = Seen::default();
    for _ in 0..bursts {
        burst(&heal, &gate, &clock, &mut seen)?;
    }
    let share = busy.share();
    runtime.block_on(heal.shutdown());
    println!("{}", seen.table());
    println!(
        "Parked on arrival: {} of {bursts}. The machine was busy for {:.0} %, {:.0} % with this.",
        seen.parked,
        share.machine * 100.0,
        share.own * 100.0
    );
    Ok(())
}

async fn start() -> Result<Heal, Box<dyn Error>> {
    let pool = SqliteHealPool::builder().max(PERMITS).connect("sqlite::memory:").await?;
    let config =
        format!("[pools.{POOL}]\nup = '{UP:?}'\ndown = '{DOWN:?}'\ndown_critical = '{DOWN_CRITICAL:?}'\n");
    let config = Config::load(&Source::text("burst.toml", config))?;
    Ok(Heal::builder().config(config).pool(POOL, &pool).start().await?)
}

/// What was seen, burst by burst.
#[derive(Default)]
struct Seen {
    parked: usize,
    /// From the first waiter to level Warning in force.
    warning: Vec<Duration>,
    /// How long after its condition had held for `up` that was.
    late: Vec<Duration>,
    /// From the end of the load to level Normal in force, without the time for which levels stay by policy.
    calm: Vec<Duration>,
}

fn burst(heal: &Heal, gate: &Gate, clock: &Clock, seen: &mut Seen) -> Result<(), Box<dyn Error>> {
    let ticket = Ticket::new(Class::Normal).with_deadline(clock.now() + PATIENCE);
    let held: Vec<Permit> =
        (0..PERMITS).filter_map(|_| at_once(gate.acquire(Some(&ticket), Hold::here()))).collect();
    let mut waiter = Box::pin(gate.acquire(Some(&ticket), Hold::here()));
    let came = clock.now();
    let parked = poll(&mut waiter).is_none();
    seen.parked += usize::from(parked && held.len() == PERMITS as usize);

    let raised = wait(clock, || gate.params().shed)?;
    let since = gate.stats().pressed_since.unwrap_or(came);
    seen.warning.push(raised.since(came));
    seen.late.push(raised.since(since + UP));
    wait(clock, || clock.now() >= came + LASTS)?;

    let stayed = if heal.level(POOL) == Some(Level::Critical) { DOWN + DOWN_CRITICAL } else { DOWN };
    drop((waiter, held));
    let gone = clock.now();
    let calm = wait(clock, || gate.params().level() == Level::Normal)?;
    seen.calm.push(calm.since(gone).saturating_sub(stayed));
    Ok(())
}

/// A permit that is had without a wait.
fn at_once(acquire: Acquire) -> Option<Permit> {
    poll(&mut Box::pin(acquire))
}

fn poll(acquire: &mut std::pin::Pin<Box<Acquire>>) -> Option<Permit> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match acquire.as_mut().poll(&mut context) {
        std::task::Poll::Ready(granted) => granted.ok(),
        std::task::Poll::Pending => None,
    }
}

/// When it was first seen to be so.
fn wait(clock: &Clock, is: impl Fn() -> bool) -> Result<Tick, Box<dyn Error>> {
    let until = clock.now() + PATIENCE;
    while !is() {
        if clock.now() >= until {
            return Err("it never came".into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(clock.now())
}

impl Seen {
    fn table(&self) -> Table {
        let mut table = Table::new(["ms", "p50", "p99", "most"]);
        let rows = [
            ("first waiter to Warning in force", &self.warning),
            ("condition held to Warning in force", &self.late),
            ("load gone to Normal in force, without what levels stay by policy", &self.calm),
        ];
        for (name, times) in rows {
            let mut times = times.clone();
            times.sort_unstable();
            let at =
                |q| quantile(&times, q).map_or("-".into(), |time| format!("{:.2}", time.as_secs_f64() * 1e3));
            table.row([name.to_owned(), at(0.5), at(0.99), at(1.0)]);
        }
        table
    }
}
