//! What outlives the actor: the incidents, and the cells in which impact is counted.
//!
//! A step is decided on a copy which replaces the machine only when it is complete, so a panic in between
//! leaves the incidents as they were. Copying is cheap: incidents are shared until they change.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;

use super::{
    impact::Impact,
    incident::{Incident, Kind},
    machine::{Effects, Machine},
    perform::{perform, show},
    policy::Policy,
};
use crate::{
    clock::{Clock, Tick},
    level::{Mode, Severity},
    signal::{Name, Signal},
};

/// The incidents of one runtime. Cheap to clone; clones are the same incidents.
#[derive(Clone)]
pub struct Incidents(Arc<Shared>);

struct Shared {
    clock: Clock,
    /// One moment on both clocks, by which all ticks are shown as wall time, so that they never overtake.
    anchor: (Tick, SystemTime),
    machine: Mutex<Machine>,
    impacts: Mutex<Vec<(Name, Impact)>>,
}

impl Incidents {
    /// None yet. Ids of this run of the process are told apart from those of others by the time it started.
    #[must_use]
    pub fn new(policy: Policy, mode: Mode, clock: Clock) -> Self {
        let anchor = (clock.now(), clock.wall());
        let since_1970 = anchor.1.duration_since(UNIX_EPOCH).unwrap_or_default();
        let machine = Mutex::new(Machine::new(policy, mode, base36(since_1970.as_secs())));
        Self(Arc::new(Shared { clock, anchor, machine, impacts: Mutex::new(Vec::new()) }))
    }

    /// The cell in which impact on `subject` is counted: `pool:NAME`, or [`SERVICE`](super::SERVICE) for what
    /// belongs to no pool. Asked for once, when the parts are wired, and then written without a lock.
    #[must_use]
    pub fn impact(&self, subject: &str) -> Impact {
        let mut impacts = self.0.impacts.lock();
        if let Some((_, impact)) = impacts.iter().find(|(known, _)| **known == *subject) {
            return impact.clone();
        }
        let impact = Impact::default();
        impacts.push((subject.into(), impact.clone()));
        impact
    }

    /// All that are remembered, newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Incident> {
        self.0.machine.lock().incidents().cloned().collect()
    }

    /// The one of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Incident> {
        self.0.machine.lock().incidents().find(|incident| *incident.id == *id).cloned()
    }

    /// The worst severity of all that is open, if anything is.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.0.machine.lock().severity()
    }

    /// How many of this kind are open.
    #[must_use]
    pub fn open(&self, kind: Kind) -> usize {
        let machine = self.0.machine.lock();
        machine.incidents().filter(|incident| incident.kind == kind && incident.is_open()).count()
    }

    /// A tick as wall time, to be shown.
    #[must_use]
    pub fn wall(&self, tick: Tick) -> SystemTime {
        let (anchor, wall) = self.0.anchor;
        wall + tick.since(anchor) - anchor.since(tick)
    }

    /// This has happened.
    pub fn hear(&self, signal: &Signal) {
        self.step(|machine, now| machine.on(signal, now));
    }

    /// Decides what is due by now.
    pub fn tick(&self) {
        self.step(Machine::on_tick);
    }

    /// A person closes an incident. Says whether there was an open one of that id.
    pub fn close(&self, id: &str, by: &Name) -> bool {
        let mut found = false;
        self.step(|machine, now| {
            let effects = machine.close(id, by, now);
            found = effects.is_some();
            effects.unwrap_or_default()
        });
        found
    }

    /// In how long [`Incidents::tick`] has something to decide; `None` if nothing is open.
    pub(super) fn next_in(&self) -> Option<Duration> {
        self.0.machine.lock().next_timer().map(|at| at.since(self.0.clock.now()))
    }

    /// Shows the present state to the metrics, also when nothing has happened.
    pub(super) fn show(&self) {
        show(self.severity(), |kind| self.open(kind));
    }

    fn step(&self, decide: impl FnOnce(&mut Machine, Tick) -> Effects) {
        let now = self.0.clock.now();
        let noticed: Vec<_> =
            self.0.impacts.lock().iter().map(|(of, impact)| (Arc::clone(of), impact.drain())).collect();
        let effects = {
            let mut machine = self.0.machine.lock();
            let mut next = machine.clone();
            for (subject, delta) in &noticed {
                next.on_impact(subject, delta);
            }
            let effects = decide(&mut next, now);
            *machine = next;
            effects
        };
        if !effects.is_empty() {
            effects.iter().for_each(perform);
            self.show();
        }
    }
}

impl fmt::Debug for Incidents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incidents").field("severity", &self.severity()).finish_non_exhaustive()
    }
}

/// `number` in digits and small letters: a moment of this century takes six.
fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 || digits.is_empty() {
        digits.extend(char::from_digit((number % 36) as u32, 36));
        number /= 36;
    }
    digits.iter().rev().collect()
}
