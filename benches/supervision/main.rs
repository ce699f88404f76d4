//! What a restart costs: from the moment right before a child crashes to the answer of the child in its place.
//!
//! Every contender does the same: a child stamps the time and crashes, by a panic or by an error that it returns; its
//! supervisor starts another, which says that it is there; the driver asks it, and reads the clock when it has
//! answered. Restarts are unlimited and wait for nothing. The floor is what nobody can go below on tokio: a task
//! that spawns, joins, and spawns again.
//!
//! OTP's supervisor walks the list of all restarts of its period at each restart, so it is measured twice: with a fresh
//! supervisor every hundred crashes, which is OTP at its best and what the target is taken from, and with one for all.
//!
//! Children by the hundred thousand are started in a process of their own for each contender, because memory that
//! one has given back is not there to be asked for by the next.

mod floor;
mod kameo_peer;
mod otp;
mod ours;
mod ractor_peer;

use std::{
    collections::BTreeMap,
    env, fs, panic,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use selfheal::clock::Clock;
use selfheal_benches::{Busy, Dice, Machine, Spread, Table, quantile};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
};

/// How a child ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// It panics.
    Panic,
    /// It returns an error.
    Error,
}

/// Who restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Floor,
    Ours,
    Ractor,
    Kameo,
    Otp,
    OtpOnePeriod,
}

impl Peer {
    const ALL: [Self; 6] =
        [Self::Floor, Self::Ours, Self::Ractor, Self::Kameo, Self::Otp, Self::OtpOnePeriod];

    const fn name(self) -> &'static str {
        match self {
            Self::Floor => "tokio::spawn and a JoinHandle (floor)",
            Self::Ours => "selfheal supervisor",
            Self::Ractor => "ractor, respawn by hand",
            Self::Kameo => "kameo supervise",
            Self::Otp => "Erlang/OTP supervisor",
            Self::OtpOnePeriod => "Erlang/OTP, all in one period",
        }
    }

    const fn is_otp(self) -> bool {
        matches!(self, Self::Otp | Self::OtpOnePeriod)
    }
}

/// What is asked for on the command line.
struct Arguments {
    rounds: usize,
    crashes: usize,
    children: usize,
    workers: usize,
}

/// What the children of one run share.
#[derive(Clone)]
pub(crate) struct Stage<H> {
    /// When the last one crashed.
    stamp: Arc<AtomicU64>,
    /// Where each says that it is there.
    up: mpsc::UnboundedSender<H>,
}

impl<H> Stage<H> {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<H>) {
        let (up, seen) = mpsc::unbounded_channel();
        (Self { stamp: Arc::default(), up }, seen)
    }

    /// A child is there.
    pub(crate) fn enter(&self, child: H) {
        let _ = self.up.send(child);
    }

    /// Crashes the caller.
    ///
    /// # Errors
    /// Always, unless it panics.
    #[expect(clippy::panic, reason = "that is what is measured")]
    pub(crate) fn crash(&self, end: End) -> Result<(), Crashed> {
        self.stamp.store(Clock::system().now().as_nanos(), Ordering::Release);
        match end {
            End::Panic => panic!("planted"),
            End::Error => Err(Crashed),
        }
    }

    /// So many crashes, one after the other; nanoseconds from each to the answer of the next child.
    pub(crate) async fn play(
        &self,
        seen: &mut mpsc::UnboundedReceiver<H>,
        times: usize,
        crash: impl Fn(&H),
        ask: impl Fn(&H) -> oneshot::Receiver<()>,
    ) -> Vec<u64> {
        let mut took = Vec::with_capacity(times);
        let Some(mut child) = seen.recv().await else { return took };
        for _ in 0..times {
            crash(&child);
            let Some(next) = seen.recv().await else { return took };
            child = next;
            if ask(&child).await.is_err() {
                return took;
            }
            took.push(Clock::system().now().as_nanos() - self.stamp.load(Ordering::Acquire));
        }
        took
    }
}

/// The error that a child returns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crashed;

impl std::fmt::Display for Crashed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("planted")
    }
}

impl std::error::Error for Crashed {}

/// What many children cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    /// Nanoseconds to start one.
    pub(crate) nanos: f64,
    /// Resident bytes of one.
    pub(crate) bytes: f64,
}

