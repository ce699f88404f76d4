//! What comes to a gate's machine, and what goes out of it.

use crate::{
    clock::Tick,
    gate::{ClaimId, JobId, Refusal},
    level::Class,
    signal::Name,
};

/// A request or job that wants in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work<'a> {
    /// Whose turn it waits for.
    pub class: Class,
    /// Whose it is.
    pub user: Option<&'a Name>,
    /// When its answer is of no use any more; without one, the policy's patience from now on.
    pub deadline: Option<Tick>,
    /// What it is, by the name under which it is learnt.
    pub operation: Option<&'a Name>,
    /// How many connections it will ask for; without a number, what its operation used to ask for.
    pub queries: Option<u32>,
    /// How often it was tried before.
    pub attempt: u32,
}

/// An acquisition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// The request or job behind it, whose class, user and deadline it has.
    pub job: Option<JobId>,
    /// Without a job: its class, user and deadline.
    pub work: Work<'a>,
    /// What it is, if it is not simply what its job is.
    pub operation: Option<&'a Name>,
    /// The same task holds a connection already.
    pub nested: bool,
}

/// The first answer to an acquisition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has a connection.
    Granted(ClaimId),
    /// It waits; an [`Effect`] will tell how it ends.
    Parked(ClaimId),
    /// It gets none.
    Refused(Refusal),
}

/// What became of a claim that was waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It has a connection.
    Granted(ClaimId),
    /// It gets none.
    Refused(ClaimId, Class, Refusal),
}

impl Effect {
    /// The claim.
    #[must_use]
    pub const fn claim(&self) -> ClaimId {
        match *self {
            Self::Granted(claim) | Self::Refused(claim, ..) => claim,
        }
    }
}
