//! Contenders that are called millions of times, in turns.
//!
//! A *lap* is so many calls of one contender in one *shape*: on one thread, on two threads with one circuit, or by
//! 64 tasks on two workers with one circuit. In each round every contender runs one lap of each shape, in an order
//! that is shuffled anew, so that a busy moment hits all alike. A figure is the time from the common start to the
//! end of a thread's last call, divided by its calls.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use futures_executor::block_on;
use tokio::runtime::{Builder, Runtime};

use crate::{Dice, Spread, Table};

/// What a lap's calls do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// All succeed (or, where the circuit is open, all are refused).
    Same,
    /// One in eight fails.
    OneInEight,
}

impl Mix {
    /// Whether call number `n` fails.
    #[must_use]
    #[inline]
    pub const fn fails(self, n: u64) -> bool {
        matches!(self, Self::OneInEight) && n % 8 == 7
    }
}

/// So many calls, one after the other.
pub type Lap = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who is called.
pub struct Contender {
    name: String,
    lap: Arc<dyn Fn(u64, Mix) -> Lap + Send + Sync>,
}

impl Contender {
    /// `lap` makes so many calls of one circuit, which all laps share.
    pub fn new(name: impl Into<String>, lap: impl Fn(u64, Mix) -> Lap + Send + Sync + 'static) -> Self {
        Self { name: name.into(), lap: Arc::new(lap) }
    }
}

/// How laps are run.
const SHAPES: [&str; 3] = ["T1", "T2", "64t"];
/// How long a lap is to take.
const LAP: Duration = Duration::from_millis(40);
const TASKS: u64 = 64;

/// Runs `rounds` rounds and says what they gave, with ratios to the contender called `floor`.
///
/// # Errors
/// If there is no runtime for the tasks, or a thread of a lap panicked.
pub fn race(
    title: &str,
    contenders: &[Contender],
    mix: Mix,
    rounds: u32,
    floor: &str,
) -> Result<Table, Box<dyn std::error::Error>> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut calls = vec![[0; 3]; contenders.len()];
    for (contender, calls) in contenders.iter().zip(&mut calls) {
        for (shape, calls) in calls.iter_mut().enumerate() {
            lap(contender, shape, mix, 2_000, &runtime)?;
            let ns = lap(contender, shape, mix, 2_000, &runtime)?.max(0.5);
            *calls = ((LAP.as_nanos() as f64 / ns) as u64).clamp(500, 20_000_000);
        }
    }
    let mut figures = vec![[const { Vec::new() }; 3]; contenders.len()];
    let mut dice = Dice::new(7);
    for _ in 0..rounds {
        let mut order: Vec<_> = (0..contenders.len() * 3).collect();
        dice.shuffle(&mut order);
        for turn in order {
            let (who, shape) = (turn / 3, turn % 3);
            figures[who][shape].push(lap(&contenders[who], shape, mix, calls[who][shape], &runtime)?);
        }
    }
    let spread = |who: usize, shape: usize| Spread::of(figures[who][shape].iter().copied());
    let floor = contenders.iter().position(|contender| contender.name == floor);
    let mut table = Table::new(
        [title.to_owned()]
            .into_iter()
            .chain(SHAPES.iter().flat_map(|shape| [format!("{shape} min/MED/max ns"), "x".to_owned()])),
    );
    for (who, contender) in contenders.iter().enumerate() {
        let mut row = vec![contender.name.clone()];
        for shape in 0..3 {
            let Some(Spread { min, median, max }) = spread(who, shape) else { continue };
            let base = floor.and_then(|floor| spread(floor, shape)).map_or(f64::NAN, |spread| spread.median);
            row.push(format!("{min:.1}/{median:.1}/{max:.1}"));
            row.push(format!("{:.2}", median / base));
        }
        table.row(row);
    }
    Ok(table)
}

/// Nanoseconds a call.
fn lap(
    contender: &Contender,
    shape: usize,
    mix: Mix,
    calls: u64,
    runtime: &Runtime,
) -> Result<f64, Box<dyn std::error::Error>> {
    let ns = |took: Duration, calls: u64| took.as_nanos() as f64 / calls as f64;
    match shape {
        0 => {
            // Some contenders want tokio's timers around them.
            let _inside = runtime.enter();
            let start = Instant::now();
            block_on((contender.lap)(calls, mix));
            Ok(ns(start.elapsed(), calls))
        }
        1 => {
            let barrier = Arc::new(Barrier::new(2));
            let racers: Vec<_> = (0..2)
                .map(|_| {
                    let (barrier, lap) = (Arc::clone(&barrier), (contender.lap)(calls, mix));
                    let inside = runtime.handle().clone();
                    thread::spawn(move || {
                        let _inside = inside.enter();
                        barrier.wait();
                        let start = Instant::now();
                        block_on(lap);
                        start.elapsed()
                    })
                })
                .collect();
            let mut worst = Duration::ZERO;
            for racer in racers {
                worst = worst.max(racer.join().map_err(|_| "a thread panicked")?);
            }
            Ok(ns(worst, calls))
        }
        _ => {
            let each = (calls / 32).max(1);
            let start = Instant::now();
            runtime.block_on(async {
                let tasks: Vec<_> = (0..TASKS).map(|_| runtime.spawn((contender.lap)(each, mix))).collect();
                for task in tasks {
                    task.await?;
                }
                Ok::<_, tokio::task::JoinError>(())
            })?;
            // Two workers share them.
            Ok(ns(start.elapsed(), each * TASKS / 2))
        }
    }
}
