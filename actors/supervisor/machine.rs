//! The supervisor as a machine: what has happened and when, in; what to do, out.

use std::collections::VecDeque;

use super::policy::{AutoShutdown, ChildPolicy, Policy, Restart, Strategy};
use crate::{
    clock::Tick,
    signal::{Exit, Name},
    window::Intensity,
};

/// What a supervisor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A start has ended well, or with an error.
    Started {
        /// The child.
        id: Name,
        /// The generation that was started.
        generation: u64,
        /// Whether it runs.
        result: Result<(), Name>,
    },
    /// A child has ended.
    Exited {
        /// The child.
        id: Name,
        /// The generation that has ended.
        generation: u64,
        /// How.
        reason: Exit,
    },
    /// The supervisor itself is asked to end.
    Shutdown,
    /// A timer is due.
    Timer,
}

/// What the shell must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start a generation of a child.
    Start(Name, u64),
    /// Ask a generation of a child to end.
    Stop(Name, u64),
    /// Make it end.
    Kill(Name, u64),
    /// Leave it behind: it ended neither when asked nor when killed.
    Abandon(Name, u64),
    /// The supervisor has ended, with this reason, and all its children before it.
    Ended {
        /// What its parent is told.
        reason: Exit,
        /// Whether it gave up because of too many restarts.
        escalated: bool,
    },
}

/// Where a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does not run and will not by itself.
    Down,
    /// It will be restarted at this moment.
    Waiting(Tick),
    /// It is being started; it has failed if it does not run by then.
    Starting(u64, Tick),
    /// It runs.
    Running(u64),
    /// It has been asked to end (or, if `killed`, been killed), and has until then.
    Stopping {
        /// The generation that is ending.
        generation: u64,
        /// When the next, harder step is taken.
        until: Tick,
        /// Whether it has been killed already.
        killed: bool,
    },
}

/// Why a verb of the administrator was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerbError {
    /// There is no such child.
    NotFound,
    /// It runs, is being started, or is ending.
    Running,
    /// It is waiting to be restarted.
    Restarting,
    /// There is such a child, and it does not run.
    AlreadyPresent,
    /// There is such a child, and it runs.
    AlreadyStarted,
    /// The supervisor is ending or has ended.
    Ending,
}

impl VerbError {
    /// The name of the error, as OTP has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::AlreadyPresent => "already_present",
            Self::AlreadyStarted => "already_started",
            Self::Ending => "ending",
        }
    }
}

/// One supervisor.
#[derive(Clone, Debug)]
pub struct Machine {
    policy: Policy,
    children: Vec<Child>,
    restarts: Intensity,
    last_generation: u64,
    phase: Phase,
    plan: VecDeque<Step>,
    /// Exits that came while a plan was under way: they are looked at when it is done.
    deferred: VecDeque<(Name, u64, Exit)>,
    /// A child that is in no plan but is being started on its administrator's behalf: if that fails it stays down.
    by_hand: Vec<Name>,
}

#[derive(Clone, Debug)]
struct Child {
    policy: ChildPolicy,
    state: State,
    starts: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Ending { reason: Exit, escalated: bool },
    Ended,
}

/// A plan's next step. A step is taken when the one before it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Stop(Name),
    Start(Name),
}

impl Machine {
    /// A supervisor of `children`, and its first effects: it starts them in order, one after the other.
    #[must_use]
    pub fn start(policy: Policy, children: Vec<ChildPolicy>, now: Tick) -> (Self, Vec<Effect>) {
        let children: Vec<_> =
            children.into_iter().map(|policy| Child { policy, state: State::Down, starts: 0 }).collect();
        let plan = children.iter().map(|child| Step::Start(child.policy.id.clone())).collect();
        let mut machine = Self {
            restarts: Intensity::new(policy.max_restarts, policy.within),
            policy,
            children,
            last_generation: 0,
            phase: Phase::Starting,
            plan,
            deferred: VecDeque::new(),
            by_hand: Vec::new(),
        };
        let mut effects = Vec::new();
        machine.advance(now, &mut effects);
        (machine, effects)
    }

