//! What each signal means: which incident it begins, goes on with or calms, and which line it is worth.

use std::sync::Arc;

use super::{
    incident::{Kind, Peak},
    line::Line,
    machine::{Effect, Effects, Machine},
};
use crate::{
    circuit::Circuit,
    clock::Tick,
    level::{Level, Mode, Severity},
    signal::{ChildEvent, Edge, Name, ServerState, Signal},
};

impl Machine {
    pub(super) fn hear(&mut self, signal: &Signal, out: &mut Effects) {
        match signal {
            Signal::Pressure { pool, from, to, in_use, max, waiting } => {
                let usage = Peak { in_use: *in_use, max: *max };
                if to > from {
                    self.pressed(&of_pool(pool), *to, usage, *waiting, out);
                } else {
                    self.relieved(&of_pool(pool), *to, usage, out);
                }
            }
            Signal::Peak { pool, in_use, max } => {
                if let Some(case) = self.open_case(Kind::PoolPressure, &of_pool(pool)) {
                    case.peak(Peak { in_use: *in_use, max: *max });
                }
            }
            Signal::Action { pool, action, step, would } => {
                let now = self.now;
                if let Some(case) = self.open_case(Kind::PoolPressure, &of_pool(pool)) {
                    case.act(*action, *step, *would, now);
                }
            }
            Signal::Blind { pool, blind } => {
                let severity = blind.then_some(Severity::Warning);
                self.state(Kind::Blind, &of_pool(pool), severity, Line::Blind(*blind), out);
            }
            Signal::Server { pool, state } => {
                let severity = match state {
                    ServerState::Up => None,
                    ServerState::Full => Some(Severity::Warning),
                    ServerState::Down => Some(Severity::Critical),
                };
                self.state(Kind::Server, &of_pool(pool), severity, Line::Server(*state), out);
            }
            Signal::Leak { pool, operation, site, held, returned } => {
                let (operation, site) = (Arc::clone(operation), Arc::clone(site));
                let line = Line::Leak { operation, site, held: *held, returned: *returned };
                self.leak(&of_pool(pool), *returned, line, out);
            }
            Signal::Cancelled { pool, statements } => {
                if let Some(i) = self.find_open(Kind::PoolPressure, &of_pool(pool)) {
                    self.say(i, Line::Cancelled { statements: *statements }, out);
                }
            }
            Signal::Circuit { endpoint, to, cause, would, from: _ } => {
                let line =
                    Line::Circuit { endpoint: Arc::clone(endpoint), to: *to, cause: *cause, would: *would };
                self.circuit(endpoint, *to, *would, line, out);
            }
            Signal::Child { supervisor, child, event } => self.child(supervisor, child, event, out),
            Signal::Escalated { supervisor, root } => self.escalated(supervisor, *root, out),
            Signal::Blocked { machine, operation, edges, made, would } => {
                self.blocked(machine, operation.as_ref(), edges, (*made, *would), out);
            }
            Signal::Batch { operation, event } => {
                let said = Line::of_batch(operation, event).into_iter().map(|line| Effect::Say {
                    line,
                    subject: Some(Arc::clone(operation)),
                    incident: None,
                });
                out.extend(said);
            }
            Signal::Mode { from, to, by, reason } => {
                self.mode = *to;
                let (by, reason) = (Arc::clone(by), Arc::clone(reason));
                let line = Line::Mode { from: *from, to: *to, by, reason };
                out.push(Effect::Say { line, subject: None, incident: None });
            }
        }
    }

    fn pressed(&mut self, subject: &Name, to: Level, usage: Peak, waiting: u32, out: &mut Effects) {
        let Peak { in_use, max } = usage;
        let cause = format!("{in_use} of {max} connections in use, {waiting} waiting").into();
        let i = self.begin(Kind::PoolPressure, subject, cause, out);
        self.flush(i, Tick::MAX, out);
        let (now, would) = (self.now, self.mode == Mode::Observe);
        let case = self.case(i);
        case.level(to, now);
        case.peak(usage);
        match to {
            Level::Normal => {}
            Level::Warning => self.say(i, Line::Pressure(usage), out),
            Level::Critical => {
                case.emergency(usage, would, now);
                self.escalate(i, out);
            }
        }
        self.rate_by_level(i, now, out);
    }

    fn relieved(&mut self, subject: &Name, to: Level, usage: Peak, out: &mut Effects) {
        let Some(i) = self.find_open(Kind::PoolPressure, subject) else { return };
        self.flush(i, Tick::MAX, out);
        let now = self.now;
        self.case(i).level(to, now);
        let line = match to {
            Level::Normal => Line::Resumed(usage),
            Level::Warning | Level::Critical => Line::Recovered(usage),
        };
        // A monitor that sees nothing knows nothing of a recovery; that it lets go has been said.
        if self.find_open(Kind::Blind, subject).is_none() {
            self.say(i, line, out);
        }
        if to == Level::Normal {
            self.case(i).calm(now);
        }
    }

    /// Something that is either the matter, and how bad, or not.
    fn state(&mut self, kind: Kind, subject: &Name, bad: Option<Severity>, line: Line, out: &mut Effects) {
        let now = self.now;
        if let Some(severity) = bad {
            let i = self.begin(kind, subject, line.to_string().into(), out);
            self.say(i, line, out);
            self.rate(i, severity, out);
        } else if let Some(i) = self.find_open(kind, subject) {
            self.say(i, line, out);
            self.case(i).calm(now);
        }
    }

