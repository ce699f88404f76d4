//! Calls that are polled a few times and dropped: nothing leaks, and each is counted once.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{
    super::{Around, Breaker, CallError, HalfOpen, Policy},
    OnPanic, seeds,
};
use crate::{
    circuit::Circuit,
    clock::Clock,
    level::{Mode, ModeCell},
    signal::Signals,
    threshold::Threshold,
};

/// Calls in all, over all seeds.
const CALLS: u64 = 1_000_000;
const SEEDS: u64 = 100;

/// Ready after so many polls.
struct Slowly {
    polls: u32,
    fails: bool,
}

impl Future for Slowly {
    type Output = Result<(), ()>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match self.polls {
            0 => Poll::Ready(if self.fails { Err(()) } else { Ok(()) }),
            _ => {
                self.polls -= 1;
                Poll::Pending
            }
        }
    }
}

/// What became of the calls, as their callers saw it.
#[derive(Default)]
struct Seen {
    ended: u64,
    rejected: u64,
    cancelled: u64,
}

#[test]
fn a_million_calls_that_are_dropped_anywhere_leave_nothing_behind() {
    for seed in seeds(SEEDS).take(SEEDS as usize) {
        let _told = OnPanic(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let (clock, hand) = Clock::manual();
        let policy = Policy {
            consecutive_failures: Some(Threshold::AtLeast(3.0)),
            open_for: Duration::from_millis(50),
            half_open: HalfOpen::Count {
                probes: 2,
                successes: 2,
                failures: 2,
                probe_timeout: Duration::from_secs(1),
            },
            ..Policy::default()
        };
        let around = Around { clock, mode: ModeCell::new(Mode::Act), signals: Signals::none() };
        let breaker = Breaker::new("x", Arc::new(policy), around, seed);
        let (mut seen, mut cx) = (Seen::default(), Context::from_waker(Waker::noop()));
        for _ in 0..CALLS / SEEDS {
            let polls = random.u32(0..4);
            let mut call = pin!(breaker.call(Slowly { polls, fails: random.u32(0..3) == 0 }));
            let mut begun = false;
            for _ in 0..random.u32(0..5) {
                match call.as_mut().poll(&mut cx) {
                    Poll::Pending => begun = true,
                    Poll::Ready(Err(CallError::Rejected(_))) => {
                        seen.rejected += 1;
                        begun = false;
                        break;
                    }
                    Poll::Ready(Ok(()) | Err(CallError::Failed(()))) => {
                        seen.ended += 1;
                        begun = false;
                        break;
                    }
                }
            }
            seen.cancelled += u64::from(begun);
            if random.u32(0..8) == 0 {
                drop(breaker.admit().inspect_err(|_| seen.rejected += 1).inspect(|_| seen.cancelled += 1));
            }
            hand.advance(Duration::from_millis(random.u64(0..10)));
        }
        let totals = breaker.view().totals;
        assert_eq!(totals.successes + totals.failures + totals.stale, seen.ended);
        assert_eq!((totals.rejected, totals.cancelled), (seen.rejected, seen.cancelled));
        // Whatever was left of it: with calls that succeed it is closed again.
        for _ in 0..3 {
            hand.advance(Duration::from_millis(50));
            let _ = breaker.admit().map(super::super::Permit::success);
        }
        assert_eq!(breaker.shows(), Circuit::Closed, "no place was lost");
    }
}
