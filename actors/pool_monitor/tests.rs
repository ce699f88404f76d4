//! The pool monitor in scenarios: the machine on virtual time, the actor on tokio's paused clock.

mod actor;
mod scenarios;
mod seeded;

use super::{Effect, Effects, Machine, Policy, Reason, Sample};
use crate::{clock::Tick, level::Level, signal::Action};

const MS: fn(u64) -> Tick = Tick::from_millis;

/// `in_use` of 100, with `waiting` normal requests.
fn pool(in_use: u32, waiting: u32) -> Sample {
    Sample { in_use, max: 100, waiting, ..Sample::default() }
}

/// A monitor and what it did, told as one word an effect: `warning(use)`, `+shed`, `-shed`.
struct Told {
    machine: Machine,
    story: Vec<(u64, String)>,
}

impl Told {
    fn new(policy: Policy) -> Self {
        policy.check().expect("a policy that makes sense");
        Self { machine: Machine::new(policy), story: Vec::new() }
    }

    /// Lets all timers until `ms` run, each at its own time.
    fn run_to(&mut self, ms: u64) {
        while let Some(due) = self.machine.next_timer().filter(|due| *due <= MS(ms)) {
            let effects = self.machine.on_tick(due);
            assert!(!effects.is_empty(), "a timer at {due:?} for nothing");
            self.note(due, &effects);
        }
    }

    fn see(&mut self, ms: u64, sample: Sample) {
        self.run_to(ms);
        let effects = self.machine.on(sample, MS(ms));
        self.note(MS(ms), &effects);
    }

    fn note(&mut self, at: Tick, effects: &Effects) {
        // Rounded up: something decided 0.4 ms after 190 is not yet so at 190.
        let ms = at.as_nanos().div_ceil(1_000_000);
        let words = effects.iter().filter_map(word).map(|word| (ms, word));
        self.story.extend(words);
    }

    /// The story so far without its times.
    fn words(&self) -> Vec<&str> {
        self.story.iter().map(|(_, word)| word.as_str()).collect()
    }

    fn when(&self, word: &str) -> Option<u64> {
        self.story.iter().find(|(_, w)| w == word).map(|&(ms, _)| ms)
    }
}

fn word(effect: &Effect) -> Option<String> {
    match effect {
        Effect::LevelChanged { to, reason, .. } => {
            let why = match reason {
                Reason::Use => "use",
                Reason::Full => "full",
                Reason::Calm => "calm",
                Reason::Blind => "blind",
                Reason::Lifted => "lifted",
            };
            Some(format!("{to}({why})"))
        }
        Effect::Act(action) => Some(format!("+{}", action.name())),
        Effect::Undo(action) => Some(format!("-{}", action.name())),
        Effect::Blind(true) => Some("blind".into()),
        Effect::Blind(false) => Some("sees".into()),
        Effect::Cancel(statements) => Some(format!("cancel {statements}")),
        Effect::Peak(_) => None,
    }
}

const MITIGATED: [&str; 3] = ["+shed", "+batch_size", "+user_limit"];
const EMERGENCY: [&str; 3] = ["+critical_only", "+omit_optional", "+pause_durable"];
const EMERGENCY_OVER: [&str; 3] = ["-pause_durable", "-omit_optional", "-critical_only"];
const RESTORED: [&str; 3] = ["-user_limit", "-batch_size", "-shed"];

/// One level change and the actions that belong to it.
fn step<'a>(change: &'a str, actions: [&'a str; 3]) -> Vec<&'a str> {
    std::iter::once(change).chain(actions).collect()
}
