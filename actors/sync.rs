//! What a model checker puts its own in place of: the atomics, the lock and the numbers of threads of what is checked
//! in every interleaving. `tests/models` has another file of this name, and is otherwise made of the same ones.

use std::cell::Cell;
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use parking_lot::Mutex;

/// A circuit has no more shards than this, so that it stays small.
pub(crate) const SHARDS: usize = 4;

thread_local! {
    /// The present thread's; 0 until it has one.
    pub(crate) static NUMBER: Cell<usize> = const { Cell::new(0) };
}