    /// A circuit that its rule opened is an incident until it is closed. What an operator or a level does to it
    /// is only said.
    fn circuit(&mut self, endpoint: &Name, to: Circuit, would: bool, line: Line, out: &mut Effects) {
        match (to, self.find_open(Kind::Circuit, endpoint)) {
            (Circuit::Open, _) if !would => {
                self.state(Kind::Circuit, endpoint, Some(Severity::Warning), line, out);
            }
            (Circuit::Closed, Some(_)) => self.state(Kind::Circuit, endpoint, None, line, out),
            (_, Some(i)) => self.say(i, line, out),
            (_, None) => {
                out.push(Effect::Say { line, subject: Some(Arc::clone(endpoint)), incident: None });
            }
        }
    }

    fn leak(&mut self, subject: &Name, returned: bool, line: Line, out: &mut Effects) {
        let leaked = self.find_open(Kind::Leak, subject).map_or(0, |i| self.case(i).leaks);
        let leaks = if returned { leaked.saturating_sub(1) } else { leaked + 1 };
        // It is over only when the last of them is back.
        if returned && leaks > 0 {
            if let Some(i) = self.find_open(Kind::Leak, subject) {
                self.say(i, line, out);
            }
        } else {
            self.state(Kind::Leak, subject, (!returned).then_some(Severity::Warning), line, out);
        }
        if let Some(case) = self.open_case(Kind::Leak, subject) {
            case.leaks = leaks;
        }
    }

    /// Each change is said once, and how many there were at the end: a bug that asks for the same a thousand times
    /// is one line. From some on it is the code that wants looking at.
    fn blocked(
        &mut self,
        machine: &Name,
        operation: Option<&Name>,
        edges: &[Edge],
        (made, would): (u64, bool),
        out: &mut Effects,
    ) {
        let Some(first) = edges.first() else { return };
        let i =
            self.begin(Kind::InvalidTransitions, machine, blocked_line(first, would).to_string().into(), out);
        let (now, case) = (self.now, self.case(i));
        let fresh = case.attempted(operation, edges, made, would);
        case.calm(now);
        let blocked = case.incident.attempts.as_ref().map_or(0, |attempts| attempts.blocked);
        for edge in fresh {
            self.say(i, blocked_line(&edge, would), out);
        }
        if blocked < self.policy.blocked_warning {
            return self.rate(i, Severity::Info, out);
        }
        if self.case(i).incident.severity < Severity::Warning {
            self.say(i, Line::ReviewCode { blocked, would }, out);
        }
        self.rate(i, Severity::Warning, out);
    }

    fn child(&mut self, supervisor: &Name, child: &Name, event: &ChildEvent, out: &mut Effects) {
        let child = Arc::clone(child);
        let (line, severity) = match event {
            ChildEvent::Started => return self.up_again(supervisor, &child),
            ChildEvent::Stopped { reason } if reason.is_normal() => return,
            ChildEvent::Stopped { reason } => {
                (Line::Ended { child: Arc::clone(&child), reason: reason.clone() }, Severity::Info)
            }
            ChildEvent::Restarted { after, restarts } => {
                let severity = self.severity_of_restarts(*restarts);
                (Line::Restarted { child: Arc::clone(&child), after: *after, restarts: *restarts }, severity)
            }
            ChildEvent::StartFailed { error } => {
                let error = Arc::clone(error);
                (Line::StartFailed { child: Arc::clone(&child), error }, Severity::Warning)
            }
            ChildEvent::Abandoned => (Line::Abandoned { child: Arc::clone(&child) }, Severity::Critical),
            ChildEvent::GivenUp => (Line::GivenUp { child: Arc::clone(&child) }, Severity::Critical),
        };
        // A supervisor that gave up is itself a child and is started again: that belongs to its giving up.
        let i = match self.find_open(Kind::Escalation, &child) {
            Some(escalation) => escalation,
            None => self.begin(Kind::ChildRestarts, supervisor, line.to_string().into(), out),
        };
        self.say(i, line, out);
        let now = self.now;
        match event {
            ChildEvent::GivenUp => self.case(i).down(child),
            ChildEvent::Started
            | ChildEvent::Restarted { .. }
            | ChildEvent::StartFailed { .. }
            | ChildEvent::Stopped { .. }
            | ChildEvent::Abandoned => self.case(i).up(&child, now),
        }
        self.rate(i, severity, out);
    }

    /// An operator has started a child that nobody else would have started again.
    fn up_again(&mut self, supervisor: &Name, child: &Name) {
        let now = self.now;
        for (kind, subject) in [(Kind::ChildRestarts, supervisor), (Kind::Escalation, child)] {
            if let Some(case) = self.open_case(kind, subject) {
                case.up(child, now);
            }
        }
    }

    fn escalated(&mut self, supervisor: &Name, root: bool, out: &mut Effects) {
        let line = Line::Escalated { supervisor: Arc::clone(supervisor), root };
        let i = self.begin(Kind::Escalation, supervisor, line.to_string().into(), out);
        self.say(i, line, out);
        let now = self.now;
        self.case(i).calm(now);
        self.rate(i, if root { Severity::Failure } else { Severity::Critical }, out);
        self.adopt(i);
    }

    const fn severity_of_restarts(&self, restarts: u32) -> Severity {
        if restarts >= self.policy.restarts_critical {
            Severity::Critical
        } else if restarts >= self.policy.restarts_warning {
            Severity::Warning
        } else {
            Severity::Info
        }
    }
}

fn blocked_line(Edge { from, to, .. }: &Edge, would: bool) -> Line {
    Line::Blocked { from: Arc::clone(from), to: Arc::clone(to), would }
}

fn of_pool(pool: &Name) -> Name {
    format!("pool:{pool}").into()
}
