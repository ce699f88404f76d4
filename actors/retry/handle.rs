//! The machine as requests share it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    machine::{Failed, Machine, Verdict},
    policy::Policy,
};
use crate::clock::{Clock, Tick};

/// The retries of one endpoint. Cheap to clone; clones are the same. A call costs one short mutex.
#[derive(Clone, Debug)]
pub struct Retries {
    machine: Arc<Mutex<Machine>>,
    clock: Clock,
}

impl Retries {
    /// Retries under `policy`, on `clock`. A service seeds them with something random, a test with a number.
    #[must_use]
    pub fn new(policy: Policy, seed: u64, clock: Clock) -> Self {
        Self { machine: Arc::new(Mutex::new(Machine::new(policy, seed))), clock }
    }

    /// A call is made for the first time, at `now`.
    pub fn called(&self, now: Tick) {
        self.machine.lock().called(now);
    }

    /// A call has failed: is it made again? If so, the budget has paid for it.
    #[must_use]
    pub fn failed(&self, failed: &Failed) -> Verdict {
        self.machine.lock().failed(failed, self.clock.now())
    }
}
