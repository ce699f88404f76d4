//! What is being done: stops in reverse order, then starts in order, one at a time.
//!
//! Everything a supervisor does is a plan, and a plan runs on a *lane*: what arrives while a lane is busy
//! waits in it, as messages wait in the mailbox of an OTP supervisor while it is at work. Under `one_for_all` and
//! `rest_for_one` there is one lane for all children, so that a restart of the group is one piece. Under
//! `one_for_one` each child has its own, so that a start that hangs blocks nobody. The boot and the end of the
//! supervisor run on the main lane in every case.

use std::collections::VecDeque;

use super::{
    child::{Again, Child, Key, Life},
    event::{Effect, End, Refused, Verb},
    machine::{Machine, Phase},
    policy::Kind,
};
use crate::{
    clock::Tick,
    signal::{ChildEvent, Exit, Name},
};

/// Plans of one lane, one at a time.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) plan: Option<Plan>,
    pub(super) waiting: VecDeque<Deferred>,
}

/// Which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneId {
    Main,
    Of(Key),
}

/// What waits until its lane is free.
#[derive(Debug)]
pub(super) enum Deferred {
    /// A child has ended by itself.
    Ended { key: Key, generation: u64 },
    /// A restart that failed is to be tried again.
    TryAgain(Key),
    /// The delay before a restart is over.
    Due(Key),
    /// The administrator asks.
    Verb { request: u64, verb: Verb },
}

/// Stops, then starts.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) why: Why,
    /// In start order: the next to be stopped is the last.
    pub(super) stops: Vec<Key>,
    /// In start order: the next to be started is the first.
    pub(super) starts: VecDeque<Key>,
    /// The child that is being stopped or started.
    pub(super) current: Option<Key>,
}

/// What a plan is for.
#[derive(Debug)]
pub(super) enum Why {
    /// The first start of all children.
    Boot,
    /// A child failed; its restart, and that of its group, may begin at `from`.
    Restart { child: Key, from: Tick, again: Again },
    /// The administrator stops a child.
    Stop { request: u64 },
    /// The administrator starts a child; a new one is kept only if it starts.
    Start { request: u64, new: bool },
    /// The end of the supervisor.
    End(End),
}

impl Plan {
    pub(super) fn new(why: Why, stops: Vec<Key>, starts: impl IntoIterator<Item = Key>) -> Self {
        Self { why, stops, starts: starts.into_iter().collect(), current: None }
    }
}

impl Machine {
    /// Puts `plan` on a lane that is free.
    pub(super) fn begin(&mut self, on: LaneId, plan: Plan) {
        if let Some(lane) = self.lane(on) {
            lane.plan = Some(plan);
            self.ready.push_back(on);
        }
    }

    /// Lets `what` wait its turn.
    pub(super) fn submit(&mut self, what: Deferred) {
        self.defer(self.lane_for(&what), what);
    }

    fn defer(&mut self, on: LaneId, what: Deferred) {
        if let Some(lane) = self.lane(on) {
            lane.waiting.push_back(what);
            self.ready.push_back(on);
        }
    }

    /// Does whatever can be done now.
    pub(super) fn settle(&mut self, now: Tick) {
        while let Some(on) = self.ready.pop_front() {
            while self.proceed(on, now) {}
        }
    }

    /// One step on a lane. False if it waits for something, or has nothing to do.
    fn proceed(&mut self, on: LaneId, now: Tick) -> bool {
        let Some(lane) = self.lane(on) else { return false };
        if let Some(plan) = lane.plan.take() {
            return self.step(on, plan, now);
        }
        let Some(what) = lane.waiting.pop_front() else { return false };
        // What came during the boot, or names a child that was there no more, may belong elsewhere now.
        let to = self.lane_for(&what);
        if to == on {
            self.decide(what, now);
        } else {
            self.defer(to, what);
        }
        true
    }

    /// Where something is to be decided.
    pub(super) fn lane_for(&self, what: &Deferred) -> LaneId {
        let child = match what {
            Deferred::Ended { key, .. } | Deferred::TryAgain(key) | Deferred::Due(key) => Some(*key),
            Deferred::Verb { verb, .. } => self.table.find(verb.child()),
        };
        child.map_or(LaneId::Main, |key| self.lane_of(key))
    }

    fn step(&mut self, on: LaneId, mut plan: Plan, now: Tick) -> bool {
        if let Some(key) = plan.current {
            if self.table.get(key).is_some_and(Child::is_moving) {
                self.keep(on, plan);
                return false;
            }
            plan.current = None;
        }
        if let Some(key) = plan.stops.pop() {
            plan.current = Some(key);
            self.stop_child(key, now);
        } else if let Why::Restart { child, from, again } = plan.why
            && from > now
        {
            self.table.set(child, Life::Waiting(again), Some(from), now);
            return true;
        } else if let Some(key) = plan.starts.pop_front() {
            plan.current = Some(key);
            self.start_child(key, now);
        } else {
            self.finish(plan.why);
            return true;
        }
        self.keep(on, plan);
        true
    }

    fn keep(&mut self, on: LaneId, plan: Plan) {
        if let Some(lane) = self.lane(on) {
            lane.plan = Some(plan);
        }
    }

