//! Why a request was not answered, as a value: its code, its status, and when to come back.
//!
//! The codes are a closed set that clients may switch on. A refusal (503, or 429 for a user's own limit) says
//! when to come back; a bug (500) does not, because coming back would meet the same bug, and says nothing
//! about itself, because its text is for the log and not for the caller.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;
use selfheal_actors::{error_class::ErrorClass, signal::Name};

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// It was asked to wait, because connections are short.
    Shed,
    /// Its user has enough requests in flight.
    UserLimit,
    /// It took longer than it may, or would have.
    Deadline,
    /// It got no connection in time.
    PoolTimeout,
    /// The database does not answer.
    StoreDown,
    /// The circuit of its endpoint is open.
    CircuitOpen,
    /// The handler's reply was not what it said it was.
    UpstreamInvalid,
    /// A request with the same `Idempotency-Key` is being answered.
    KeyInUse,
    /// Another request had the same `Idempotency-Key`.
    KeyReused,
    /// The `Idempotency-Key` cannot be read.
    KeyInvalid,
    /// The change of status that it asks for is not allowed.
    TransitionBlocked,
    /// The handler refused the request itself, with a 4xx and a text.
    Rejected,
    /// A bug.
    Internal,
}

impl Code {
    /// The code as clients see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shed => "shed",
            Self::UserLimit => "user_limit",
            Self::Deadline => "deadline",
            Self::PoolTimeout => "pool_timeout",
            Self::StoreDown => "store_down",
            Self::CircuitOpen => "circuit_open",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::KeyInUse => "idempotency_key_in_use",
            Self::KeyReused => "idempotency_key_reused",
            Self::KeyInvalid => "idempotency_key_invalid",
            Self::TransitionBlocked => "transition_blocked",
            Self::Rejected => "rejected",
            Self::Internal => "internal",
        }
    }

    /// The status of a reply with this code.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::UserLimit => StatusCode::TOO_MANY_REQUESTS,
            Self::Rejected | Self::KeyInvalid => StatusCode::BAD_REQUEST,
            Self::KeyInUse => StatusCode::CONFLICT,
            Self::KeyReused | Self::TransitionBlocked => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Shed
            | Self::Deadline
            | Self::PoolTimeout
            | Self::StoreDown
            | Self::CircuitOpen
            | Self::UpstreamInvalid => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether trying again later can help.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        !matches!(
            self,
            Self::Rejected | Self::Internal | Self::KeyReused | Self::KeyInvalid | Self::TransitionBlocked
        )
    }

    /// What it means for whoever might try again.
    #[must_use]
    pub const fn class(self) -> ErrorClass {
        match self {
            Self::Shed | Self::UserLimit | Self::PoolTimeout | Self::CircuitOpen | Self::KeyInUse => {
                ErrorClass::Overload
            }
            Self::Deadline => ErrorClass::Timeout,
            Self::StoreDown => ErrorClass::Interrupted,
            Self::UpstreamInvalid | Self::Internal => ErrorClass::Unknown,
            Self::Rejected | Self::KeyReused | Self::KeyInvalid | Self::TransitionBlocked => {
                ErrorClass::Permanent
            }
        }
    }

    /// What happened, for a person; the same for every occurrence. A bug keeps its detail to itself.
    pub(crate) const fn detail(self) -> Option<&'static str> {
        match self {
            Self::Shed => Some("The service is busy and serves more urgent requests first."),
            Self::UserLimit => Some("Too many requests of yours are in progress."),
            Self::Deadline => Some("The request could not be answered in time."),
            Self::PoolTimeout => Some("No database connection became free in time."),
            Self::StoreDown => Some("The database does not answer at the moment."),
            Self::CircuitOpen => Some("Too many requests have failed; it is tried again after a while."),
            Self::UpstreamInvalid => Some("The reply could not be read."),
            Self::KeyInUse => Some("The first request with this Idempotency-Key has not been answered yet."),
            Self::KeyReused => Some("Another request has had this Idempotency-Key."),
            Self::KeyInvalid => Some("An Idempotency-Key is a quoted string of 1 to 255 letters."),
            Self::TransitionBlocked => {
                Some("What it is about may not change to that status from the one it has.")
            }
            Self::Rejected | Self::Internal => None,
        }
    }

    pub(crate) const fn error(self) -> &'static str {
        match self {
            Self::Internal => "Internal server error",
            Self::Rejected
            | Self::KeyInUse
            | Self::KeyReused
            | Self::KeyInvalid
            | Self::TransitionBlocked => "The request was not accepted",
            Self::Shed
            | Self::UserLimit
            | Self::Deadline
            | Self::PoolTimeout
            | Self::StoreDown
            | Self::CircuitOpen
            | Self::UpstreamInvalid => "Service temporarily unavailable",
        }
    }
}

/// A request that was not answered. It travels in a response's extensions from where it was found out to the
/// outermost part of the layer, which writes the reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Why.
    pub code: Code,
    /// The reply's status: [`Code::status`], or the handler's own.
    pub status: StatusCode,
    /// When coming back may help, before rounding and jitter. `None` is the default of one second.
    pub retry_after: Option<Duration>,
    /// What a person is told: the code's own words, or a handler's text.
    pub error: Cow<'static, str>,
    /// The pool that it was about.
    pub pool: Option<Name>,
    /// What it means for whoever might try again: [`Code::class`], or what is known better.
    pub class: ErrorClass,
    /// Whether this runtime refused it, so that it says nothing about the handler.
    pub refused: bool,
    /// Whether it was tried again already, further in.
    pub retried: bool,
}

impl Problem {
    /// A problem in the code's own words.
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            status: code.status(),
            retry_after: None,
            error: Cow::Borrowed(code.error()),
            pool: None,
            class: code.class(),
            refused: false,
            retried: false,
        }
    }

    /// The same, with a time to come back after.
    #[must_use]
    pub const fn after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// The same, under a handler's own status.
    #[must_use]
    pub const fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same, of this class.
    #[must_use]
    pub const fn of_class(mut self, class: ErrorClass) -> Self {
        self.class = class;
        self
    }

    /// The same, of what was tried again further in, or not.
    #[must_use]
    pub const fn retried(mut self, retried: bool) -> Self {
        self.retried = retried;
        self
    }

    /// The same, as a refusal of this runtime.
    #[must_use]
    pub const fn refused(mut self) -> Self {
        self.refused = true;
        self
    }

    /// The same, with a handler's own words.
    #[must_use]
    pub fn saying(mut self, error: String) -> Self {
        self.error = Cow::Owned(error);
        self
    }
}
