//! A request or job inside a gate.

use std::{fmt, sync::Arc};

use crate::gate::{JobId, shared::Shared};

/// One request or job in flight. It leaves when it is dropped.
pub(super) struct Membership {
    shared: Arc<Shared>,
    job: JobId,
}

impl Membership {
    pub(super) const fn new(shared: Arc<Shared>, job: JobId) -> Self {
        Self { shared, job }
    }

    pub(super) const fn job(&self) -> JobId {
        self.job
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared.run(|core, now| core.leave(self.job, now));
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Membership({:?})", self.job)
    }
}

/// A request or job was admitted. It is in flight until this is dropped.
#[derive(Debug)]
#[must_use = "the request leaves when this is dropped"]
pub struct Entered(#[expect(dead_code, reason = "it is held for its drop")] pub(super) Arc<Membership>);
