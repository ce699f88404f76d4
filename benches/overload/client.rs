//! Those who call: in an open loop, at times that were fixed before, whatever becomes of earlier calls.
//!
//! A caller drops what it waits for when its deadline has come, counts from the moment at which the call was *meant*
//! to be made, and, where the scenario says so, tries again like a program that nobody has thought about.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use selfheal::clock::{Clock, Tick};
use selfheal_benches::quantile;
use tokio::{runtime::Handle, sync::mpsc, time::timeout};

use crate::{
    contender::{Contender, Fault},
    load::Shot,
};

/// How often a naive caller tries again, and after which time.
const RETRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    pub(crate) outcome: Outcome,
    /// From the moment at which the last try was meant to be made.
    pub(crate) took: Duration,
    /// When it was known, from the beginning.
    pub(crate) known: Duration,
    pub(crate) tries: u32,
    /// How late its task was first polled.
    late: Duration,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// In time.
    Done,
    /// Not before the deadline.
    Late,
    /// It got an error before that.
    Failed(Fault),
}

/// What became of a load.
#[derive(Debug)]
pub(crate) struct Fates {
    /// In the order of the load. `None`: nothing ever became of it.
    pub(crate) fates: Vec<Option<Fate>>,
    /// How late the 99th of 100 requests was made.
    pub(crate) generator_late: Duration,
    /// How late the 99th of 100 tasks was polled first.
    pub(crate) polled_late: Duration,
}

/// What all callers of a run have in common.
struct Calls {
    shots: Arc<Vec<Shot>>,
    fates: Vec<OnceLock<Fate>>,
    contender: Arc<dyn Contender>,
    clock: Clock,
    start: Tick,
    retries: bool,
}

/// Makes every call at its time, and waits until something has become of each.
pub(crate) async fn fire(
    shots: &Arc<Vec<Shot>>,
    contender: Arc<dyn Contender>,
    start: Tick,
    retries: bool,
) -> Fates {
    let calls = Arc::new(Calls {
        shots: Arc::clone(shots),
        fates: shots.iter().map(|_| OnceLock::new()).collect(),
        contender,
        clock: Clock::system(),
        start,
        retries,
    });
    let (running, mut ended) = mpsc::channel::<()>(1);
    let (all, runtime) = (Arc::clone(&calls), Handle::current());
    // A thread of its own: the runtime's timers are too coarse, and would be late just when it matters.
    let generator = std::thread::spawn(move || generate(&all, &runtime, running));
    // Nothing is ever sent: it ends with the last caller.
    let _ = ended.recv().await;
    let mut lateness = generator.join().unwrap_or_default();
    lateness.sort_unstable();
    let fates: Vec<_> = calls.fates.iter().map(|fate| fate.get().copied()).collect();
    let mut polled: Vec<_> = fates.iter().flatten().map(|fate| fate.late).collect();
    polled.sort_unstable();
    Fates {
        fates,
        generator_late: quantile(&lateness, 0.99).unwrap_or_default(),
        polled_late: quantile(&polled, 0.99).unwrap_or_default(),
    }
}

/// Returns how late each call was made.
fn generate(calls: &Arc<Calls>, runtime: &Handle, running: mpsc::Sender<()>) -> Vec<Duration> {
    let mut lateness = Vec::with_capacity(calls.shots.len());
    for (number, shot) in calls.shots.iter().enumerate() {
        let due = calls.start + shot.due;
        let left = due.since(calls.clock.now());
        if !left.is_zero() {
            std::thread::sleep(left);
        }
        lateness.push(calls.clock.now().since(due));
        let (calls, running) = (Arc::clone(calls), running.clone());
        runtime.spawn(async move {
            let fate = calls.follow(number).await;
            let _ = calls.fates[number].set(fate);
            drop(running);
        });
    }
    lateness
}

impl Calls {
    async fn follow(&self, number: usize) -> Fate {
        let shot = &self.shots[number];
        let mut meant = self.start + shot.due;
        let late = self.clock.now().since(meant);
        for tries in 1.. {
            let outcome = self.attempt(shot, tries, meant).await;
            let now = self.clock.now();
            if outcome == Outcome::Done || !self.retries || tries > RETRIES {
                return Fate { outcome, took: now.since(meant), known: now.since(self.start), tries, late };
            }
            tokio::time::sleep(PAUSE).await;
            meant = now + PAUSE;
        }
        unreachable!("a caller gives up")
    }

    async fn attempt(&self, shot: &Shot, tries: u32, meant: Tick) -> Outcome {
        let deadline = meant + shot.patience;
        let left = deadline.since(self.clock.now());
        match timeout(left, self.contender.handle(shot, tries - 1, deadline)).await {
            // A timer has whole milliseconds; the deadline has not.
            Ok(Ok(())) if self.clock.now() > deadline => Outcome::Late,
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(Fault::Ended)) | Err(_) => Outcome::Late,
            Ok(Err(fault)) => Outcome::Failed(fault),
        }
    }
}
