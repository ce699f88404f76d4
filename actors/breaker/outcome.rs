//! How a call ended, and why one was not admitted.

use std::{fmt, time::Duration};

/// How a call ended, as its caller judges it. A call whose permit is dropped without an outcome was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did what it was to do.
    Success,
    /// It failed because of what it called.
    Failure,
    /// It says nothing about what it called: a mistake of the caller, a shed of our own, a client who left. It
    /// leaves the window as it is, and decides no probe.
    Ignored,
}

crate::level::closed_set!(Outcome { Success = "success", Failure = "failure", Ignored = "ignored" });

/// Why a call was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The circuit is open.
    Open,
    /// The circuit is half-open, and as many calls as may try it are at it.
    HalfOpenFull,
    /// An operator refuses all calls.
    ForcedOpen,
    /// The endpoint is sheddable and a pool is under pressure.
    Shed,
}

impl Reason {
    /// The reason's name, as in traces, metrics and replies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::HalfOpenFull => "half_open_full",
            Self::ForcedOpen => "forced_open",
            Self::Shed => "shed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The answer to a call that is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// After what time it makes sense to try again; `None` if nobody knows: an operator forced the circuit open
    /// for good. While the circuit is half-open, the time after which a probe that does not come back is written
    /// off: it may be possible to try much earlier.
    pub retry_after: Option<Duration>,
}

/// The same in two registers: what most refusals are until their caller looks at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: Reason,
    /// In nanoseconds; `u64::MAX` if nobody knows.
    pub(super) retry_after: u64,
}

impl From<Refused> for Rejection {
    #[inline]
    fn from(Refused { reason, retry_after }: Refused) -> Self {
        let known = retry_after < u64::MAX;
        Self { reason, retry_after: known.then(|| Duration::from_nanos(retry_after)) }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::Open => "the circuit is open",
            Reason::HalfOpenFull => "the circuit is half-open and being tried",
            Reason::ForcedOpen => "the circuit is forced open",
            Reason::Shed => "the endpoint is shed while a pool is under pressure",
        })
    }
}

impl std::error::Error for Rejection {}
