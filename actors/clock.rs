//! Time as a value. This is the only file of the project that reads a clock.
//!
//! A machine never asks what time it is: it is told, as a [`Tick`]. So the same machine runs under the
//! operating system's clock in production, under tokio's paused clock in a test of the actors, and under a
//! hand-turned clock in the simulator, and a test of an hour takes no time.
//!
//! A tick counts from the start of the process and never falls. Reading it costs some 25 ns; what is asked on
//! every call of a service reads the kernel's own tick instead ([`Clock::coarse`]), which costs 4 ns and is late by
//! up to 4 ms: enough for a window of seconds, useless for a latency. Wall time ([`Clock::wall`]) only labels
//! what is shown to people: no decision is made from it, so a jump of the system clock changes nothing.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

pub use crate::tick::Tick;

/// Where a shell reads the time that it hands to its machine. Cheap to clone; clones agree.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Tokio,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The operating system's monotonic clock: what a service runs on.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// tokio's clock, which a test can pause and advance. It must be read on a tokio runtime.
    #[must_use]
    pub const fn tokio() -> Self {
        Self(Source::Tokio)
    }

    /// A clock that stands still until its [`Hand`] is turned.
    #[must_use]
    pub fn manual() -> (Self, Hand) {
        let now = Arc::new(AtomicU64::new(0));
        (Self(Source::Manual(Arc::clone(&now))), Hand(now))
    }

    /// The present moment.
    #[must_use]
    #[inline]
    #[expect(clippy::disallowed_methods, reason = "the one place where tokio's clock is read")]
    pub fn now(&self) -> Tick {
        match &self.0 {
            Source::System => monotonic::now(),
            Source::Tokio => since_origin(tokio::time::Instant::now().into_std()),
            Source::Manual(now) => Tick::from_nanos(now.load(Ordering::Acquire)),
        }
    }

    /// The present moment, or one up to 4 ms (one tick of the operating system) before it, at a sixth of the price.
    /// It never falls either; but it may be before a moment that [`Clock::now`] gave earlier.
    #[must_use]
    #[inline]
    pub fn coarse(&self) -> Tick {
        match &self.0 {
            Source::System => monotonic::coarse(),
            Source::Tokio | Source::Manual(_) => self.now(),
        }
    }

    /// The wall clock, to label what people read. Never decide by it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    pub fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// How long before the first reading the origin lies.
const BEFORE: Duration = Duration::from_secs(3_600);

/// One origin for the whole process, so that ticks of several clocks can be compared. It lies before the first
/// reading: another thread may have read the clock, or a test stopped its own, before whoever came to be first.
fn since_origin(now: Instant) -> Tick {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let origin = *ORIGIN.get_or_init(|| now.checked_sub(BEFORE).unwrap_or(now));
    Tick::from_nanos(u64::try_from(now.saturating_duration_since(origin).as_nanos()).unwrap_or(u64::MAX))
}

/// The clocks of Linux, read without a system call, without a shared write, and without the way through
/// [`Instant`] and [`Duration`], whose divisions cost as much as a third of the reading.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod monotonic {
    use std::{sync::OnceLock, time::Instant};

    use rustix::time::{ClockId, Timespec, clock_gettime};

    use super::{Tick, since_origin};

    #[inline]
    pub(super) fn now() -> Tick {
        read(ClockId::Monotonic)
    }

    /// The same clock as it stood at the last tick of the operating system.
    #[inline]
    pub(super) fn coarse() -> Tick {
        read(ClockId::MonotonicCoarse)
    }

    #[inline]
    fn read(clock: ClockId) -> Tick {
        /// The machine's monotonic clock at the origin, in nanoseconds: negative, if the machine has been up for less.
        static ORIGIN: OnceLock<i64> = OnceLock::new();
        let origin = *ORIGIN.get_or_init(origin);
        Tick::from_nanos(nanos(clock_gettime(clock)).wrapping_sub(origin).max(0).cast_unsigned())
    }

    /// It is the clock of [`Instant`], so a tick is the same moment here and on tokio's clock. Whatever passes
    /// between the two readings makes a tick from here earlier, never later.
    #[cold]
    #[expect(clippy::disallowed_methods, reason = "the one place where the monotonic clock is read")]
    fn origin() -> i64 {
        let since = since_origin(Instant::now()).as_nanos().cast_signed();
        nanos(clock_gettime(ClockId::Monotonic)).wrapping_sub(since)
    }

    /// Good for 292 years.
    #[inline]
    fn nanos(time: Timespec) -> i64 {
        time.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec)
    }
}

/// Elsewhere there is no cheaper clock.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod monotonic {
    use std::time::Instant;

    use super::{Tick, since_origin};

    #[expect(clippy::disallowed_methods, reason = "the one place where the monotonic clock is read")]
    pub(super) fn now() -> Tick {
        since_origin(Instant::now())
    }

    pub(super) fn coarse() -> Tick {
        now()
    }
}

/// Turns a [manual clock](Clock::manual).
#[derive(Clone, Debug)]
pub struct Hand(Arc<AtomicU64>);

impl Hand {
    /// Moves the clock on by `step`.
    pub fn advance(&self, step: Duration) {
        self.0.fetch_add(u64::try_from(step.as_nanos()).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// Moves the clock to `tick`; a moment that has passed leaves it where it is.
    pub fn set(&self, tick: Tick) {
        self.0.fetch_max(tick.as_nanos(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_only_moves_forward() {
        let (clock, hand) = Clock::manual();
        hand.set(Tick::from_millis(40));
        hand.set(Tick::from_millis(10));
        hand.advance(Duration::from_millis(2));
        assert_eq!(clock.now(), Tick::from_millis(42));
    }

    #[test]
    fn the_coarse_clock_follows_the_other_and_never_falls() {
        let clock = Clock::system();
        let first = clock.coarse();
        let (mut last, until) = (first, clock.now() + Duration::from_millis(30));
        while clock.now() < until {
            let coarse = clock.coarse();
            assert!(coarse >= last, "it never falls");
            assert!(coarse <= clock.now(), "it is never early");
            assert!(clock.now().since(coarse) < BEFORE / 2, "it is the same clock");
            last = coarse;
        }
        assert!(last > first, "it moves");
    }

    /// A paused runtime stops its clock when it starts, which may be before anybody in the process has read one.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a moment from before the first reading")]
    fn a_clock_that_stood_still_before_the_first_reading_moves_on_as_any_other() {
        let stopped = Instant::now().checked_sub(BEFORE / 2).expect("a moment");
        let (before, second) = (since_origin(stopped), Duration::from_secs(1));
        assert_eq!(since_origin(stopped + second).since(before), second);
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_follows_a_paused_runtime() {
        let clock = Clock::tokio();
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().since(before), Duration::from_secs(3600));
    }
}
