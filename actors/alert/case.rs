//! An incident together with what is only of use while it is worked on.

use std::{sync::Arc, time::Duration};

use super::{
    impact::{Delta, Users},
    incident::{Attempts, Deed, Incident, Kind, Noticed, Peak, Phase},
    line::Line,
    policy::Policy,
};
use crate::{
    clock::Tick,
    level::{Level, Severity},
    signal::{Action, Edge, Name, Step},
};

/// How many actions an incident lists; one that flaps for hours keeps its latest.
const DEEDS: usize = 64;
/// How many different changes of status an incident lists; all further ones only count.
const EDGES: usize = 64;
/// How many symptoms an incident lists.
const SYMPTOMS: usize = 64;

/// An incident at work.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) incident: Incident,
    /// The worst severity that anybody was alerted of.
    pub(super) alerted: Option<Severity>,
    /// Whether its end has been counted once; a reopened one is not counted twice.
    pub(super) counted: bool,
    /// Since when its cause is gone; `None` while it lasts.
    calm_since: Option<Tick>,
    /// Since when its pool is at warning or above, and since when at critical.
    pressed_since: Option<Tick>,
    critical_since: Option<Tick>,
    /// Leaked connections that are not back.
    pub(super) leaks: u32,
    /// Children that stay down until somebody starts them.
    down: Vec<Name>,
    /// The blocked changes of status that have been said since it was last opened.
    said: Vec<(Name, Name)>,
    /// How many of them have been told at its ends.
    told: u64,
    users: Users,
    pending: Option<(Tick, Pending)>,
}

/// Signals that are no further apart than this belong to one moment: a monitor tells its actions one by one.
pub(super) const MOMENT: Duration = Duration::from_millis(2);

/// A line that waits for the actions which belong to it, and which follow at the same moment.
#[derive(Clone, Debug)]
enum Pending {
    Mitigation(Vec<Action>, bool),
    Emergency(Peak, Vec<Action>, bool),
}

impl Case {
    pub(super) fn new(id: Name, kind: Kind, subject: &Name, cause: Name, now: Tick) -> Self {
        let incident = Incident {
            id,
            kind,
            subject: Arc::clone(subject),
            cause,
            phase: Phase::Opened,
            severity: Severity::Info,
            opened_at: now,
            recovered_at: None,
            closed_at: None,
            resolution: None,
            reopened: 0,
            peak: None,
            attempts: None,
            actions: Vec::new(),
            symptoms: Vec::new(),
            under: None,
            impact: Noticed::default(),
        };
        Self {
            incident,
            alerted: None,
            counted: false,
            calm_since: None,
            pressed_since: None,
            critical_since: None,
            leaks: 0,
            down: Vec::new(),
            said: Vec::new(),
            told: 0,
            users: Users::default(),
            pending: None,
        }
    }

    pub(super) fn is(&self, kind: Kind, subject: &Name) -> bool {
        self.incident.kind == kind && self.incident.subject == *subject
    }

    /// Its cause is (still, or again) there.
    pub(super) fn press(&mut self) {
        self.calm_since = None;
        self.incident.recovered_at = None;
    }

    /// Its cause is gone.
    pub(super) fn calm(&mut self, now: Tick) {
        self.calm_since = Some(now);
        self.incident.recovered_at = Some(now);
    }

    /// A child that will not be started again by itself: its cause stays.
    pub(super) fn down(&mut self, child: Name) {
        self.press();
        if !self.down.contains(&child) {
            self.down.push(child);
        }
    }

    /// A child that is looked after. The cause is gone if that is so of all.
    pub(super) fn up(&mut self, child: &Name, now: Tick) {
        self.down.retain(|down| down != child);
        if self.down.is_empty() {
            self.calm(now);
        }
    }

    /// It is over, and its cause is back: the same incident goes on.
    pub(super) fn reopen(&mut self) {
        self.incident.reopened += 1;
        self.incident.phase = Phase::Opened;
        self.incident.closed_at = None;
        self.incident.resolution = None;
        self.press();
    }

    pub(super) fn level(&mut self, level: Level, now: Tick) {
        self.pressed_since = (level > Level::Normal).then(|| self.pressed_since.unwrap_or(now));
        self.critical_since = (level == Level::Critical).then_some(now);
    }

    pub(super) fn peak(&mut self, seen: Peak) {
        let share = |peak: Peak| u64::from(peak.in_use) * 1_000_000 / u64::from(peak.max.max(1));
        if self.incident.peak.is_none_or(|peak| share(seen) > share(peak)) {
            self.incident.peak = Some(seen);
        }
    }

    /// Changes of status were blocked. Gives back those that nobody has heard of since it was last opened.
    pub(super) fn attempted(
        &mut self,
        operation: Option<&Name>,
        edges: &[Edge],
        made: u64,
        would: bool,
    ) -> Vec<Edge> {
        let first = || Attempts { operation: operation.cloned(), would, ..Attempts::default() };
        let attempts = self.incident.attempts.get_or_insert_with(first);
        if attempts.operation.as_ref() != operation {
            attempts.operation = None;
        }
        attempts.would &= would;
        attempts.made += made;
        attempts.blocked += edges.iter().map(|edge| edge.count).sum::<u64>();
        for edge in edges {
            let same = |known: &Edge| (&known.from, &known.to) == (&edge.from, &edge.to);
            match attempts.edges.iter().position(same) {
                Some(known) => attempts.edges[known].count += edge.count,
                None if attempts.edges.len() < EDGES => attempts.edges.push(edge.clone()),
                None => {}
            }
        }
        let room = EDGES.saturating_sub(self.said.len());
        let said = |edge: &&Edge| self.said.iter().any(|(from, to)| (from, to) == (&edge.from, &edge.to));
        let fresh: Vec<_> = edges.iter().filter(|edge| !said(edge)).take(room).cloned().collect();
        self.said.extend(fresh.iter().map(|edge| (Arc::clone(&edge.from), Arc::clone(&edge.to))));
        fresh
    }

