//! Which status may become which, declared once.
//!
//! A bug that writes a wrong status is found weeks later, by somebody who wonders why completed work stands in a
//! queue of new work. So the allowed changes stand in one [`Table`], from the config or from a type
//! ([`transitions!`](crate::transitions)), and everything asks that table: code before it acts, the guard in the
//! very statement that writes, and, if wanted, the database itself.
//!
//! - **What is not listed is not allowed.** A state without a list is final. Staying where one is, is a change
//!   like any other: if it is not listed, it is refused, so that of two writers who want the same only one made
//!   the change. A statement that does not touch the status is no change.
//! - **A refusal is not an error of the whole.** What may not change is left out, the rest goes on.
//! - **A refusal is a fact worth telling**: the code that asked for it is wrong. It is counted by edge and told
//!   as a signal, at most one a second for each machine, whatever a caller does (the [`Machine`]).
//!
//! States that no table knows exist all the same: somebody else wrote them. Nothing leads from them or to them,
//! and they are counted together as [`OTHER`].

mod handle;
mod machine;
mod policy;
#[cfg(test)]
mod tests;
mod typed;

pub use handle::{Around, Transition};
pub use machine::{Attempt, Counted, Machine};
pub use policy::{Blocked, Invalid, MOST_STATES, OTHER, Table};
pub use typed::States;
