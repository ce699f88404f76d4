//! Who gets a connection.

mod acquire;
mod admission;
mod ceiling;
mod check;
mod claim;
mod core;
mod dispatch;
mod estimate;
mod handle;
mod machine;
mod membership;
mod params;
mod policy;
mod queue;
mod refusal;
mod seats;
mod service;
mod shadow;
mod shared;
mod slot;
mod stats;
mod tally;
mod ticket;
mod view;
mod work;

pub use acquire::{Acquire, Hold, Permit};
pub use claim::{Claim, ClaimId, Job, JobId};
pub use handle::Gate;
pub use machine::Machine;
pub use membership::Entered;
pub use params::{Change, Params};
pub use policy::{Policy, Reserve};
pub use refusal::{Reason, Refusal};
pub use seats::Holder;
pub use shared::Refused;
pub use stats::Stats;
pub use tally::{ByClass, Histogram, Refusals, Tally};
pub use ticket::Ticket;
pub use work::{Answer, Ask, Effect, Work};

#[cfg(test)]
mod tests;
