//! What one key cannot know alone: the rules between keys.
//!
//! All of them run, so that a file with five mistakes is corrected once and not five times. A rule is skipped
//! only where a key that takes part in it has a mistake of its own, since it would judge a value that nobody
//! wrote.

mod breakers;
mod paths;
mod transitions;
mod trees;

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{
    finding::{Finding, Mistake, Places},
    key::Key,
    policy::{Admin, Batching, Config, Pool},
    retry::{Delays, Growth, Retry},
    supervision::Backoff,
};

/// Every rule between keys that `config` breaks.
///
/// `places` says where each key was set, `known` which keys are known to be wrong already.
pub(super) fn validate(config: &Config, places: &Places, known: &[Finding]) -> Vec<Finding> {
    let mut rules = Rules { places, known, broken: Vec::new() };
    for (name, pool) in &config.pools {
        rules.pool(&Key::of(["pools", name]), pool);
    }
    breakers::breakers(&mut rules, config);
    rules.batching(&config.batching);
    transitions::transitions(&mut rules, &config.transitions);
    paths::batches(&mut rules, &config.batches, &config.pools);
    rules.retry(&config.retry);
    let Backoff { initial, max, .. } = config.supervision.backoff;
    rules.backoff(&Key::of(["supervision", "backoff"]), initial, max);
    paths::endpoints(&mut rules, &config.endpoints, &config.pools);
    trees::trees(&mut rules, &config.trees);
    rules.admin(&config.admin);
    rules.broken
}

/// Collects the rules that are broken.
struct Rules<'a> {
    places: &'a Places,
    known: &'a [Finding],
    broken: Vec<Finding>,
}

impl Rules<'_> {
    /// Notes that a rule about `keys` is broken; the first of them is the one to change.
    fn broken(&mut self, keys: &[Key], mistake: Mistake) {
        let mistaken = |key: &Key| self.known.iter().any(|finding| finding.spoils(key));
        if let Some(first) = keys.first()
            && !keys.iter().any(mistaken)
        {
            self.broken.push(Finding::new(self.places.best(keys), first.clone(), mistake));
        }
    }

    /// `lower` must be less than `upper`.
    fn below(&mut self, table: &Key, lower: (&str, f64), upper: (&str, f64)) {
        if lower.1 < upper.1 {
            return;
        }
        let keys = [table.child(lower.0), table.child(upper.0)];
        let message = format!(
            "{} must be below {}",
            self.told(&keys[0], lower.0, lower.1),
            self.told(&keys[1], upper.0, upper.1)
        );
        let help = format!("lower {} or raise {}", lower.0, upper.0);
        self.broken(&keys, Mistake::new(message, format!("{} < {}", lower.0, upper.0)).help(help));
    }

    /// A key with its value, and whether anybody chose it: `warning_exit (0.8, the default)`.
    fn told(&self, key: &Key, name: &str, value: impl fmt::Display) -> String {
        let default = if self.places.of(key).is_none() { ", the default" } else { "" };
        format!("{name} ({value}{default})")
    }

    fn pool(&mut self, at: &Key, pool: &Pool) {
        self.below(at, ("warning", pool.warning), ("critical", pool.critical));
        self.below(at, ("warning_exit", pool.warning_exit), ("warning", pool.warning));
        self.below(at, ("critical_exit", pool.critical_exit), ("critical", pool.critical));
    }

    fn batching(&mut self, batching: &Batching) {
        let Batching { normal, under_pressure } = *batching;
        if under_pressure < normal {
            let keys = [Key::of(["batching", "under_pressure"]), Key::of(["batching", "normal"])];
            let upper = self.told(&keys[0], "under_pressure", under_pressure);
            let message = format!("{upper} must not be below {}", self.told(&keys[1], "normal", normal));
            let help = "raise under_pressure or lower normal".to_owned();
            self.broken(&keys, Mistake::new(message, "normal <= under_pressure").help(help));
        }
    }

    fn retry(&mut self, retry: &Retry) {
        match &retry.delays {
            Delays::Growing(Growth::Exponential | Growth::Linear) => {
                self.backoff(&Key::of(["retry"]), retry.initial, retry.max);
            }
            Delays::Growing(Growth::Constant) => {}
            Delays::Listed(list) => {
                if !(1..=100).contains(&list.len()) {
                    let message = format!("the list has {} waits", list.len());
                    let mistake = Mistake::new(message, "1 to 100 waits");
                    let help = "write delays = [\"1s\", \"2s\"], or delays = \"exponential\"".to_owned();
                    self.broken(&[Key::of(["retry", "delays"])], mistake.help(help));
                }
            }
        }
    }

    fn backoff(&mut self, at: &Key, initial: Duration, max: Duration) {
        if max < initial {
            let keys = [at.child("max"), at.child("initial")];
            let max = self.told(&keys[0], "max", humantime::format_duration(max));
            let initial = self.told(&keys[1], "initial", humantime::format_duration(initial));
            let mistake = Mistake::new(format!("{max} must not be below {initial}"), "initial <= max");
            self.broken(&keys, mistake.help("raise max or lower initial".to_owned()));
        }
    }

    fn admin(&mut self, admin: &Admin) {
        let [listen, token, viewer] =
            ["listen", "token", "read_only_token"].map(|name| Key::of(["admin", name]));
        let is_guarded = admin.token.is_some() || (admin.read_only && admin.read_only_token.is_some());
        if let Some(address) = admin.listen.filter(|address| !address.ip().is_loopback() && !is_guarded) {
            let message = format!("others can reach {address}, and there is no token");
            let help = "set SELFHEAL__ADMIN__TOKEN, or listen on 127.0.0.1".to_owned();
            self.broken(
                &[listen, token.clone()],
                Mistake::new(message, "a loopback address, or a token").help(help),
            );
        }
        if admin.token.is_some() && admin.token == admin.read_only_token {
            let message = "read_only_token is the same as token, so that whoever may see may also act";
            let mistake =
                Mistake::new(message, "two different tokens").help("generate another one".to_owned());
            self.broken(&[viewer, token], mistake);
        }
    }
}

/// Whatever stands twice, each with the index of the first and of the further one.
fn repeated<K: Ord>(keys: impl IntoIterator<Item = (usize, K)>) -> Vec<(usize, usize)> {
    let mut first = BTreeMap::new();
    let mut repeated = Vec::new();
    for (index, key) in keys {
        match first.entry(key) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(index);
            }
            std::collections::btree_map::Entry::Occupied(entry) => repeated.push((*entry.get(), index)),
        }
    }
    repeated
}
