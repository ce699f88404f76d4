//! What is to be measured.

use std::{collections::BTreeSet, fmt::Display, path::PathBuf, str::FromStr};

use crate::{
    contender::Kind,
    scenario::{self, Scenario},
};

pub(crate) const USAGE: &str = "\
cargo bench --manifest-path benches/Cargo.toml --bench overload -- [OPTIONS]
  --scenario A2,B     only these (default: all but the steady S75 and S80, of two minutes each)
  --contender auto    only these (default: those that a scenario is about)
  --seeds 3           runs of each, with seeds 1, 2, 3 (default: 3 for A2, A10 and B, else 1)
  --seed 7            only this seed
  --seconds 8         how long the press lasts
  --json FILE         every run's figures, as JSON
  --smoke             a minute: checks who is better, not by how much, and fails if that is not so";

/// The choice of what is to be measured.
#[derive(Debug, Default)]
pub(crate) struct Args {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) contenders: Option<Vec<Kind>>,
    pub(crate) seeds: Option<u64>,
    pub(crate) seed: Option<u64>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) smoke: bool,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut args, mut seconds) = (Self::default(), None);
        let mut chosen = scenario::all();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
            match word.as_str() {
                "--scenario" => chosen = scenarios(&value()?)?,
                "--contender" => {
                    args.contenders = Some(value()?.split(',').map(Kind::from_str).collect::<Result<_, _>>()?)
                }
                "--seeds" => args.seeds = Some(number(&value()?)?),
                "--seed" => args.seed = Some(number(&value()?)?),
                "--seconds" => seconds = Some(number(&value()?)?),
                "--json" => args.json = Some(value()?.into()),
                "--smoke" => args.smoke = true,
                // Cargo adds it.
                "--bench" => {}
                _ => return Err(format!("\"{word}\"?\n{USAGE}")),
            }
        }
        args.scenarios = match seconds {
            Some(seconds) => chosen.into_iter().map(|scenario| scenario.pressed_for(seconds)).collect(),
            None => chosen,
        };
        Ok(args)
    }

    /// The seeds of a scenario.
    pub(crate) fn seeds(&self, scenario: &Scenario) -> BTreeSet<u64> {
        match self.seed {
            Some(seed) => [seed].into(),
            None => (1..=self.seeds.unwrap_or(scenario.seeds)).collect(),
        }
    }

    /// Who runs in a scenario. By default each does that has something to show in it: a pool that waits 1 s instead of 30
    /// or pings before use differs from `raw30` where the pool is fought for, and a watcher only needs to be seen to change
    /// nothing.
    pub(crate) fn contenders(&self, scenario: &Scenario) -> Vec<Kind> {
        let by_default = |kind: &Kind| match kind {
            Kind::SqlxDefault => scenario.key == "A2",
            Kind::Unbound => scenario.key == "C",
            Kind::Raw1 | Kind::Observe => ["A2", "D"].contains(&scenario.key),
            Kind::Raw30 | Kind::Tower | Kind::Bulkhead | Kind::Adaptive | Kind::Flag => true,
            Kind::PgBouncer | Kind::Auto | Kind::Static => true,
        };
        self.contenders.clone().unwrap_or_else(|| Kind::ALL.into_iter().filter(by_default).collect())
    }
}

fn scenarios(keys: &str) -> Result<Vec<Scenario>, String> {
    let find = |key: &str| {
        let all = [scenario::all(), scenario::steady()].concat();
        let keys: Vec<_> = all.iter().map(|scenario| scenario.key).collect();
        let keys = keys.join(", ");
        all.into_iter()
            .find(|scenario| scenario.key == key)
            .ok_or_else(|| format!("no scenario \"{key}\": {keys}"))
    };
    keys.split(',').map(find).collect()
}

fn number<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("\"{text}\": {error}"))
}
