//! The atomics and the lock of what is checked in every interleaving: the real ones, or those of a model checker.
//!
//! The checkers' are compiled in by `.ci/models` alone, with `--cfg selfheal_model="loom"` or `"shuttle"`. loom goes
//! through every interleaving of few threads, and knows what weak memory may do; shuttle draws interleavings of
//! more threads at random, and takes every access for sequentially consistent.

#[cfg(not(any(selfheal_model = "loom", selfheal_model = "shuttle")))]
mod chosen {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

    pub(crate) use parking_lot::Mutex;
}

#[cfg(selfheal_model = "loom")]
mod chosen {
    pub(crate) use loom::sync::{
        Mutex as Inner, MutexGuard,
        atomic::{AtomicU64, Ordering},
    };
    pub(crate) use loom::thread_local;

    pub(crate) use super::locked::Mutex;
}

#[cfg(selfheal_model = "shuttle")]
mod chosen {
    pub(crate) use shuttle::sync::{
        Mutex as Inner, MutexGuard,
        atomic::{AtomicU64, Ordering},
    };
    pub(crate) use shuttle::thread_local;

    pub(crate) use super::locked::Mutex;
}

/// A lock that is never poisoned, as the real one.
#[cfg(any(selfheal_model = "loom", selfheal_model = "shuttle"))]
mod locked {
    use std::sync::PoisonError;

    use super::chosen::{Inner, MutexGuard};

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(Inner<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Inner::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

pub(crate) use chosen::*;
