//! The machine as requests share it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    machine::{Failed, Machine, Verdict},
    policy::Policy,
};
use crate::clock::Tick;

/// The retries of one endpoint. Cheap to clone; clones are the same. Each question costs one short mutex.
#[derive(Clone, Debug)]
pub struct Retries(Arc<Mutex<Machine>>);

impl Retries {
    /// Retries under `policy`, which many may share. A service seeds them with something random, a test with a number.
    #[must_use]
    pub fn new(policy: impl Into<Arc<Policy>>, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Machine::new(policy, seed))))
    }

    /// A call is made for the first time.
    pub fn called(&self, now: Tick) {
        self.0.lock().called(now);
    }

    /// A call has failed: is it made again? If so, the budget has paid for it.
    #[must_use]
    pub fn failed(&self, failed: &Failed, now: Tick) -> Verdict {
        self.0.lock().failed(failed, now)
    }
}
