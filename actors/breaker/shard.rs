//! Counters that threads do not share.

use std::{
    num::NonZero,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::sync::{AtomicU64, NUMBER, SHARDS};

/// What the threads of one shard have counted, on a line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Shard {
    /// A sequence (32 bits), and the successes since it began (32 bits).
    pub(super) successes: AtomicU64,
    /// Since the start.
    pub(super) rejected: AtomicU64,
    /// Since the start.
    pub(super) ignored: AtomicU64,
    /// Since the start.
    pub(super) cancelled: AtomicU64,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self {
            successes: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
        }
    }
}

/// How many shards a cell has: a power of two, enough for the threads that can run at once, and few.
pub(super) fn count() -> usize {
    static COUNT: LazyLock<usize> = LazyLock::new(|| {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        threads.next_power_of_two().min(SHARDS)
    });
    *COUNT
}

/// From now on the present thread counts on that shard: for tests in which one thread is many.
#[cfg(test)]
pub(super) fn pretend(number: usize) {
    NUMBER.with(|mine| mine.set(number + 1));
}

/// The present thread's number, of which the low bits choose its shard. Threads are numbered as they come.
#[inline]
pub(super) fn mine() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NUMBER.with(|mine| match mine.get() {
        0 => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            mine.set(number);
            number
        }
        number => number,
    })
}
