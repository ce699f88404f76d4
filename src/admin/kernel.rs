//! The kernel's own views, as they are shown: ticks become wall times, and closed sets their names.

use std::time::SystemTime;

use selfheal_actors::{
    alert::{self, Resolution},
    clock::Tick,
    mailbox::Mailbox,
    signal::{self, Exit, Name},
    supervisor::ChildView,
    transition,
};

use super::snapshot::{Attempts, Child, Deed, Edge, Incident, Mail, Noticed, Peak, Transition};

impl Child {
    /// `view` with its mailbox, if it has one; `wall` says when a tick was.
    #[must_use]
    pub fn of(view: &ChildView, mailbox: Option<Mail>, wall: impl Fn(Tick) -> SystemTime) -> Self {
        Self {
            supervisor: view.supervisor.clone(),
            id: view.id.clone(),
            state: view.state.name(),
            generation: view.generation,
            starts: view.starts,
            restarts: view.restarts,
            last_exit: view.last_exit.as_ref().map(said),
            since: wall(view.since),
            mailbox,
        }
    }
}

impl Mail {
    /// What waits in `mailbox`.
    #[must_use]
    pub fn of<M: Send + 'static>(mailbox: &Mailbox<M>) -> Self {
        Self { depth: mailbox.depth(), dropped: mailbox.dropped() }
    }
}

impl Incident {
    /// `incident` as it is shown; `wall` says when a tick was.
    #[must_use]
    pub fn of(incident: &alert::Incident, wall: impl Fn(Tick) -> SystemTime) -> Self {
        let by = |resolution: &Resolution| match resolution {
            Resolution::Auto => "auto".into(),
            Resolution::Manual(person) => person.clone(),
        };
        let deed = |deed: &alert::Deed| Deed {
            action: deed.action.name(),
            says: deed.action.to_string(),
            taken_at: wall(deed.taken_at),
            undone_at: deed.undone_at.map(&wall),
            would: deed.would,
        };
        let alert::Noticed { shed, late, failed, omitted, users } = incident.impact;
        Self {
            id: incident.id.clone(),
            kind: incident.kind.name().into(),
            subject: incident.subject.clone(),
            cause: incident.cause.clone(),
            phase: incident.phase.name(),
            severity: incident.severity,
            opened_at: wall(incident.opened_at),
            recovered_in: incident.recovered_in(),
            closed_at: incident.closed_at.map(&wall),
            resolution: incident.resolution.as_ref().map(by),
            peak: incident.peak.map(|peak| Peak { in_use: peak.in_use, max: peak.max }),
            attempts: incident.attempts.as_ref().map(Attempts::of),
            advice: incident.advice(),
            actions: incident.actions.iter().map(deed).collect(),
            under: incident.under.clone(),
            impact: Noticed { shed, late, failed, omitted, users },
        }
    }
}

impl Transition {
    /// `transition` as it is shown.
    #[must_use]
    pub fn of(transition: &transition::Transition) -> Self {
        let machine = Name::clone(transition.table().machine());
        Self { machine, blocked: transition.counted() }
    }
}

impl Attempts {
    fn of(attempts: &alert::Attempts) -> Self {
        let edge =
            |edge: &signal::Edge| Edge { from: edge.from.clone(), to: edge.to.clone(), count: edge.count };
        Self {
            operation: attempts.operation.clone(),
            blocked: attempts.blocked,
            edges: attempts.edges.iter().map(edge).collect(),
            made: attempts.made,
            would: attempts.would,
        }
    }
}

/// How a child ended, with its last words.
fn said(exit: &Exit) -> Name {
    match exit {
        Exit::Normal | Exit::Shutdown | Exit::Killed => exit.name().into(),
        Exit::Panic(words) | Exit::Error(words) => format!("{}: {words}", exit.name()).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use selfheal_actors::{
        alert::{Incidents, Policy},
        clock::Clock,
        level::{Level, Mode},
        signal::{Action, Signal, Step},
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn an_incident_is_shown_with_what_was_done_and_when() {
        let (clock, hand) = Clock::manual();
        let incidents = Incidents::new(Policy::default(), Mode::Act, clock);
        let pool: Name = "main".into();
        let (from, to) = (Level::Normal, Level::Warning);
        incidents.hear(&Signal::Pressure { pool: pool.clone(), from, to, in_use: 85, max: 100, waiting: 4 });
        hand.advance(Duration::from_secs(2));
        incidents.hear(&Signal::Action { pool, action: Action::Shed, step: Step::Taken, would: false });

        let wall = |tick: Tick| SystemTime::UNIX_EPOCH + tick.since(Tick::ZERO);
        let all = incidents.all();
        let shown = serde_json::to_value(Incident::of(&all[0], wall)).expect("it is plain");
        assert_eq!(shown["kind"], "pool_pressure");
        assert_eq!((&shown["phase"], &shown["severity"]), (&"opened".into(), &"warning".into()));
        assert_eq!(shown["opened_at"], "1970-01-01T00:00:00.000Z");
        assert_eq!((&shown["closed_at"], &shown["recovered_in_seconds"]), (&json!(null), &json!(null)));
        assert_eq!(shown["peak"], json!({ "in_use": 85, "max": 100 }));
        let deed = &shown["actions"][0];
        assert_eq!((&deed["action"], &deed["says"]), (&"shed".into(), &"sheddable endpoints shed".into()));
        assert_eq!(deed["taken_at"], "1970-01-01T00:00:02.000Z");
    }
}
