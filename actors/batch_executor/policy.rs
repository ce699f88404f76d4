//! How durable work is held.

use std::time::Duration;

/// For how long a claimed job belongs to whoever claimed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// A lease ends this long after it was taken or prolonged, by the database's clock. What a process that was killed
    /// had claimed is taken up by another one after this. Default 30 s.
    pub ttl: Duration,
    /// A job whose leases ended without a word this often takes its process down with it: it is dead. Default 20.
    pub max_losses: u32,
}

impl Tenure {
    /// How often a lease is prolonged: two may fail before it is lost.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        self.ttl / 3
    }
}

impl Default for Tenure {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(30), max_losses: 20 }
    }
}
