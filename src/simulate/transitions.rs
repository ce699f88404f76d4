//! The lines about changes of status.
//!
//! A `transition` line is an attempt, as a guard would make it: one that is not allowed is blocked, and told as the
//! runtime tells it.

use std::sync::Arc;

use selfheal_actors::{
    clock::Tick,
    signal::Name,
    transition::{Attempt, Machine, Table},
};
use serde::{Deserialize, Serialize};

use super::{Output, Part, driver::Line};

/// The machines of every table.
pub(super) struct Transitions(Vec<Machine>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransitionLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    transition: String,
    from: String,
    to: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    transition: &'a str,
    from: &'a str,
    to: &'a str,
    allowed: bool,
    allowed_from_here: &'a [Name],
}

impl Transitions {
    pub(super) fn new(tables: Vec<Table>) -> Self {
        Self(tables.into_iter().map(|table| Machine::new(Arc::new(table))).collect())
    }

    fn find(&mut self, name: &str) -> Result<&mut Machine, String> {
        let names: Vec<_> = self.0.iter().map(|machine| machine.table().machine().to_string()).collect();
        let found = self.0.iter_mut().find(|machine| **machine.table().machine() == *name);
        found.ok_or_else(|| match names.as_slice() {
            [] => format!("there is no [transitions.{name}] in the config, nor any other"),
            names => format!("there is no [transitions.{name}] in the config: it has {}", names.join(", ")),
        })
    }
}

impl Part for Transitions {
    fn keys(&self) -> &'static [&'static str] {
        &["transition"]
    }

    fn begin(&mut self, _: &mut Output) {}

    fn next_timer(&self) -> Option<Tick> {
        self.0.iter().filter_map(Machine::next_timer).min()
    }

    fn timer(&mut self, now: Tick, out: &mut Output) {
        self.0.iter_mut().filter_map(|machine| machine.on_tick(now)).for_each(|signal| out.happened(signal));
    }

    fn line(&mut self, _: &str, line: Line, now: Tick, out: &mut Output) -> Result<(), String> {
        let TransitionLine { transition, from, to, .. } = line.parse()?;
        let machine = self.find(&transition)?;
        let table = Arc::clone(machine.table());
        let allowed = table.check(&from, &to).is_ok();
        if !allowed {
            let found = vec![(from.as_str().into(), 1)];
            let attempt = Attempt { to: to.as_str().into(), found, ..Attempt::default() };
            machine.on(&attempt, now).into_iter().for_each(|signal| out.happened(signal));
        }
        let allowed_from_here = table.allowed_from(&from);
        out.write(Answer { transition: &transition, from: &from, to: &to, allowed, allowed_from_here });
        Ok(())
    }
}
