//! OTP's supervisor, as a machine, and the ractor shell around it.
//!
//! A [`Machine`] decides what becomes of children that end: who is started again, with whom, how soon, and
//! when it is enough. Its rules are those of Erlang/OTP's `supervisor`, to the letter: strategies, restart
//! types, significant children, start in order and stop in reverse, *more than* `max_restarts` within
//! `within` (both ends included), a failed restart counts and is tried again, a supervisor that gives up ends
//! with `shutdown` and its parent decides. A seeded test compares it with a plain model of OTP's code.
//!
//! Three things differ, because this supervisor lives in a service that must not stand still:
//! - **It never blocks.** OTP waits inside a start or a stop. Here both are effects with a timeout, and what
//!   arrives meanwhile waits in the *lane* (`plan.rs`) of whom it concerns. Under `one_for_one` that is the child
//!   itself, so a start that hangs blocks nobody. Answered at once, it does what OTP does, step by step.
//! - **It waits between restarts**, from the second in a row on. A group is stopped at once and waits
//!   together. Under [`Backoff::NONE`](crate::backoff::Backoff::NONE) there is no such wait.
//! - **A child may have its own [`Budget`]**, so that one of ten thousand dynamic children that cannot run
//!   does not take the others down: it alone stays down.
//!
//! Restarts are counted in constant time and memory ([`Intensity`](crate::window::Intensity)), and a child is
//! found, started and timed in logarithmic time, so a crash among 100,000 siblings costs what it costs alone.
//!
//! Not protected: a child that neither ends when asked nor when killed (a loop without an await point) is
//! *abandoned*: counted, shown, ignored, and another generation takes its place beside it.

mod actor;
mod child;
mod event;
mod handle;
mod launch;
mod machine;
mod plan;
mod policy;
mod restart;
mod root;
mod spec;
mod verb;
mod view;

pub use event::{Effect, End, Event, Refused, Verb};
pub use handle::{Ask, Children};
pub use machine::Machine;
pub use policy::{AutoShutdown, Budget, ChildPolicy, Invalid, Kind, Policy, Restart, Strategy};
pub use root::{Context, NotUp, Root, RootEnd};
pub use spec::{ChildSpec, Start, StartContext, Starting, SupervisorSpec};
pub use view::{Change, ChildState, ChildView};

#[cfg(test)]
mod tests;
