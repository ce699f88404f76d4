//! Random signals. A tenth of `SELFHEAL_SEEDS` says how many stories, `SEED` replays one.

use std::{collections::HashMap, env, thread, time::Duration};

use super::*;
use crate::alert::Kind;

/// The seeds to run: one if `SEED` is set, else a tenth of what `SELFHEAL_SEEDS` says (5,000).
#[expect(clippy::disallowed_methods, reason = "a test is told its seeds by the environment")]
fn seeds() -> std::ops::Range<u64> {
    let number = |name| env::var(name).ok().and_then(|n| n.parse().ok());
    number("SEED").map_or_else(|| 0..number("SELFHEAL_SEEDS").unwrap_or(5_000) / 10, |seed| seed..seed + 1)
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

fn any_signal(random: &mut fastrand::Rng) -> Signal {
    let pool = name(random.choice(["main", "other"]).unwrap_or("main"));
    let supervisor = name(random.choice(["pools", "breakers"]).unwrap_or("pools"));
    let level = |random: &mut fastrand::Rng| Level::ALL[random.usize(0..3)];
    match random.u32(0..12) {
        0..4 => {
            let (from, to) = (level(random), level(random));
            Signal::Pressure { pool, from, to, in_use: random.u32(0..=100), max: 100, waiting: 0 }
        }
        4 => Signal::Peak { pool, in_use: random.u32(0..=100), max: 100 },
        5 => {
            let action = [MITIGATION, EMERGENCY].concat()[random.usize(0..6)];
            let step = if random.bool() { Step::Taken } else { Step::Undone };
            Signal::Action { pool, action, step, would: random.bool() }
        }
        6 => Signal::Blind { pool, blind: random.bool() },
        7 => {
            let state = [ServerState::Up, ServerState::Full, ServerState::Down][random.usize(0..3)];
            Signal::Server { pool, state }
        }
        8 => {
            let (operation, site) = (name("report"), name("src/report.rs:7"));
            Signal::Leak { pool, operation, site, held: Duration::from_secs(31), returned: random.bool() }
        }
        10 => Signal::Cancelled { pool, statements: random.u32(1..5) },
        9 => {
            let event = match random.u32(0..5) {
                0 => ChildEvent::Stopped { reason: Exit::Killed },
                1 => ChildEvent::Restarted { after: Duration::ZERO, restarts: random.u32(0..6) },
                2 => ChildEvent::StartFailed { error: name("planted") },
                3 => ChildEvent::GivenUp,
                _ => ChildEvent::Abandoned,
            };
            let child = name(random.choice(["alert", "pools"]).unwrap_or("alert"));
            Signal::Child { supervisor, child, event }
        }
        _ => Signal::Escalated { supervisor, root: false },
    }
}

/// Everything that can calm down does.
fn calm(machine: &mut Machine, now: Tick) {
    for (supervisor, child) in
        [("pools", "alert"), ("pools", "pools"), ("breakers", "alert"), ("breakers", "pools")]
    {
        let (supervisor, child) = (name(supervisor), name(child));
        machine.on(&Signal::Child { supervisor, child, event: ChildEvent::Started }, now);
    }
    for pool in ["main", "other"].map(name) {
        let (from, to) = (Level::Critical, Level::Normal);
        machine.on(&Signal::Pressure { pool: pool.clone(), from, to, in_use: 0, max: 100, waiting: 0 }, now);
        machine.on(&Signal::Blind { pool: pool.clone(), blind: false }, now);
        machine.on(&Signal::Server { pool: pool.clone(), state: ServerState::Up }, now);
        let leaks = |machine: &Machine| {
            machine.incidents().any(|i| {
                i.kind == Kind::Leak && i.is_open() && i.recovered_at.is_none() && i.subject.ends_with(&*pool)
            })
        };
        while leaks(machine) {
            let (operation, site) = (name("report"), name("src/report.rs:7"));
            let held = Duration::from_secs(60);
            machine.on(&Signal::Leak { pool: pool.clone(), operation, site, held, returned: true }, now);
        }
    }
}

fn story(seed: u64) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let policy =
        Policy { keep: 20, reopen_within: Duration::from_secs(random.u64(0..30)), ..Policy::default() };
    let mut machine = Machine::new(policy, Mode::Act, "");
    let (mut phases, mut alerted): (HashMap<Name, Phase>, HashMap<Name, Severity>) = Default::default();
    let (mut now, mut told) = (Tick::ZERO, Vec::new());
    for _ in 0..400 {
        now = match machine.next_timer().filter(|_| random.bool()) {
            Some(due) => due.max(now),
            None => now + Duration::from_millis(random.u64(0..2_000)),
        };
        let mut effects = if random.u32(0..3) == 0 {
            machine.on_tick(now)
        } else {
            machine.on(&any_signal(&mut random), now)
        };
        effects.extend(machine.on_tick(now));
        for effect in &effects {
            told.push(format!("{now:?} {effect:?}"));
            match effect {
                Effect::Phase { id, phase, .. } => {
                    let before = phases.insert(id.clone(), *phase);
                    let legal = match phase {
                        Phase::Opened => matches!(before, None | Some(Phase::Resolved)),
                        Phase::Escalated => before == Some(Phase::Opened),
                        Phase::Resolved => matches!(before, Some(Phase::Opened | Phase::Escalated)),
                        Phase::Failed => false,
                    };
                    assert!(legal, "{id}: {before:?} -> {phase:?}");
                }
                Effect::Alert { id, severity, .. } if *severity > Severity::Info => {
                    let before = alerted.insert(id.clone(), *severity);
                    assert!(before.is_none_or(|before| *severity > before), "{id} alerted {severity} again");
                }
                Effect::Alert { .. } | Effect::Ended { .. } | Effect::Say { .. } => {}
            }
        }
        let open: Vec<_> = machine.incidents().filter(|incident| incident.is_open()).collect();
        for (i, incident) in open.iter().enumerate() {
            let twin = |other: &&super::super::Incident| {
                other.kind == incident.kind && other.subject == incident.subject
            };
            assert!(!open[..i].iter().any(twin), "two are open about one thing");
            assert_ne!(phases[&incident.id], Phase::Resolved);
        }
        assert!(machine.incidents().count() <= 20 + Kind::ALL.len() * 4);
        assert!(machine.next_timer().is_none_or(|due| due > now), "nothing that is due is left");
    }
    calm(&mut machine, now);
    while let Some(due) = machine.next_timer() {
        assert!(!machine.on_tick(due).is_empty(), "a timer at {due:?} for nothing");
    }
    assert_eq!(machine.severity(), None, "after calm nothing is open");
    told
}

#[test]
fn whatever_happens_an_incident_goes_its_way_and_ends() {
    for seed in seeds() {
        let _told = OnPanic(seed);
        assert_eq!(story(seed), story(seed), "the same seed tells the same story");
    }
}
