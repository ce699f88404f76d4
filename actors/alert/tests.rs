//! Alerts in scenarios: the machine on virtual time, the actor on tokio's paused clock.

mod actor;
mod impact;
mod incidents;
mod seeded;
mod timeline;
mod transitions;

use super::{Effect, Machine, Phase, Policy};
use crate::{
    clock::Tick,
    level::{Level, Mode, Severity},
    signal::{Action, ChildEvent, Exit, Name, ServerState, Signal, Step},
};

const MS: fn(u64) -> Tick = Tick::from_millis;

const MITIGATION: [Action; 3] =
    [Action::Shed, Action::Batch { from: 10, to: 50 }, Action::UserLimit { limit: 5 }];
const EMERGENCY: [Action; 3] = [Action::CriticalOnly, Action::OmitOptional, Action::PauseDurable];

fn name(text: &str) -> Name {
    text.into()
}

/// A machine and what it told.
struct Told {
    machine: Machine,
    /// `time line` of all that was logged.
    log: Vec<String>,
    /// `phase id` and `severity kind subject` of all phases and alerts.
    news: Vec<String>,
    /// Ends, as they are counted.
    ends: u32,
}

impl Told {
    fn new(policy: Policy, mode: Mode) -> Self {
        Self { machine: Machine::new(policy, mode, ""), log: Vec::new(), news: Vec::new(), ends: 0 }
    }

    /// Lets all timers until `ms` run, each at its own time.
    fn run_to(&mut self, ms: u64) {
        while let Some(due) = self.machine.next_timer().filter(|due| *due <= MS(ms)) {
            let effects = self.machine.on_tick(due);
            assert!(!effects.is_empty(), "a timer at {due:?} for nothing");
            self.note(due, effects);
        }
    }

    fn hear(&mut self, ms: u64, signal: &Signal) {
        // Not the timers of this very moment: more may belong to it.
        self.run_to(ms.saturating_sub(1));
        let effects = self.machine.on(signal, MS(ms));
        self.note(MS(ms), effects);
    }

    fn note(&mut self, at: Tick, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Say { line, .. } => {
                    self.log.push(format!("{:.3} {line}", at.as_millis() as f64 / 1e3))
                }
                Effect::Phase { id, phase, .. } => self.news.push(format!("{} {id}", phase.name())),
                Effect::Alert { severity, kind, subject, .. } => {
                    self.news.push(format!("{severity} {kind} {subject}"));
                }
                Effect::Ended { .. } => self.ends += 1,
            }
        }
    }

    /// A pool's level changed with `in_use` of 100, and the actions that belong to it were taken or undone.
    fn level(&mut self, ms: u64, from: Level, to: Level, in_use: u32) {
        self.level_of("main", ms, (from, to), in_use, self.machine_mode() == Mode::Observe);
    }

    fn level_of(&mut self, pool: &str, ms: u64, (from, to): (Level, Level), in_use: u32, would: bool) {
        let pool = name(pool);
        self.hear(ms, &Signal::Pressure { pool: pool.clone(), from, to, in_use, max: 100, waiting: 7 });
        let (mut actions, step) = match (from, to) {
            (Level::Normal, _) => (MITIGATION, Step::Taken),
            (_, Level::Critical) => (EMERGENCY, Step::Taken),
            (Level::Critical, _) => (EMERGENCY, Step::Undone),
            (Level::Warning, _) => (MITIGATION, Step::Undone),
        };
        if step == Step::Undone {
            actions.reverse();
        }
        for action in actions {
            self.hear(ms, &Signal::Action { pool: pool.clone(), action, step, would });
        }
    }

    fn machine_mode(&self) -> Mode {
        self.machine.mode
    }

    fn restarted(&mut self, ms: u64, supervisor: &str, child: &str, restarts: u32) {
        let (supervisor, child) = (name(supervisor), name(child));
        let reason = Exit::Panic("planted".into());
        let ended = ChildEvent::Stopped { reason };
        self.hear(ms, &Signal::Child { supervisor: supervisor.clone(), child: child.clone(), event: ended });
        let event = ChildEvent::Restarted { after: std::time::Duration::ZERO, restarts };
        self.hear(ms, &Signal::Child { supervisor, child, event });
    }

    fn server(&mut self, ms: u64, state: ServerState) {
        self.hear(ms, &Signal::Server { pool: name("main"), state });
    }
}
