//! The atomics and the lock of what is checked in every interleaving: the real ones, or those of a model checker.
//!
//! `--cfg selfheal_model="loom"` and `--cfg selfheal_model="shuttle"` are set by the models alone (`.ci/run`).

#[cfg(not(selfheal_model))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(selfheal_model))]
pub(crate) use parking_lot::Mutex;
