//! What the window holds, at a cost that depends neither on its length nor on how many calls it holds.
//!
//! A window of time is a ring of buckets and their sum. Bucket `n` holds the calls of `[n·width, (n+1)·width)`;
//! a bucket that is left behind is subtracted from the sum once, whoever looks first, so a window that nobody
//! looked at for an hour is empty and not an hour old. A clock that stands still or goes back adds to the newest
//! bucket. A window of calls is a ring of outcomes and their sum.

use std::time::Duration;

use super::policy::Window;
use crate::clock::Tick;

/// How many calls, and how many of them failed or were slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All calls that succeeded or failed.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow, however they ended.
    pub slow: u64,
}

impl Counts {
    pub(super) const fn one(failed: bool, slow: bool) -> Self {
        Self { calls: 1, failures: failed as u64, slow: slow as u64 }
    }

    const fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.slow += other.slow;
    }

    const fn subtract(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failures -= other.failures;
        self.slow -= other.slow;
    }

    /// Those that succeeded.
    #[must_use]
    pub const fn successes(&self) -> u64 {
        self.calls - self.failures
    }

    /// The share of `part` in the calls; `None` without calls.
    #[must_use]
    pub fn rate(&self, part: u64) -> Option<f64> {
        (self.calls > 0).then(|| part as f64 / self.calls as f64)
    }
}

/// The calls of a window.
#[derive(Clone, Debug)]
pub(super) enum Log {
    Calls(CallLog),
    Time(TimeLog),
}

impl Log {
    pub(super) fn new(window: Window) -> Self {
        match window {
            Window::Calls(size) => Self::Calls(CallLog::new(size.clamp(1, Window::MOST_CALLS))),
            Window::Time { last, buckets } => {
                Self::Time(TimeLog::new(last, buckets.clamp(1, Window::MOST_BUCKETS)))
            }
        }
    }

    /// What it holds at `now`.
    pub(super) fn counts(&mut self, now: Tick) -> Counts {
        match self {
            Self::Calls(log) => log.sum,
            Self::Time(log) => {
                log.turn(now);
                log.sum
            }
        }
    }

    /// A call ended at `now`.
    pub(super) fn push(&mut self, now: Tick, failed: bool, slow: bool) {
        match self {
            Self::Calls(log) => log.push(failed, slow),
            Self::Time(log) => {
                log.turn(now);
                log.add(Counts::one(failed, slow));
            }
        }
    }

    /// `count` calls succeeded in time, none of them after the frame that [`Log::frame_end`] speaks of.
    pub(super) fn push_successes(&mut self, count: u64) {
        match self {
            Self::Calls(log) => log.push_successes(count),
            Self::Time(log) => log.add(Counts { calls: count, ..Counts::default() }),
        }
    }

    /// Until when calls need not say when they ended.
    pub(super) const fn frame_end(&self) -> Tick {
        match self {
            Self::Calls(_) => Tick::MAX,
            Self::Time(log) => log.end(),
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Calls(log) => log.clear(),
            Self::Time(log) => log.clear(),
        }
    }
}

/// The last so many calls.
#[derive(Clone, Debug)]
pub(super) struct CallLog {
    /// Of each call, whether it failed (1) and was slow (2).
    ring: Box<[u8]>,
    next: usize,
    sum: Counts,
}

impl CallLog {
    const FAILED: u8 = 1;
    const SLOW: u8 = 2;

    fn new(size: u32) -> Self {
        Self { ring: vec![0; size as usize].into(), next: 0, sum: Counts::default() }
    }

    fn push(&mut self, failed: bool, slow: bool) {
        let full = self.sum.calls == self.ring.len() as u64;
        let Some(place) = self.ring.get_mut(self.next) else { return };
        if full {
            let old = Counts::one(*place & Self::FAILED != 0, *place & Self::SLOW != 0);
            self.sum.subtract(old);
        }
        *place = u8::from(failed) * Self::FAILED + u8::from(slow) * Self::SLOW;
        self.sum.add(Counts::one(failed, slow));
        self.next = (self.next + 1) % self.ring.len();
    }

    fn push_successes(&mut self, count: u64) {
        let size = self.ring.len() as u64;
        if count >= size || self.sum.failures == 0 && self.sum.slow == 0 {
            // Nothing but successes is left: which place each has does not matter.
            let calls = self.sum.calls.saturating_add(count).min(size);
            if self.sum.failures > 0 || self.sum.slow > 0 {
                self.clear();
            }
            self.sum.calls = calls;
            self.next = if calls < size { calls as usize } else { 0 };
            return;
        }
        for _ in 0..count {
            self.push(false, false);
        }
    }

    fn clear(&mut self) {
        self.ring.fill(0);
        self.next = 0;
        self.sum = Counts::default();
    }
}

/// The calls of the last while.
#[derive(Clone, Debug)]
pub(super) struct TimeLog {
    width: u64,
    /// The number of the newest bucket, counted from the clock's origin.
    newest: u64,
    ring: Box<[Bucket]>,
    sum: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    calls: u32,
    failures: u32,
    slow: u32,
}

impl Bucket {
    fn take(&mut self) -> Counts {
        let Self { calls, failures, slow } = std::mem::take(self);
        Counts { calls: calls.into(), failures: failures.into(), slow: slow.into() }
    }

    /// Adds as much of `counts` as fits, and says how much that was: 4 billion calls a bucket are enough to decide.
    fn add(&mut self, counts: Counts) -> Counts {
        let room = |held: u32, more: u64| u64::from(u32::MAX - held).min(more) as u32;
        let calls = room(self.calls, counts.calls);
        let failures = room(self.failures, counts.failures).min(calls);
        let slow = room(self.slow, counts.slow).min(calls);
        self.calls += calls;
        self.failures += failures;
        self.slow += slow;
        Counts { calls: calls.into(), failures: failures.into(), slow: slow.into() }
    }
}

impl TimeLog {
    fn new(last: Duration, buckets: u32) -> Self {
        let width = u64::try_from(last.as_nanos() / u128::from(buckets)).unwrap_or(u64::MAX).max(1);
        let ring = vec![Bucket::default(); buckets as usize].into();
        Self { width, newest: 0, ring, sum: Counts::default() }
    }

    /// Drops the buckets that `now` has left behind.
    fn turn(&mut self, now: Tick) {
        let bucket = now.as_nanos() / self.width;
        let left = bucket.saturating_sub(self.newest).min(self.ring.len() as u64);
        for n in 0..left {
            let place = self.place(bucket - n);
            self.sum.subtract(self.ring[place].take());
        }
        self.newest = self.newest.max(bucket);
    }

    fn add(&mut self, counts: Counts) {
        let place = self.place(self.newest);
        let added = self.ring[place].add(counts);
        self.sum.add(added);
    }

    const fn place(&self, bucket: u64) -> usize {
        (bucket % self.ring.len() as u64) as usize
    }

    const fn end(&self) -> Tick {
        Tick::from_nanos(self.newest.saturating_add(1).saturating_mul(self.width))
    }

    fn clear(&mut self) {
        self.ring.fill(Bucket::default());
        self.sum = Counts::default();
    }
}
