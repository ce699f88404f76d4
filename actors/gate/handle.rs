//! The gate as its callers see it.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use crate::{
    clock::Clock,
    gate::{
        Acquire, Change, Entered, Hold, Holder, Machine, Params, Policy, Refusal, Refused, Stats, Ticket,
        journal::Journal, membership::Membership, shared::Shared,
    },
    level::{Mode, ModeCell},
    signal::{Name, Signals},
};

/// The gate in front of one pool. Clones are the same gate. No method waits for anything but the gate's own lock,
/// and that only as long as one decision takes.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Shared>);

impl Gate {
    /// A gate in front of `limit` connections of `pool`, none of them in use.
    #[must_use]
    pub fn new(
        pool: Name,
        policy: Policy,
        limit: u32,
        clock: Clock,
        mode: ModeCell,
        signals: Signals,
    ) -> Self {
        // A machine uses no randomness of its own. Replicas should not spread their callers alike.
        let seed = RandomState::new().build_hasher().finish();
        let machine = Machine::new(policy.clone(), limit, seed);
        Self(Arc::new(Shared::new(pool, policy, machine, clock, mode, signals)))
    }

    /// Decides about a request or job, once: what enters is never shed afterwards. A ticket that is inside
    /// already stays inside.
    ///
    /// # Errors
    /// [`Refusal`]: it must not be started. Only in mode `act`.
    pub fn enter(&self, ticket: &Ticket) -> Result<Entered, Refusal> {
        let gate = Arc::as_ptr(&self.0) as usize;
        if let Some(member) = ticket.membership(gate) {
            return Ok(Entered(member));
        }
        let job = self.0.run(|core, now| core.enter(&ticket.work(), now))?;
        let member = Arc::new(Membership::new(Arc::clone(&self.0), job));
        ticket.entered(gate, &member);
        Ok(Entered(member))
    }

    /// Asks for a connection. Work without a ticket is served as class normal, of no user, and counted; a
    /// ticket that never entered enters now.
    pub fn acquire(&self, ticket: Option<&Ticket>, hold: Hold) -> Acquire {
        Acquire::new(Arc::clone(&self.0), ticket.cloned(), hold)
    }

    /// The pool that it stands in front of.
    #[must_use]
    pub fn pool(&self) -> &Name {
        &self.0.pool
    }

    /// What it looks like now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.run(|core, _| core.stats())
    }

    /// Who holds a connection now.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        self.0.run(|core, now| core.seats.holders(now))
    }

    /// The pool has `limit` connections from now on.
    pub fn set_limit(&self, limit: u32) {
        self.0.run(|core, now| core.each(move |machine, effects| machine.set_limit(limit, now, effects)));
    }

    /// Others than this gate's callers use `in_use` connections of the pool.
    pub fn outside(&self, in_use: u32) {
        self.0.run(|core, now| core.each(move |machine, effects| machine.set_outside(in_use, now, effects)));
    }

    /// The server had no connection left (SQLSTATE 53300).
    pub fn server_full(&self) {
        self.0.run(|core, now| core.each(move |machine, effects| machine.server_full(now, effects)));
    }

    /// Puts a parameter in force.
    pub fn apply(&self, change: Change) {
        self.0.run(|core, now| {
            core.each(move |machine, effects| machine.apply(change, now, effects));
            self.0.params.set(core.machine.params());
        });
    }

    /// The parameters in force: one load. Unless the mode is `act`, nothing is asked of anybody.
    #[must_use]
    pub fn params(&self) -> Params {
        match self.0.mode.get() {
            Mode::Act => self.0.params.get(),
            Mode::Observe | Mode::Off => self.0.calm,
        }
    }

    /// Lets what was to happen by now happen, and looks for leaks. Waiters do not depend on it: each has a timer
    /// of its own.
    pub fn tick(&self) {
        self.0.run(|core, now| core.tick(now));
    }

    /// Refuses everyone who waits or comes from now on.
    pub fn close(&self) {
        self.0.run(|core, now| core.each(move |machine, effects| machine.close(now, effects)));
    }

    /// Waits until pressure rises: there is a first waiter, or the use crosses a watermark upwards. A rise
    /// that nobody waited for is remembered, once. For one listener; cancel safe.
    pub async fn pressure_changed(&self) {
        self.0.pressed.notified().await;
    }

    /// Tells `hook` of every refusal from now on, on the refused caller's thread: it must be quick and must not
    /// block. Only the first hook is ever told; says whether this is it.
    pub fn on_refused(&self, hook: impl Fn(&Refused) + Send + Sync + 'static) -> bool {
        self.0.on_refused.set(Box::new(hook)).is_ok()
    }

    /// Writes down every decision from now on, for [`Gate::replayed`]. In mode `act` only.
    #[doc(hidden)]
    pub fn record(&self) {
        self.0.run(|core, _| core.journal = Some(Box::new(Journal::of(&core.machine))));
    }

    /// Decides everything again that was recorded, by the pure machine alone, and says how many decisions that were.
    ///
    /// # Errors
    /// The first that comes out otherwise.
    #[doc(hidden)]
    pub fn replayed(&self) -> Result<usize, String> {
        self.0.run(|core, _| core.journal.take()).map_or(Ok(0), |journal| journal.replay())
    }

    /// Every invariant that does not hold, by name. It looks at everything: for tests and for people.
    #[must_use]
    pub fn invariants(&self) -> Vec<&'static str> {
        self.0.run(|core, _| core.invariants())
    }
}
