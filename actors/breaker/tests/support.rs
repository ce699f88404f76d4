//! What all tests of circuits need.

use std::{env, ops::Range, thread};

use crate::clock::Tick;

/// Milliseconds since the clock's origin.
pub(super) const MS: fn(u64) -> Tick = Tick::from_millis;

/// The seeds to run: one if `SEED` is set, else as many as `SELFHEAL_SEEDS` says, or `normally`.
#[expect(clippy::disallowed_methods, reason = "a test is told its seeds by the environment")]
pub(super) fn seeds(normally: u64) -> Range<u64> {
    let number = |name| env::var(name).ok().and_then(|n| n.parse().ok());
    number("SEED").map_or_else(|| 0..number("SELFHEAL_SEEDS").unwrap_or(normally), |seed| seed..seed + 1)
}

/// Names the seed of a failing test.
pub(super) struct OnPanic(pub(super) u64);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("SEED={} replays it", self.0);
        }
    }
}
