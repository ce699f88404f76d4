//! How long calls took, by how they ended: counted where somebody has measured it anyway, and nowhere else.
//!
//! A call that measures costs two looks at a precise clock, three times what all the rest of a circuit costs. So a
//! circuit measures only under `slow_call`; who makes calls that take microseconds themselves (the HTTP layer, its
//! client) measures them and says what came out ([`Permit::settle_after`](super::Permit::settle_after)).
//!
//! Counted is on a line of the thread's own shard, as successes are. The lines are made with the first call that is
//! measured, so that a circuit of which nobody wants to know takes none.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{outcome::Outcome, shard};
use crate::histogram::Histogram;

/// How many outcomes are told apart.
const OUTCOMES: usize = 3;

/// How long the calls of one circuit took.
#[derive(Debug, Default)]
pub(super) struct Latency(OnceLock<Box<[Lane]>>);

/// What the threads of one shard have counted.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Lane([Counted; OUTCOMES]);

#[derive(Debug, Default)]
struct Counted {
    buckets: [AtomicU64; Histogram::BUCKETS],
    nanos: AtomicU64,
}

impl Latency {
    /// A call that took so many nanoseconds has ended.
    #[inline]
    pub(super) fn record(&self, outcome: Outcome, nanos: u64) {
        let lanes = self.0.get_or_init(|| (0..shard::count()).map(|_| Lane::default()).collect());
        let Lane(outcomes) = &lanes[shard::mine() & (lanes.len() - 1)];
        let counted = &outcomes[place(outcome)];
        counted.buckets[Histogram::bucket_of_nanos(nanos)].fetch_add(1, Ordering::Relaxed);
        counted.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted of calls that ended like this, since the start; `None` if nobody has measured any call.
    pub(super) fn of(&self, outcome: Outcome) -> Option<Histogram> {
        let mut all = Histogram::default();
        for Lane(outcomes) in self.0.get()? {
            let counted = &outcomes[place(outcome)];
            let nanos = counted.nanos.load(Ordering::Relaxed);
            let counts = counted.buckets.iter().map(|count| count.load(Ordering::Relaxed));
            all.add(counts, Duration::from_nanos(nanos));
        }
        Some(all)
    }
}

const fn place(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Success => 0,
        Outcome::Failure => 1,
        Outcome::Ignored => 2,
    }
}
