//! Scenarios. [`Scene`] answers a machine's effects at once, as a world without delays would.

mod actor;
mod lanes;
mod model;
mod otp;
mod simulation;
mod timing;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::*;
use crate::{
    backoff::Backoff,
    clock::Tick,
    signal::{ChildEvent, Exit, Name, Signal},
};

/// A machine in a world where everything happens at once, and starts go as they are told to.
struct Scene {
    machine: Machine,
    now: Tick,
    /// Whether each start of a child succeeds; the last word repeats.
    scripts: HashMap<Name, Vec<bool>>,
    starts: HashMap<Name, usize>,
    log: Vec<String>,
    signals: Vec<Signal>,
    replies: HashMap<u64, Result<(), Refused>>,
    end: Option<End>,
    /// Children of which nothing is heard when they are started, stopped or killed.
    deaf: Vec<Name>,
}

impl Scene {
    fn new(policy: Policy, children: Vec<ChildPolicy>) -> Self {
        Self {
            machine: Machine::new("s", policy, children).expect("the children can live under the policy"),
            now: Tick::ZERO,
            scripts: HashMap::new(),
            starts: HashMap::new(),
            log: Vec::new(),
            signals: Vec::new(),
            replies: HashMap::new(),
            end: None,
            deaf: Vec::new(),
        }
    }

    fn script(mut self, child: &str, starts: &[bool]) -> Self {
        self.scripts.insert(child.into(), starts.to_vec());
        self
    }

    fn booted(mut self) -> Self {
        self.tell(Event::Boot);
        self
    }

    /// Tells the machine, and does what it wants until it wants no more.
    fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.machine.on(event, self.now) {
                events.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Start { id, generation } => {
                let tries = self.starts.entry(id.clone()).or_default();
                *tries += 1;
                let script = self.scripts.get(&id);
                let ok = script.and_then(|s| s.get(*tries - 1).or(s.last())).copied().unwrap_or(true);
                self.log.push(format!("{} {id}", if ok { "start" } else { "fail" }));
                let answer = if ok {
                    Event::Started { id: id.clone(), generation }
                } else {
                    Event::StartFailed { id: id.clone(), generation, error: "planted".into() }
                };
                (!self.deaf.contains(&id)).then_some(answer)
            }
            Effect::Stop { id, generation, .. } => {
                self.log.push(format!("stop {id}"));
                let answer = Event::Exited { id: id.clone(), generation, exit: Exit::Shutdown };
                (!self.deaf.contains(&id)).then_some(answer)
            }
            Effect::Kill { id, generation } => {
                self.log.push(format!("kill {id}"));
                let answer = Event::Exited { id: id.clone(), generation, exit: Exit::Killed };
                (!self.deaf.contains(&id)).then_some(answer)
            }
            Effect::Abandon { id, .. } => {
                self.log.push(format!("abandon {id}"));
                None
            }
            Effect::Emit(signal) => {
                self.signals.push(signal);
                None
            }
            Effect::Reply { request, result } => {
                assert!(self.replies.insert(request, result).is_none(), "request {request} answered twice");
                None
            }
            Effect::Up => None,
            Effect::Terminated(end) => {
                assert!(self.end.replace(end).is_none(), "ended twice");
                None
            }
        }
    }

    fn view(&self, id: &str) -> Option<ChildView> {
        self.machine.children().find(|view| &*view.id == id)
    }

    fn generation(&self, id: &str) -> u64 {
        self.view(id).expect("it is there").generation
    }

    /// The child ends by itself.
    fn exit(&mut self, id: &str, exit: Exit) {
        let generation = self.generation(id);
        self.tell(Event::Exited { id: id.into(), generation, exit });
    }

    fn crash(&mut self, id: &str) {
        self.exit(id, Exit::Error("planted".into()));
    }

    /// Asks for something; `None` if there is no answer yet.
    fn ask(&mut self, verb: Verb) -> Option<Result<(), Refused>> {
        let request = u64::try_from(self.replies.len()).expect("few") + 1_000;
        self.tell(Event::Verb { request, verb });
        self.replies.get(&request).cloned()
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(due) = self.machine.next_timer().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.tell(Event::Timer);
        }
        self.now = until;
    }

    fn ids(&self, wanted: impl Fn(&ChildView) -> bool) -> String {
        let ids: Vec<_> = self.machine.children().filter(wanted).map(|view| view.id.to_string()).collect();
        ids.join(" ")
    }

    fn running(&self) -> String {
        self.ids(|view| view.state == ChildState::Up)
    }

    fn specs(&self) -> String {
        self.ids(|_| true)
    }

    fn take_log(&mut self) -> String {
        std::mem::take(&mut self.log).join(", ")
    }

    /// The delays that were announced with restarts of a child, in milliseconds.
    fn delays(&self, of: &str) -> Vec<u128> {
        let restarts = self.signals.iter().filter_map(|signal| {
            let Signal::Child { child, event: ChildEvent::Restarted { after, .. }, .. } = signal else {
                return None;
            };
            (&**child == of).then_some(after.as_millis())
        });
        restarts.collect()
    }
}

/// OTP's own behaviour: no backoff.
fn plain(strategy: Strategy, max_restarts: u32) -> Policy {
    Policy {
        strategy,
        max_restarts,
        within: Duration::from_secs(3600),
        backoff: Backoff::NONE,
        ..Policy::default()
    }
}

fn workers(ids: &str) -> Vec<ChildPolicy> {
    ids.split_whitespace().map(ChildPolicy::permanent).collect()
}

const MS: fn(u64) -> Duration = Duration::from_millis;
