//! What the benchmarks share: seeded dice, figures of many runs, tables, and a look at the machine.
//!
//! A benchmark here is a plain program (`harness = false`): it says what it measured, on which machine, and by
//! which command, and it measures whatever it compares in turns, so that a busy moment hits all alike.

pub mod dice;
pub mod figures;
pub mod floors;
pub mod machine;
pub mod ours;
pub mod race;
pub mod table;

pub use dice::Dice;
pub use figures::{Paired, Spread, quantile};
pub use machine::{Busy, Machine};
pub use table::Table;
