//! Random loads. `SELFHEAL_SEEDS` says how many, `SEED` replays one.

use std::{
    collections::VecDeque,
    env,
    hash::{DefaultHasher, Hash, Hasher},
    thread,
    time::Duration,
};

use super::*;

const EVENTS: usize = 500;

/// The seeds to run: one if `SEED` is set, else as many as `SELFHEAL_SEEDS` says (2,000).
#[expect(clippy::disallowed_methods, reason = "a test is told its seeds by the environment")]
fn seeds() -> std::ops::Range<u64> {
    let number = |name| env::var(name).ok().and_then(|n| n.parse().ok());
    number("SEED").map_or_else(|| 0..number("SELFHEAL_SEEDS").unwrap_or(2_000), |seed| seed..seed + 1)
}

/// What must hold of any story, checked effect by effect from the outside.
#[derive(Default)]
struct Books {
    level: Level,
    blind: bool,
    open: Vec<Action>,
    changes: u32,
    hash: DefaultHasher,
}

impl Books {
    fn check(&mut self, machine: &Machine, effects: &Effects, now: Tick) {
        for effect in effects {
            format!("{now:?} {effect:?}").hash(&mut self.hash);
            match *effect {
                Effect::LevelChanged { from, to, .. } => {
                    assert_eq!(from, self.level, "it starts where the last one ended");
                    assert_eq!((from as i8 - to as i8).abs(), 1, "one step at a time");
                    self.level = to;
                    self.changes += 1;
                }
                Effect::Act(action) => {
                    assert!(!self.open.contains(&action), "{action:?} was already done");
                    self.open.push(action);
                }
                Effect::Undo(action) => {
                    assert_eq!(self.open.pop(), Some(action), "undone in reverse, and only once");
                }
                Effect::Peak(sample) => assert!(sample.in_use > 0),
                Effect::Cancel(statements) => assert!(statements > 0),
                Effect::Blind(blind) => {
                    assert_ne!(blind, self.blind, "it is told once");
                    self.blind = blind;
                }
            }
        }
        assert_eq!((self.level, self.blind), (machine.level(), machine.is_blind()));
        assert_eq!(self.open.len(), 3 * self.level as usize, "each level has its three actions");
        assert!(self.open.iter().copied().eq(machine.taken()));
        assert!(machine.next_timer().is_none_or(|due| due > now), "nothing that is due is left");
    }
}

fn random_policy(random: &mut fastrand::Rng) -> Policy {
    let mut below = |top: f64| top * (0.3 + 0.69 * random.f64());
    let critical = 0.999;
    let warning = below(critical);
    let (warning_exit, critical_exit) = (below(warning), below(critical));
    Policy {
        warning,
        warning_exit,
        critical: critical.max(warning),
        critical_exit,
        smoothing: Duration::from_millis(random.u64(0..300)),
        up: Duration::from_millis(random.u64(0..50)),
        down: Duration::from_millis(random.u64(0..3_000)),
        down_critical: Duration::from_millis(random.u64(0..500)),
        needs_waiter: random.bool(),
        blind_after: Duration::from_millis(random.u64(200..30_000)),
        ..Policy::default()
    }
}

fn random_sample(random: &mut fastrand::Rng) -> Sample {
    let max = random.choice([1, 10, 100, 100, 100, 97]).unwrap_or(100);
    let in_use = if random.bool() { max } else { random.u32(0..=max + 2) };
    let waiting = if random.bool() { 0 } else { random.u32(0..200) };
    let waiting_critical = random.u32(0..=waiting) / 50;
    Sample { in_use, max, waiting, waiting_critical, ..Sample::default() }
}

