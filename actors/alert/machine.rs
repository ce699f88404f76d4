//! The decision: signals, impact and time in; incidents, alerts and log lines out.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    case::{Case, explains},
    impact::Delta,
    incident::{Incident, Kind, Phase, Resolution},
    line::Line,
    policy::Policy,
};
use crate::{
    clock::Tick,
    level::{Mode, Severity},
    signal::{Name, Signal},
};

/// The subject of impact that belongs to no pool: every open incident shares it.
pub const SERVICE: &str = "service";

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// An incident came to this phase.
    Phase {
        /// Which incident.
        id: Name,
        /// What it is about.
        kind: Kind,
        /// Whom it is about.
        subject: Name,
        /// The phase.
        phase: Phase,
    },
    /// An incident has ended for the first time; one that is reopened and ends again is not counted again.
    Ended {
        /// What it was about.
        kind: Kind,
        /// Who ended it.
        resolution: Resolution,
        /// From its beginning until its cause went away.
        recovered_in: Duration,
        /// Whether no request failed because of it.
        prevented: bool,
    },
    /// People are to be told.
    Alert {
        /// Of which incident.
        id: Name,
        /// How bad it is.
        severity: Severity,
        /// What it is about.
        kind: Kind,
        /// Whom it is about.
        subject: Name,
    },
    /// This is to be logged.
    Say {
        /// The line.
        line: Line,
        /// Whom it is about: a pool, a supervisor.
        subject: Option<Name>,
        /// The incident that it belongs to.
        incident: Option<Name>,
    },
}

/// Effects in the order in which they are to be performed.
pub type Effects = Vec<Effect>;

/// All incidents of a runtime.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) policy: Policy,
    pub(super) mode: Mode,
    run: Name,
    count: u64,
    /// Newest first. Each is shared with the copies of this machine until it changes.
    cases: VecDeque<Arc<Case>>,
    /// The latest time that was seen: time does not go back.
    pub(super) now: Tick,
}

impl Machine {
    /// No incidents. `run` tells the ids of this run of the process apart from those of all others.
    #[must_use]
    pub fn new(policy: Policy, mode: Mode, run: impl Into<Name>) -> Self {
        Self { policy, mode, run: run.into(), count: 0, cases: VecDeque::new(), now: Tick::ZERO }
    }

    /// This has happened. What was due before is decided first.
    pub fn on(&mut self, signal: &Signal, now: Tick) -> Effects {
        self.now = self.now.max(now);
        let mut out = self.due(self.now);
        self.hear(signal, &mut out);
        out
    }

    /// People noticed this, at the subject of some incidents or, with [`SERVICE`], anywhere. What is noticed
    /// while no incident is open belongs to none.
    pub fn on_impact(&mut self, subject: &str, delta: &Delta) {
        if delta.is_nothing() {
            return;
        }
        for case in self.cases.iter_mut().filter(|case| case.incident.is_open()) {
            if subject == SERVICE || *case.incident.subject == *subject {
                Arc::make_mut(case).notice(delta);
            }
        }
    }

    /// It is `now`, and nothing more belongs to what happened at this moment.
    pub fn on_tick(&mut self, now: Tick) -> Effects {
        self.now = self.now.max(now);
        let mut out = self.due(self.now);
        for i in 0..self.cases.len() {
            self.flush(i, Tick::MAX, &mut out);
        }
        out
    }

    /// A person closes an incident. `None` if there is no open one of that id.
    pub fn close(&mut self, id: &str, by: &Name, now: Tick) -> Option<Effects> {
        let mut out = self.on_tick(now);
        let i = self.cases.iter().position(|case| case.incident.is_open() && *case.incident.id == *id)?;
        self.end(i, Resolution::Manual(Arc::clone(by)), self.now, &mut out);
        Some(out)
    }

    /// When [`Machine::on_tick`] will next have something to decide.
    #[must_use]
    pub fn next_timer(&self) -> Option<Tick> {
        self.cases.iter().filter_map(|case| case.next_timer(&self.policy)).min()
    }

