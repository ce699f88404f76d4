//! The rules of `[breaker]` and of each `[endpoints.breaker]`, which is judged together with what it is laid over.

use super::Rules;
use crate::config::{
    breaker::{Breaker, BreakerKeys, Count, Decide, HalfOpen, Share, Window},
    finding::Mistake,
    key::Key,
    policy::Config,
};

pub(super) fn breakers(rules: &mut Rules<'_>, config: &Config) {
    let all = Table { at: Key::of(["breaker"]), over: None };
    rules.breaker(&all, &config.breaker);
    for (index, endpoint) in config.endpoints.iter().enumerate() {
        if let Some(keys) = &endpoint.breaker {
            let at = Key::of(["endpoints"]).item(index).child("breaker");
            rules.breaker(&Table { at, over: Some(keys) }, &keys.over(&config.breaker));
        }
    }
}

/// A table of keys, and for an endpoint which keys are its own.
struct Table<'a> {
    at: Key,
    over: Option<&'a BreakerKeys>,
}

impl Table<'_> {
    /// Where `name` is set, as far as this table is concerned; an endpoint answers only for its own keys.
    fn key(&self, name: &str) -> Option<Key> {
        let own = self.over.is_none_or(|keys| keys.has(name));
        own.then(|| self.at.child(name))
    }

    /// Those of `names` that this table answers for.
    fn keys(&self, names: &[&str]) -> Vec<Key> {
        names.iter().filter_map(|name| self.key(name)).collect()
    }
}

impl Rules<'_> {
    fn breaker(&mut self, table: &Table<'_>, breaker: &Breaker) {
        self.window(table, &breaker.window);
        let slow_rate = breaker.slow_rate.as_ref();
        let shares = [("failure_rate", Some(&breaker.failure_rate)), ("slow_rate", slow_rate)];
        for (name, share) in shares {
            if let Some(Share { above, at_least }) = share {
                self.one_of_two(table, name, above.is_some(), at_least.is_some());
                if *above == Some(1.0) {
                    let mistake = Mistake::new(format!("{name} is never above 1"), "above less than 1");
                    let help = format!("{name} = {{ at_least = 1.0 }}");
                    self.broken(&table.keys(&[name]), mistake.help(help));
                }
            }
        }
        let streak = breaker.consecutive_failures.as_ref();
        let counts = [
            ("failures", Some(&breaker.failures)),
            ("calls", Some(&breaker.calls)),
            ("consecutive_failures", streak),
        ];
        for (name, count) in counts {
            if let Some(Count { above, at_least }) = count {
                self.one_of_two(table, name, above.is_some(), at_least.is_some());
            }
        }
        if let Some(Count { above: None, at_least: Some(0) }) = streak {
            let mistake = Mistake::new("0 failures in a row are no failures", "at_least 1 or more");
            let help = "consecutive_failures = { at_least = 5 }".to_owned();
            self.broken(&table.keys(&["consecutive_failures"]), mistake.help(help));
        }
        self.can_fail_that_often(table, breaker);
        if slow_rate.is_some() && breaker.slow_call.is_none() {
            let message = "slow_rate needs slow_call: without it no call is slow";
            let mistake = Mistake::new(message, "slow_call").help("add slow_call = \"2s\"".to_owned());
            self.broken(&table.keys(&["slow_rate"]), mistake);
        }
        if breaker.open_max < breaker.open_for {
            let (at, max) = (&table.at, humantime::format_duration(breaker.open_max));
            let max = self.told(&at.child("open_max"), "open_max", max);
            let open_for = humantime::format_duration(breaker.open_for);
            let open_for = self.told(&at.child("open_for"), "open_for", open_for);
            let mistake = Mistake::new(format!("{max} must not be below {open_for}"), "open_for <= open_max");
            let help = "raise open_max or lower open_for".to_owned();
            self.broken(&table.keys(&["open_max", "open_for"]), mistake.help(help));
        }
        self.half_open(table, &breaker.half_open);
    }

    fn window(&mut self, table: &Table<'_>, window: &Window) {
        let keys = table.keys(&["window"]);
        let by_time = window.last.is_some() || window.buckets.is_some();
        if window.calls.is_some() && by_time {
            let message = "a window is of time (last, buckets) or of calls, not of both";
            self.broken(
                &keys,
                Mistake::new(message, "one of the two").help("remove calls, or the others".to_owned()),
            );
        }
        if window.calls.is_none() && window.last.is_none() {
            let message = "a window needs last or calls: how far back it looks";
            let help = "window = { last = \"10s\", buckets = 10 }".to_owned();
            self.broken(&keys, Mistake::new(message, "last or calls").help(help));
        }
    }

    fn one_of_two(&mut self, table: &Table<'_>, name: &str, above: bool, at_least: bool) {
        if above == at_least {
            let both = if above { "not both" } else { "and it has neither" };
            let message = format!("{name} is a threshold: above or at_least, {both}");
            let help = format!("{name} = {{ above = … }}, or {name} = {{ at_least = … }}");
            self.broken(&table.keys(&[name]), Mistake::new(message, "one of above, at_least").help(help));
        }
    }

    /// A window of ten calls never holds eleven failures.
    fn can_fail_that_often(&mut self, table: &Table<'_>, breaker: &Breaker) {
        let Some(size) = breaker.window.calls else { return };
        let Count { above, at_least } = breaker.failures;
        let fits = at_least.is_none_or(|least| least <= size) && above.is_none_or(|above| above < size);
        if !fits {
            let message = format!("a window of {size} calls never holds that many failures");
            let help = "lower failures, or look at more calls".to_owned();
            let mistake = Mistake::new(message, "fewer failures than calls").help(help);
            self.broken(&table.keys(&["failures", "window"]), mistake);
        }
    }

    fn half_open(&mut self, table: &Table<'_>, half_open: &HalfOpen) {
        let decide = half_open.decide.unwrap_or_default();
        let (by, misplaced) = match decide {
            Decide::Count => (
                "count",
                [
                    ("max_wait", half_open.max_wait.is_some()),
                    ("after_max_wait", half_open.after_max_wait.is_some()),
                    ("", false),
                ],
            ),
            Decide::Rate => (
                "rate",
                [
                    ("successes", half_open.successes.is_some()),
                    ("failures", half_open.failures.is_some()),
                    ("probe_timeout", half_open.probe_timeout.is_some()),
                ],
            ),
        };
        for (name, _) in misplaced.into_iter().filter(|(_, set)| *set) {
            let message = format!("{name} means nothing where decide is {by:?}");
            let other = if decide == Decide::Count { "rate" } else { "count" };
            let help = format!("remove {name}, or set decide = {other:?}");
            self.broken(&table.keys(&["half_open"]), Mistake::new(message, format!("no {name}")).help(help));
        }
    }
}
