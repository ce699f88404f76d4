//! What follows from the end of a child, to OTP's letter.

use std::time::Duration;

use super::{
    child::{Again, Child, Key, Life},
    event::{End, Refused},
    machine::{Machine, Phase},
    plan::{Deferred, LaneId, Plan, Why},
    policy::{AutoShutdown, Restart, Strategy},
};
use crate::{
    clock::Tick,
    signal::{ChildEvent, Signal},
};

impl Machine {
    /// Decides what had to wait for its lane.
    pub(super) fn decide(&mut self, what: Deferred, now: Tick) {
        match what {
            Deferred::Ended { key, generation } => self.decide_end(key, generation, now),
            Deferred::TryAgain(key) => {
                // It may have been stopped, deleted or restarted with its group since.
                if self.table.get(key).is_some_and(|child| child.life == Life::Failed) {
                    self.restart(key, now);
                }
            }
            Deferred::Due(key) => self.decide_due(key, now),
            Deferred::Verb { request, verb } => self.decide_verb(request, verb, now),
        }
    }

    fn decide_end(&mut self, key: Key, generation: u64, now: Tick) {
        let Some(child) = self.table.get(key).filter(|child| child.generation == generation) else { return };
        let Life::Ended(exit) = &child.life else { return };
        let again = match child.policy.restart {
            Restart::Permanent => true,
            Restart::Transient => !exit.is_normal(),
            Restart::Temporary => false,
        };
        if again {
            return self.restart(key, now);
        }
        let significant = child.policy.significant;
        self.put_down(key, now);
        if significant && self.shuts_down() {
            self.end(End::AutoShutdown);
        }
    }

    /// Whether the end of a significant child, which has just been put down, ends the supervisor.
    fn shuts_down(&self) -> bool {
        match self.policy.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => {
                self.table.iter().all(|(_, child)| !child.policy.significant || child.life == Life::Down)
            }
        }
    }

    /// Counts a restart of the child, and begins it, or gives up. A failed restart comes here again.
    fn restart(&mut self, key: Key, now: Tick) {
        let Some(child) = self.table.get_mut(key) else { return };
        let own = child.policy.budget.is_some();
        let counted = child.budget().unwrap_or(&mut self.intensity);
        if counted.exceeded_by(now) {
            return if own { self.give_up_on(key, now) } else { self.escalate(key, now) };
        }
        let restarts = counted.count(now);
        let after = match child.streak {
            0 => Duration::ZERO,
            earlier => self.policy.backoff.delay(earlier - 1),
        };
        child.streak = child.streak.saturating_add(1);
        let from = self.group(key).filter_map(|(_, child)| waits_until(child)).fold(now + after, Tick::max);
        self.begin_restart(key, from, Again { after, restarts });
    }

    fn decide_due(&mut self, key: Key, now: Tick) {
        let Some(child) = self.table.get(key) else { return };
        // Its timer has gone off; had it been set anew since, it would be armed.
        if let (Life::Waiting(again), None) = (&child.life, child.due()) {
            let again = *again;
            self.begin_restart(key, now, again);
        }
    }

    /// Stops the group now, and starts it as soon as the delay is over: nobody runs on beside a child that
    /// is down. Temporary bystanders end with the others and do not come back.
    fn begin_restart(&mut self, key: Key, from: Tick, again: Again) {
        let stops = match self.policy.strategy {
            Strategy::OneForOne => Vec::new(),
            Strategy::OneForAll | Strategy::RestForOne => {
                self.group(key).filter(|(other, _)| *other != key).map(|(other, _)| other).collect()
            }
        };
        let starts: Vec<_> = self
            .group(key)
            .filter(|(other, child)| *other == key || !child.is_temporary())
            .map(|(other, _)| other)
            .collect();
        let on = self.lane_of(key);
        self.begin(on, Plan::new(Why::Restart { child: key, from, again }, stops, starts));
    }

    /// The children that are restarted with this one, in start order, itself included.
    fn group(&self, key: Key) -> impl Iterator<Item = (Key, &Child)> {
        self.table.range(match self.policy.strategy {
            Strategy::OneForOne => key..=key,
            Strategy::OneForAll => 0..=Key::MAX,
            Strategy::RestForOne => key..=Key::MAX,
        })
    }

    /// The child has spent its own budget: it stays down, and nobody else suffers.
    fn give_up_on(&mut self, key: Key, now: Tick) {
        self.table.set(key, Life::Down, None, now);
        self.emit_child(key, ChildEvent::GivenUp);
    }

    /// Too many restarts: the supervisor ends, and the one above decides.
    fn escalate(&mut self, key: Key, now: Tick) {
        self.table.set(key, Life::Down, None, now);
        self.emit(Signal::Escalated { supervisor: self.name.clone(), root: self.root });
        self.end(End::Intensity);
    }

    /// Stops all children in reverse and ends. Whatever else was going on is put off.
    pub(super) fn end(&mut self, end: End) {
        if matches!(self.phase, Phase::Ending | Phase::Ended) {
            return;
        }
        self.phase = Phase::Ending;
        let mut put_off: Vec<_> = self.table.lanes().map(std::mem::take).collect();
        put_off.push(std::mem::take(&mut self.main));
        for lane in put_off {
            if let Some(plan) = lane.plan {
                self.cancel(plan);
            }
            for what in lane.waiting {
                if let Deferred::Verb { request, .. } = what {
                    self.reply(request, Err(Refused::Terminated));
                }
            }
        }
        let stops = self.table.iter().map(|(key, _)| key).collect();
        self.begin(LaneId::Main, Plan::new(Why::End(end), stops, []));
    }
}

/// A wait that has begun is not cut short by the restart of another child of the group.
fn waits_until(child: &Child) -> Option<Tick> {
    matches!(child.life, Life::Waiting(_)).then(|| child.due()).flatten()
}
