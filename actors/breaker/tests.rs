//! Circuits in scenarios on virtual time, and beside a plain reference.

mod actor;
mod cancellation;
mod handle;
mod model;
mod reference;
mod support;
mod traps;

use support::{MS, OnPanic, seeds};