/// One life of a monitor; the hash of all that it did, at its times.
fn life(seed: u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut policy = if random.bool() { Policy::default() } else { random_policy(&mut random) };
    let mut machine = Machine::new(policy.clone());
    let (mut books, mut now) = (Books::default(), Tick::ZERO);
    for _ in 0..EVENTS {
        let due = machine.next_timer().filter(|_| random.u32(0..3) > 0);
        let step = Duration::from_micros(random.u64(0..60_000));
        let effects = match random.u32(0..200) {
            0 => {
                now = now + step;
                machine.lift(now)
            }
            1 => {
                policy = random_policy(&mut random);
                now = now + step;
                machine.reconfigure(policy.clone(), now)
            }
            2..70 => {
                now = due.unwrap_or(now + step);
                machine.on_tick(now)
            }
            _ => {
                now = now + step;
                machine.on(random_sample(&mut random), now)
            }
        };
        // A policy that has just been put in force may find something due at once.
        let overdue = machine.on_tick(now);
        books.check(&machine, &[effects, overdue].concat(), now);
    }
    let calm = machine.on(Sample { max: 100, ..Sample::default() }, now);
    books.check(&machine, &calm, now);
    while let Some(due) = machine.next_timer().filter(|_| machine.level() != Level::Normal) {
        let effects = machine.on_tick(due);
        assert!(!effects.is_empty(), "a timer at {due:?} for nothing");
        books.check(&machine, &effects, due);
    }
    assert!(books.open.is_empty(), "after calm nothing is left");
    books.hash.finish()
}

#[test]
fn every_life_keeps_its_books_and_ends_in_peace() {
    for seed in seeds() {
        let _told = OnPanic(seed);
        assert_eq!(life(seed), life(seed), "the same seed tells the same story");
    }
}

/// Names the seed of a failing test.
struct OnPanic(u64);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("SEED={} replays it", self.0);
        }
    }
}

/// A pool of 100 with a queue, fed by a Poisson stream and served in exponential time (M/M/100), looked at
/// with every arrival and release: level changes a minute.
fn changes_per_minute(seed: u64, load: f64, service: f64, policy: Policy) -> f64 {
    const MINUTES: u32 = 3;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut machine = Machine::new(policy);
    let (mut in_use, mut queue) = (0, VecDeque::new());
    let (mut clock, mut books) = (0.0f64, Books::default());
    while clock < 60.0 * f64::from(MINUTES) {
        let (arrivals, served) = (load * 100.0 / service, f64::from(in_use) / service);
        clock += -(1.0 - random.f64()).ln() / (arrivals + served);
        let now = Tick::ZERO + Duration::from_secs_f64(clock);
        match random.f64() * (arrivals + served) < arrivals {
            true if in_use < 100 => in_use += 1,
            true => queue.push_back(now),
            false if queue.pop_front().is_none() => in_use -= 1,
            false => {}
        }
        let sample = Sample { waiting_since: queue.front().copied(), ..pool(in_use, queue.len() as u32) };
        let effects = machine.on(sample, now);
        books.check(&machine, &effects, now);
    }
    f64::from(books.changes) / f64::from(MINUTES)
}

/// At .80 with queries of 50 ms there is a queue for longer than `up` three times a minute, and each in it waits
/// for a few milliseconds. The header has what longer runs gave.
#[test]
fn at_a_healthy_load_the_level_stays_where_it_is() {
    for (load, service) in [(0.75, 0.010), (0.80, 0.010), (0.75, 0.050), (0.80, 0.050)] {
        for seed in 0..2 {
            let changes = changes_per_minute(seed, load, service, Policy::default());
            assert!(
                changes <= 2.0,
                "{changes} changes a minute, load {load}, service {service} (seed {seed})"
            );
        }
    }
}

#[test]
fn without_average_and_dwell_it_would_flap_all_the_time() {
    let flag = Policy {
        needs_waiter: false,
        smoothing: Duration::ZERO,
        up: Duration::ZERO,
        down: Duration::ZERO,
        down_critical: Duration::ZERO,
        ..Policy::default()
    };
    let changes = changes_per_minute(1, 0.80, 0.050, flag);
    assert!(changes > 500.0, "{changes}: else the test of a healthy load proves nothing");
}
