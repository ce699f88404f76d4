//! Takes the one reading that page, API, metrics and command line show. From memory: it asks nobody.

use std::sync::Arc;

use selfheal_actors::{
    alert::{self, Incidents},
    clock::{Clock, Tick},
    level::{ModeCell, Severity},
    mailbox::Mailbox,
    signal::Name,
    supervisor::{ChildView, Children},
};

use super::{
    circuits::Circuits,
    operations::Operations,
    transitions::Transitions,
    wiring::{Parts, Pool, Running},
};
use crate::{
    admin::{self, Child, Incident, Mail, Reading, Transition},
    store::Queue,
};

/// What a reading is taken from, without the guardian: whether the control plane runs is added by who has it.
pub(super) struct Quick {
    service: Name,
    clock: Clock,
    started: Tick,
    mode: ModeCell,
    incidents: Incidents,
    alerts: Mailbox<alert::Message>,
    children: Children,
    pools: Vec<Pool>,
    circuits: Arc<Circuits>,
    transitions: Transitions,
    operations: Arc<Operations>,
}

impl Quick {
    pub(super) fn of(parts: &Parts) -> Self {
        Self {
            service: parts.config.service.name.as_str().into(),
            clock: parts.clock.clone(),
            started: parts.started,
            mode: parts.mode.clone(),
            incidents: parts.incidents.clone(),
            alerts: parts.alerts.clone(),
            children: parts.children.clone(),
            pools: parts.pools.clone(),
            circuits: parts.circuits.clone(),
            transitions: parts.transitions.clone(),
            operations: Arc::clone(&parts.operations),
        }
    }

    /// The runtime as it is now. It counts as up if its first child is.
    pub(super) fn read(&self) -> Reading {
        let wall = |tick| self.incidents.wall(tick);
        let child = |view: &ChildView| Child::of(view, self.mailbox(&view.id), wall);
        let children: Vec<_> = self.children.all().iter().map(child).collect();
        Reading {
            service: Arc::clone(&self.service),
            at: self.clock.wall(),
            uptime: self.clock.now().since(self.started),
            mode: self.mode.get(),
            severity: self.incidents.severity().unwrap_or(Severity::Info),
            up: children.first().is_some_and(Child::is_up),
            pools: self.pools.iter().map(pool).collect(),
            breakers: self.circuits.breakers.all().iter().map(|breaker| breaker.view()).collect(),
            label_overflow: self.circuits.breakers.overflow(),
            transitions: self.transitions.all().map(Transition::of).collect(),
            queues: self.pools.iter().flat_map(queues).collect(),
            batches: self.operations.shown(),
            children,
            incidents: self.incidents.all().iter().map(|incident| Incident::of(incident, wall)).collect(),
        }
    }

    fn mailbox(&self, child: &Name) -> Option<Mail> {
        if *child == *self.alerts.child() {
            return Some(Mail::of(&self.alerts));
        }
        let of_pool = self.pools.iter().find_map(|pool| {
            let probe = pool.probe.as_ref().filter(|mailbox| mailbox.child() == child);
            let monitor = Some(&pool.mailbox).filter(|mailbox| mailbox.child() == child);
            monitor.map(Mail::of).or(probe.map(Mail::of))
        });
        of_pool.or_else(|| self.circuits.mail(child)).or_else(|| self.operations.mail(child))
    }
}

fn pool(of: &Pool) -> admin::Pool {
    admin::Pool {
        stats: of.gate.stats(),
        level: of.monitor.level(),
        max: of.pool.max(),
        open: of.pool.usage().size,
        server: of.census.load_full().map(|server| *server),
    }
}

fn queues(of: &Pool) -> Vec<(Name, Queue)> {
    of.queues.load().iter().map(|queue| (Arc::clone(&of.name), queue.clone())).collect()
}

/// The runtime as it is now.
pub(super) fn read(running: &Running) -> Reading {
    Reading { up: running.guardian.is_up(), ..Quick::of(&running.parts).read() }
}
