//! What can be seen of a machine from outside.

use std::time::Duration;

use crate::{
    clock::Tick,
    gate::{ByClass, ClaimId, Machine, Params, Tally, claim::State},
    level::Class,
};

impl Machine {
    /// When [`tick`](Self::tick) will change something, if nothing else happens before.
    #[must_use]
    pub fn next_timer(&self) -> Option<Tick> {
        let expiry = self.expiries.first().map(|&(at, _)| at);
        expiry.into_iter().chain(self.next_step()).min()
    }

    /// When more may be granted without anything being given back.
    #[must_use]
    pub fn next_step(&self) -> Option<Tick> {
        if self.nobody_waits() { None } else { self.ceilings.next_step(self.now) }
    }

    /// Who is next, when more may be granted.
    #[must_use]
    pub fn first(&self) -> Option<ClaimId> {
        self.queues.first(&self.claims, self.policy.standing, self.now)
    }

    /// When the claim gives up waiting.
    #[must_use]
    pub fn expiry(&self, claim: ClaimId) -> Option<Tick> {
        self.claims.get(claim).filter(|claim| claim.state != State::Held).map(|claim| claim.expires)
    }

    /// How long the claim is expected to hold, once enough like it have been seen.
    pub(super) fn expected_hold(&self, claim: ClaimId) -> Option<Duration> {
        self.claims.get(claim).and_then(|claim| self.services.mean_hold(claim.operation))
    }

    /// Connections held through the gate.
    #[must_use]
    pub const fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Connections of the pool in use: through the gate, and by others.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.in_use.saturating_add(self.outside)
    }

    /// Connections that may be in use at most, as of the last event.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.ceilings.limit(self.now)
    }

    /// Those that wait for a connection, by class. Who waits for their own user's connections is not among
    /// them: the pool has nothing to do with that.
    #[must_use]
    pub const fn waiting(&self) -> ByClass<u32> {
        self.waiting
    }

    /// Those that wait for one of their own user's connections.
    #[must_use]
    pub const fn parked(&self) -> u32 {
        self.parked
    }

    /// Requests and jobs in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.jobs.len()
    }

    /// Users who have anything in flight.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Since when the one who waits longest for a connection has waited. Whoever does deferred work (class
    /// background) is not among them: that work can wait.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Tick> {
        self.since(|class| class != Class::Background)
    }

    /// Since when somebody's wait is pressure. Whoever may be shed is there to wait for the others: their wait counts
    /// from the moment at which it has lasted as long as a queue that stands, which may lie ahead.
    #[must_use]
    pub fn pressed_since(&self) -> Option<Tick> {
        let waits = self.since(|class| matches!(class, Class::Critical | Class::Normal));
        let stands = self.since(|class| class == Class::Sheddable).map(|since| since + self.policy.standing);
        waits.into_iter().chain(stands).min()
    }

    /// Since when the critical one who waits longest has waited.
    #[must_use]
    pub fn critical_waiting_since(&self) -> Option<Tick> {
        self.since(|class| class == Class::Critical)
    }

    fn since(&self, of: impl Fn(Class) -> bool) -> Option<Tick> {
        let waiting = self.queues.iter(&self.claims).filter_map(|id| self.claims.get(id));
        waiting.filter(|claim| of(claim.class)).map(|claim| claim.queued).min()
    }

    /// What was done so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The parameters in force.
    #[must_use]
    pub const fn params(&self) -> Params {
        self.params
    }
}
