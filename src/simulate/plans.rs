//! The lines about long operations: what would become of one with so many items, if it began now.

use selfheal_actors::{
    batch_executor::{Machine, Plan, Policy},
    clock::Tick,
    signal::{Name, Signal},
};
use serde::{Deserialize, Serialize};

use super::{Output, Part, driver::Line};

/// An operation of the config.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What traces call it.
    pub name: Name,
    /// The pool that it works in.
    pub pool: Name,
    /// How long it may take, and how it is cut.
    pub policy: Policy,
}

/// The operations of a simulation.
pub(super) struct Plans(Machine);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    plan: String,
    items: u64,
}

#[derive(Serialize)]
struct Answer<'a> {
    plan: &'a str,
    items: u64,
    inline: bool,
    batch: u32,
    batches: u64,
    estimate_ms: u64,
}

impl Plans {
    pub(super) fn new(operations: Vec<Operation>) -> Self {
        let mut machine = Machine::default();
        for Operation { name, pool, policy } in operations {
            machine.register(name, pool, policy);
        }
        Self(machine)
    }
}

impl Part for Plans {
    fn keys(&self) -> &'static [&'static str] {
        &["plan"]
    }

    fn begin(&mut self, _: &mut Output) {}

    fn next_timer(&self) -> Option<Tick> {
        None
    }

    fn timer(&mut self, _: Tick, _: &mut Output) {}

    fn line(&mut self, _: &str, line: Line, _: Tick, out: &mut Output) -> Result<(), String> {
        let PlanLine { plan: name, items, .. } = line.parse()?;
        let plan = self.0.plan(&name, items).ok_or_else(|| {
            format!("there is no operation `{name}`: add [batches.{name}] to the config, which may be empty")
        })?;
        let Plan { inline, batch, batches, estimate, .. } = plan;
        let estimate_ms = u64::try_from(estimate.as_millis()).unwrap_or(u64::MAX);
        out.write(Answer { plan: &name, items, inline, batch, batches, estimate_ms });
        Ok(())
    }

    fn hear(&mut self, signal: &Signal, now: Tick, _: &mut Output) {
        if let Signal::Pressure { pool, to, .. } = signal {
            self.0.on_level(pool, *to, now);
        }
    }
}