    /// Takes in what has happened and says what to do.
    pub fn on(&mut self, event: Event, now: Tick) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Started { id, generation, result } => self.started(&id, generation, result.is_ok(), now),
            Event::Exited { id, generation, reason } => {
                self.exited(&id, generation, reason, now, &mut effects)
            }
            Event::Shutdown => self.end(Exit::Shutdown, false),
            Event::Timer => self.timers(now, &mut effects),
        }
        self.advance(now, &mut effects);
        effects
    }

    /// When [`Event::Timer`] is next due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Tick> {
        let due = |child: &Child| match child.state {
            State::Waiting(at) => self.plan.is_empty().then_some(at),
            State::Starting(_, until) | State::Stopping { until, .. } => Some(until),
            State::Down | State::Running(_) => None,
        };
        self.children.iter().filter_map(due).min()
    }

    /// Stops a child, also one that waits for its restart; it stays down. A temporary child is forgotten.
    ///
    /// # Errors
    /// [`VerbError::NotFound`]; [`VerbError::Ending`].
    pub fn stop_child(&mut self, id: &str, now: Tick) -> Result<Vec<Effect>, VerbError> {
        self.find_for_verb(id)?;
        self.plan.push_back(Step::Stop(id.into()));
        let mut effects = Vec::new();
        self.advance(now, &mut effects);
        Ok(effects)
    }

    /// Starts a child that is down. If that fails it stays down.
    ///
    /// # Errors
    /// [`VerbError::NotFound`], [`VerbError::Running`], [`VerbError::Restarting`], [`VerbError::Ending`].
    pub fn restart_child(&mut self, id: &str, now: Tick) -> Result<Vec<Effect>, VerbError> {
        self.must_be_down(id)?;
        self.by_hand.push(id.into());
        let mut effects = Vec::new();
        self.start_now(id, now, &mut effects);
        Ok(effects)
    }

    /// Forgets a child that is down.
    ///
    /// # Errors
    /// As [`Machine::restart_child`].
    pub fn delete_child(&mut self, id: &str) -> Result<(), VerbError> {
        self.must_be_down(id)?;
        self.forget(id);
        Ok(())
    }

    /// Adds a child behind the others and starts it. If that fails it is not kept.
    ///
    /// # Errors
    /// [`VerbError::AlreadyPresent`], [`VerbError::AlreadyStarted`], [`VerbError::Ending`].
    pub fn start_child(&mut self, policy: ChildPolicy, now: Tick) -> Result<Vec<Effect>, VerbError> {
        match self.find_for_verb(&policy.id) {
            Err(VerbError::NotFound) => {}
            Err(other) => return Err(other),
            Ok(State::Down) => return Err(VerbError::AlreadyPresent),
            Ok(State::Waiting(_) | State::Starting(..) | State::Running(_) | State::Stopping { .. }) => {
                return Err(VerbError::AlreadyStarted);
            }
        }
        let id = policy.id.clone();
        self.by_hand.push(id.clone());
        self.children.push(Child { policy, state: State::Down, starts: 0 });
        let mut effects = Vec::new();
        self.start_now(&id, now, &mut effects);
        Ok(effects)
    }

    /// The children it knows, in start order, each with where it stands and how often it was started.
    pub fn children(&self) -> impl Iterator<Item = (&ChildPolicy, State, u32)> {
        self.children.iter().map(|child| (&child.policy, child.state, child.starts))
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    fn started(&mut self, id: &str, generation: u64, ok: bool, now: Tick) {
        let Some(child) = self.find(id) else { return };
        if !matches!(child.state, State::Starting(of, _) if of == generation) {
            return;
        }
        if ok {
            child.state = State::Running(generation);
            self.by_hand.retain(|name| **name != *id);
            return;
        }
        self.start_failed(id, now);
    }

    fn start_failed(&mut self, id: &str, now: Tick) {
        let Some(child) = self.find(id) else { return };
        child.state = State::Down;
        let never_ran = child.starts == 1;
        if let Some(at) = self.by_hand.iter().position(|name| **name == *id) {
            self.by_hand.swap_remove(at);
            if never_ran {
                self.forget(id);
            }
        } else if self.phase == Phase::Starting {
            self.end(Exit::Shutdown, false);
        } else if self.phase == Phase::Running {
            // The plan has failed here; what it had started before stays, and the restart is tried again.
            self.plan.clear();
            self.again(id, now);
        }
    }

    fn exited(&mut self, id: &str, generation: u64, reason: Exit, now: Tick, effects: &mut Vec<Effect>) {
        let planned = !self.plan.is_empty();
        let Some(child) = self.find(id) else { return };
        match child.state {
            State::Running(of) if of == generation => {
                if self.will_stop(id) {
                    self.stopped(id);
                } else if planned {
                    self.deferred.push_back((id.into(), generation, reason));
                } else {
                    self.ended_by_itself(id, &reason, now, effects);
                }
            }
            State::Stopping { generation: of, .. } if of == generation => self.stopped(id),
            // It ended before it was said to run: a failed start.
            State::Starting(of, _) if of == generation => self.start_failed(id, now),
            State::Running(_)
            | State::Stopping { .. }
            | State::Starting(..)
            | State::Down
            | State::Waiting(_) => {}
        }
    }

    /// A restart that is asked for by an end or by a failed start. Counts it, and gives up or goes on.
    fn again(&mut self, id: &str, now: Tick) -> Option<Tick> {
        if self.restarts.exceeded_by(now) {
            self.end(Exit::Shutdown, true);
            return None;
        }
        let at = match self.restarts.count(now) {
            0 | 1 => now,
            n => now + self.policy.backoff.delay(n - 2),
        };
        if let Some(child) = self.find(id) {
            child.state = State::Waiting(at);
        }
        Some(at)
    }

    /// Restarts `id`, and with it whom the strategy says.
    fn restart(&mut self, id: &str, now: Tick, effects: &mut Vec<Effect>) {
        let Some(place) = self.children.iter().position(|child| *child.policy.id == *id) else { return };
        let group = match self.policy.strategy {
            Strategy::OneForOne => return self.start_now(id, now, effects),
            Strategy::OneForAll => &self.children[..],
            Strategy::RestForOne => &self.children[place..],
        };
        let names: Vec<_> =
            group.iter().map(|child| (child.policy.id.clone(), child.policy.restart)).collect();
        self.plan.extend(names.iter().rev().map(|(id, _)| Step::Stop(id.clone())));
        let back = names.into_iter().filter(|(_, restart)| *restart != Restart::Temporary);
        self.plan.extend(back.map(|(id, _)| Step::Start(id)));
    }

    fn end(&mut self, reason: Exit, escalated: bool) {
        if !matches!(self.phase, Phase::Starting | Phase::Running) {
            return;
        }
        self.phase = Phase::Ending { reason, escalated };
        self.plan = self.children.iter().rev().map(|child| Step::Stop(child.policy.id.clone())).collect();
        self.by_hand.clear();
    }

    fn timers(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let due: Vec<_> = self.children.iter().map(|child| (child.policy.id.clone(), child.state)).collect();
        for (id, state) in due {
            match state {
                State::Waiting(at) if at <= now && self.plan.is_empty() && self.phase == Phase::Running => {
                    self.restart(&id, now, effects);
                }
                State::Starting(generation, until) if until <= now => {
                    effects.push(Effect::Kill(id.clone(), generation));
                    self.start_failed(&id, now);
                }
                State::Stopping { generation, until, killed } if until <= now => {
                    if killed {
                        effects.push(Effect::Abandon(id.clone(), generation));
                        self.stopped(&id);
                    } else {
                        effects.push(Effect::Kill(id.clone(), generation));
                        let until = now + self.policy.stop_timeout;
                        if let Some(child) = self.find(&id) {
                            child.state = State::Stopping { generation, until, killed: true };
                        }
                    }
                }
                State::Waiting(_)
                | State::Starting(..)
                | State::Stopping { .. }
                | State::Running(_)
                | State::Down => {}
            }
        }
    }

    /// Takes the plan's steps until one has to be waited for.
    fn advance(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        loop {
            let Some(step) = self.plan.front().cloned() else {
                if self.settle(now, effects) {
                    continue;
                }
                return;
            };
            let id = match &step {
                Step::Stop(id) | Step::Start(id) => id.clone(),
            };
            let state = self.find(&id).map(|child| child.state);
            match (step, state) {
                (_, None) => {}
                (Step::Stop(_), Some(State::Down | State::Waiting(_))) => self.stopped(&id),
                (Step::Stop(_), Some(State::Running(generation))) if self.was_deferred(&id, generation) => {
                    self.stopped(&id);
                }
                (Step::Stop(_), Some(State::Running(generation) | State::Starting(generation, _))) => {
                    effects.push(Effect::Stop(id.clone(), generation));
                    let until = now + self.policy.stop_timeout;
                    if let Some(child) = self.find(&id) {
                        child.state = State::Stopping { generation, until, killed: false };
                    }
                    return;
                }
                (Step::Stop(_) | Step::Start(_), Some(State::Stopping { .. })) => return,
                (Step::Start(_), Some(State::Starting(..))) => return,
                (Step::Start(_), Some(State::Down | State::Waiting(_))) => {
                    self.start_now(&id, now, effects);
                    return;
                }
                (Step::Start(_), Some(State::Running(_))) => {}
            }
            self.plan.pop_front();
        }
    }

    /// There is no plan: moves to the next phase, or takes up what had to wait. Says whether there is more.
    fn settle(&mut self, now: Tick, effects: &mut Vec<Effect>) -> bool {
        match self.phase.clone() {
            Phase::Starting => self.phase = Phase::Running,
            Phase::Ending { reason, escalated } => {
                self.phase = Phase::Ended;
                effects.push(Effect::Ended { reason, escalated });
                return false;
            }
            Phase::Running => {}
            Phase::Ended => return false,
        }
        let Some((id, generation, reason)) = self.deferred.pop_front() else { return false };
        if self.find(&id).is_some_and(|child| child.state == State::Running(generation)) {
            self.ended_by_itself(&id, &reason, now, effects);
        }
        true
    }

    fn start_now(&mut self, id: &str, now: Tick, effects: &mut Vec<Effect>) {
        let until = now + self.policy.start_timeout;
        self.last_generation += 1;
        let generation = self.last_generation;
        let Some(child) = self.find(id) else { return };
        child.starts += 1;
        child.state = State::Starting(generation, until);
        effects.push(Effect::Start(child.policy.id.clone(), generation));
    }

    /// OTP's `do_restart`.
    fn ended_by_itself(&mut self, id: &str, reason: &Exit, now: Tick, effects: &mut Vec<Effect>) {
        let Some(child) = self.find(id) else { return };
        child.state = State::Down;
        let ChildPolicy { restart, significant, .. } = child.policy;
        let again = match restart {
            Restart::Permanent => true,
            Restart::Transient => !reason.is_normal(),
            Restart::Temporary => {
                self.forget(id);
                false
            }
        };
        if !again {
            self.auto_shutdown(significant && restart != Restart::Permanent);
        } else if self.again(id, now) == Some(now) {
            self.restart(id, now, effects);
        }
    }

    /// A child has ended for good. Ends the supervisor if that child, or the last of its kind, was significant.
    fn auto_shutdown(&mut self, significant: bool) {
        let alive = |child: &Child| child.policy.significant && child.state != State::Down;
        let over = match self.policy.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => significant,
            AutoShutdown::AllSignificant => significant && !self.children.iter().any(alive),
        };
        if over {
            self.end(Exit::Shutdown, false);
        }
    }

    /// Whether this generation's end is known and has not been looked at; now it is.
    fn was_deferred(&mut self, id: &str, generation: u64) -> bool {
        let before = self.deferred.len();
        self.deferred.retain(|(name, of, _)| **name != *id || *of != generation);
        self.deferred.len() < before
    }

    /// A child has ended because it had to. A temporary one is forgotten.
    fn stopped(&mut self, id: &str) {
        let Some(child) = self.find(id) else { return };
        child.state = State::Down;
        if child.policy.restart == Restart::Temporary {
            self.forget(id);
        }
    }

    fn will_stop(&self, id: &str) -> bool {
        self.plan.iter().any(|step| matches!(step, Step::Stop(name) if **name == *id))
    }

    fn must_be_down(&mut self, id: &str) -> Result<(), VerbError> {
        match self.find_for_verb(id)? {
            State::Down => Ok(()),
            State::Waiting(_) => Err(VerbError::Restarting),
            State::Starting(..) | State::Running(_) | State::Stopping { .. } => Err(VerbError::Running),
        }
    }

    fn find_for_verb(&mut self, id: &str) -> Result<State, VerbError> {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Ended) {
            return Err(VerbError::Ending);
        }
        self.find(id).map(|child| child.state).ok_or(VerbError::NotFound)
    }

    fn find(&mut self, id: &str) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| *child.policy.id == *id)
    }

    fn forget(&mut self, id: &str) {
        self.children.retain(|child| *child.policy.id != *id);
    }
}
