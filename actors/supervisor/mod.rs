//! Who restarts whom: the rules of Erlang/OTP's `supervisor`, as a machine.
//!
//! The rules are OTP's because thirty years of services have tried them: children start in order and stop in
//! reverse; **more than** `max_restarts` restarts `within` a period, both ends included, end the supervisor,
//! and its own parent decides what that means; a start that fails counts as one more restart and is tried
//! again; a temporary child that only stood by when its group was restarted is ended and not brought back.
//!
//! What differs, on purpose:
//!
//! - **Nothing blocks.** OTP's supervisor waits inside `start` and `terminate`, so one hung child hangs all of
//!   them. Here a start and a stop are an effect and, later, an event; both have a timeout. With `one_for_one`
//!   a hung start delays nobody; a group is restarted one child after the other, because its order matters.
//! - **Restarts back off** from the second within the period on. The first is immediate: most crashes are a
//!   single bad message. While a child waits its siblings run on. [`crate::backoff::Backoff::NONE`] is OTP.
//! - **A stop cannot hang:** it is asked for, then forced, then the child is abandoned, and said so. Its
//!   generation is over, so whatever it still sends is ignored.
//! - **Accounting is O(1)** in the number of restarts ([`crate::window::Intensity`]).
//!
//! Not protected: a child that answers its supervisor but does no work. That takes a heartbeat of its own.

mod actor;
mod machine;
mod policy;
#[cfg(test)]
mod tests;

pub use actor::{Arguments, ChildSpec, ChildView, Children, Message, Shell, Start, Starting, Supervisor};
pub use machine::{Effect, Event, Machine, State, VerbError};
pub use policy::{AutoShutdown, ChildPolicy, Policy, Restart, Strategy};
