//! Why a call that the service made came to nothing.

use std::{error::Error, fmt, time::Duration};

use http::StatusCode;
use selfheal_actors::{breaker::Rejection, error_class::ErrorClass, signal::Name};

use super::{
    failure,
    problem::{Code, Problem},
};

/// Why a call behind a [`ClientLayer`](super::ClientLayer) came to nothing. A reply that is valid, whatever its status,
/// is no error.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallError {
    /// It was not made: the circuit is open.
    Rejected {
        /// Who was to be called.
        name: Name,
        /// Why not, and when it makes sense to try again.
        rejection: Rejection,
    },
    /// It took too long.
    Timeout {
        /// Who was called.
        name: Name,
        /// Whether it was made more than once.
        retried: bool,
    },
    /// What came back was not what it should have been: a page, a text, broken JSON, too much, or not all of it.
    Invalid {
        /// Who was called.
        name: Name,
        /// The status of the reply.
        status: StatusCode,
        /// What is wrong with it: `html`, `text`, `invalid_json`, `empty`, `content_type`, `oversize`, `broken`.
        fault: &'static str,
        /// What it said, in at most 200 characters: a page's title, or a text.
        said: Option<String>,
        /// When it wants to be asked again; an hour at most.
        retry_after: Option<Duration>,
        /// Whether it was made more than once.
        retried: bool,
    },
    /// No reply came back.
    Unreachable {
        /// Who was called.
        name: Name,
        /// What the client says.
        source: Box<dyn Error + Send + Sync>,
        /// Whether it was made more than once.
        retried: bool,
    },
}

impl CallError {
    /// The code that a caller of ours is answered with.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Rejected { .. } => Code::CircuitOpen,
            Self::Timeout { .. } => Code::Deadline,
            Self::Invalid { .. } | Self::Unreachable { .. } => Code::UpstreamInvalid,
        }
    }

    /// The same, of a call that was made so often.
    pub(crate) fn after(mut self, attempts: u32) -> Self {
        match &mut self {
            Self::Timeout { retried, .. }
            | Self::Invalid { retried, .. }
            | Self::Unreachable { retried, .. } => {
                *retried = attempts > 1;
            }
            Self::Rejected { .. } => {}
        }
        self
    }

    /// What a caller of ours is told.
    pub(crate) fn problem(&self) -> Problem {
        let problem = Problem::new(self.code());
        match self {
            Self::Rejected { rejection, .. } => failure::rejected(rejection),
            Self::Timeout { retried, .. } => problem.of_class(ErrorClass::Timeout).retried(*retried),
            Self::Invalid { status, retry_after, retried, .. } => {
                let class = ErrorClass::of_status(status.as_u16()).unwrap_or(ErrorClass::Unknown);
                problem.of_class(class).after(*retry_after).retried(*retried)
            }
            Self::Unreachable { retried, .. } => problem.of_class(ErrorClass::Interrupted).retried(*retried),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected { name, rejection } => write!(f, "{name} was not called: {rejection}"),
            Self::Timeout { name, .. } => write!(f, "{name} did not answer in time"),
            Self::Invalid { name, status, fault, said, .. } => {
                write!(f, "{name} answered {status} with what is no JSON ({fault})")?;
                said.as_ref().map_or(Ok(()), |said| write!(f, ": {said}"))
            }
            Self::Unreachable { name, .. } => write!(f, "{name} could not be reached"),
        }
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected { rejection, .. } => Some(rejection),
            Self::Unreachable { source, .. } => Some(&**source),
            Self::Timeout { .. } | Self::Invalid { .. } => None,
        }
    }
}