    /// All incidents that are remembered, newest first.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.cases.iter().map(|case| &case.incident)
    }

    /// The worst severity of all that is open, if anything is.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.incidents().filter(|incident| incident.is_open()).map(|incident| incident.severity).max()
    }

    /// The open incident of that kind and subject, with its cause there: an open one, a recent one reopened, or
    /// a new one.
    pub(super) fn begin(&mut self, kind: Kind, subject: &Name, cause: Name, out: &mut Effects) -> usize {
        let now = self.now;
        if let Some(i) = self.find_open(kind, subject) {
            self.case(i).press();
            return i;
        }
        let recent = |case: &Arc<Case>| {
            let closed =
                case.incident.closed_at.filter(|_| case.incident.resolution == Some(Resolution::Auto));
            case.is(kind, subject) && closed.is_some_and(|at| now.since(at) <= self.policy.reopen_within)
        };
        let i = if let Some(i) = self.cases.iter().position(recent) {
            self.case(i).reopen();
            i
        } else {
            self.make_room();
            let id = self.next_id();
            self.cases.push_front(Arc::new(Case::new(id, kind, subject, cause, now)));
            0
        };
        self.tell_phase(i, Phase::Opened, out);
        self.adopt(i);
        if kind.can_flap() && self.case(i).incident.reopened >= self.policy.flapping {
            self.rate(i, Severity::Critical, out);
        }
        i
    }

    /// Puts the incident under the one that explains it, and those that it explains under it.
    pub(super) fn adopt(&mut self, i: usize) {
        let mine = self.case(i).incident.clone();
        for other in (0..self.cases.len()).filter(|&other| other != i) {
            let theirs = &self.cases[other].incident;
            if !theirs.is_open() {
                continue;
            }
            let theirs_id = Arc::clone(&theirs.id);
            let (under_them, under_me) = (explains(theirs, &mine), explains(&mine, theirs));
            if under_them {
                self.case(i).incident.under = Some(theirs_id);
                self.case(other).symptom(&mine.id);
            } else if under_me {
                self.case(other).incident.under = Some(Arc::clone(&mine.id));
                self.case(i).symptom(&theirs_id);
            }
        }
    }

    /// The incident is at least that bad. Each severity is alerted once, the worst first.
    pub(super) fn rate(&mut self, i: usize, severity: Severity, out: &mut Effects) {
        let incident = &mut self.case(i).incident;
        incident.severity = incident.severity.max(severity);
        match incident.severity {
            Severity::Info | Severity::Warning => {}
            Severity::Critical => self.escalate(i, out),
            Severity::Failure => self.fail(i, out),
        }
        self.alert(i, out);
    }

    pub(super) fn escalate(&mut self, i: usize, out: &mut Effects) {
        let incident = &mut self.case(i).incident;
        if incident.phase == Phase::Opened {
            incident.phase = Phase::Escalated;
            self.tell_phase(i, Phase::Escalated, out);
        }
    }

    fn fail(&mut self, i: usize, out: &mut Effects) {
        let incident = &mut self.case(i).incident;
        if incident.phase != Phase::Failed {
            incident.phase = Phase::Failed;
            self.tell_phase(i, Phase::Failed, out);
        }
    }

    fn alert(&mut self, i: usize, out: &mut Effects) {
        let case = self.case(i);
        let severity = case.incident.severity;
        if case.incident.under.is_none() && case.alerted.is_none_or(|alerted| severity > alerted) {
            case.alerted = Some(severity);
            self.tell_alert(i, severity, out);
        }
    }

    pub(super) fn rate_by_level(&mut self, i: usize, now: Tick, out: &mut Effects) {
        while let Some((_, severity)) = self.cases[i].due_severity(&self.policy).filter(|(at, _)| *at <= now)
        {
            self.rate(i, severity, out);
        }
    }

    /// All that is due by `now`, each incident's in its order.
    fn due(&mut self, now: Tick) -> Effects {
        let mut out = Effects::new();
        for i in 0..self.cases.len() {
            if !self.cases[i].incident.is_open() {
                continue;
            }
            self.flush(i, now, &mut out);
            self.rate_by_level(i, now, &mut out);
            if let Some(at) = self.cases[i].due_end(&self.policy).filter(|at| *at <= now) {
                self.end(i, Resolution::Auto, at, &mut out);
            }
        }
        out
    }

    fn end(&mut self, i: usize, resolution: Resolution, at: Tick, out: &mut Effects) {
        let case = self.case(i);
        let first = !std::mem::replace(&mut case.counted, true);
        let incident = &mut case.incident;
        incident.phase = Phase::Resolved;
        incident.closed_at = Some(at);
        incident.resolution = Some(resolution.clone());
        incident.recovered_at = incident.recovered_at.or(Some(at));
        let ended = Effect::Ended {
            kind: incident.kind,
            resolution: resolution.clone(),
            recovered_in: incident.recovered_in().unwrap_or_default(),
            prevented: incident.impact.failed == 0,
        };
        self.tell_phase(i, Phase::Resolved, out);
        out.extend(first.then_some(ended));
        let (kind, subject) = (self.cases[i].incident.kind, Arc::clone(&self.cases[i].incident.subject));
        let line = match (resolution, self.case(i).take_blocked()) {
            (Resolution::Auto, Some((blocked, would))) => Line::Prevented { blocked, would },
            (Resolution::Auto, None) => Line::Resolved { kind, subject, last: self.severity().is_none() },
            (Resolution::Manual(by), _) => Line::Closed { by },
        };
        self.say(i, line, out);
        self.tell_that_nobody_noticed(i, first, out);
        self.release(i, out);
    }

    /// "Recovered by itself, no action required, no user impact": the one thing that is worth an Info.
    fn tell_that_nobody_noticed(&mut self, i: usize, first: bool, out: &mut Effects) {
        let case = self.case(i);
        let by_itself = case.incident.resolution == Some(Resolution::Auto) && case.incident.impact.nothing();
        let alarmed = case.alerted.is_some_and(|severity| severity > Severity::Info);
        if first && by_itself && alarmed {
            self.tell_alert(i, Severity::Info, out);
        }
    }

    /// The consequences of an incident that is over are incidents of their own.
    fn release(&mut self, root: usize, out: &mut Effects) {
        let id = Arc::clone(&self.cases[root].incident.id);
        for i in 0..self.cases.len() {
            if self.cases[i].incident.is_open() && self.cases[i].incident.under.as_ref() == Some(&id) {
                self.case(i).incident.under = None;
                self.alert(i, out);
            }
        }
    }

    pub(super) fn flush(&mut self, i: usize, until: Tick, out: &mut Effects) {
        // Looked at first, because changing a case copies it.
        if self.cases[i].has_pending(until)
            && let Some(line) = self.case(i).flush()
        {
            self.say(i, line, out);
        }
    }

    pub(super) fn say(&self, i: usize, line: Line, out: &mut Effects) {
        let Incident { id, subject, .. } = &self.cases[i].incident;
        out.push(Effect::Say { line, subject: Some(Arc::clone(subject)), incident: Some(Arc::clone(id)) });
    }

    fn tell_phase(&self, i: usize, phase: Phase, out: &mut Effects) {
        let Incident { id, kind, subject, .. } = &self.cases[i].incident;
        out.push(Effect::Phase { id: Arc::clone(id), kind: *kind, subject: Arc::clone(subject), phase });
    }

    fn tell_alert(&self, i: usize, severity: Severity, out: &mut Effects) {
        let Incident { id, kind, subject, .. } = &self.cases[i].incident;
        out.push(Effect::Alert { id: Arc::clone(id), severity, kind: *kind, subject: Arc::clone(subject) });
    }

    pub(super) fn case(&mut self, i: usize) -> &mut Case {
        Arc::make_mut(&mut self.cases[i])
    }

    pub(super) fn open_case(&mut self, kind: Kind, subject: &Name) -> Option<&mut Case> {
        let i = self.find_open(kind, subject)?;
        Some(self.case(i))
    }

    pub(super) fn find_open(&self, kind: Kind, subject: &Name) -> Option<usize> {
        self.cases.iter().position(|case| case.incident.is_open() && case.is(kind, subject))
    }

    fn next_id(&mut self) -> Name {
        self.count += 1;
        if self.run.is_empty() { format!("{}", self.count) } else { format!("{}-{}", self.run, self.count) }
            .into()
    }

    /// Forgets the oldest that is over, if there are as many as are kept. Open ones are few: one a kind and
    /// subject.
    fn make_room(&mut self) {
        if self.cases.len() >= self.policy.keep
            && let Some(oldest) = self.cases.iter().rposition(|case| !case.incident.is_open())
        {
            self.cases.remove(oldest);
        }
    }
}
