//! What runs, and in which order.

use std::{collections::BTreeSet, error::Error, fmt, sync::Arc};

use selfheal_benches::Dice;

use crate::{
    Measured, SLOTS,
    args::Args,
    contender::{self, Kind},
    fixture::Fixture,
    load, report, run,
    scenario::Scenario,
    smoke,
};

/// How long the rig's own ceiling is measured for each seed.
const ORACLE_SECONDS: f64 = 3.0;
/// What a run takes beyond its load: connections are opened and closed, and the last callers wait for their answer.
const AROUND_SECONDS: f64 = 1.5;

/// Every run that will be made.
pub(crate) struct Plan {
    pub(crate) scenarios: Vec<(Scenario, Turns)>,
    left_out: Option<Kind>,
}

/// The runs in a scenario.
pub(crate) struct Turns {
    seeds: BTreeSet<u64>,
    kinds: Vec<Kind>,
}

impl Plan {
    pub(crate) fn new(args: &Args) -> Self {
        let chosen = if args.smoke { smoke::scenarios() } else { args.scenarios.clone() };
        let turns = |scenario: &Scenario| match args.smoke {
            true => Turns { seeds: [args.seed.unwrap_or(1)].into(), kinds: smoke::CONTENDERS.to_vec() },
            false => Turns { seeds: args.seeds(scenario), kinds: args.contenders(scenario) },
        };
        let mut scenarios: Vec<_> = chosen.into_iter().map(|scenario| (turns(&scenario), scenario)).collect();
        let mut left_out = None;
        if !contender::has_bouncer() {
            for (turns, _) in &mut scenarios {
                let before = turns.kinds.len();
                turns.kinds.retain(|kind| *kind != Kind::PgBouncer);
                left_out = left_out.or((turns.kinds.len() < before).then_some(Kind::PgBouncer));
            }
        }
        let scenarios = scenarios.into_iter().map(|(turns, scenario)| (scenario, turns)).collect();
        Self { scenarios, left_out }
    }

    /// Seed by seed; within a seed and a scenario in an order of its own, so that a busy moment hits all alike.
    pub(crate) fn perform(&self, fixture: &Fixture) -> Result<Measured, Box<dyn Error>> {
        let mut measured = Measured::default();
        let seeds: BTreeSet<_> = self.scenarios.iter().flat_map(|(_, turns)| &turns.seeds).collect();
        for &seed in seeds {
            let oracle = run::oracle(fixture, seed, ORACLE_SECONDS)?;
            println!("seed {seed}: oracle {oracle:.3} (closed loop, {SLOTS} workers)");
            measured.oracles.insert(seed, oracle);
            for (number, (scenario, turns)) in self.scenarios.iter().enumerate() {
                if !turns.seeds.contains(&seed) {
                    continue;
                }
                let shots = Arc::new(load::shots(scenario, seed));
                let mut kinds = turns.kinds.clone();
                Dice::new(seed << 8 | number as u64).shuffle(&mut kinds);
                for kind in kinds {
                    let figures = run::run(fixture, scenario, kind, seed, &shots)?;
                    println!("{}", report::line(&figures));
                    measured.runs.push(figures);
                }
            }
        }
        Ok(measured)
    }

    fn minutes(&self) -> f64 {
        let seconds = |(scenario, turns): &(Scenario, Turns)| {
            (turns.seeds.len() * turns.kinds.len()) as f64 * (scenario.seconds() + AROUND_SECONDS)
        };
        self.scenarios.iter().map(seconds).sum::<f64>() / 60.0
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = |kind: &Kind| self.scenarios.iter().any(|(_, turns)| turns.kinds.contains(kind));
        for kind in Kind::ALL.iter().filter(|kind| kinds(kind)) {
            writeln!(f, "  {:12} {}", kind.name(), kind.about())?;
        }
        if let Some(kind) = self.left_out {
            writeln!(f, "  {:12} LEFT OUT: it is not installed (apt-get install pgbouncer)", kind.name())?;
        }
        write!(f, "about {:.0} minutes", self.minutes().ceil())
    }
}
