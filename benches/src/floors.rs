//! What a guarded call costs at least: the parts of a circuit without its correctness.

use std::{
    cell::Cell,
    future::ready,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use selfheal::clock::Clock;

use crate::race::Contender;

/// Of its own lines for each thread.
#[repr(align(128))]
#[derive(Default)]
struct Shard {
    count: AtomicU64,
    /// Bucket number and successes, by place.
    buckets: [(AtomicU64, AtomicU64, AtomicU64); 10],
}

#[derive(Default)]
struct Floor {
    state: AtomicU64,
    shards: [Shard; 2],
}

fn mine() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<usize> = const { Cell::new(usize::MAX) });
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        mine.get() % 2
    })
}

/// A future that is ready, and nothing around it.
#[must_use]
pub fn nothing() -> Contender {
    Contender::new("floor: no-op async call", |calls, mix| {
        Box::pin(async move {
            for n in 0..calls {
                let result: Result<u64, ()> = if mix.fails(n) { Err(()) } else { Ok(n) };
                let _ = black_box(ready(black_box(result)).await);
            }
        })
    })
}

/// One load, and one addition on a line of the thread's own.
#[must_use]
pub fn counter() -> Contender {
    let floor: Arc<Floor> = Arc::default();
    Contender::new("floor: load + sharded add", move |calls, mix| {
        let floor = Arc::clone(&floor);
        Box::pin(async move {
            for n in 0..calls {
                if floor.state.load(Ordering::Relaxed) == 0 {
                    let result: Result<u64, ()> = if mix.fails(n) { Err(()) } else { Ok(n) };
                    let _ = black_box(ready(black_box(result)).await);
                    floor.shards[mine()].count.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    })
}

/// A window of ten buckets of a second on a coarse clock, that counts and never decides wrongly or rightly: it
/// races when a bucket turns, and its failures only add the shards up.
#[must_use]
pub fn buckets() -> Contender {
    let floor: Arc<Floor> = Arc::default();
    let clock = Clock::system();
    Contender::new("floor: bucketed window", move |calls, mix| {
        let (floor, clock) = (Arc::clone(&floor), clock.clone());
        Box::pin(async move {
            for n in 0..calls {
                if floor.state.load(Ordering::Relaxed) != 0 {
                    continue;
                }
                let result: Result<u64, ()> = if mix.fails(n) { Err(()) } else { Ok(n) };
                let failed = black_box(ready(black_box(result)).await).is_err();
                let second = clock.coarse().as_nanos() / 1_000_000_000;
                let (stamp, good, bad) = &floor.shards[mine()].buckets[(second % 10) as usize];
                if stamp.load(Ordering::Relaxed) != second {
                    stamp.store(second, Ordering::Relaxed);
                    good.store(0, Ordering::Relaxed);
                    bad.store(0, Ordering::Relaxed);
                }
                if failed {
                    bad.fetch_add(1, Ordering::Relaxed);
                    let all = floor.shards.iter().flat_map(|shard| &shard.buckets);
                    let sum = all.fold((0, 0), |(g, b), (_, good, bad)| {
                        (g + good.load(Ordering::Relaxed), b + bad.load(Ordering::Relaxed))
                    });
                    black_box(sum);
                } else {
                    good.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    })
}

/// Two readings of the precise clock, as the standard library gives them: what it takes to know how long a call took.
#[must_use]
pub fn two_instants() -> Contender {
    Contender::new("floor: two readings, Instant", |calls, mix| {
        Box::pin(async move {
            for n in 0..calls {
                let begun = Instant::now();
                let result: Result<u64, ()> = if mix.fails(n) { Err(()) } else { Ok(n) };
                let _ = black_box(ready(black_box(result)).await);
                black_box(begun.elapsed());
            }
        })
    })
}

/// The same of the clock that the circuits read.
#[must_use]
pub fn two_readings() -> Contender {
    let clock = Clock::system();
    Contender::new("floor: two readings, Clock", move |calls, mix| {
        let clock = clock.clone();
        Box::pin(async move {
            for n in 0..calls {
                let begun = clock.now();
                let result: Result<u64, ()> = if mix.fails(n) { Err(()) } else { Ok(n) };
                let _ = black_box(ready(black_box(result)).await);
                black_box(clock.now().since(begun));
            }
        })
    })
}

/// What refusing takes: the state and its end are loaded, the coarse clock says that it is not over and how long
/// it will last, and the refusal is counted on a line of the thread's own.
#[must_use]
pub fn refusal() -> Contender {
    let floor: Arc<Floor> = Arc::default();
    floor.state.store(1, Ordering::Relaxed);
    let (clock, end) = (Clock::system(), Arc::new(AtomicU64::new(u64::MAX / 2)));
    Contender::new("floor: load + coarse clock + sharded add", move |calls, _| {
        let (floor, clock, end) = (Arc::clone(&floor), clock.clone(), Arc::clone(&end));
        Box::pin(async move {
            for _ in 0..calls {
                if floor.state.load(Ordering::Acquire) != 0 {
                    let left = end.load(Ordering::Acquire).saturating_sub(clock.coarse().as_nanos());
                    if left > 0 {
                        floor.shards[mine()].count.fetch_add(1, Ordering::Relaxed);
                        black_box(Duration::from_nanos(left));
                    }
                }
            }
        })
    })
}
