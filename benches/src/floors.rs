//! What a guarded call costs at least: the parts of a circuit without its correctness.

use std::{
    cell::Cell,
    future::ready,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
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
