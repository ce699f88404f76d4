//! The lines about retries.
//!
//! A `retry` line says that a call has failed, for the how-many-th time and with which error. It may also say what
//! else the decision depends on: `deadline_ms` (how long its caller still waits), `inline` (whether one does),
//! `idempotent`, `retry_after_ms`. The endpoint's class and deadline are the config's.
//!
//! The budget counts the `call` and `admit` lines of the endpoint.

use std::{collections::HashMap, time::Duration};

use http::Method;
use selfheal_actors::{
    clock::Tick,
    error_class::ErrorClass,
    level::Level,
    retry::{Failed, Machine, Policy, Repeatable, Verdict},
    signal::{Name, Signal},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Output, Part, driver::Line, pool::in_ms};
use crate::{
    db,
    http::{Endpoints, Match},
};

/// The retries of every endpoint of the trace.
pub(super) struct Retries {
    policy: Policy,
    seed: u64,
    endpoints: Endpoints,
    machines: HashMap<String, Machine>,
    levels: HashMap<Name, Level>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    retry: String,
    attempt: u32,
    error: String,
    deadline_ms: Option<u64>,
    retry_after_ms: Option<u64>,
    #[serde(default)]
    inline: bool,
    #[serde(default = "yes")]
    idempotent: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Serialize)]
struct Answer<'a> {
    retry: &'a str,
    attempt: u32,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    give_up: Option<&'static str>,
}

impl Retries {
    pub(super) fn new(policy: Policy, endpoints: Endpoints, seed: u64) -> Self {
        Self { policy, seed, endpoints, machines: HashMap::new(), levels: HashMap::new() }
    }

    fn failed(&mut self, line: &RetryLine, now: Tick) -> Verdict {
        let Match { endpoint, .. } = self.endpoints.find(&Method::GET, &line.retry, None);
        let level = endpoint.pool.as_ref().map_or_else(|| self.worst(), |pool| self.level(pool));
        let failed = Failed {
            attempt: line.attempt,
            error: class(&line.error),
            repeatable: match line.idempotent && endpoint.retry {
                true => Repeatable::Always,
                false => Repeatable::Never,
            },
            inline: line.inline,
            class: endpoint.class,
            level,
            left: Some(line.deadline_ms.map_or(endpoint.deadline, Duration::from_millis)),
            retry_after: line.retry_after_ms.map(Duration::from_millis),
        };
        self.machine(&line.retry).failed(&failed, now)
    }

    fn machine(&mut self, endpoint: &str) -> &mut Machine {
        let (policy, seed) = (&self.policy, self.seed);
        self.machines.entry(endpoint.to_owned()).or_insert_with(|| Machine::new(policy.clone(), seed))
    }

    fn level(&self, pool: &Name) -> Level {
        self.levels.get(pool).copied().unwrap_or_default()
    }

    fn worst(&self) -> Level {
        self.levels.values().copied().max().unwrap_or_default()
    }
}

impl Part for Retries {
    fn keys(&self) -> &'static [&'static str] {
        &["retry"]
    }

    fn begin(&mut self, _: &mut Output) {}

    fn next_timer(&self) -> Option<Tick> {
        None
    }

    fn timer(&mut self, _: Tick, _: &mut Output) {}

    fn line(&mut self, _: &str, line: Line, now: Tick, out: &mut Output) -> Result<(), String> {
        let line: RetryLine = line.parse()?;
        if line.attempt == 0 {
            return Err("`attempt` is 0: it counts the calls that have failed, from 1".into());
        }
        let (delay_ms, give_up) = match self.failed(&line, now) {
            Verdict::Again { after } => (in_ms(Some(after)), None),
            Verdict::GiveUp(reason) => (None, Some(reason.name())),
        };
        out.write(Answer {
            retry: &line.retry,
            attempt: line.attempt,
            error: &line.error,
            delay_ms,
            give_up,
        });
        Ok(())
    }

    fn overhear(&mut self, line: &Map<String, Value>, now: Tick) {
        if let Some(endpoint) = line.get("call").or_else(|| line.get("admit")).and_then(Value::as_str) {
            self.machine(endpoint).called(now);
        }
    }

    fn hear(&mut self, signal: &Signal, _: Tick, _: &mut Output) {
        if let Signal::Pressure { pool, to, .. } = signal {
            self.levels.insert(Name::clone(pool), *to);
        }
    }
}

/// What an error means, by its kind as traces name it. Names that only a host knows are not known here.
fn class(kind: &str) -> ErrorClass {
    let status = kind.strip_prefix("http_").and_then(|status| status.parse().ok());
    match (kind, status.and_then(ErrorClass::of_status)) {
        (_, Some(class)) => class,
        ("io", _) => ErrorClass::Interrupted,
        ("timeout", _) => ErrorClass::Timeout,
        ("pool_timeout", _) => ErrorClass::Overload,
        // It would meet the same bug again.
        ("panic", _) => ErrorClass::Permanent,
        (code, _) if is_sqlstate(code) => db::class_of_sqlstate(code),
        _ => ErrorClass::Unknown,
    }
}

fn is_sqlstate(text: &str) -> bool {
    text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}
