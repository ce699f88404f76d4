//! The circuit's cell and the machine in it, by path, as a crate that is compiled in seconds: for model checkers, and
//! for mistakes that are planted to see which test notices. `.ci/models` and `.ci/mutants` run it.
//!
//! With the feature `loom` or `shuttle` its atomics, its lock and its threads are those of that checker. loom goes
//! through every interleaving of few threads, and knows what weak memory may do; shuttle draws interleavings of
//! more threads at random, and takes every access for sequentially consistent. Without a feature the kernel's own
//! tests run, with the real ones.
#![expect(dead_code, unused_imports, reason = "the handles and the tests that use the rest are not here")]

#[path = "../../actors/circuit.rs"]
mod circuit;
#[path = "../../actors/level.rs"]
mod level;
#[path = "../../actors/signal.rs"]
mod signal;
mod sync;
#[path = "../../actors/threshold.rs"]
mod threshold;
#[path = "../../actors/tick.rs"]
mod tick;

mod clock {
    pub(crate) use crate::tick::Tick;
}

#[path = "../../actors/breaker"]
mod breaker {
    mod cell;
    mod machine;
    mod order;
    mod outcome;
    mod policy;
    mod probes;
    mod rule;
    mod shard;
    mod window;

    #[cfg(test)]
    mod tests {
        #[cfg(any(feature = "loom", feature = "shuttle"))]
        #[path = "../../../tests/models/interleavings.rs"]
        mod interleavings;
        #[cfg(not(any(feature = "loom", feature = "shuttle")))]
        mod model;
        #[cfg(not(any(feature = "loom", feature = "shuttle")))]
        mod reference;
        mod support;
        #[cfg(not(any(feature = "loom", feature = "shuttle")))]
        mod traps;

        use support::{MS, OnPanic, seeds};
    }

    use machine::{Machine, Pass, Totals};
    use order::{Command, Illegal, Order, Pin};
    use outcome::{Outcome, Reason, Rejection};
    use policy::{AfterMaxWait, HalfOpen, Invalid, Policy, Window};
    use window::Counts;
}