impl Crowd {
    /// Measures while `start` starts `count` children and keeps them.
    pub(crate) async fn of<T>(count: usize, start: impl Future<Output = T>) -> Self {
        let (clock, before) = (Clock::system(), resident());
        let began = clock.now();
        let children = start.await;
        let took = clock.now().since(began);
        // What starting them has left behind is given time to end.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let bytes = resident() - before;
        drop(children);
        Self { nanos: took.as_nanos() as f64 / count as f64, bytes: bytes / count as f64 }
    }
}

/// Runs in which a contender got warm first.
const WARM_UP: usize = 200;

fn main() -> ExitCode {
    // A panic's text, ten thousand times, is not what is measured.
    panic::set_hook(Box::new(|_| {}));
    let mut words = env::args().skip(1).filter(|word| word != "--bench");
    let mut arguments = Arguments { rounds: 7, crashes: 10_000, children: 100_000, workers: 2 };
    while let Some(word) = words.next() {
        let number = words.next().and_then(|number| number.parse().ok());
        match (&*word, number) {
            ("--rounds", Some(n)) => arguments.rounds = n,
            ("--crashes", Some(n)) => arguments.crashes = n,
            ("--children", Some(n)) => arguments.children = n,
            ("--workers", Some(n)) => arguments.workers = n,
            // Its own: the process in which one contender starts its children.
            ("--crowd", Some(peer)) => return crowd_of(peer, &arguments),
            _ => {
                eprintln!("usage: [--rounds N] [--crashes N] [--children N] [--workers N]");
                return ExitCode::from(2);
            }
        }
    }
    compare(&arguments);
    ExitCode::SUCCESS
}

fn compare(arguments: &Arguments) {
    let Arguments { rounds, crashes, children, workers } = *arguments;
    println!("{}", Machine::here());
    println!("{rounds} rounds in random order, {crashes} crashes each, {workers} workers\n");
    let peers: Vec<_> = Peer::ALL.into_iter().filter(|peer| !peer.is_otp() || otp::is_there()).collect();
    if peers.len() < Peer::ALL.len() {
        println!(
            "!! `escript` (Debian: erlang-base) IS NOT INSTALLED: the comparison with Erlang/OTP is MISSING\n"
        );
    }
    let (busy, mut dice) = (Busy::start(), Dice::new(1));
    let mut turns: Vec<_> = peers.iter().flat_map(|&peer| [(peer, End::Panic), (peer, End::Error)]).collect();
    let mut found = BTreeMap::<(Peer, End), Vec<(f64, f64)>>::new();
    let mut crowds = BTreeMap::<Peer, Vec<Crowd>>::new();
    for _ in 0..rounds {
        dice.shuffle(&mut turns);
        for &(peer, end) in &turns {
            let mut took = restarts(peer, end, arguments);
            took.sort_unstable();
            let micros = |q| quantile(&took, q).map_or(f64::NAN, |nanos| nanos as f64 / 1_000.0);
            found.entry((peer, end)).or_default().push((micros(0.5), micros(0.99)));
        }
        for &peer in peers.iter().filter(|peer| **peer != Peer::OtpOnePeriod) {
            crowds.entry(peer).or_default().extend(crowd(peer, arguments));
        }
    }
    println!("From the crash to the answer of the child in its place, µs:\n\n{}", restart_table(&found));
    println!("{children} children:\n\n{}", crowd_table(&crowds));
    let share = busy.share();
    println!(
        "The machine was busy for {:.0} %, {:.0} % with this.",
        share.machine * 100.0,
        share.own * 100.0
    );
}

fn restart_table(found: &BTreeMap<(Peer, End), Vec<(f64, f64)>>) -> Table {
    let spread = |peer, end, of: fn(&(f64, f64)) -> f64| {
        Spread::of(found.get(&(peer, end)).into_iter().flatten().map(of))
    };
    let mut table = Table::new(["", "by", "p50", "x floor", "x OTP", "p99", "x floor", "x OTP"]);
    for &(peer, end) in found.keys() {
        let mut cells = vec![peer.name().to_owned(), format!("{end:?}").to_lowercase()];
        for of in [(|both: &(f64, f64)| both.0) as fn(&(f64, f64)) -> f64, |both| both.1] {
            let Some(own) = spread(peer, end, of) else { continue };
            let ratio =
                |to| spread(to, end, of).map_or("-".into(), |to| format!("{:.2}", own.median / to.median));
            cells.extend([format!("{own:.1}"), ratio(Peer::Floor), ratio(Peer::Otp)]);
        }
        table.row(cells);
    }
    table
}