    fn finish(&mut self, why: Why) {
        match why {
            Why::Boot => {
                self.phase = Phase::Running;
                self.effects.push(Effect::Up);
            }
            Why::Restart { .. } => {}
            Why::Stop { request } | Why::Start { request, .. } => self.reply(request, Ok(())),
            Why::End(end) => {
                self.phase = Phase::Ended;
                self.effects.push(Effect::Terminated(end));
            }
        }
    }

    /// The plan was put off by another: whoever waits for it is told.
    pub(super) fn cancel(&mut self, plan: Plan) {
        match plan.why {
            Why::Stop { request } | Why::Start { request, .. } => {
                self.reply(request, Err(Refused::Terminated));
            }
            Why::Boot | Why::Restart { .. } | Why::End(_) => {}
        }
    }

    fn start_child(&mut self, key: Key, now: Tick) {
        let Some(child) = self.table.get(key) else { return };
        let (id, kind) = (child.policy.id.clone(), child.policy.kind);
        self.generation += 1;
        let due = (kind == Kind::Worker).then(|| now + self.policy.start_timeout);
        self.table.begin_start(key, self.generation, due, now);
        self.effects.push(Effect::Start { id, generation: self.generation });
    }

    /// Asks a child to end; one that does not run is just put down.
    fn stop_child(&mut self, key: Key, now: Tick) {
        let Some(child) = self.table.get(key) else { return };
        let (id, generation) = (child.policy.id.clone(), child.generation);
        match child.life {
            Life::Up => {
                let deadline = (child.policy.kind == Kind::Worker).then(|| now + self.policy.stop_timeout);
                self.table.set(key, Life::Stopping { killed: false }, deadline, now);
                self.effects.push(Effect::Stop { id, generation, deadline });
            }
            Life::Starting { .. } => self.kill_child(key, now),
            Life::Stopping { .. } => {}
            Life::Down | Life::Ended(_) | Life::Failed | Life::Waiting(_) => self.put_down(key, now),
        }
    }

    /// Kills a child; it is left behind if that does not help in time.
    pub(super) fn kill_child(&mut self, key: Key, now: Tick) {
        let Some(child) = self.table.get(key) else { return };
        let (id, generation) = (child.policy.id.clone(), child.generation);
        self.table.set(key, Life::Stopping { killed: true }, Some(now + self.policy.kill_timeout), now);
        self.effects.push(Effect::Kill { id, generation });
    }

    /// A child was stopped: it stays down, and a temporary one is forgotten.
    pub(super) fn put_down(&mut self, key: Key, now: Tick) {
        self.table.set(key, Life::Down, None, now);
        if self.table.get(key).is_some_and(Child::is_temporary) {
            self.forget(key);
        }
    }

    /// Forgets a child. What waited in its lane is decided without it.
    pub(super) fn forget(&mut self, key: Key) {
        let Some(lane) = self.table.remove(key).and_then(|child| child.lane) else { return };
        if let Some(plan) = lane.plan {
            self.finish(plan.why);
        }
        for what in lane.waiting {
            match what {
                Deferred::Verb { request, verb } => self.ask(request, verb),
                Deferred::Ended { .. } | Deferred::TryAgain(_) | Deferred::Due(_) => {}
            }
        }
    }

    /// A child could not be started: its plan ends here.
    pub(super) fn start_failed(&mut self, key: Key, error: Name, now: Tick) {
        self.table.set(key, Life::Down, None, now);
        self.emit_child(key, ChildEvent::StartFailed { error: error.clone() });
        let on = self.lane_of(key);
        self.ready.push_back(on);
        let Some(plan) = self.lane(on).and_then(|lane| lane.plan.take_if(|plan| plan.current == Some(key)))
        else {
            return;
        };
        match plan.why {
            Why::Boot => {
                let child = self.table.get(key).map(|child| child.policy.id.clone()).unwrap_or_default();
                self.end(End::StartFailed { child, error });
            }
            Why::Restart { .. } => {
                self.table.set(key, Life::Failed, None, now);
                self.submit(Deferred::TryAgain(key));
            }
            Why::Start { request, new } => {
                if new {
                    self.forget(key);
                }
                self.reply(request, Err(Refused::StartFailed(error)));
            }
            // Under way to the end the child was to be stopped, and is down.
            Why::Stop { .. } | Why::End(_) => self.keep(on, plan),
        }
    }

    /// How a start is told: as a restart if its plan is one.
    pub(super) fn started_as(&mut self, key: Key) -> ChildEvent {
        let on = self.lane_of(key);
        let again = self.lane(on).and_then(|lane| lane.plan.as_ref()).and_then(|plan| match plan.why {
            Why::Restart { again, .. } if plan.current == Some(key) => Some(again),
            Why::Restart { .. } | Why::Boot | Why::Stop { .. } | Why::Start { .. } | Why::End(_) => None,
        });
        again.map_or(ChildEvent::Started, |Again { after, restarts }| ChildEvent::Restarted {
            after,
            restarts,
        })
    }

    /// A child that was asked to end, or killed, has ended.
    pub(super) fn stopped(&mut self, key: Key, exit: Exit, now: Tick) {
        if let Some(child) = self.table.get_mut(key) {
            child.last_exit = Some(exit.clone());
        }
        self.emit_child(key, ChildEvent::Stopped { reason: exit });
        self.leave(key, now);
    }

    /// A child that was being stopped is no longer waited for.
    pub(super) fn leave(&mut self, key: Key, now: Tick) {
        let on = self.lane_of(key);
        self.ready.push_back(on);
        self.put_down(key, now);
    }
}
