//! Circuit breakers: calls to what is failing are refused at once, and tried again carefully.
//!
//! What peers get wrong, and how it is here:
//! - **The window slides.** A window of time drops its oldest bucket, a window of calls its oldest call, at a cost
//!   that does not grow with either. A rate over a lifetime (10,000 good calls need 10,000 bad ones) is no window.
//! - **Half-open cannot stick.** A probe's place is leased: a call that is cancelled, or says nothing about what it
//!   called, gives it back; one that never comes back loses it to the next caller.
//! - **A call counts where it began.** Each change of state begins an *epoch*, and what an older one says changes
//!   nothing. A straggler neither opens a circuit again nor closes it.
//! - **Pinned is pinned.** What an operator forced stays until the operator, or the time given, lifts it. The rule's
//!   own state, a level's shed and an operator's pin are three things; lifting one leaves the others.
//! - **Nobody is needed.** The call that decides opens the circuit, and the first call after its time half-opens it.
//!   The actor ([`Keeper`]) only makes that happen in time when nobody calls. All of it can be dead.
//! - **A call that works costs next to nothing:** one load to be admitted, one look at a coarse clock and one
//!   compare-and-swap on its thread's own line to be counted; see `cell.rs` for why that is still exact.
//!
//! Where peers disagree, the choice is named in the [`Policy`]: thresholds say `above` or `at_least`; rates are
//! undefined below `calls`; slow is strictly longer, and a success can be slow; an ignored call leaves a half-open
//! circuit undecided; a cancelled call is no failure and a panicking one is.
//!
//! What is not protected: the first calls. With the default window five calls may fail before anything happens, and
//! as many as are in flight when the circuit opens will still run. And an outcome is the caller's word: a response
//! that arrives and says "500" is a success unless its judge says otherwise.

mod actor;
mod call;
mod cell;
mod handle;
mod latency;
mod machine;
mod order;
mod outcome;
mod permit;
mod policy;
mod probes;
mod registry;
mod rule;
mod shard;
mod window;

#[cfg(test)]
mod tests;

pub use actor::{Keeper, Keeping, Message, Watch};
pub use call::{Call, CallError, Guarded};
pub use handle::{Around, Breaker, View};
pub use machine::{Change, Machine, Pass, Totals};
pub use order::{Command, Illegal, Order, Pin};
pub use outcome::{Outcome, Reason, Rejection};
pub use permit::Permit;
pub use policy::{AfterMaxWait, HalfOpen, Invalid, Policy, Window};
pub use registry::Breakers;
pub use window::Counts;
