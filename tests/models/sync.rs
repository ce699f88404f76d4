//! In place of the crate's own file of this name: the same names, by whichever checker is chosen.

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
use std as checker;

#[cfg(feature = "loom")]
use loom as checker;
#[cfg(feature = "shuttle")]
use shuttle as checker;

use std::{cell::Cell, sync::PoisonError};

use checker::sync::MutexGuard;
pub(crate) use checker::sync::atomic::{AtomicU64, Ordering};

/// The fewest with which something can go wrong between them.
pub(crate) const SHARDS: usize = 2;

checker::thread_local! {
    /// Every model says which thread is which.
    pub(crate) static NUMBER: Cell<usize> = Cell::new(1);
}

/// A lock that is never poisoned, as the real one.
#[derive(Debug)]
pub(crate) struct Mutex<T>(checker::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checker::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
