//! From what happens to what people are told.
//!
//! Everything that happens is one [`Signal`](crate::signal::Signal). The [`Machine`] makes *incidents* of them:
//! what it began with, what was done, how far it went, when it recovered, and what people noticed. Four rules
//! keep it from becoming one more source of noise:
//!
//! - **The same thing is one incident.** It is known by its kind and its subject; a second signal goes on with
//!   it, and one that comes back within five minutes of its end reopens it under its old id.
//! - **A severity is alerted once an incident**, and only if it is worse than what was alerted before.
//! - **Consequences are muted.** While the database server is down nobody needs to hear that its pool is under
//!   pressure: that incident exists, tracks its actions and can be read, but it is listed under its root, and
//!   is alerted only if it outlasts it.
//! - **An end is quiet.** An incident is over when its cause has been gone for a while, not at its first pause.
//!
//! Severities follow what a person has to do. *Info*: nothing, it recovered and nobody noticed. *Warning*: look
//! at it some time; a pool at level warning, a second restart, a leak, five changes of status that were blocked. *Critical*: investigate; a pool at level
//! critical, half of the restarts that a supervisor allows, a supervisor that gave up, a server that does not
//! answer. *Failure*: healing has failed; the root supervisor gave up, and this waits for a person.
//!
//! "No user impact" is never claimed but counted: requests that were refused, late or failed, and of how many
//! users ([`Impact`]).
//!
//! A line is logged where a state changes and nowhere else. Lines that list actions wait until all actions of
//! the same moment are known, which is when the actor has emptied its mailbox.

mod actor;
mod case;
mod handle;
mod hear;
mod impact;
mod incident;
mod line;
mod machine;
mod perform;
mod policy;
#[cfg(test)]
mod tests;

pub use actor::{Alert, Desk, Message};
pub use handle::Incidents;
pub use impact::{Delta, Impact, Users};
pub use incident::{Attempts, Deed, Incident, Kind, Noticed, Peak, Phase, Resolution};
pub use line::Line;
pub use machine::{Effect, Effects, Machine, SERVICE};
pub use policy::Policy;