fn crowd_table(crowds: &BTreeMap<Peer, Vec<Crowd>>) -> Table {
    let mut table = Table::new(["", "ns to start one", "resident bytes of one"]);
    for (peer, crowds) in crowds {
        let nanos = Spread::of(crowds.iter().map(|crowd| crowd.nanos));
        let bytes = Spread::of(crowds.iter().map(|crowd| crowd.bytes));
        if let (Some(nanos), Some(bytes)) = (nanos, bytes) {
            table.row([peer.name().to_owned(), format!("{nanos:.0}"), format!("{bytes:.0}")]);
        }
    }
    table
}

fn runtime(workers: usize) -> Option<Runtime> {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().ok()
}

fn restarts(peer: Peer, end: End, arguments: &Arguments) -> Vec<u64> {
    let (times, workers) = (arguments.crashes, arguments.workers);
    if peer.is_otp() {
        let a_supervisor = if peer == Peer::Otp { 100 } else { times + WARM_UP };
        return otp::restarts(end, WARM_UP + times, a_supervisor, workers).split_off(WARM_UP);
    }
    let Some(runtime) = runtime(workers) else { return Vec::new() };
    let driver = runtime.spawn(async move {
        let mut took = match peer {
            Peer::Floor => floor::restarts(end, WARM_UP + times).await,
            Peer::Ours => ours::restarts(end, WARM_UP + times).await,
            Peer::Ractor => ractor_peer::restarts(end, WARM_UP + times).await,
            Peer::Kameo => kameo_peer::restarts(end, WARM_UP + times).await,
            Peer::Otp | Peer::OtpOnePeriod => Vec::new(),
        };
        took.split_off(WARM_UP.min(took.len()))
    });
    let took = runtime.block_on(driver).unwrap_or_default();
    runtime.shutdown_background();
    assert_eq!(took.len(), times, "{peer:?} {end:?}: a child did not come back");
    took
}

/// Starts many children, in a process of its own.
fn crowd(peer: Peer, arguments: &Arguments) -> Option<Crowd> {
    if peer == Peer::Otp {
        return otp::crowd(arguments.children, arguments.workers);
    }
    let number = Peer::ALL.iter().position(|other| *other == peer)?;
    let mut process = Command::new(env::current_exe().ok()?);
    process.args([
        "--children",
        &arguments.children.to_string(),
        "--workers",
        &arguments.workers.to_string(),
    ]);
    let output = process.args(["--crowd", &number.to_string()]).output().ok()?;
    Crowd::read(&String::from_utf8_lossy(&output.stdout))
}

fn crowd_of(peer: usize, arguments: &Arguments) -> ExitCode {
    let count = arguments.children;
    let (Some(peer), Some(runtime)) = (Peer::ALL.get(peer), runtime(arguments.workers)) else {
        return ExitCode::FAILURE;
    };
    let peer = *peer;
    let crowd = runtime.block_on(runtime.spawn(async move {
        match peer {
            Peer::Floor => Some(floor::crowd(count).await),
            Peer::Ours => Some(ours::crowd(count).await),
            Peer::Ractor => Some(ractor_peer::crowd(count).await),
            Peer::Kameo => Some(kameo_peer::crowd(count).await),
            Peer::Otp | Peer::OtpOnePeriod => None,
        }
    }));
    let Ok(Some(crowd)) = crowd else { return ExitCode::FAILURE };
    println!("{} {}", crowd.nanos, crowd.bytes);
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

impl Crowd {
    /// As it is printed.
    fn read(line: &str) -> Option<Self> {
        let (nanos, bytes) = line.trim().split_once(' ')?;
        Some(Self { nanos: nanos.parse().ok()?, bytes: bytes.parse().ok()? })
    }
}

/// The second number of statm is pages, of 4 KiB.
fn resident() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).map_or(0.0, |pages: f64| pages * 4096.0)
}
