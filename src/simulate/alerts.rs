//! What people would have been told of what happened.

use selfheal_actors::{
    alert::{Effect, Machine, Policy},
    clock::Tick,
    level::{Mode, Severity},
    signal::Signal,
};
use serde::Serialize;

use super::{Output, Part, driver::Line};

/// The incidents of a simulation. No line is its own: it hears of what happens in the other parts.
pub(super) struct Alerts(Machine);

#[derive(Serialize)]
struct Incident<'a> {
    event: &'static str,
    id: &'a str,
    phase: &'static str,
    kind: &'static str,
    subject: &'a str,
}

#[derive(Serialize)]
struct Alert<'a> {
    event: &'static str,
    severity: Severity,
    kind: &'static str,
    subject: &'a str,
    incident: &'a str,
}

impl Alerts {
    pub(super) fn new() -> Self {
        Self(Machine::new(Policy::default(), Mode::Act, "sim"))
    }
}

impl Part for Alerts {
    fn keys(&self) -> &'static [&'static str] {
        &[]
    }

    fn begin(&mut self, _: &mut Output) {}

    fn next_timer(&self) -> Option<Tick> {
        self.0.next_timer()
    }

    fn timer(&mut self, now: Tick, out: &mut Output) {
        tell(self.0.on_tick(now), out);
    }

    fn line(&mut self, key: &str, _: Line, _: Tick, _: &mut Output) -> Result<(), String> {
        Err(format!("`{key}` is no line"))
    }

    fn hear(&mut self, signal: &Signal, now: Tick, out: &mut Output) {
        tell(self.0.on(signal, now), out);
    }
}

fn tell(effects: Vec<Effect>, out: &mut Output) {
    for effect in effects {
        match effect {
            Effect::Phase { id, kind, subject, phase } => out.write(Incident {
                event: "incident",
                id: &id,
                phase: phase.name(),
                kind: kind.name(),
                subject: &subject,
            }),
            Effect::Alert { id, severity, kind, subject } => {
                let (kind, subject) = (kind.name(), &*subject);
                out.write(Alert { event: "alert", severity, kind, subject, incident: &id });
            }
            // The log and the counters of a simulation are its output.
            Effect::Ended { .. } | Effect::Say { .. } => {}
        }
    }
}