    /// How many blocked changes have come since the last time this was asked, and whether they only would have been.
    pub(super) fn take_blocked(&mut self) -> Option<(u64, bool)> {
        let Attempts { blocked, would, .. } = *self.incident.attempts.as_ref()?;
        self.said.clear();
        Some((blocked - std::mem::replace(&mut self.told, blocked), would))
    }

    pub(super) fn notice(&mut self, delta: &Delta) {
        self.users.merge(&delta.users);
        let noticed = &mut self.incident.impact;
        noticed.shed += delta.shed;
        noticed.late += delta.late;
        noticed.failed += delta.failed;
        noticed.omitted += delta.omitted;
        noticed.users = self.users.count();
    }

    pub(super) fn emergency(&mut self, usage: Peak, would: bool, now: Tick) {
        self.pending = Some((now, Pending::Emergency(usage, Vec::new(), would)));
    }

    pub(super) fn act(&mut self, action: Action, step: Step, would: bool, now: Tick) {
        match step {
            Step::Taken => {
                self.announce(action, would, now);
                let deeds = &mut self.incident.actions;
                if deeds.len() == DEEDS {
                    deeds.remove(0);
                }
                deeds.push(Deed { action, taken_at: now, undone_at: None, would });
            }
            Step::Undone => {
                let mut deeds = self.incident.actions.iter_mut().rev();
                if let Some(deed) = deeds.find(|deed| deed.action == action && deed.undone_at.is_none()) {
                    deed.undone_at = Some(now);
                }
            }
        }
    }

    pub(super) fn symptom(&mut self, id: &Name) {
        let symptoms = &mut self.incident.symptoms;
        if symptoms.len() < SYMPTOMS && !symptoms.contains(id) {
            symptoms.push(Arc::clone(id));
        }
    }

    /// Whether a line waits for its actions which is from before `until`, so that no more will come.
    pub(super) fn has_pending(&self, until: Tick) -> bool {
        self.pending.as_ref().is_some_and(|(at, _)| *at + MOMENT < until)
    }

    /// The line that waits for its actions; it waits no longer.
    pub(super) fn flush(&mut self) -> Option<Line> {
        self.pending.take().map(|(_, pending)| match pending {
            Pending::Mitigation(actions, would) => Line::Mitigation { actions, would },
            Pending::Emergency(usage, actions, would) => Line::Critical { usage, actions, would },
        })
    }

    /// The severity that it has by its pool's level alone, with the time at which it has it.
    pub(super) fn due_severity(&self, policy: &Policy) -> Option<(Tick, Severity)> {
        let warning = self.pressed_since.map(|at| (at + policy.warning_after, Severity::Warning));
        let critical = self.critical_since.map(|at| (at + policy.critical_after, Severity::Critical));
        let higher = |due: &(Tick, Severity)| due.1 > self.incident.severity;
        [warning, critical].into_iter().flatten().filter(higher).min()
    }

    /// When it will be resolved. A failure waits for a person.
    pub(super) fn due_end(&self, policy: &Policy) -> Option<Tick> {
        let quiet = match self.incident.kind {
            Kind::PoolPressure | Kind::Leak | Kind::Server | Kind::Blind | Kind::Circuit => policy.quiet,
            Kind::InvalidTransitions => policy.quiet_transitions,
            Kind::ChildRestarts | Kind::Escalation => policy.quiet_restarts,
        };
        self.calm_since.filter(|_| self.incident.phase != Phase::Failed).map(|at| at + quiet)
    }

    pub(super) fn next_timer(&self, policy: &Policy) -> Option<Tick> {
        if !self.incident.is_open() {
            return None;
        }
        let pending = self.pending.as_ref().map(|&(at, _)| at);
        let severity = self.due_severity(policy).map(|(at, _)| at);
        [pending, severity, self.due_end(policy)].into_iter().flatten().min()
    }

    fn announce(&mut self, action: Action, would: bool, now: Tick) {
        match &mut self.pending {
            Some((_, Pending::Mitigation(actions, all)) | (_, Pending::Emergency(_, actions, all))) => {
                actions.push(action);
                *all = would;
            }
            none @ None => *none = Some((now, Pending::Mitigation(vec![action], would))),
        }
    }
}

/// Whether `root` explains `symptom`, so that nobody needs to hear of the latter while the former is open.
pub(super) fn explains(root: &Incident, symptom: &Incident) -> bool {
    match (root.kind, symptom.kind) {
        (Kind::Server, Kind::PoolPressure | Kind::Blind) => root.subject == symptom.subject,
        (Kind::Escalation, Kind::ChildRestarts) => {
            root.phase == Phase::Failed || root.subject == symptom.subject
        }
        (Kind::Escalation, Kind::Escalation) => root.phase == Phase::Failed && symptom.phase != Phase::Failed,
        (
            Kind::Server,
            Kind::ChildRestarts
            | Kind::Escalation
            | Kind::Leak
            | Kind::Server
            | Kind::Circuit
            | Kind::InvalidTransitions,
        )
        | (
            Kind::Escalation,
            Kind::PoolPressure
            | Kind::Leak
            | Kind::Server
            | Kind::Blind
            | Kind::Circuit
            | Kind::InvalidTransitions,
        )
        | (
            Kind::PoolPressure
            | Kind::ChildRestarts
            | Kind::Leak
            | Kind::Blind
            | Kind::Circuit
            | Kind::InvalidTransitions,
            _,
        ) => false,
    }
}
