//! A load that is high and steady, on virtual time: the gate and the monitor of a pool as they are, with arrivals and
//! holds by chance.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use fastrand::Rng;
use selfheal::clock::Tick;
use selfheal_actors::{
    gate::{self, Answer, Ask, Change, ClaimId, JobId, Work},
    level::Class,
    pool_monitor::{self, Effect, Sample},
    signal::Step,
};

/// Connections, and their mean hold; the logarithm of holds deviates by `SIGMA`.
const SLOTS: u32 = 90;
const MEAN: f64 = 0.050;
const SIGMA: f64 = 0.8;

/// What came of a load.
#[derive(Debug, Default)]
struct Seen {
    levels: u32,
    entered: u64,
    refused: u64,
}

struct Rig {
    gate: gate::Machine,
    monitor: pool_monitor::Machine,
    random: Rng,
    /// When what is held is given back.
    ends: BinaryHeap<Reverse<(Tick, ClaimId, JobId)>>,
    /// Whose the claims that wait are.
    waiting: std::collections::HashMap<ClaimId, JobId>,
    seen: Seen,
}

impl Rig {
    fn new(seed: u64) -> Self {
        Self {
            gate: gate::Machine::new(gate::Policy::default(), SLOTS, seed),
            monitor: pool_monitor::Machine::new(pool_monitor::Policy::default()),
            random: Rng::with_seed(seed),
            ends: BinaryHeap::new(),
            waiting: std::collections::HashMap::new(),
            seen: Seen::default(),
        }
    }

    /// A fifth of the requests is critical, the rest normal and sheddable in equal parts, with one query each.
    fn run(mut self, load: f64, lasts: Duration) -> Seen {
        let rate = load * f64::from(SLOTS) / MEAN;
        let (mut arrival, end) = (Tick::ZERO, Tick::ZERO + lasts);
        while arrival < end {
            let timers = [self.gate.next_timer(), self.monitor.next_timer()].into_iter().flatten().min();
            let ends = self.ends.peek().map(|Reverse((at, ..))| *at);
            let now = timers.into_iter().chain(ends).min().unwrap_or(arrival).min(arrival);
            let mut told = Vec::new();
            if timers.is_some_and(|at| at <= now) {
                self.gate.tick(now, &mut told);
            } else if ends.is_some_and(|at| at <= now) {
                if let Some(Reverse((_, claim, job))) = self.ends.pop() {
                    self.gate.release(claim, now, &mut told);
                    self.gate.leave(job, now, &mut told);
                }
            } else {
                self.arrive(now, &mut told);
                arrival = arrival + Duration::from_secs_f64(-(1.0 - self.random.f64()).ln() / rate);
            }
            self.follow(told, now);
        }
        self.seen
    }

    fn arrive(&mut self, now: Tick, told: &mut Vec<gate::Effect>) {
        let (class, deadline) = match self.random.u32(0..5) {
            0 => (Class::Critical, 250),
            1..3 => (Class::Normal, 1_000),
            _ => (Class::Sheddable, 1_000),
        };
        let deadline = Some(now + Duration::from_millis(deadline));
        let work = Work { class, deadline, ..Work::default() };
        self.seen.entered += 1;
        let Ok(job) = self.gate.enter(&work, now, told) else {
            self.seen.refused += 1;
            return;
        };
        match self.gate.acquire(&Ask { job: Some(job), work, ..Ask::default() }, now, told) {
            Answer::Granted(claim) => self.hold(claim, job, now),
            Answer::Parked(claim) => drop(self.waiting.insert(claim, job)),
            Answer::Refused(_) => self.seen.refused += 1,
        }
    }

    fn hold(&mut self, claim: ClaimId, job: JobId, now: Tick) {
        let lognormal = (SIGMA * self.normal() - SIGMA * SIGMA / 2.0).exp();
        self.ends.push(Reverse((now + Duration::from_secs_f64(MEAN * lognormal), claim, job)));
    }

    /// Box and Muller's.
    fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.random.f64(), self.random.f64());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    fn follow(&mut self, mut told: Vec<gate::Effect>, now: Tick) {
        loop {
            for effect in told.drain(..) {
                match effect {
                    gate::Effect::Granted(claim) => {
                        let job = self.waiting.remove(&claim).expect("it waited");
                        self.hold(claim, job, now);
                    }
                    gate::Effect::Refused(claim, ..) => {
                        self.waiting.remove(&claim);
                        self.seen.refused += 1;
                    }
                }
            }
            let effects = self.monitor.on(self.sample(), now);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::LevelChanged { .. } => self.seen.levels += 1,
                    Effect::Act(action) => self.gate.apply(Change::of(action, Step::Taken), now, &mut told),
                    Effect::Undo(action) => self.gate.apply(Change::of(action, Step::Undone), now, &mut told),
                    Effect::Peak(_) | Effect::Blind(_) | Effect::Cancel(_) => {}
                }
            }
        }
    }

    fn sample(&self) -> Sample {
        let waiting = self.gate.waiting();
        Sample {
            in_use: self.gate.used(),
            max: self.gate.limit(),
            waiting: waiting.iter().sum(),
            waiting_critical: waiting[Class::Critical.index()],
            waiting_since: self.gate.pressed_since(),
            critical_waiting_since: self.gate.critical_waiting_since(),
        }
    }
}

fn minutes(load: f64, seeds: std::ops::Range<u64>) -> Seen {
    let mut all = Seen::default();
    for seed in seeds {
        let seen = Rig::new(seed).run(load, Duration::from_secs(60));
        all.levels += seen.levels;
        all.entered += seen.entered;
        all.refused += seen.refused;
    }
    all
}

/// The header of `pool_monitor` has what twenty minutes of each load gave.
#[test]
fn four_fifths_of_the_capacity_change_no_level_and_nobody_is_refused() {
    for load in [0.75, 0.80] {
        let seen = minutes(load, 0..2);
        assert_eq!((seen.levels, seen.refused), (0, 0), "load {load}, seeds 0 and 1: {seen:?}");
    }
    let more_than_there_is = minutes(1.1, 0..1);
    assert!(more_than_there_is.levels > 0 && more_than_there_is.refused > 0, "{more_than_there_is:?}");
}
