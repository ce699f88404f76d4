//! The seed's operation, and others, on virtual time.

mod actor;
mod calibration;
mod deferred;
mod driven;
mod growth;
mod memory;
mod scenarios;
mod seeded;

use std::time::Duration;

use super::{Begun, Effect, Machine, Next, Outcome, Policy, RunId, Wanted};
use crate::{clock::Tick, error_class::ErrorClass, signal::Name};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A machine with its clock, and one kind of operation, `spam-capture`, on the pool `main`.
struct Rig {
    machine: Machine,
    kind: Name,
    now: Tick,
}

impl Rig {
    fn new(policy: Policy) -> Self {
        assert_eq!(policy.check(), Ok(()));
        let (mut machine, kind) = (Machine::default(), Name::from("spam-capture"));
        machine.register(kind.clone(), "main".into(), policy);
        Self { machine, kind, now: Tick::ZERO }
    }

    fn wanted<'a>(&'a self, caller: &'a str, items: u64) -> Wanted<'a> {
        Wanted { kind: &self.kind, caller, items, deadline: None, whole: false }
    }

    fn begin(&mut self, caller: &str, items: u64) -> Begun {
        let (kind, now) = (self.kind.clone(), self.now);
        let wanted = Wanted { kind: &kind, caller, items, deadline: None, whole: false };
        self.machine.begin(&wanted, now).expect("there is such a kind")
    }

    /// A run of `items` for `ann`.
    fn run(&mut self, items: u64) -> RunId {
        self.run_of("ann", items)
    }

    /// A run of `items` for `caller`.
    fn run_of(&mut self, caller: &str, items: u64) -> RunId {
        match self.begin(caller, items) {
            Begun::Run(id, _) => id,
            begun @ (Begun::Joined(_) | Begun::Draining) => panic!("{begun:?}"),
        }
    }

    fn next(&mut self, id: RunId) -> Next {
        self.machine.next(id, self.now)
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    /// The next chunk takes so long an item, and all of it is done.
    fn chunk(&mut self, id: RunId, each: Duration) -> (u64, u32) {
        let Next::Chunk { from, items } = self.next(id) else { panic!("no chunk: {:?}", self.next(id)) };
        self.pass(each * items);
        self.done(id, items);
        (from, items)
    }

    fn done(&mut self, id: RunId, items: u32) -> Vec<Effect> {
        self.done_after(id, items, Duration::ZERO)
    }

    /// All of the chunk is done, and before that it waited so long for its connection.
    fn done_after(&mut self, id: RunId, items: u32, waited: Duration) -> Vec<Effect> {
        let outcome = Outcome::Done { done: items, blocked: 0, failed: 0, waited };
        self.machine.finished(id, outcome, self.now)
    }

    fn fail(&mut self, id: RunId, class: ErrorClass) -> Vec<Effect> {
        self.machine.finished(id, Outcome::Failed(class), self.now)
    }

    fn answered(&mut self, id: RunId) {
        assert_eq!(self.next(id), Next::Answer);
        self.machine.answered(id);
    }
}
