//! Random operations, failures, levels and operators. `SELFHEAL_SEEDS` says how many stories, `SEED` replays one.

use std::{collections::BTreeMap, env};

use fastrand::Rng;

use super::*;
use crate::{
    batch_executor::{Ending, Reply},
    level::Level,
};

const EVENTS: usize = 400;
const CALLERS: [&str; 3] = ["ann", "bob", "eve"];

/// The seeds to run: one if `SEED` is set, else as many as `SELFHEAL_SEEDS` says (1,000).
#[expect(clippy::disallowed_methods, reason = "a test is told its seeds by the environment")]
fn seeds() -> std::ops::Range<u64> {
    let number = |name| env::var(name).ok().and_then(|n| n.parse().ok());
    number("SEED").map_or_else(|| 0..number("SELFHEAL_SEEDS").unwrap_or(1_000), |seed| seed..seed + 1)
}

/// One run, as its driver sees it, and what has truly become of each of its items.
struct Driven {
    caller: &'static str,
    /// Items that fail whenever they are tried.
    poison: Vec<bool>,
    settled: Vec<bool>,
    awaited: bool,
    working: Option<(u64, u32)>,
    until: Tick,
}

struct Story {
    rig: Rig,
    random: Rng,
    runs: BTreeMap<RunId, Driven>,
    level: Level,
    held: bool,
    policy: Policy,
    finished: usize,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let policy = Policy {
            reply: if random.bool() { Reply::Fill } else { Reply::FirstChunk },
            deadline: MS(random.u64(500..20_000)),
            per_item: Duration::from_micros(random.u64(10..30_000)),
            poison: random.u32(0..20),
            ..Policy::default()
        };
        let rig = Rig::new(policy.clone());
        Self { rig, random, runs: BTreeMap::new(), level: Level::Normal, held: false, policy, finished: 0 }
    }

    fn event(&mut self) {
        let span = Duration::from_micros(self.random.u64(0..200_000));
        self.rig.pass(span);
        match self.random.u8(0..20) {
            0..3 => self.begin(),
            3..11 => self.start(),
            11..18 => self.finish(true),
            18 => {
                self.level = *self.random.choice(Level::ALL).expect("there are some");
                self.rig.machine.on_level(&"main".into(), self.level, self.rig.now);
            }
            _ => {
                self.held = self.random.bool();
                self.rig.machine.hold("spam-capture", self.held);
            }
        }
        self.check();
    }

    fn begin(&mut self) {
        let caller = self.random.choice(CALLERS).expect("there are some");
        let items = self.random.usize(1..2_000);
        let running = self.runs.iter().find(|(_, run)| run.caller == caller).map(|(id, _)| *id);
        match (self.rig.begin(caller, items as u64), running) {
            (Begun::Joined(id), running) => assert_eq!(Some(id), running),
            (Begun::Run(id, plan), None) => {
                assert_eq!(plan.batches, (items as u64).div_ceil(plan.batch.into()));
                let sick = self.random.bool();
                let poison = (0..items).map(|_| sick && self.random.u8(..) == 0).collect();
                let until = self.rig.now + self.policy.deadline;
                let settled = vec![false; items];
                self.runs.insert(id, Driven { caller, poison, settled, awaited: true, working: None, until });
            }
            (begun, running) => panic!("{begun:?} beside {running:?}"),
        }
    }

    fn idle(&mut self) -> Option<RunId> {
        let idle: Vec<_> =
            self.runs.iter().filter(|(_, run)| run.working.is_none()).map(|(id, _)| *id).collect();
        self.random.choice(idle)
    }

    fn start(&mut self) {
        let Some(id) = self.idle() else { return };
        let next = self.rig.next(id);
        let others = self.runs.values().filter(|run| run.working.is_some() && !run.awaited).count();
        let run = self.runs.get_mut(&id).expect("it is driven");
        match next {
            Next::Chunk { from, items } => {
                assert!(items > 0 && items <= 500);
                let first = run.settled.iter().position(|settled| !settled).expect("something is left");
                assert_eq!(first as u64, from, "items are worked on in order");
                assert!(from + u64::from(items) <= run.settled.len() as u64);
                if run.awaited {
                    assert!(self.rig.now + self.policy.kept_back() < run.until, "a chunk that does not fit");
                } else {
                    assert!(self.level != Level::Critical && !self.held);
                    assert!(self.level == Level::Normal || others == 0, "one at a time");
                }
                run.working = Some((from, items));
            }
            Next::Answer => {
                assert!(run.awaited, "answered once");
                run.awaited = false;
                self.rig.machine.answered(id);
            }
            Next::Wait { .. } => {}
            Next::Over(ending) => {
                match ending {
                    Ending::Done => assert!(run.settled.iter().all(|settled| *settled)),
                    Ending::GaveUp => assert!(run.poison.iter().any(|poison| *poison)),
                    Ending::Cancelled
                    | Ending::Released
                    | Ending::Lost
                    | Ending::Failed { .. }
                    | Ending::PutOff { .. } => panic!("nobody asked for it"),
                }
                self.rig.machine.forget(id);
                self.runs.remove(&id);
                self.finished += 1;
            }
        }
    }

    fn finish(&mut self, troubled: bool) {
        let working: Vec<_> =
            self.runs.iter().filter(|(_, run)| run.working.is_some()).map(|(id, _)| *id).collect();
        let Some(id) = self.random.choice(working) else { return };
        let run = self.runs.get_mut(&id).expect("it is driven");
        let (from, items) = run.working.take().expect("it works");
        let range = from as usize..from as usize + items as usize;
        let sick = run.poison[range.clone()].iter().any(|poison| *poison);
        let trouble = [ErrorClass::Transient, ErrorClass::Overload, ErrorClass::Timeout];
        let class = self.random.choice(trouble).expect("there is some");
        let outcome = match sick {
            _ if troubled && self.random.u8(0..10) == 0 => Outcome::Failed(class),
            true => Outcome::Failed(ErrorClass::Permanent),
            false => {
                let blocked = self.random.u32(0..=items.min(3));
                Outcome::Done { done: items - blocked, blocked, failed: 0, waited: Duration::ZERO }
            }
        };
        let effects = self.rig.machine.finished(id, outcome, self.rig.now);
        if matches!(outcome, Outcome::Done { .. }) {
            run.settled[range].fill(true);
        }
        for effect in effects {
            match effect {
                Effect::Poisoned(item) => {
                    assert!(run.poison[item as usize] && items == 1 && item == from);
                    run.settled[item as usize] = true;
                }
                Effect::Tell { number, of, items: told, .. } => {
                    assert!(number <= of && told == items);
                }
            }
        }
    }

    /// What the machine says has become of the items is what has become of them.
    fn check(&self) {
        for (id, run) in &self.runs {
            let counts = self.rig.machine.counts(*id).expect("it runs");
            let settled = run.settled.iter().filter(|settled| **settled).count() as u64;
            assert_eq!(counts.total - counts.remaining(), settled, "of {id:?}");
            assert_eq!(counts.done + counts.blocked + counts.failed, settled);
        }
    }

    /// Without pressure and trouble every run comes to an end.
    fn calm_down(&mut self) {
        self.rig.machine.on_level(&"main".into(), Level::Normal, self.rig.now);
        self.rig.machine.hold("spam-capture", false);
        (self.level, self.held) = (Level::Normal, false);
        for _ in 0..100_000 {
            if self.runs.is_empty() {
                return;
            }
            self.rig.pass(MS(50));
            self.start();
            self.finish(false);
            self.check();
        }
        panic!("{} runs do not end", self.runs.len());
    }
}

#[test]
fn every_item_is_worked_on_until_something_has_become_of_it_and_only_once() {
    let mut finished = 0;
    for seed in seeds() {
        eprintln!("SEED={seed}");
        let mut story = Story::new(seed);
        for _ in 0..EVENTS {
            story.event();
        }
        story.calm_down();
        finished += story.finished;
    }
    assert!(finished > 0, "a story in which nothing is finished shows nothing");
}
