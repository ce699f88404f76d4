//! The machine: what it is told, routed to where it is decided.

use std::collections::VecDeque;

use super::{
    child::{Child, Key, Life, Table},
    event::{Effect, End, Event},
    plan::{Deferred, Lane, LaneId, Plan, Why},
    policy::{ChildPolicy, Invalid, Policy, Strategy},
    view::{Change, ChildView},
};
use crate::{
    clock::Tick,
    signal::{ChildEvent, Exit, Name, Signal},
    window::Intensity,
};

/// One supervisor. It is told what happens and answers what is to be done; see the [module](super).
#[derive(Debug)]
pub struct Machine {
    pub(super) name: Name,
    pub(super) policy: Policy,
    pub(super) root: bool,
    pub(super) table: Table,
    pub(super) intensity: Intensity,
    pub(super) generation: u64,
    pub(super) phase: Phase,
    pub(super) main: Lane,
    pub(super) ready: VecDeque<LaneId>,
    pub(super) effects: Vec<Effect>,
}

/// Where a supervisor is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Fresh,
    Booting,
    Running,
    Ending,
    Ended,
}

impl Machine {
    /// A supervisor of `children`, none of which has been started: the first event is [`Event::Boot`].
    ///
    /// # Errors
    /// [`Invalid`], if a child cannot live under `policy`.
    pub fn new(name: impl Into<Name>, policy: Policy, children: Vec<ChildPolicy>) -> Result<Self, Invalid> {
        policy.check(&children)?;
        let mut table = Table::default();
        for child in children {
            table.insert(child, Tick::ZERO);
        }
        Ok(Self {
            name: name.into(),
            policy,
            root: false,
            table,
            intensity: Intensity::new(policy.max_restarts, policy.within),
            generation: 0,
            phase: Phase::Fresh,
            main: Lane::default(),
            ready: VecDeque::new(),
            effects: Vec::new(),
        })
    }

    /// The same supervisor, with nobody above it: its escalation is for a person.
    #[must_use]
    pub fn at_root(self) -> Self {
        Self { root: true, ..self }
    }

    /// The same supervisor, whose generations are all above `last`: those of a predecessor stay older.
    #[must_use]
    pub fn after_generation(self, last: u64) -> Self {
        Self { generation: last, ..self }
    }

    /// Takes in what happened, and says what is to be done about it, in this order.
    pub fn on(&mut self, event: Event, now: Tick) -> Vec<Effect> {
        match event {
            Event::Boot => self.boot(),
            Event::Started { id, generation } => self.started(&id, generation, now),
            Event::StartFailed { id, generation, error } => self.not_started(&id, generation, error, now),
            Event::Exited { id, generation, exit } => self.exited(&id, generation, exit, now),
            Event::Verb { request, verb } => self.ask(request, verb),
            Event::Stop => self.end(End::Asked),
            Event::Timer => self.timers(now),
        }
        self.settle(now);
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Timer`] is wanted: the end of a delay, or of a start's or a stop's patience.
    #[must_use]
    pub fn next_timer(&self) -> Option<Tick> {
        self.table.next_timer()
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Whether all its children have been started once and it has not begun to end.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether there is a child of this name, whatever it does.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.table.find(id).is_some()
    }

    /// Its children as they are, in start order.
    pub fn children(&self) -> impl Iterator<Item = ChildView> + '_ {
        self.table.iter().filter_map(|(key, _)| self.table.view(key, &self.name))
    }

    /// How its children differ from what the last call of this gave.
    #[must_use]
    pub fn changes(&mut self) -> Vec<Change> {
        self.table.changes(&self.name)
    }

    pub(super) fn emit(&mut self, signal: Signal) {
        self.effects.push(Effect::Emit(signal));
    }

    pub(super) fn emit_child(&mut self, key: Key, event: ChildEvent) {
        let Some(child) = self.table.get(key).map(|child| child.policy.id.clone()) else { return };
        self.emit(Signal::Child { supervisor: self.name.clone(), child, event });
    }

    pub(super) fn lane(&mut self, on: LaneId) -> Option<&mut Lane> {
        match on {
            LaneId::Main => Some(&mut self.main),
            LaneId::Of(key) => self.table.get_mut(key).map(|child| &mut **child.lane.get_or_insert_default()),
        }
    }

    /// Where things are done to a child.
    pub(super) fn lane_of(&self, key: Key) -> LaneId {
        match (self.phase, self.policy.strategy) {
            (Phase::Running, Strategy::OneForOne) => LaneId::Of(key),
            (Phase::Running, Strategy::OneForAll | Strategy::RestForOne)
            | (Phase::Fresh | Phase::Booting | Phase::Ending | Phase::Ended, _) => LaneId::Main,
        }
    }

    fn boot(&mut self) {
        if self.phase == Phase::Fresh {
            self.phase = Phase::Booting;
            let starts: Vec<_> = self.table.iter().map(|(key, _)| key).collect();
            self.begin(LaneId::Main, Plan::new(Why::Boot, vec![], starts));
        }
    }

    fn started(&mut self, id: &str, generation: u64, now: Tick) {
        let life = self.current(id, generation).map(|(key, child)| (key, child.life.clone()));
        match life {
            Some((key, Life::Starting { early })) => {
                let event = self.started_as(key);
                self.table.set(key, Life::Up, None, now);
                if let (ChildEvent::Restarted { .. }, Some(child)) = (&event, self.table.get_mut(key)) {
                    child.restarts += 1;
                }
                self.emit_child(key, event);
                self.ready.push_back(self.lane_of(key));
                if let Some(exit) = early {
                    self.ended(key, exit, now);
                }
            }
            // It was given up and runs all the same, or it runs and nobody knows of it any more.
            Some((_, Life::Stopping { .. } | Life::Down | Life::Failed | Life::Waiting(_))) | None => {
                self.effects.push(Effect::Kill { id: id.into(), generation });
            }
            Some((_, Life::Up | Life::Ended(_))) => {}
        }
    }

    fn not_started(&mut self, id: &str, generation: u64, error: Name, now: Tick) {
        let Some((key, child)) = self.current(id, generation) else { return };
        match child.life {
            Life::Starting { .. } => self.start_failed(key, error, now),
            Life::Stopping { .. } => self.leave(key, now),
            Life::Up | Life::Ended(_) | Life::Down | Life::Failed | Life::Waiting(_) => {}
        }
    }

    fn exited(&mut self, id: &str, generation: u64, exit: Exit, now: Tick) {
        let Some((key, child)) = self.current(id, generation) else { return };
        match child.life {
            Life::Up => self.ended(key, exit, now),
            Life::Stopping { .. } => self.stopped(key, exit, now),
            Life::Starting { .. } => {
                if let Some(child) = self.table.get_mut(key) {
                    child.life = Life::Starting { early: Some(exit) };
                }
            }
            Life::Ended(_) | Life::Down | Life::Failed | Life::Waiting(_) => {}
        }
    }

    /// A child has ended by itself. What follows is decided when its lane is free: while its group is being
    /// stopped anyway, nothing does.
    fn ended(&mut self, key: Key, exit: Exit, now: Tick) {
        let within = self.policy.within;
        let Some(child) = self.table.get_mut(key) else { return };
        let calm = child.policy.budget.map_or(within, |own| own.within);
        if child.lasted(now) >= calm {
            child.streak = 0;
        }
        child.last_exit = Some(exit.clone());
        let generation = child.generation;
        self.table.set(key, Life::Ended(exit.clone()), None, now);
        self.emit_child(key, ChildEvent::Stopped { reason: exit });
        self.submit(Deferred::Ended { key, generation });
    }

    fn timers(&mut self, now: Tick) {
        while let Some(key) = self.table.take_due(now) {
            let Some(life) = self.table.get(key).map(|child| child.life.clone()) else { continue };
            match life {
                Life::Waiting(_) => self.submit(Deferred::Due(key)),
                Life::Starting { .. } => self.start_timed_out(key, now),
                Life::Stopping { killed: false } => self.kill_child(key, now),
                Life::Stopping { killed: true } => self.abandon(key, now),
                Life::Up | Life::Ended(_) | Life::Down | Life::Failed => {}
            }
        }
    }

    fn start_timed_out(&mut self, key: Key, now: Tick) {
        let Some(child) = self.table.get(key) else { return };
        self.effects.push(Effect::Kill { id: child.policy.id.clone(), generation: child.generation });
        let error = format!("it did not start within {:?}", self.policy.start_timeout);
        self.start_failed(key, error.into(), now);
    }

    fn abandon(&mut self, key: Key, now: Tick) {
        let Some(child) = self.table.get(key) else { return };
        self.effects.push(Effect::Abandon { id: child.policy.id.clone(), generation: child.generation });
        self.emit_child(key, ChildEvent::Abandoned);
        self.table.abandon(key);
        self.leave(key, now);
    }

    /// The child, if this generation of it is the one that is spoken of.
    fn current(&self, id: &str, generation: u64) -> Option<(Key, &Child)> {
        let key = self.table.find(id)?;
        self.table.get(key).filter(|child| child.generation == generation).map(|child| (key, child))
    }
}
